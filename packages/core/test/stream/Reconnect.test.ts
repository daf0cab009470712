import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as TestClock from "effect/testing/TestClock"
import { nextLsn } from "../../src/change/Change.ts"
import type * as Lsn from "../../src/Lsn.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import * as BackendMessage from "../../src/protocol/BackendMessage.ts"
import * as Errors from "../../src/ReplicationError.ts"
import { type ErrorContext, refineServerError, serverError } from "../../src/refineServerError.ts"
import * as Metrics from "../../src/replication/Metrics.ts"
import { Attempts, isLoud, locate, type Retry, retryOf } from "../../src/replication/Reconnect.ts"
import { make, type StreamState, withLogicalStream } from "../../src/stream/LogicalStream.ts"
import * as Fake from "../support/FakeWalSender.ts"

const options = { slot: "orders", plugin: Pgoutput.make({ publications: ["orders"] }) }

const answer = (sqlState: string, stage: Errors.Stage): Errors.ReplicationError => {
  const context: ErrorContext = { stage, slot: "orders", publications: ["orders"] }
  return refineServerError(serverError({ severity: "ERROR", sqlState, message: "m" }, stage), context)
}

const errorResponse = (sqlState: string) =>
  BackendMessage.errorResponse({ severity: "ERROR", sqlState, message: "refused" })

/** Lets every fiber run as far as it can without time passing. */
const settle = Effect.andThen(
  TestClock.adjust(0),
  Effect.forEach(Array.from({ length: 50 }), () => Effect.yieldNow)
)

describe("retryOf", () => {
  const streaming: ReadonlyArray<readonly [sqlState: string, retry: Retry]> = [
    ["08006", "always"],
    ["53200", "always"],
    ["53300", "always"],
    ["53400", "always"],
    ["57P01", "always"],
    ["57P02", "always"],
    ["57P03", "always"],
    ["57P05", "always"],
    ["08P01", "limited"],
    ["57014", "always"],
    ["22012", "limited"],
    ["22021", "limited"],
    ["54000", "limited"],
    ["58030", "limited"],
    ["58P01", "limited"],
    ["XX000", "limited"],
    ["XX001", "limited"],
    ["P0001", "limited"],
    ["40001", "limited"],
    ["22023", "never"],
    ["28000", "never"],
    ["28P01", "never"],
    ["42501", "never"],
    ["42704", "never"],
    ["42601", "never"],
    ["42602", "never"],
    ["0A000", "never"],
    ["3D000", "never"],
    ["55000", "never"]
  ]
  it.each(streaming)("of %s while rows stream is %s", (sqlState, retry) => {
    assert.strictEqual(retryOf(answer(sqlState, "Streaming")), retry)
  })

  it("blames what was asked for, where that was just sent, and the server where it was not", () => {
    assert.strictEqual(retryOf(answer("XX000", "StartReplication")), "never")
    assert.strictEqual(retryOf(answer("58P01", "CreateSlot")), "never")
    assert.strictEqual(retryOf(answer("22023", "StartReplication")), "never")
    assert.strictEqual(retryOf(answer("XX000", "Connect")), "limited")
    assert.strictEqual(retryOf(answer("58030", "Query")), "limited")
    assert.strictEqual(retryOf(answer("XX001", "IdentifySystem")), "limited")
    assert.strictEqual(retryOf(answer("08P01", "StartReplication")), "limited")
    assert.strictEqual(retryOf(answer("22012", "Query")), "never")
  })

  it("gives a slot up that was in use for all of the time given, and not one found in use just now", () => {
    assert.strictEqual(retryOf(new Errors.SlotInUse({ slot: "orders", activePid: 7 })), "never")
    assert.strictEqual(retryOf(new Errors.SlotInUse({ slot: "orders" })), "always")
  })

  it("never retries bytes that are not understood, nor what the program's names lead to", () => {
    assert.strictEqual(retryOf(new Errors.DecodeError({ problem: "p", offset: 0 })), "never")
    assert.strictEqual(retryOf(new Errors.SlotNotFound({ slot: "orders" })), "never")
    assert.strictEqual(retryOf(new Errors.ConnectionError({ reason: "Tls", detail: "expired" })), "never")
    assert.strictEqual(retryOf(new Errors.ConnectionError({ reason: "Closed", detail: "ended" })), "always")
  })
})

describe("Attempts", () => {
  const poison = answer("54000", "Streaming")
  const lost = new Errors.ConnectionError({ reason: "Reset", detail: "broke" })

  it("ends at the third failure at one position, whatever else fails in between", () => {
    const attempts = new Attempts()
    assert.isTrue(attempts.next(poison, Fake.lsn("0/100")))
    assert.isTrue(attempts.next(lost, Fake.lsn("0/100")))
    assert.isTrue(attempts.next(poison, Fake.lsn("0/100")))
    assert.isTrue(attempts.next(lost, Fake.lsn("0/100")))
    assert.isFalse(attempts.next(poison, Fake.lsn("0/100")))
  })

  it("begins anew once the stream has got on", () => {
    const attempts = new Attempts()
    for (let round = 0; round < 10; round++) assert.isTrue(attempts.next(poison, BigInt(round) as Lsn.Lsn))
  })

  it("tells the position with what is given up there, and with nothing else", () => {
    const located = locate(poison, Fake.lsn("0/100"))
    assert(located._tag === "ServerError")
    assert.strictEqual(located.lsn, Fake.lsn("0/100"))
    assert.include(located.message, "behind LSN 0/100")
    const missing = answer("3D000", "Connect")
    assert.strictEqual(locate(missing, Fake.lsn("0/100")), missing)
  })
})

describe("patience with a silent walsender", () => {
  const silent = new Errors.WalReceiverTimeout({ receiverTimeout: 30_000 })
  const lost = new Errors.ConnectionError({ reason: "Reset", detail: "broke" })

  it("[N13] doubles with each verdict at one position, whatever else fails in between, until it moves", () => {
    const attempts = new Attempts()
    assert.strictEqual(attempts.patience, 1)
    for (const [error, at, patience, count] of [
      [silent, "0/100", 2, 1],
      [silent, "0/100", 4, 2],
      [lost, "0/100", 4, 3],
      [silent, "0/100", 8, 4],
      [silent, "0/130", 2, 1],
      [lost, "0/200", 1, 1]
    ] as const) {
      assert.isTrue(attempts.next(error, Fake.lsn(at)))
      assert.strictEqual(attempts.patience, patience)
      assert.strictEqual(attempts.count, count)
    }
  })

  it("[N13] is loud after three attempts, and after twice as many each time", () => {
    const loud = Array.from({ length: 100 }, (_, index) => index + 1).filter(isLoud)
    assert.deepStrictEqual(loud, [3, 6, 12, 24, 48, 96])
  })
})

describe("a stream that reconnects", () => {
  it.effect("[D3, D4] tries what cannot be sent three times at one place, then fails with it and the place", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      const fiber = yield* withLogicalStream(options, (change) => Effect.succeed(nextLsn(change))).pipe(
        Effect.provide(fake.layer),
        Effect.flip,
        Effect.forkChild
      )
      for (let attempt = 0; attempt < 3; attempt++) {
        const server = yield* fake.accept
        if (attempt === 0) yield* server.say(Fake.relation(), Fake.transaction("0/100", "0/130", 1))
        yield* server.say(errorResponse("54000"))
        yield* settle
        yield* TestClock.adjust("1 second")
      }
      const error = yield* Fiber.join(fiber)
      assert.deepInclude(error, { _tag: "ServerError", sqlState: "54000", lsn: Fake.lsn("0/130") })
      assert.strictEqual(fake.connections.length, 3)
      assert.isTrue(fake.connections.every((connection) => connection.isClosed))
    })
  )

  it.effect("[X2] does not ask again for what was taken from its role", () =>
    Effect.gen(function* () {
      const denied = answer("42501", "Connect")
      const fake = yield* Fake.make((attempt) => (attempt === 0 ? {} : denied))
      const fiber = yield* withLogicalStream(options, () => Effect.succeed(undefined)).pipe(
        Effect.provide(fake.layer),
        Effect.flip,
        Effect.forkChild
      )
      const server = yield* fake.accept
      yield* server.drop
      yield* settle
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "PermissionDenied")
      assert.strictEqual(fake.connections.length, 1)
    })
  )

  it.effect("[N10] has one connection at a time, though the network flaps", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      yield* withLogicalStream(options, () => Effect.succeed(undefined)).pipe(
        Effect.provide(fake.layer),
        Effect.forkChild
      )
      for (let round = 0; round < 50; round++) {
        const server = yield* fake.accept
        assert.strictEqual(fake.connections.filter((connection) => !connection.isClosed).length, 1)
        yield* settle
        yield* TestClock.adjust("2 seconds")
        yield* server.drop
        yield* settle
        assert.isTrue(server.isClosed)
        yield* TestClock.adjust("12 seconds")
      }
      assert.isAtMost(fake.connections.length, 51)
    })
  )

  it.effect("waits from the beginning again once a connection has streamed for half a minute, and counts on", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      const { run, state } = yield* make(options)
      yield* run(() => Effect.succeed(undefined)).pipe(Effect.provide(fake.layer), Effect.forkChild)
      const attemptAfter = Effect.fnUntraced(function* (streamed: `${number} seconds`) {
        const server = yield* fake.accept
        yield* settle
        yield* TestClock.adjust(streamed)
        yield* server.drop
        yield* settle
        const now = yield* SubscriptionRef.get(state)
        yield* TestClock.adjust("12 seconds")
        return now._tag === "Reconnecting" ? now.attempt : now._tag
      })
      // Twelve seconds of streaming pass each time before the next is looked at.
      assert.strictEqual(yield* attemptAfter("1 seconds"), 1)
      assert.strictEqual(yield* attemptAfter("1 seconds"), 2)
      assert.strictEqual(yield* attemptAfter("1 seconds"), 3)
      assert.strictEqual(yield* attemptAfter("31 seconds"), "Streaming", "connected again without a pause")
      // No time makes up for a position that has not moved.
      assert.strictEqual(yield* attemptAfter("1 seconds"), 5)
    })
  )

  it.effect("[N13] says aloud what is tried at one position again and again, in log and metric, until it gets on", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const logger = Logger.make(({ logLevel, message }) => void lines.push(`${logLevel} ${String(message)}`))
      const attempts = Metric.value(Metrics.attempts).pipe(
        Effect.map(({ value }) => value),
        Effect.provideService(Metric.CurrentMetricAttributes, { slot: options.slot })
      )
      const fake = yield* Fake.make()
      yield* withLogicalStream(options, (change) => Effect.succeed(nextLsn(change))).pipe(
        Effect.provide([fake.layer, Logger.layer([logger])]),
        Effect.forkChild
      )
      for (let round = 1; round <= 12; round++) {
        const server = yield* fake.accept
        yield* settle
        yield* TestClock.adjust("40 seconds")
        yield* server.drop
        yield* settle
        assert.strictEqual(yield* attempts, round)
      }
      const loud = lines.filter((line) => line.startsWith("Error"))
      assert.deepStrictEqual(
        loud.map((line) => /(\d+) attempts at LSN 0\/0 .* ConnectionError: the server closed/.exec(line)?.[1]),
        ["3", "6", "12"]
      )
      const server = yield* fake.accept
      yield* server.say(Fake.relation(), Fake.transaction("0/100", "0/130", 1))
      yield* settle
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* attempts, 0)
      yield* server.drop
      yield* settle
      assert.strictEqual(yield* attempts, 1)
    })
  )

  it.effect("[N1, N2] tells every change of its state, with cause and attempt", () =>
    Effect.gen(function* () {
      const refused = new Errors.ConnectionError({ reason: "Refused", detail: "nobody listens" })
      const fake = yield* Fake.make((attempt) => (attempt === 1 ? refused : {}))
      const reconnect = Schedule.spaced("1 second")
      const { run, state } = yield* make({ ...options, reconnect })
      const states: Array<StreamState> = []
      yield* Effect.forkChild(
        Stream.runForEach(SubscriptionRef.changes(state), (now) => Effect.sync(() => states.push(now))),
        { startImmediately: true }
      )
      const fiber = yield* run(() => Effect.succeed(undefined)).pipe(Effect.provide(fake.layer), Effect.forkChild)
      const first = yield* fake.accept
      yield* settle
      yield* first.drop
      yield* settle
      yield* TestClock.adjust("1 second")
      yield* settle
      yield* TestClock.adjust("1 second")
      yield* fake.accept
      yield* settle
      yield* Fiber.interrupt(fiber)
      yield* settle
      assert.deepStrictEqual(
        states.map((now) => (now._tag === "Reconnecting" ? [now._tag, now.attempt, now.cause.message] : now._tag)),
        [
          "Idle",
          "Connecting",
          "Streaming",
          ["Reconnecting", 1, "the server closed the connection"],
          ["Reconnecting", 2, "nobody listens"],
          "Streaming",
          "Stopped"
        ]
      )
    })
  )
})
