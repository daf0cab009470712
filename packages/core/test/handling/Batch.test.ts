/** Handler.batch: by number, size and time, and nothing acknowledged that has not been handed over and ended. */
import { assert, describe, it } from "@effect/vitest"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import { type Change, nextLsn } from "../../src/change/Change.ts"
import type { NextLsn } from "../../src/change/NextLsn.ts"
import * as Handler from "../../src/handling/Handler.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { withLogicalStream } from "../../src/stream/LogicalStream.ts"
import { insert, relation, TestWalSender, tx } from "../../src/testing/index.ts"
import * as shop from "../table/shop.ts"
import { connect, item, rowOf, Transactions } from "./delivering.ts"

class Broken extends Data.TaggedError("Broken") {}

const turns = Effect.forEach(Array.from({ length: 50 }), () => Effect.yieldNow, { discard: true })
const lsns = (units: ReadonlyArray<NextLsn>) => units.map(({ lsn }) => lsn)
const endOf = (changes: ReadonlyArray<Change>) => nextLsn(changes.at(-1)!)!.lsn

/** Notes each batch, as ids and other tags. */
const noting = (batches: Array<ReadonlyArray<unknown>>) => (changes: ReadonlyArray<{ readonly _tag: string }>) =>
  Effect.sync(() => void batches.push(changes.map((change) => rowOf(change)?.id ?? change._tag)))

describe("Handler.batch", () => {
  it.effect("hands over so many rows, and acknowledges through the last transaction that ended in them", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const of = new Transactions()
        const [first, second, third] = [of.of(item(1)), of.of(item(2), item(3), item(4)), of.of(item(5))]
        const batches: Array<ReadonlyArray<unknown>> = []
        const handler = Handler.batch<Change>({ rows: 3, within: "1 minute" }, noting(batches))
        const { acknowledged, give } = yield* connect(handler)
        yield* give([...first, ...second.slice(0, 2)])
        assert.deepStrictEqual([batches, lsns(acknowledged)], [[], []])
        yield* give([...second.slice(2), ...third])
        assert.deepStrictEqual(batches, [[1, 2, 3]])
        assert.deepStrictEqual(lsns(acknowledged), [endOf(first)], "the second has not ended in it")
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(batches, [
          [1, 2, 3],
          [4, 5]
        ])
        assert.deepStrictEqual(lsns(acknowledged), [endOf(first), endOf(third)])
      })
    )
  )

  it.effect("acknowledges nothing before the function has ended, and takes nothing in meanwhile", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const of = new Transactions()
        const [first, second] = [of.of(item(1)), of.of(item(2))]
        const gate = yield* Deferred.make<void>()
        const handler = Handler.batch<Change>({ rows: 10, within: "1 second" }, () => Deferred.await(gate))
        const { acknowledged, give } = yield* connect(handler)
        yield* give(first)
        yield* TestClock.adjust("1 second")
        const fiber = yield* Effect.forkChild(give(second))
        yield* turns
        assert.deepStrictEqual(lsns(acknowledged), [])
        assert.isUndefined(fiber.pollUnsafe())
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(lsns(acknowledged), [endOf(first)], "what came meanwhile is of the next batch")
      })
    )
  )

  it.effect("counts the time from the first change of each batch", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const of = new Transactions()
        const batches: Array<ReadonlyArray<unknown>> = []
        const { give } = yield* connect(Handler.batch<Change>({ rows: 2, within: "10 seconds" }, noting(batches)))
        yield* give(of.of(item(1)))
        yield* TestClock.adjust("6 seconds")
        yield* give([...of.of(item(2)), ...of.of(item(3))])
        yield* TestClock.adjust("9 seconds")
        assert.deepStrictEqual(batches, [[1, 2]])
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(batches, [[1, 2], [3]])
      })
    )
  )

  it.effect("is full at so many bytes as well, and acknowledges what brought no row", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const of = new Transactions()
        const batches: Array<ReadonlyArray<unknown>> = []
        const handler = Handler.batch<Change>({ rows: 100, bytes: 1000, within: "1 second" }, noting(batches))
        const { acknowledged, give } = yield* connect(handler)
        yield* give(of.of(item(1)), 900)
        assert.deepStrictEqual(batches, [])
        yield* give(of.of(item(2)), 900)
        assert.deepStrictEqual(batches, [[1]])
        yield* TestClock.adjust("1 second")
        const empty = of.of()
        yield* give(empty)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(batches, [[1], [2]])
        assert.strictEqual(lsns(acknowledged).at(-1), endOf(empty))
      })
    )
  )

  it.effect("ends a mark of a snapshot once all before it, and it, is handed over", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const batches: Array<ReadonlyArray<unknown>> = []
        const handler = Handler.batch<{ readonly _tag: string }>({ rows: 9, within: "1 minute" }, noting(batches))
        const { give } = yield* connect(handler)
        const snapshotRow = { ...shop.insert(shop.orders, { id: 1 }), _tag: "SnapshotRow" }
        for (const _tag of ["SnapshotRangeCompleted", "SnapshotCompleted"]) yield* give([snapshotRow, { _tag }])
        assert.deepStrictEqual(batches, [
          [1, "SnapshotRangeCompleted"],
          [1, "SnapshotCompleted"]
        ])
      })
    )
  )

  it.effect("hands over the last state of each row, and acknowledges when the last run has ended", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const of = new Transactions()
        const transaction = of.of(item(1, 1), item(2, 1), item(1, 2), () => shop.truncate(), item(1, 3))
        const [batches, ends]: [Array<ReadonlyArray<unknown>>, Array<unknown>] = [[], []]
        let done = 0
        const { acknowledged, give } = yield* connect(
          Handler.batch<Change>({ rows: 9, within: "1 second", compact: true }, (changes, end) =>
            Effect.suspend(() => {
              assert.deepStrictEqual(acknowledged, [], "before the last has ended")
              ends.push(end?.lsn)
              done++
              return noting(batches)(changes)
            })
          )
        )
        yield* give(transaction)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(batches, [[2, 1], ["Truncate"], [1]])
        assert.deepStrictEqual(
          ends,
          Array.from({ length: done }, () => endOf(transaction))
        )
        assert.deepStrictEqual(lsns(acknowledged), [endOf(transaction)])
      })
    )
  )

  it.effect("drops what is not full when its connection is over, and waits for what runs", () =>
    Effect.gen(function* () {
      const of = new Transactions()
      const gate = yield* Deferred.make<void>()
      const scope = yield* Scope.make()
      let [isOver, calls] = [false, 0]
      const handler = Handler.batch<Change>({ rows: 10, within: "1 second" }, () => {
        calls++
        return Deferred.await(gate)
      })
      const { acknowledged, give } = yield* Scope.provide(connect(handler, { isOver: () => isOver }), scope)
      const first = of.of(item(1))
      yield* give(first)
      yield* TestClock.adjust("1 second")
      isOver = true
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* turns
      assert.isUndefined(closing.pollUnsafe())
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(closing)
      assert.deepStrictEqual([calls, lsns(acknowledged)], [1, [endOf(first)]])
    })
  )

  it.effect("is refused without a number of rows", () =>
    Effect.sync(() => {
      const handler = Handler.batch<Change>({ rows: 0, within: 1 }, () => Effect.void)
      assert.strictEqual(handler.unfit!(Pgoutput.make({ publications: ["p"] }))?._tag, "InvalidOption")
    })
  )

  it.effect("ends an idle stream when a batch fails at its time, and confirms nothing of it", () =>
    Effect.gen(function* () {
      const orders = relation("public.orders", { columns: { id: "int4" }, key: ["id"] })
      const server = yield* TestWalSender
      const options = { slot: "orders", plugin: Pgoutput.make({ publications: ["orders"] }) }
      const handler = Handler.batch<Change, Broken>({ rows: 10, within: "1 second" }, () => new Broken())
      const fiber = yield* Effect.forkChild(Effect.flip(withLogicalStream(options, handler)))
      yield* server.awaitStreaming
      yield* server.write(tx(insert(orders, { id: 1 })))
      for (let half = 0; half < 4; half++) yield* Effect.andThen(TestClock.adjust("500 millis"), turns)
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "Broken")
      assert.lengthOf(yield* server.unconfirmed, 1)
    }).pipe(Effect.provide(TestWalSender.layer({ slot: "orders", publications: ["orders"] })))
  )
})
