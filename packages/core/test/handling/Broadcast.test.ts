/** One slot, several consumers: the slot follows the slowest that is required, and nobody waits for one that is not. */
import { assert, describe, it } from "@effect/vitest"
import {
  type Change,
  Handler,
  LogicalStream,
  Lsn,
  nextLsn,
  Pgoutput,
  type Snapshot,
  withLogicalStream
} from "@replicant/core"
import { insert, relation, TestWalSender, tx, update } from "@replicant/core/testing"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as TestClock from "effect/testing/TestClock"
import { connect, item, rowOf, Transactions } from "./delivering.ts"

class Broken extends Data.TaggedError("Broken") {}
class Other extends Data.TaggedError("Other") {}

const items = relation("public.items", { columns: { id: "int4", at: "int4" }, key: ["id"] })
const options = { slot: "items", plugin: Pgoutput.make({ publications: ["items"] }) }
const server = TestWalSender.layer({ slot: "items", publications: ["items"] })
const row = (id: number, at = 0) => tx(insert(items, { id, at }))

const turns = Effect.forEach(Array.from({ length: 60 }), () => Effect.yieldNow, { discard: true })

/** Waits until that is so, for ten minutes of the test's clock. */
const until = Effect.fnUntraced(function* <R>(isSo: Effect.Effect<boolean, unknown, R>) {
  for (let round = 0; round < 1200; round++) {
    if (yield* Effect.orDie(isSo)) return
    yield* TestClock.adjust("500 millis")
    yield* turns
  }
  assert.fail("it does not come to that")
})

/** Ends it: what is under way has its time, by the test's clock. */
const leave = Effect.fnUntraced(function* <A, E>(fiber: Fiber.Fiber<A, E>) {
  const leaving = yield* Effect.forkChild(Fiber.interrupt(fiber))
  yield* until(Effect.sync(() => leaving.pollUnsafe() !== undefined))
})

/** One after the other, each acknowledged; takes note of rows. */
const noting = (seen: Array<number>, before: (id: number) => Effect.Effect<unknown, Broken> = () => Effect.void) =>
  Handler.each((change: Change) =>
    Effect.gen(function* () {
      if (change._tag === "Insert") {
        yield* before(change.row.id as number)
        seen.push(change.row.id as number)
      }
      return nextLsn(change)
    })
  )

const never = Handler.each<Change, never, never>(() => Effect.never)

describe("Handler.broadcast", () => {
  it.effect(
    "infers what is delivered from the stream, fails with what its required consumers do, and with nothing else's",
    () =>
      Effect.gen(function* () {
        const program = withLogicalStream(
          options,
          Handler.broadcast({
            first: Handler.required((change) =>
              change._tag === "Insert" ? new Broken() : Effect.succeed(nextLsn(change))
            ),
            second: Handler.required(
              Handler.byKey({ concurrency: 2 }, (change) => (change._tag === "Truncate" ? new Other() : Effect.void))
            ),
            third: Handler.optional(
              Handler.durable((changes) => (changes.length > 10 ? Effect.fail("a text") : Effect.void))
            )
          })
        )
        const source = yield* TestWalSender
        const fiber = yield* Effect.forkChild(program)
        yield* source.awaitStreaming
        yield* source.write(row(1))
        const error = yield* Effect.flip(Fiber.join(fiber))
        // Their errors are in the type, and the text is not.
        const tag: "Broken" | "Other" | LogicalStream.Failure<typeof options>["_tag"] = error._tag
        assert.strictEqual(tag, "Broken")
      }).pipe(Effect.provide(server))
  )

  it.effect("acknowledges what the slowest required consumer has done, each in its own order", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const sessions: Array<Handler.Session<never>> = []
        const ahead = Handler.make<Change, never>((session) => {
          sessions.push(session)
          return Effect.succeed(() => Effect.void)
        })
        const handler = Handler.broadcast<Change, Record<string, Handler.Consumer<Change, never, never>>>({
          a: Handler.required(ahead),
          b: Handler.required(ahead),
          c: Handler.optional(ahead)
        })
        const { acknowledged, give } = yield* connect(handler)
        const transactions = new Transactions()
        const reads = [1, 2, 3, 4].map((id) => transactions.of(item(id)))
        const ends = reads.map((read) => nextLsn(read.at(-1)!)!)
        for (const read of reads) yield* give(read)
        yield* turns
        // The optional one is told that the program starts, and made behind it.
        assert.lengthOf(sessions, 3)
        const [a, b, c] = sessions as [Handler.Session, Handler.Session, Handler.Session]
        yield* a.acknowledgeThrough(ends[3]!)
        yield* c.acknowledgeThrough(ends[3]!)
        assert.deepStrictEqual(acknowledged, [])
        yield* b.acknowledge(ends[1]!)
        assert.deepStrictEqual(acknowledged, [])
        yield* b.acknowledge(ends[0]!)
        assert.deepStrictEqual(acknowledged, [ends[1]])
        assert.deepStrictEqual([yield* a.durable, yield* b.durable], [ends[3]!.lsn, ends[1]!.lsn])
        yield* b.acknowledgeThrough(ends[3]!)
        assert.deepStrictEqual(acknowledged, [ends[1], ends[3]])
      })
    )
  )

  it.effect("makes the others wait for a required one that is behind by its queue, and holds no more than that", () =>
    Effect.gen(function* () {
      const source = yield* TestWalSender
      const [fast, slow]: [Array<number>, Array<number>] = [[], []]
      const fiber = yield* Effect.forkChild(
        withLogicalStream(
          options,
          Handler.broadcast({
            fast: Handler.required(noting(fast)),
            slow: Handler.required(
              noting(slow, () => Effect.sleep("10 seconds")),
              { queue: 2 }
            )
          })
        )
      )
      yield* source.awaitStreaming
      for (let id = 1; id <= 20; id++) {
        yield* source.write(row(id))
        yield* turns
      }
      assert.deepStrictEqual(slow, [])
      // One under way, two in the queue, one that waits for room.
      assert.isAtMost(fast.length, 5)
      yield* until(Effect.sync(() => slow.length === 20))
      assert.deepStrictEqual(slow, fast)
      yield* until(Effect.map(source.unconfirmed, ({ length }) => length === 0))
      yield* leave(fiber)
    }).pipe(Effect.provide(server))
  )

  it.effect(
    "leaves an optional one behind that is stuck, tells it, and begins it anew at the beginning of a transaction",
    () =>
      Effect.gen(function* () {
        const source = yield* TestWalSender
        const [all, some]: [Array<number>, Array<Change>] = [[], []]
        const told: Array<Handler.Lagged> = []
        let isStuck = true
        const stream = yield* LogicalStream.make(options)
        const fiber = yield* Effect.forkChild(
          stream.run(
            Handler.broadcast({
              store: Handler.required(noting(all)),
              cache: Handler.optional(
                Handler.arrays<Change>((changes) =>
                  Effect.gen(function* () {
                    yield* Effect.suspend(() => (isStuck ? Effect.sleep("1 second") : Effect.void)).pipe(
                      Effect.repeat({ while: () => isStuck })
                    )
                    some.push(...changes)
                    return changes.map(nextLsn).findLast((end) => end !== undefined)
                  })
                ),
                { queue: 4, whenLagged: (lagged) => Effect.sync(() => void told.push(lagged)) }
              )
            })
          )
        )
        yield* source.awaitStreaming
        yield* until(Effect.sync(() => told.length === 1))
        isStuck = false
        yield* source.write(row(1))
        yield* until(Effect.sync(() => some.some(({ _tag }) => _tag === "Commit")))
        isStuck = true
        for (let id = 2; id <= 30; id++) {
          yield* source.write(row(id))
          yield* until(Effect.sync(() => all.at(-1) === id))
        }
        yield* until(Effect.map(source.unconfirmed, ({ length }) => length === 0))
        assert.lengthOf(told, 1)
        const lagging = (yield* stream.observe).consumers!.find(({ name }) => name === "cache")!
        assert.deepInclude(lagging, { isRequired: false, state: "lagging" })
        yield* TestClock.adjust("1 minute")
        assert.deepInclude((yield* stream.health).reasons[0]!, { code: "ConsumerLagging", status: "degraded" })
        isStuck = false
        yield* until(Effect.sync(() => told.length === 2))
        const first = some.filter(({ _tag }) => _tag === "Commit")[0] as Extract<Change, { _tag: "Commit" }>
        assert.deepStrictEqual(told, [
          { _tag: "Lagged", consumer: "cache", reason: "Started", done: Lsn.zero },
          { _tag: "Lagged", consumer: "cache", reason: "QueueFull", done: first.endLsn }
        ])
        const before = some.length
        yield* source.write(row(31), row(32))
        yield* until(Effect.sync(() => some.some((change) => change._tag === "Insert" && change.row.id === 32)))
        assert.deepStrictEqual(
          some.slice(before).map((change) => (change._tag === "Insert" ? change.row.id : change._tag)),
          ["Begin", 31, "Commit", "Begin", 32, "Commit"]
        )
        assert.strictEqual((yield* stream.health).status, "ok")
        yield* leave(fiber)
      }).pipe(Effect.provide(server))
  )

  it.effect("begins an optional one anew behind a transaction that it was left behind in", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const seen: Array<unknown> = []
        let isStuck = false
        const optional = Handler.arrays<Change, never, never>((changes) =>
          Effect.gen(function* () {
            yield* Effect.repeat(Effect.sleep("1 second"), { while: () => isStuck })
            seen.push(...changes.map((change) => (change._tag === "Insert" ? change.row.id : change._tag)))
            return changes.map(nextLsn).findLast((end) => end !== undefined)
          })
        )
        const handler = Handler.broadcast<Change, Record<string, Handler.Consumer<Change, never, never>>>({
          a: Handler.required(Handler.durable<Change>(() => Effect.void)),
          b: Handler.optional(optional, { queue: 1 })
        })
        const { give } = yield* connect(handler)
        yield* turns
        isStuck = true
        const [begin, one, two, three, commit] = new Transactions().of(item(1), item(2), item(3)) as [
          Change,
          Change,
          Change,
          Change,
          Change
        ]
        const [, four] = new Transactions().of(item(4)) as [Change, Change]
        for (const part of [[begin, one], [two], [three]]) {
          yield* give(part)
          yield* turns
        }
        isStuck = false
        yield* TestClock.adjust("1 minute")
        yield* turns
        yield* give([commit, begin, four])
        yield* TestClock.adjust("1 minute")
        yield* turns
        assert.deepStrictEqual(seen, ["Begin", 1, "Begin", 4])
      })
    )
  )

  it.effect(
    "ends an optional consumer that fails and nothing else, once, and says so in health, log and observation",
    () => {
      const logged: Array<string> = []
      return Effect.gen(function* () {
        const source = yield* TestWalSender
        const [all, some]: [Array<number>, Array<number>] = [[], []]
        const stream = yield* LogicalStream.make(options)
        const fiber = yield* Effect.forkChild(
          stream.run(
            Handler.broadcast({
              store: Handler.required(noting(all)),
              cache: Handler.optional(noting(some, (id) => (id === 2 ? new Broken() : Effect.void)))
            })
          )
        )
        yield* source.awaitStreaming
        yield* turns
        for (const id of [1, 2, 3]) {
          yield* source.write(row(id))
          yield* until(Effect.sync(() => all.length === id))
        }
        yield* source.drop
        yield* source.awaitStreaming.pipe(Effect.delay("5 seconds"), Effect.forkChild)
        yield* source.write(row(4))
        yield* until(Effect.sync(() => all.includes(4)))
        yield* until(Effect.map(source.unconfirmed, ({ length }) => length === 0))
        assert.deepStrictEqual(some, [1])
        const found = (yield* stream.observe).consumers!
        assert.deepStrictEqual(
          found.map(({ failure, isRequired, name, state }) => [name, isRequired, state, failure]),
          [
            ["store", true, "following", undefined],
            ["cache", false, "ended", "Broken"]
          ]
        )
        const { reasons, status } = yield* stream.health
        assert.strictEqual(status, "degraded")
        assert.include(
          reasons.map(({ code }) => code),
          "ConsumerEnded"
        )
        assert.lengthOf(
          logged.filter((text) => text.includes("the consumer cache has failed")),
          1
        )
        yield* leave(fiber)
      }).pipe(Effect.provide([server, Logger.layer([Logger.make(({ message }) => void logged.push(String(message)))])]))
    }
  )

  it.effect(
    "begins an optional one anew after a lost connection where it lacks what does not come again, and only then",
    () =>
      Effect.gen(function* () {
        const source = yield* TestWalSender
        const [all, some]: [Array<number>, Array<number>] = [[], []]
        const told: Array<string> = []
        let isSlow = false
        const fiber = yield* Effect.forkChild(
          withLogicalStream(
            options,
            Handler.broadcast({
              store: Handler.required(noting(all)),
              cache: Handler.optional(
                noting(some, () => Effect.suspend(() => (isSlow ? Effect.never : Effect.void))),
                { whenLagged: ({ reason }) => Effect.sync(() => void told.push(reason)) }
              )
            })
          )
        )
        yield* source.awaitStreaming
        yield* until(Effect.sync(() => told.length === 1))
        const writeAnd = Effect.fnUntraced(function* (id: number) {
          yield* source.write(row(id))
          yield* until(Effect.sync(() => all.includes(id)))
          yield* until(Effect.map(source.unconfirmed, ({ length }) => length === 0))
        })
        yield* writeAnd(1)
        yield* until(Effect.sync(() => some.includes(1)))
        yield* source.drop
        yield* writeAnd(2)
        yield* until(Effect.sync(() => some.includes(2)))
        assert.deepStrictEqual(told, ["Started"])
        isSlow = true
        yield* writeAnd(3)
        isSlow = false
        yield* source.drop
        yield* until(Effect.sync(() => told.length === 2))
        yield* writeAnd(4)
        yield* until(Effect.sync(() => some.includes(4)))
        assert.deepStrictEqual(told, ["Started", "ConnectionLost"])
        assert.deepStrictEqual(some, [1, 2, 4])
        assert.deepStrictEqual(all, [1, 2, 3, 4])
        yield* leave(fiber)
      }).pipe(Effect.provide(server))
  )

  it.effect("connects again though an optional one cannot even be interrupted, and gives it nothing more", () =>
    Effect.gen(function* () {
      const source = yield* TestWalSender
      const all: Array<number> = []
      const stuck = Handler.each<Change, never, never>(() =>
        Effect.uninterruptible(Effect.sleep("1 day")).pipe(Effect.as(undefined))
      )
      const stream = yield* LogicalStream.make(options)
      const fiber = yield* Effect.forkChild(
        stream.run(Handler.broadcast({ store: Handler.required(noting(all)), cache: Handler.optional(stuck) }))
      )
      yield* source.awaitStreaming
      yield* turns
      yield* source.write(row(1))
      yield* until(Effect.sync(() => all.includes(1)))
      yield* source.drop
      yield* source.write(row(2))
      yield* until(Effect.sync(() => all.includes(2)))
      yield* leave(fiber)
    }).pipe(Effect.provide(server))
  )

  it.effect("waits at a mark of a first copy until all have its rows, in their stores", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const [fast, slow]: [Array<unknown>, Array<unknown>] = [[], []]
        const taking = (seen: Array<unknown>, wait: Effect.Effect<unknown>) =>
          Handler.durable<Snapshot.ChangeAfterSnapshot>((changes) =>
            Effect.andThen(
              wait,
              Effect.sync(() => void seen.push(...changes.map(({ _tag }) => _tag)))
            )
          )
        const handler = Handler.broadcast<
          Snapshot.ChangeAfterSnapshot,
          Record<string, Handler.Consumer<Snapshot.ChangeAfterSnapshot, never, never>>
        >({
          fast: Handler.required(taking(fast, Effect.void)),
          slow: Handler.optional(taking(slow, Effect.sleep("10 seconds")), { queue: 1 })
        })
        const { give } = yield* connect(handler, { system: undefined })
        const started = { _tag: "SnapshotStarted", attempt: 1, consistentPoint: Lsn.zero, tables: [] } as const
        const copied = { _tag: "SnapshotRow", snapshot: started, relation: undefined as never, row: { id: 1 } } as const
        const completed = { _tag: "SnapshotCompleted", snapshot: started, rows: 1, bytes: 1 } as const
        const reads = [started, copied, copied, copied, copied] as const
        const copying = yield* Effect.forkChild(
          Effect.andThen(
            Effect.forEach(reads, (each) => give([each])),
            give([completed])
          )
        )
        yield* turns
        assert.isUndefined(copying.pollUnsafe())
        for (let step = 0; step < 20; step++) {
          yield* TestClock.adjust("5 seconds")
          yield* turns
          assert.strictEqual(copying.pollUnsafe() !== undefined, slow.length === 6)
        }
        assert.deepStrictEqual(slow, fast)
        assert.strictEqual(slow.at(-1), "SnapshotCompleted")
      })
    )
  )

  it.effect("reads tables anew for the one that was left behind, and gives these rows to nobody else", () =>
    Effect.gen(function* () {
      const source = yield* TestWalSender
      const stream = yield* LogicalStream.make({
        slot: "items",
        plugin: Pgoutput.make({ publications: ["items"], messages: true }),
        snapshot: "never"
      })
      const tags = new Set<string>()
      const cache = new Map<unknown, unknown>()
      let isStuck = false
      const emptied: Array<string> = []
      const fiber = yield* Effect.forkChild(
        stream.run(
          Handler.broadcast({
            store: Handler.required(
              Handler.durable((changes) => Effect.sync(() => changes.forEach(({ _tag }) => void tags.add(_tag))))
            ),
            cache: Handler.optional(
              Handler.durable((changes) =>
                Effect.gen(function* () {
                  while (isStuck) yield* Effect.sleep("1 second")
                  // Rows of a table come at once, and this is slower.
                  yield* Effect.sleep("10 millis")
                  for (const change of changes) {
                    if (change._tag === "TableSnapshotStarted") cache.clear()
                    if (change._tag === "Insert" || change._tag === "Update" || change._tag === "SnapshotRow") {
                      cache.set(change.row.id, change.row.at)
                    }
                  }
                })
              ),
              {
                queue: 2,
                whenLagged: ({ reason }) => Effect.sync(() => void emptied.push(reason)),
                reread: { request: stream.request, tables: ["public.items"] }
              }
            )
          })
        )
      )
      yield* source.awaitStreaming
      // At the start of the program it has nothing, and is given the table.
      yield* until(Effect.sync(() => cache.size === 20))
      isStuck = true
      for (let at = 1; at <= 40; at++) {
        yield* source.write(tx(update(items, { id: at % 20, at })))
        yield* turns
      }
      yield* until(Effect.map(source.unconfirmed, ({ length }) => length === 0))
      isStuck = false
      yield* until(Effect.sync(() => emptied.length > 1))
      yield* source.write(tx(update(items, { id: 3, at: 99 })))
      const wanted = Array.from({ length: 20 }, (_, id) => (id === 3 ? 99 : id === 0 ? 40 : 20 + id))
      yield* until(
        Effect.sync(() => Array.from({ length: 20 }, (_, id) => cache.get(id)).every((at, id) => at === wanted[id]))
      )
      assert.strictEqual(emptied[0], "Started")
      assert.strictEqual(emptied[1], "QueueFull")
      assert.sameMembers(
        [...tags],
        ["Begin", "Update", "Commit", "Message"].filter((tag) => tags.has(tag))
      )
      assert.isTrue(tags.has("Update"))
      const lagged = (yield* Metric.snapshot).find(
        ({ attributes, id }) => id === "replicant_consumer_lagged_total" && attributes?.consumer === "cache"
      )
      assert.isAtLeast((lagged!.state as { readonly count: number }).count, 2)
      yield* leave(fiber)
    }).pipe(
      Effect.provide(
        TestWalSender.layer({
          slot: "items",
          publications: ["items"],
          rows: Array.from({ length: 20 }, (_, id) => insert(items, { id, at: 0 }))
        })
      )
    )
  )

  it.effect("refuses a broadcast in which nobody is required, and a queue of nothing", () =>
    Effect.gen(function* () {
      for (const [handler, option] of [
        [Handler.broadcast({ cache: Handler.optional(never) }), "consumers"],
        [Handler.broadcast({ store: Handler.required(never, { queue: 0 }) }), "queue"]
      ] as const) {
        const error = yield* Effect.flip(withLogicalStream(options, handler as Handler.Handler<Change>))
        assert.deepInclude(error, { _tag: "InvalidOption", option })
      }
    }).pipe(Effect.provide(server))
  )
})

describe("a broadcast and whatever breaks", () => {
  const numbers = (seed: number) => {
    let state = seed
    return (limit: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
      return Math.floor((state / 0x1_0000_0000) * limit)
    }
  }

  for (const seed of [1, 2, 3]) {
    it.effect(
      `nothing is confirmed that a required consumer lacks, and each has all in order, at random speeds (${seed})`,
      () =>
        Effect.gen(function* () {
          const [source, next] = [yield* TestWalSender, numbers(seed)]
          const stored = { a: new Map<number, number>(), b: new Map<number, number>(), c: new Map<number, number>() }
          const order: Record<string, Array<number>> = { a: [], b: [], c: [], d: [] }
          const store = (name: "a" | "b" | "c", change: { readonly _tag: string }) =>
            Effect.gen(function* () {
              if (change._tag !== "Insert") return
              yield* Effect.sleep(next(300))
              const { at, id } = rowOf(change)
              stored[name].set(id as number, at as number)
              order[name]!.push(id as number)
            })
          const handler = Handler.broadcast<Change, Record<string, Handler.Consumer<Change, never, never>>>({
            a: Handler.required(
              Handler.each((change: Change) => Effect.as(store("a", change), nextLsn(change))),
              { queue: 3 }
            ),
            b: Handler.required(Handler.byKey<Change>({ concurrency: 4, queue: 8 }, (change) => store("b", change))),
            c: Handler.required(
              Handler.batch<Change>({ rows: 5, within: "400 millis" }, (changes) =>
                Effect.forEach(changes, (change) => store("c", change), { discard: true })
              )
            ),
            d: Handler.optional(
              Handler.each((change: Change) =>
                Effect.gen(function* () {
                  if (change._tag === "Insert") {
                    yield* Effect.sleep(next(2000))
                    if (next(150) === 0) return yield* new Broken()
                    order.d!.push(rowOf(change).id as number)
                  }
                  return nextLsn(change)
                })
              ),
              { queue: 2 }
            )
          })
          const written = new Map<number, Lsn.Lsn>()
          let id = 0
          /** What is confirmed is in every store that counts. */
          const holds = Effect.gen(function* () {
            const confirmed = yield* source.confirmedFlushLsn
            for (const [each, endLsn] of written) {
              if (endLsn > confirmed) continue
              for (const [name, rows] of Object.entries(stored)) assert.isTrue(rows.has(each), `${name} lacks ${each}`)
            }
          })
          let fiber = yield* Effect.forkChild(withLogicalStream(options, handler))
          yield* source.awaitStreaming
          for (let step = 0; step < 80; step++) {
            const count = 1 + next(3)
            const entries = Array.from({ length: count }, () => row(++id, id))
            const done = yield* source.write(...entries)
            for (const [index, each] of done.entries()) written.set(id - count + 1 + index, each.endLsn)
            yield* TestClock.adjust(next(500))
            yield* turns
            yield* holds
            if (next(12) === 0) yield* source.drop
            if (next(25) === 0) {
              yield* source.crash
              yield* source.start
            }
            if (next(40) === 0) {
              yield* leave(fiber)
              yield* holds
              fiber = yield* Effect.forkChild(withLogicalStream(options, handler))
            }
          }
          yield* until(Effect.map(source.unconfirmed, ({ length }) => length === 0))
          yield* holds
          for (const name of ["a", "b", "c"]) {
            const came = order[name]!
            assert.deepStrictEqual(
              [...new Set(came)].sort((left, right) => left - right),
              Array.from({ length: id }, (_, index) => index + 1)
            )
            // Side by side rows of a transaction, or of several, may change places.
            if (name === "b") continue
            const isInOrder = came.every((each, index) => index === 0 || each <= came[index - 1]! + 1)
            assert.isTrue(isInOrder, `${name}: ${came}`)
          }
          const { d = [] } = order
          assert.isTrue(d.length > 0)
          yield* leave(fiber)
        }).pipe(Effect.provide(server))
    )
  }
})
