/** Waiting for a position: never over before the handler is done with all before it, and never without an end. */
import { assert, describe, it } from "@effect/vitest"
import { type Change, Handler, LogicalStream, Lsn, nextLsn, Pgoutput, Table } from "@replicant/core"
import { insert, TestWalSender, tx, unpublished } from "@replicant/core/testing"
import { Effect, Fiber, Latch, Random, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { sqliteClient } from "../support/sqliteClient.ts"

const { ReadYourWrites } = LogicalStream

const Items = Table.make("public.items", Schema.Struct({ id: Schema.Number }), { key: ["id"] })

const options = { slot: "items", plugin: Pgoutput.make({ publications: ["items"] }) }

const server = TestWalSender.layer({ slot: "items", publications: ["items"] })

const settle = Effect.andThen(
  TestClock.adjust("20 millis"),
  Effect.forEach(Array.from({ length: 50 }), () => Effect.yieldNow)
)

describe("awaitLsn", () => {
  it.effect("ends once the handler has ended what was committed before, and not sooner", () =>
    Effect.gen(function* () {
      const source = yield* TestWalSender
      const gate = yield* Latch.make()
      const stream = yield* LogicalStream.make(options)
      yield* Effect.forkChild(
        stream.run((change) => Effect.as(change._tag === "Commit" ? gate.await : Effect.void, nextLsn(change)))
      )
      yield* source.awaitStreaming
      const [written] = yield* source.write(tx(insert(Items, { id: 1 })))
      const waiting = yield* Effect.forkChild(stream.awaitLsn(written.endLsn, "1 hour"))
      yield* settle
      yield* TestClock.adjust("10 seconds")
      assert.isUndefined(waiting.pollUnsafe())
      yield* gate.open
      yield* settle
      yield* Fiber.join(waiting)
      // Behind the last commit there is what nobody published.
      const [other] = yield* source.write(unpublished(1000))
      yield* Effect.andThen(Effect.forkChild(TestClock.adjust("1 second")), stream.awaitLsn(other.endLsn, "1 hour"))
    }).pipe(Effect.provide(server))
  )

  it.effect("tells in time how far the consumer was, and what the stream was doing", () =>
    Effect.gen(function* () {
      const source = yield* TestWalSender
      const stream = yield* LogicalStream.make(options)
      const [first] = yield* source.write(tx(insert(Items, { id: 1 })))
      const early = yield* Effect.forkChild(Effect.flip(stream.awaitLsn(first.endLsn, "1 second")))
      yield* TestClock.adjust("2 seconds")
      const notRun = yield* Fiber.join(early)
      assert.deepStrictEqual([notRun.state, notRun.handled, notRun.timeout], ["Idle", Lsn.zero, 1000])
      const gate = yield* Latch.make()
      yield* Effect.forkChild(
        stream.run((change) => {
          const isSecond = change._tag === "Commit" && change.endLsn > first.endLsn
          return Effect.as(isSecond ? gate.await : Effect.void, nextLsn(change))
        })
      )
      yield* source.awaitStreaming
      const [second] = yield* source.write(tx(insert(Items, { id: 2 })))
      yield* settle
      const late = yield* Effect.forkChild(Effect.flip(stream.awaitLsn(second.endLsn, "1 second")))
      yield* TestClock.adjust("2 seconds")
      const error = yield* Fiber.join(late)
      assert.deepStrictEqual([error._tag, error.state, error.handled], ["LsnTimeout", "Streaming", first.endLsn])
      yield* gate.open
    }).pipe(Effect.provide(server))
  )

  it.effect("is never over before all of it is handled, with handlers of any speed and connections that break", () =>
    Effect.gen(function* () {
      const source = yield* TestWalSender
      const handled = new Set<Lsn.Lsn>()
      const stream = yield* LogicalStream.make(options)
      const handle = Effect.fnUntraced(function* (change: Change) {
        if (change._tag !== "Insert") return
        yield* Effect.sleep(yield* Random.nextIntBetween(0, 40))
        handled.add(change.begin.commitLsn)
      })
      yield* Effect.forkChild(stream.run(Handler.byKey({ concurrency: 4 }, handle)))
      yield* source.awaitStreaming
      const waits: Array<Fiber.Fiber<void, unknown>> = []
      const commits: Array<{ readonly commitLsn: Lsn.Lsn; readonly endLsn: Lsn.Lsn }> = []
      for (let id = 1; id <= 200; id++) {
        const [written] = yield* source.write(tx(insert(Items, { id })), unpublished(id % 3 === 0 ? 500 : 8))
        commits.push(written)
        const check = Effect.sync(() => {
          for (const { commitLsn, endLsn } of commits)
            if (endLsn <= written.endLsn) assert.isTrue(handled.has(commitLsn))
        })
        waits.push(yield* Effect.forkChild(Effect.andThen(stream.awaitLsn(written.endLsn, "1 hour"), check)))
        if (id % 40 === 0) yield* source.drop
        yield* TestClock.adjust(yield* Random.nextIntBetween(0, 30))
      }
      for (let minute = 0; minute < 10; minute++) yield* TestClock.adjust("1 minute")
      yield* Effect.forEach(waits, Fiber.join, { discard: true })
      assert.strictEqual(handled.size, 200)
    }).pipe(Effect.provide(server))
  )
})

describe("ReadYourWrites", () => {
  it("takes the end of the last record, where the next begins behind the header of a page", () => {
    const end = (text: string) => Lsn.format(ReadYourWrites.endOfRecord(Lsn.fromString(text)!, 8192n))
    assert.deepStrictEqual(["0/2000018", "0/3000028", "0/3001FF8", "0/3002020", "0/3002000"].map(end), [
      "0/2000000",
      "0/3000000",
      "0/3001FF8",
      "0/3002020",
      "0/3002000"
    ])
  })

  it.effect("refuses within an open transaction, of which nobody hears", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      let isWritten = false
      const write = Effect.sync(() => {
        isWritten = true
      })
      const error = yield* Effect.flip(sql.withTransaction(ReadYourWrites.written(write)))
      assert.strictEqual(error._tag, "InvalidOption")
      assert.isFalse(isWritten)
    }).pipe(Effect.provide(sqliteClient(":memory:")))
  )
})
