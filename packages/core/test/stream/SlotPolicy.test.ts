import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as TestClock from "effect/testing/TestClock"
import { type Change, type Gap, nextLsn } from "../../src/change/Change.ts"
import type { Transaction } from "../../src/change/Transaction.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { InvalidOption } from "../../src/ReplicationError.ts"
import { walStatusChanges } from "../../src/server/SlotCatalog.ts"
import * as Handler from "../../src/stream/Handler.ts"
import { make, withLogicalStream } from "../../src/stream/LogicalStream.ts"
import * as Replication from "../../src/stream/Replication.ts"
import * as Table from "../../src/stream/Table.ts"
import { insert, TestWalSender, tx } from "../../src/testing/index.ts"

const Orders = Table.make("public.orders", Schema.Struct({ id: Schema.Number }), { key: ["id"] })

const options: Replication.Options = {
  slot: "orders",
  plugin: Pgoutput.make({ publications: ["orders"] }),
  timing: { shutdownTimeout: 0 }
}
const recreate = { slotPolicy: { invalidated: "recreate", missing: "recreate" } } as const

const server = (slotExists: "yes" | "no" = "yes") =>
  TestWalSender.layer({ slot: "orders", publications: ["orders"], slotExists })

const order = (id: number) => tx(insert(Orders, { id }))

/** Lets every fiber run as far as it can without time passing. */
const settle = Effect.andThen(
  TestClock.adjust(0),
  Effect.forEach(Array.from({ length: 50 }), () => Effect.yieldNow)
)

const pass = (duration: `${number} ${"millis" | "seconds" | "minutes"}`) =>
  Effect.andThen(settle, Effect.andThen(TestClock.adjust(duration), settle))

/** What was delivered, in short. */
const told = (changes: ReadonlyArray<Change>) =>
  changes.flatMap((change) =>
    change._tag === "Insert" ? [change.row.id] : change._tag === "Gap" ? [`gap: ${change.reason}`] : []
  )

describe("a slot in use", () => {
  it.effect("[S2] is asked for each 250 ms, after 10 s each 2 s, for 5 minutes; then it fails with the pid", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      yield* test.occupySlot
      const fiber = yield* withLogicalStream(options, () => Effect.succeed(undefined)).pipe(
        Effect.flip,
        Effect.forkChild
      )
      const asked = Effect.map(
        test.queries,
        (queries) => queries.filter((text) => text.includes("pg_replication_slots")).length
      )
      yield* settle
      yield* pass("1 seconds")
      assert.strictEqual(yield* asked, 5, "at 0, 250, 500, 750 and 1000 ms")
      for (let second = 0; second < 290; second++) yield* TestClock.adjust("1 second")
      assert.isUndefined(fiber.pollUnsafe())
      assert.approximately(yield* asked, 181, 10)
      for (let second = 0; second < 15; second++) yield* TestClock.adjust("1 second")
      assert.deepInclude(yield* Fiber.join(fiber), { _tag: "SlotInUse", activePid: 4711 })
      assert.strictEqual(yield* test.attempts, 1, "over one connection")
    }).pipe(Effect.provide(server()))
  )

  it.effect("[S2] fails at once where that is asked for, either way", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      yield* test.occupySlot
      for (const policy of [{ slotPolicy: { inUse: "fail" } }, { slotPolicy: { inUseTimeout: 0 } }] as const) {
        const stream = withLogicalStream({ ...options, ...policy }, () => Effect.succeed(undefined))
        assert.strictEqual((yield* Effect.flip(stream))._tag, "SlotInUse")
      }
    }).pipe(Effect.provide(server()))
  )
})

describe("a gap", () => {
  it.effect("[S3] is handed over before anything else, and nothing else comes until it is acknowledged", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      const gate = yield* Latch.make()
      const changes: Array<Change> = []
      const stream = yield* make({ ...options, ...recreate })
      yield* stream
        .run((change) =>
          Effect.gen(function* () {
            changes.push(change)
            if (change._tag === "Gap") yield* gate.await
            return nextLsn(change)
          })
        )
        .pipe(Effect.forkChild)
      yield* test.awaitStreaming
      const [first] = yield* test.write(order(1))
      yield* pass("2 seconds")
      yield* test.write(order(2))
      yield* settle
      yield* test.invalidateSlot("wal_removed")
      yield* pass("1 seconds")
      yield* test.write(order(3))
      // As long as copying tables anew may take.
      yield* pass("3 minutes")
      assert.deepStrictEqual(told(changes), [1, 2, "gap: wal_removed"])
      assert.strictEqual((yield* SubscriptionRef.get(stream.state))._tag, "WaitingForGap")
      assert.strictEqual((yield* test.slot)?.invalidationReason, "wal_removed", "as long as it is not handled")
      yield* gate.open
      yield* pass("1 seconds")
      assert.deepStrictEqual(told(changes), [1, 2, "gap: wal_removed", 3])
      const gap = changes.find((change): change is Gap => change._tag === "Gap")!
      assert.isTrue(gap.lastLsn! >= first.endLsn && gap.lastLsn! <= gap.consistentPoint)
      assert.isTrue(gap.nextLsn.lsn === gap.consistentPoint)
      yield* pass("2 seconds")
      yield* test.awaitConfirmed
    }).pipe(Effect.provide(server()))
  )

  it.effect("[S3] comes again if its connection is lost meanwhile, and the first acknowledgement is void", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      const gate = yield* Latch.make()
      const changes: Array<Change> = []
      yield* test.invalidateSlot("idle_timeout")
      yield* withLogicalStream({ ...options, ...recreate }, (change) =>
        Effect.gen(function* () {
          changes.push(change)
          yield* gate.await
          return nextLsn(change)
        })
      ).pipe(Effect.forkChild)
      yield* pass("1 seconds")
      assert.deepStrictEqual(told(changes), ["gap: idle_timeout"])
      // The connection is asked whether it lives, every 10 s.
      yield* test.crash
      yield* pass("11 seconds")
      yield* test.start
      yield* gate.open
      yield* pass("1 seconds")
      yield* pass("1 seconds")
      yield* test.write(order(1))
      yield* pass("1 seconds")
      assert.deepStrictEqual(told(changes), ["gap: idle_timeout", "gap: idle_timeout", 1])
      assert.isUndefined((yield* test.slot)?.invalidationReason)
    }).pipe(Effect.provide(server()))
  )

  it.effect("[S3] whose handler fails leaves the lost slot, and the next run sees it again", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      yield* test.invalidateSlot("wal_removed")
      for (let run = 0; run < 2; run++) {
        const failed = yield* Effect.flip(
          withLogicalStream({ ...options, ...recreate }, (change) => Effect.fail({ _tag: "Full" as const, change }))
        )
        assert(failed._tag === "Full")
        assert.strictEqual(failed.change._tag, "Gap")
        assert.strictEqual((yield* test.slot)?.invalidationReason, "wal_removed")
      }
    }).pipe(Effect.provide(server()))
  )

  it.effect("is a transaction of its own, passes typed tables, and comes to the service", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      yield* test.invalidateSlot("wal_removed")
      const transactions: Array<Transaction> = []
      const fiber = yield* withLogicalStream(
        { ...options, ...recreate },
        Handler.transactions((transaction) => Effect.sync(() => transactions.push(transaction)))
      ).pipe(Effect.forkChild)
      yield* pass("1 seconds")
      yield* test.write(order(1))
      yield* pass("2 seconds")
      yield* Fiber.interrupt(fiber)
      const [alone, second] = transactions
      assert.deepInclude(alone, { begin: undefined, commit: undefined })
      assert.deepStrictEqual(
        alone?.changes.map((change) => change._tag),
        ["Gap"]
      )
      assert.strictEqual(alone?.endLsn, alone?.nextLsn.lsn)
      assert.deepStrictEqual(
        second?.changes.map((change) => change._tag),
        ["Insert"]
      )

      yield* test.invalidateSlot("rows_removed")
      const tags: Array<string> = []
      yield* Effect.gen(function* () {
        const replication = yield* Replication.Replication
        yield* replication.changes.pipe(
          Table.changes([Orders]),
          Stream.tap((change) => Effect.sync(() => tags.push(change._tag))),
          Stream.map(nextLsn),
          Stream.filter((lsn) => lsn !== undefined),
          Stream.runForEach(replication.acknowledge)
        )
      }).pipe(Effect.provide(Replication.layer({ ...options, ...recreate })), Effect.forkChild)
      yield* pass("1 seconds")
      yield* test.write(order(2))
      yield* pass("2 seconds")
      assert.deepStrictEqual(tags, ["Gap", "Begin", "Insert", "Commit"])
    }).pipe(Effect.provide(server()))
  )

  it.effect("[S1] is told of a slot that is missing without ever having been asked to be made", () =>
    Effect.gen(function* () {
      const changes: Array<Change> = []
      yield* withLogicalStream({ ...options, slotPolicy: { missing: "recreate" } }, (change) =>
        Effect.sync(() => {
          changes.push(change)
          return nextLsn(change)
        })
      ).pipe(Effect.forkChild)
      yield* pass("1 seconds")
      assert.deepInclude(changes[0], { _tag: "Gap", reason: "missing", lastLsn: undefined })
    }).pipe(Effect.provide(server("no")))
  )

  it.effect("[S1] is not told where the slot is made for the first time", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      const changes: Array<Change> = []
      yield* withLogicalStream({ ...options, ...recreate, createSlot: "permanent" }, (change) =>
        Effect.sync(() => {
          changes.push(change)
          return nextLsn(change)
        })
      ).pipe(Effect.forkChild)
      yield* test.awaitStreaming
      yield* test.write(order(1))
      yield* pass("1 seconds")
      assert.deepStrictEqual(told(changes), [1])
    }).pipe(Effect.provide(server("no")))
  )
})

describe("watching a slot", () => {
  it.effect("[S10] tells its state, and again when it changes, and not what keeps it from looking", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      const seen: Array<string | undefined> = []
      yield* walStatusChanges("orders").pipe(
        Stream.runForEach((slot) => Effect.sync(() => seen.push(slot.walStatus))),
        Effect.forkChild
      )
      yield* pass("3 minutes")
      yield* test.crash
      yield* pass("3 minutes")
      yield* test.start
      yield* test.invalidateSlot()
      yield* pass("1 minutes")
      assert.deepStrictEqual(seen, ["reserved", "lost"])
    }).pipe(Effect.provide(server()))
  )

  it.effect("fails when there is no such slot", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Stream.runDrain(walStatusChanges("other")))
      assert.strictEqual(error._tag, "SlotNotFound")
    }).pipe(Effect.provide(server()))
  )
})

describe("the program's own check", () => {
  it.effect("runs on each connection, before the slot is touched, and its failure is the stream's", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      let checked = 0
      const refused = new InvalidOption({ option: "check", problem: "refused" })
      const check = () => Effect.suspend(() => (++checked === 3 ? Effect.fail(refused) : Effect.void))
      const fiber = yield* withLogicalStream({ ...options, check }, () => Effect.succeed(undefined)).pipe(
        Effect.flip,
        Effect.forkChild
      )
      yield* test.awaitStreaming
      yield* test.drop
      yield* pass("1 seconds")
      assert.strictEqual(checked, 2)
      yield* test.drop
      yield* pass("1 seconds")
      assert.strictEqual(yield* Fiber.join(fiber), refused)
    }).pipe(Effect.provide(server()))
  )
})
