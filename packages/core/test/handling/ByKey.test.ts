/** Handler.byKey: order by row, side by side otherwise, and nothing acknowledged that has not ended. */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import { type Change, type Insert, nextLsn } from "../../src/change/Change.ts"
import type { NextLsn } from "../../src/change/NextLsn.ts"
import * as Handler from "../../src/handling/Handler.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { withLogicalStream } from "../../src/stream/LogicalStream.ts"
import { insert, relation, TestWalSender, tx } from "../../src/testing/index.ts"
import { Random } from "../support/Random.ts"
import * as shop from "../table/shop.ts"
import { connect, item, moved, rowOf, Transactions } from "./delivering.ts"

class Broken extends Data.TaggedError("Broken")<{ readonly id: unknown }> {}

const turns = Effect.forEach(Array.from({ length: 50 }), () => Effect.yieldNow, { discard: true })

const idOf = (change: { readonly _tag: string }) => rowOf(change).id as number

/** Work that ends when it is let go, by id; what has begun is told in order. */
const gates = () => {
  const open = new Map<number, Deferred.Deferred<void, Broken>>()
  const [begun, ended]: [Array<number>, Array<number>] = [[], []]
  const gate = (id: number) => {
    const known = open.get(id) ?? Deferred.makeUnsafe<void, Broken>()
    open.set(id, known)
    return known
  }
  return {
    begun,
    ended,
    handle: (change: { readonly _tag: string }) =>
      Effect.suspend(() => {
        const id = change._tag === "Insert" ? idOf(change) : -1
        begun.push(id)
        return Effect.andThen(
          Deferred.await(gate(id)),
          Effect.sync(() => void ended.push(id))
        )
      }),
    release: (...ids: ReadonlyArray<number>) =>
      Effect.andThen(
        Effect.forEach(ids, (id) => Deferred.succeed(gate(id), undefined)),
        turns
      ),
    fail: (id: number) => Effect.andThen(Deferred.fail(gate(id), new Broken({ id })), turns)
  }
}

const lsns = (units: ReadonlyArray<NextLsn>) => units.map(({ lsn }) => lsn)
const endsOf = (...transactions: ReadonlyArray<ReadonlyArray<Change>>) =>
  transactions.map((changes) => nextLsn(changes.at(-1)!)!.lsn)

describe("Handler.byKey", () => {
  it.effect("handles 8 changes of 5 ms at a time, at 7 times the rate of one", () =>
    Effect.scoped(
      Effect.gen(function* () {
        let [running, most] = [0, 0]
        const handle = () =>
          Effect.gen(function* () {
            running++
            most = Math.max(most, running)
            yield* Effect.sleep("5 millis")
            running--
          })
        const count = 800
        const of = new Transactions()
        const changes = Array.from({ length: count / 4 }, (_, n) =>
          of.of(...[0, 1, 2, 3].map((part) => item(n * 4 + part)))
        ).flat()
        const { acknowledged, give } = yield* connect(Handler.byKey<Change>({ concurrency: 8, queue: 64 }, handle))
        const begun = yield* Clock.currentTimeMillis
        const fiber = yield* Effect.forkChild(give(changes))
        let millis = 0
        while (acknowledged.length < count / 4) {
          assert.isBelow(millis, count * 5, "no faster than one at a time")
          yield* TestClock.adjust("1 millis")
          yield* turns
          millis = (yield* Clock.currentTimeMillis) - begun
        }
        yield* Fiber.join(fiber)
        assert.strictEqual(most, 8)
        assert.isAtMost(millis, (count * 5) / 7)
      })
    )
  )

  it.effect(
    "acknowledges nothing whose changes have not all ended, and keeps the order of each row, in any interleaving",
    () =>
      Effect.gen(function* () {
        for (let seed = 1; seed <= 30; seed++) {
          const random = new Random(seed)
          const of = new Transactions()
          const [ended, given] = [new Set<number>(), new Map<number, Array<number>>()]
          const ends = new Map<bigint, ReadonlyArray<number>>()
          let [at, running] = [0, 0]
          const problems: Array<string> = []
          const last = new Map<number, number>()
          const handle = (change: { readonly _tag: string }) =>
            Effect.gen(function* () {
              if (change._tag === "Origin") return
              const place = rowOf(change).at as number
              if (++running > 6) problems.push("too many at a time")
              for (const id of given.get(place)!) {
                if ((last.get(id) ?? -1) > place) problems.push(`row ${id}: ${place} after ${last.get(id)}`)
                last.set(id, place)
              }
              for (let turn = random.below(8); turn > 0; turn--) yield* Effect.yieldNow
              // Nothing of the same row has begun meanwhile.
              for (const id of given.get(place)!)
                if (last.get(id) !== place) problems.push(`row ${id} at the same time`)
              running--
              if (random.below(400) === 0) return yield* new Broken({ id: place })
              ended.add(place)
            })
          const transaction = () => {
            const places: Array<number> = []
            const changes = Array.from({ length: random.below(6) }, () => {
              const [from, to] = [random.below(20), random.below(20)]
              const isMove = random.chance(20) && from !== to
              places.push(at)
              given.set(at, isMove ? [from, to] : [to])
              return isMove ? moved(from, to, at++) : item(to, at++)
            })
            const whole = of.of(...changes)
            ends.set(nextLsn(whole.at(-1)!)!.lsn, places)
            return whole
          }
          const told = (unit: NextLsn) =>
            Effect.sync(() => {
              const missing = ends.get(unit.lsn)!.filter((place) => !ended.has(place))
              if (missing.length > 0) problems.push(`acknowledged without ${missing}`)
              ends.delete(unit.lsn)
            })
          const exit = yield* Effect.gen(function* () {
            const { give } = yield* connect(Handler.byKey<Change, Broken>({ concurrency: 6, queue: 32 }, handle), {
              acknowledge: told,
              acknowledgeThrough: () => Effect.sync(() => void problems.push("acknowledged through"))
            })
            for (let read = 0; read < 40; read++) {
              yield* give([...transaction(), ...transaction(), ...transaction()])
            }
            // Stands alone, so it ends when all has.
            yield* give([{ ...shop.truncate(), _tag: "Origin" } as unknown as Change])
          }).pipe(Effect.scoped, Effect.exit)
          assert.deepStrictEqual(problems, [], `seed ${seed}`)
          if (Exit.isSuccess(exit)) assert.strictEqual(ends.size, 0, `seed ${seed}: not all acknowledged`)
          else assert.instanceOf(Cause.squash(exit.cause), Broken)
        }
      })
  )

  it.effect("acknowledges each transaction when the last of its changes has ended, whichever that is", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const of = new Transactions()
        const [first, second, empty] = [of.of(item(1), item(2)), of.of(item(3)), of.of()]
        const work = gates()
        const { acknowledged, give } = yield* connect(Handler.byKey<Change, Broken>({ concurrency: 4 }, work.handle))
        yield* give([...first, ...second, ...empty])
        assert.deepStrictEqual(lsns(acknowledged), endsOf(empty), "the queue of units holds it back")
        yield* work.release(2, 3)
        assert.deepStrictEqual(lsns(acknowledged), endsOf(empty, second))
        yield* work.release(1)
        assert.deepStrictEqual(lsns(acknowledged), endsOf(empty, second, first))
      })
    )
  )

  it.effect("lets what is of no row stand alone, and takes nothing in until it has ended", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const of = new Transactions()
        const truncate = () => shop.truncate(shop.orders)
        const work = gates()
        const { acknowledged, give } = yield* connect(Handler.byKey<Change, Broken>({ concurrency: 4 }, work.handle))
        const transaction = of.of(item(1), item(2), truncate, item(3))
        const fiber = yield* Effect.forkChild(give(transaction))
        yield* turns
        assert.deepStrictEqual(work.begun, [1, 2])
        yield* work.release(1)
        assert.deepStrictEqual(work.begun, [1, 2])
        yield* work.release(2)
        assert.deepStrictEqual(work.begun, [1, 2, -1])
        yield* work.release(-1)
        assert.deepStrictEqual(work.begun, [1, 2, -1, 3])
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(lsns(acknowledged), [])
        yield* work.release(3)
        assert.deepStrictEqual(lsns(acknowledged), endsOf(transaction))
      })
    )
  )

  it.effect("ends a mark of a snapshot only once every row before it has ended", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const work = gates()
        const { give } = yield* connect(
          Handler.byKey<{ readonly _tag: string }, Broken>({ concurrency: 4 }, (change) =>
            change._tag === "SnapshotRow" ? work.handle({ ...change, _tag: "Insert" }) : Effect.void
          )
        )
        const snapshotRow = (id: number) => ({ ...shop.insert(shop.orders, { id }), _tag: "SnapshotRow" })
        for (const [round, _tag] of ["SnapshotRangeCompleted", "SnapshotCompleted"].entries()) {
          const [first, second] = [round * 2, round * 2 + 1]
          yield* give([snapshotRow(first), snapshotRow(second)])
          const mark = yield* Effect.forkChild(give([{ _tag }]))
          yield* turns
          assert.isUndefined(mark.pollUnsafe(), _tag)
          yield* work.release(first)
          assert.isUndefined(mark.pollUnsafe(), _tag)
          yield* work.release(second)
          yield* Fiber.join(mark)
        }
      })
    )
  )

  it.effect("takes in no more than its queue holds", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const work = gates()
        const { give } = yield* connect(Handler.byKey<Change, Broken>({ concurrency: 2, queue: 3 }, work.handle))
        let taken = 0
        const counted = {
          *[Symbol.iterator]() {
            for (const change of new Transactions().of(...[1, 2, 3, 4, 5].map((id) => item(id)))) {
              taken++
              yield change
            }
          }
        }
        const fiber = yield* Effect.forkChild(give(counted as unknown as ReadonlyArray<Change>))
        yield* turns
        assert.deepStrictEqual([taken, work.begun.length], [4, 2])
        yield* work.release(1)
        assert.deepStrictEqual([taken, work.begun.length], [5, 3])
        yield* work.release(2, 3, 4, 5)
        yield* Fiber.join(fiber)
      })
    )
  )

  it.effect("begins nothing after a failure, lets what runs end and count, and fails with the first", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const of = new Transactions()
        const [first, second, third] = [of.of(item(1)), of.of(item(2)), of.of(item(3))]
        const work = gates()
        const failures: Array<unknown> = []
        const { acknowledged, give } = yield* connect(Handler.byKey<Change, Broken>({ concurrency: 3 }, work.handle), {
          fail: (error) => Effect.sync(() => void failures.push(error))
        })
        yield* give([...first, ...second, ...third, ...of.of(item(4))])
        assert.deepStrictEqual(work.begun, [1, 2, 3])
        yield* work.fail(2)
        const later = yield* Effect.forkChild(Effect.flip(give(of.of(item(5)))))
        yield* turns
        assert.isUndefined(later.pollUnsafe(), "what runs has not ended")
        assert.deepStrictEqual(failures, [])
        yield* work.release(1)
        yield* work.fail(3)
        assert.deepStrictEqual(lsns(acknowledged), endsOf(first))
        assert.deepInclude(yield* Fiber.join(later), { _tag: "Broken", id: 2 })
        assert.lengthOf(failures, 1)
        assert.deepInclude(failures[0], { _tag: "Broken", id: 2 })
        assert.deepStrictEqual(work.begun, [1, 2, 3])
      })
    )
  )

  it.effect("begins nothing more once its connection is over, and is closed when what runs has ended", () =>
    Effect.gen(function* () {
      const of = new Transactions()
      const transactions = [1, 2, 3].map((id) => of.of(item(id)))
      const work = gates()
      const scope = yield* Scope.make()
      let isOver = false
      const { acknowledged, give } = yield* Scope.provide(
        connect(Handler.byKey<Change, Broken>({ concurrency: 2 }, work.handle), { isOver: () => isOver }),
        scope
      )
      yield* give(transactions.flat())
      isOver = true
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* work.release(1)
      assert.isUndefined(closing.pollUnsafe())
      yield* work.release(2)
      yield* Fiber.join(closing)
      assert.deepStrictEqual(work.begun, [1, 2])
      assert.deepStrictEqual(lsns(acknowledged), endsOf(...transactions.slice(0, 2)))
    })
  )

  it.effect("orders by what it is told to, and lets alone what that has no key for", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const work = gates()
        const key = (change: Insert) =>
          change.row.id === 9 ? undefined : change.row.id === 3 ? ["odd", "even"] : "odd"
        const { give } = yield* connect(Handler.byKey<Insert, Broken>({ concurrency: 4, key }, work.handle))
        const changes = [1, 5, 3, 9].map((id) => shop.insert(shop.orders, { id }))
        yield* Effect.forkChild(give(changes))
        yield* turns
        for (const id of [1, 5, 3, 9]) {
          assert.strictEqual(work.begun.at(-1), id)
          yield* work.release(id)
        }
      })
    )
  )

  it.effect("is refused without a number of changes at a time", () =>
    Effect.sync(() => {
      for (const options of [{ concurrency: 0 }, { concurrency: 1.5 }, { concurrency: 2, queue: 0 }]) {
        const handler = Handler.byKey<Change>(options, () => Effect.void)
        assert.strictEqual(handler.unfit!(Pgoutput.make({ publications: ["p"] }))?._tag, "InvalidOption")
      }
    })
  )
})

describe("Handler.byKey on a stream", () => {
  const orders = relation("public.orders", { columns: { id: "int4" }, key: ["id"] })
  const options = { slot: "orders", plugin: Pgoutput.make({ publications: ["orders"] }) }
  const onServer = <A, E, R>(test: Effect.Effect<A, E, R>) =>
    Effect.provide(test, TestWalSender.layer({ slot: "orders", publications: ["orders"] }))
  const settle = Effect.andThen(TestClock.adjust("500 millis"), turns)

  it.effect("ends an idle stream when a change fails, without another change", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        const work = gates()
        const fiber = yield* Effect.forkChild(
          Effect.flip(withLogicalStream(options, Handler.byKey({ concurrency: 4 }, work.handle)))
        )
        yield* server.awaitStreaming
        yield* server.write(tx(insert(orders, { id: 1 })))
        yield* settle
        assert.deepStrictEqual(work.begun, [1])
        yield* work.fail(1)
        assert.strictEqual((yield* Fiber.join(fiber))._tag, "Broken")
        assert.lengthOf(yield* server.unconfirmed, 1)
        assert.strictEqual(yield* server.attempts, 1, "a handler's failure is not retried")
      })
    )
  )

  it.effect("confirms the finished prefix when it is left, and waits for what runs no longer than it may", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        const work = gates()
        const handler = Handler.byKey<Change, Broken>({ concurrency: 4 }, work.handle)
        const timing = { shutdownTimeout: "3 seconds" } as const
        const fiber = yield* Effect.forkChild(withLogicalStream({ ...options, timing }, handler))
        yield* server.awaitStreaming
        yield* server.write(...[1, 2, 3].map((id) => tx(insert(orders, { id }))))
        yield* settle
        assert.deepStrictEqual(work.begun, [1, 2, 3])
        yield* work.release(3)
        const leaving = yield* Effect.forkChild(Fiber.interrupt(fiber))
        yield* turns
        yield* work.release(1)
        yield* settle
        assert.isUndefined(leaving.pollUnsafe(), "2 still runs")
        yield* TestClock.adjust("3 seconds")
        yield* Fiber.join(leaving)
        assert.deepStrictEqual(work.ended, [3, 1])
        assert.lengthOf(yield* server.unconfirmed, 2, "what is behind 2 comes again")
      })
    )
  )
})
