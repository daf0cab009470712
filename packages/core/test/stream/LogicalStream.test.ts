import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as TestClock from "effect/testing/TestClock"
import { type Change, nextLsn } from "../../src/change/Change.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { ConnectionError, SlotNotFound } from "../../src/ReplicationError.ts"
import * as Handler from "../../src/stream/Handler.ts"
import { withLogicalStream } from "../../src/stream/LogicalStream.ts"
import * as Fake from "../support/FakeWalSender.ts"

const options = { slot: "orders", plugin: Pgoutput.make({ publications: ["orders"] }) }

/** Lets every fiber run as far as it can without time passing. */
const settle = Effect.andThen(
  TestClock.adjust(0),
  Effect.forEach(Array.from({ length: 50 }), () => Effect.yieldNow)
)

const flushes = (connection: Fake.FakeConnection) => connection.statuses.map((status) => Lsn.format(status.flushed))

describe("withLogicalStream", () => {
  it.effect("acknowledges the end of a transaction once its handler has returned it, and not before", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      const gate = yield* Latch.make()
      const seen: Array<Change["_tag"]> = []
      yield* withLogicalStream(options, (change) =>
        Effect.gen(function* () {
          seen.push(change._tag)
          if (change._tag === "Commit") yield* gate.await
          return nextLsn(change)
        })
      ).pipe(Effect.provide(fake.layer), Effect.forkChild)
      const server = yield* fake.accept
      yield* server.say(Fake.relation(), Fake.transaction("0/100", "0/130", 1), Fake.keepAlive("0/500", true))
      yield* settle
      assert.deepStrictEqual(seen, ["Begin", "Insert", "Commit"])
      yield* TestClock.adjust("10 seconds")
      yield* settle
      assert.isNotEmpty(server.statuses)
      assert.isTrue(flushes(server).every((flushed) => flushed === "0/0"))
      yield* gate.open
      yield* settle
      yield* TestClock.adjust("1 second")
      yield* settle
      // Nothing else is open or pending, so the idle position of the keep-alive may be told as well.
      assert.strictEqual(flushes(server).at(-1), "0/500")
    })
  )

  it.effect("reports the commit's end while a later transaction is under way", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      yield* withLogicalStream(options, (change) => Effect.succeed(nextLsn(change))).pipe(
        Effect.provide(fake.layer),
        Effect.forkChild
      )
      const server = yield* fake.accept
      yield* server.say(
        Fake.relation(),
        Fake.transaction("0/100", "0/130", 1),
        Fake.begin("0/200"),
        Fake.keepAlive("0/300")
      )
      yield* settle
      yield* TestClock.adjust("1 second")
      yield* settle
      assert.strictEqual(flushes(server).at(-1), "0/130")
    })
  )

  it.effect("[V5] keeps the connection alive while the handler is busy for an hour, without any progress", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make(() => ({ walSenderTimeout: 6000 }))
      yield* withLogicalStream({ ...options, timing: { shutdownTimeout: 0 } }, () => Effect.never).pipe(
        Effect.provide(fake.layer),
        Effect.forkChild
      )
      const server = yield* fake.accept
      yield* server.say(Fake.relation(), Fake.transaction("0/100", "0/130", 1))
      yield* settle
      for (let second = 0; second < 3600; second++) yield* TestClock.adjust("1 second")
      assert.isAtLeast(server.statuses.length, 1800)
      assert.isTrue(flushes(server).every((flushed) => flushed === "0/0"))
      assert.isFalse(server.isClosed)
    })
  )

  it.effect("[C4] fails with the handler's own error, acknowledges nothing of it and never retries it", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      const failure = { _tag: "StoreFailed" as const, isRetryable: true }
      const fiber = yield* withLogicalStream(options, (change) =>
        change._tag === "Insert" && change.row.id === 2 ? Effect.fail(failure) : Effect.succeed(nextLsn(change))
      ).pipe(Effect.provide(fake.layer), Effect.flip, Effect.forkChild)
      const server = yield* fake.accept
      yield* server.say(
        Fake.relation(),
        Fake.transaction("0/100", "0/130", 1),
        Fake.transaction("0/130", "0/160", 2),
        Fake.transaction("0/160", "0/190", 3)
      )
      assert.strictEqual(yield* Fiber.join(fiber), failure)
      assert.strictEqual(flushes(server).at(-1), "0/130")
      assert.isTrue(server.isDone, "said goodbye")
      assert.isTrue(server.isClosed)
      assert.strictEqual(fake.connections.length, 1)
    })
  )

  it.effect("acknowledges nothing beyond a message it cannot read, though no transaction is open", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      const fiber = yield* withLogicalStream(options, (change) => Effect.succeed(nextLsn(change))).pipe(
        Effect.provide(fake.layer),
        Effect.flip,
        Effect.forkChild
      )
      const server = yield* fake.accept
      yield* server.say(Fake.relation(), Fake.transaction("0/100", "0/130", 1))
      yield* settle
      yield* server.say(Fake.xLogData("0/500", new Uint8Array([0x4d, 0])))
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "DecodeError")
      assert.strictEqual(flushes(server).at(-1), "0/130")
    })
  )

  it.effect("reconnects after a loss, starts at its own last end, and counts what the running handler finished", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      const gate = yield* Latch.make()
      let handled = 0
      yield* withLogicalStream(options, (change) =>
        Effect.gen(function* () {
          if (change._tag === "Commit") {
            yield* gate.await
            handled++
          }
          return nextLsn(change)
        })
      ).pipe(Effect.provide(fake.layer), Effect.forkChild)
      const first = yield* fake.accept
      yield* first.say(Fake.relation(), Fake.transaction("0/100", "0/130", 1))
      yield* settle
      yield* first.drop
      yield* settle
      assert.strictEqual(handled, 0)
      assert.strictEqual(fake.connections.length, 1, "waits for the handler before it connects anew")
      yield* gate.open
      yield* settle
      yield* TestClock.adjust("250 millis")
      const second = yield* fake.accept
      assert.strictEqual(handled, 1)
      assert.isTrue(first.isClosed)
      assert.include(second.commands.at(-1), "LOGICAL 0/130")
    })
  )

  it.effect("starts where the server says when another timeline answers of which nothing can be proved", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make((attempt) => ({
        timeline: attempt + 1,
        serverStart: String(attempt),
        isInRecovery: attempt === 0
      }))
      yield* withLogicalStream(options, (change) => Effect.succeed(nextLsn(change))).pipe(
        Effect.provide(fake.layer),
        Effect.forkChild
      )
      const first = yield* fake.accept
      yield* first.say(Fake.relation(), Fake.transaction("0/100", "0/130", 1))
      yield* settle
      yield* first.drop
      yield* settle
      yield* TestClock.adjust("250 millis")
      const second = yield* fake.accept
      assert.include(second.commands.at(-1), "LOGICAL 0/0")
    })
  )

  it.effect("[V9] fails when another cluster answers behind the same name", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make((attempt) => ({ systemId: String(attempt) }))
      const fiber = yield* withLogicalStream(options, (change) => Effect.succeed(nextLsn(change))).pipe(
        Effect.provide(fake.layer),
        Effect.flip,
        Effect.forkChild
      )
      const first = yield* fake.accept
      yield* first.drop
      yield* settle
      yield* TestClock.adjust("250 millis")
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "SystemMismatch")
    })
  )

  it.effect("[N7] tries within 250 ms, then ever more slowly up to 10 s, and for ever", () =>
    Effect.gen(function* () {
      let attempts = 0
      const fake = yield* Fake.make(() => {
        attempts++
        return new ConnectionError({ reason: "Refused", detail: "refused" })
      })
      yield* withLogicalStream(options, () => Effect.succeed(undefined)).pipe(
        Effect.provide(fake.layer),
        Effect.forkChild
      )
      yield* settle
      assert.strictEqual(attempts, 1)
      yield* TestClock.adjust("250 millis")
      assert.strictEqual(attempts, 2)
      yield* TestClock.adjust("1 minute")
      assert.isAtMost(attempts, 12)
      const before = attempts
      yield* TestClock.adjust("1 hour")
      assert.isAtLeast(attempts - before, 250)
    })
  )

  it.effect("[V8] never makes a slot anew that was there, however the option reads", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make((attempt) => ({ slot: attempt === 0 ? undefined : ("missing" as const) }))
      const fiber = yield* withLogicalStream({ ...options, createSlot: "permanent" }, () =>
        Effect.succeed(undefined)
      ).pipe(Effect.provide(fake.layer), Effect.flip, Effect.forkChild)
      const first = yield* fake.accept
      yield* first.drop
      yield* settle
      yield* TestClock.adjust("250 millis")
      assert.deepStrictEqual(yield* Fiber.join(fiber), new SlotNotFound({ slot: "orders" }))
    })
  )

  it.effect("[C3] lets the running handler finish when interrupted, acknowledges it, and says goodbye", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      const gate = yield* Latch.make()
      const started = yield* Deferred.make<void>()
      let handled = 0
      const fiber = yield* withLogicalStream(options, (change) =>
        Effect.gen(function* () {
          if (change._tag === "Commit") {
            yield* Deferred.succeed(started, undefined)
            yield* gate.await
            handled++
          }
          return nextLsn(change)
        })
      ).pipe(Effect.provide(fake.layer), Effect.forkChild)
      const server = yield* fake.accept
      yield* server.say(Fake.relation(), Fake.transaction("0/100", "0/130", 1), Fake.transaction("0/130", "0/160", 2))
      yield* Deferred.await(started)
      const leaving = yield* Effect.forkChild(Fiber.interrupt(fiber))
      yield* settle
      assert.isFalse(server.isClosed)
      yield* gate.open
      yield* Fiber.join(leaving)
      assert.strictEqual(handled, 1, "the second transaction is not begun")
      assert.strictEqual(flushes(server).at(-1), "0/130")
      assert.isTrue(server.isDone)
      assert.isTrue(server.isClosed)
    })
  )

  it.effect("[C3] interrupts a handler that does not end in time, and acknowledges nothing of it", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      const started = yield* Deferred.make<void>()
      const fiber = yield* withLogicalStream(options, () =>
        Effect.andThen(Deferred.succeed(started, undefined), Effect.never)
      ).pipe(Effect.provide(fake.layer), Effect.forkChild)
      const server = yield* fake.accept
      yield* server.say(Fake.relation(), Fake.transaction("0/100", "0/130", 1))
      yield* Deferred.await(started)
      const leaving = yield* Effect.forkChild(Fiber.interrupt(fiber))
      yield* settle
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(leaving)
      assert.strictEqual(flushes(server).at(-1), "0/0")
      assert.isTrue(server.isClosed)
    })
  )

  it.effect("[N3] gives a silent walsender up after its own ping went unanswered", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make(() => ({ isDeaf: true }))
      yield* withLogicalStream(options, () => Effect.succeed(undefined)).pipe(
        Effect.provide(fake.layer),
        Effect.forkChild
      )
      const first = yield* fake.accept
      yield* settle
      yield* TestClock.adjust("16 seconds")
      yield* settle
      assert.isTrue(first.statuses.some((status) => status.replyRequested))
      yield* TestClock.adjust("15 seconds")
      yield* settle
      assert.isTrue(first.isClosed)
      yield* TestClock.adjust("1 second")
      yield* fake.accept
    })
  )
})

describe("withLogicalStream", () => {
  it.effect("hands over whole transactions across reads and acknowledges each", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      const seen: Array<number> = []
      yield* withLogicalStream(
        options,
        Handler.transactions((transaction) => Effect.sync(() => seen.push(transaction.changes.length)))
      ).pipe(Effect.provide(fake.layer), Effect.forkChild)
      const server = yield* fake.accept
      yield* server.say(Fake.relation(), Fake.begin("0/100"), Fake.insert("0/100", 1))
      yield* settle
      assert.deepStrictEqual(seen, [])
      yield* server.say(Fake.insert("0/110", 2), Fake.commit("0/100", "0/130"))
      yield* settle
      yield* TestClock.adjust("1 second")
      yield* settle
      assert.deepStrictEqual(seen, [2])
      assert.strictEqual(flushes(server).at(-1), "0/130")
    })
  )

  it.effect("fails typed when a transaction outgrows its budget", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      const fiber = yield* withLogicalStream(
        { ...options, memory: { maxTransactionBytes: 100 } },
        Handler.transactions(() => Effect.void)
      ).pipe(Effect.provide(fake.layer), Effect.flip, Effect.forkChild)
      const server = yield* fake.accept
      yield* server.say(
        Fake.relation(),
        Fake.begin("0/100"),
        ...Array.from({ length: 10 }, (_, id) => Fake.insert("0/100", id))
      )
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "TransactionTooLarge")
      assert.isTrue(flushes(server).every((flushed) => flushed === "0/0"))
    })
  )
})
