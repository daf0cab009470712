/** How long a dead peer goes unnoticed: measured on a clock that only the test moves. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Logger, Stream, SubscriptionRef } from "effect"
import { TestClock } from "effect/testing"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import type { ReplicationError } from "../../src/ReplicationError.ts"
import type { SnapshotError } from "../../src/snapshot/SnapshotError.ts"
import { make, type StreamState } from "../../src/stream/LogicalStream.ts"
import * as FakeWalSender from "../support/FakeWalSender.ts"

const options = { slot: "orders", plugin: Pgoutput.make({ publications: ["orders"] }) }

interface Silence {
  readonly overrides?: { readonly receiverTimeout?: number; readonly slot?: string } | undefined
  /** How each connection behaves that is made after the one that falls silent: at first those that ask about it. */
  readonly later?: ((attempt: number) => FakeWalSender.FakeOptions | ReplicationError) | undefined
  readonly walSenderTimeout?: number | undefined
}

const deaf = { isDeaf: true }
const full = FakeWalSender.refusal("53300")

/** A stream whose walsender answers nothing, from its first connection on. */
const silence = Effect.fnUntraced(function* ({ later = () => deaf, overrides, walSenderTimeout }: Silence = {}) {
  const walSender = yield* FakeWalSender.make((attempt) =>
    attempt === 0 ? { ...deaf, walSenderTimeout } : later(attempt)
  )
  const { slot = options.slot, ...timing } = overrides ?? {}
  const { run, state } = yield* make({ ...options, slot, timing })
  const causes: Array<SnapshotError> = []
  const watch = (now: StreamState) => Effect.sync(() => now._tag === "Reconnecting" && causes.push(now.cause))
  yield* Effect.forkChild(Stream.runForEach(SubscriptionRef.changes(state), watch), { startImmediately: true })
  const fiber = yield* run(() => Effect.succeed(undefined)).pipe(Effect.provide(walSender.layer), Effect.forkChild)
  return { walSender, causes, fiber, first: yield* walSender.accept }
})

/** Milliseconds until that connection is given up; at most `limit`. */
const untilClosed = Effect.fnUntraced(function* (connection: FakeWalSender.FakeConnection, limit = 120_000, step = 50) {
  let waited = 0
  while (!connection.isClosed && waited < limit) {
    yield* TestClock.adjust(step)
    waited += step
  }
  return waited
})

/** Milliseconds from the first connection's silence to its end, to the next attempt. */
const detection = Effect.fnUntraced(function* (given: Silence) {
  const { causes, fiber, first, walSender } = yield* silence(given)
  const waited = yield* untilClosed(first)
  const pings = first.statuses.filter((status) => status.replyRequested).length
  let reconnect = 0
  while (walSender.connections.length < 2 && reconnect < 10_000) {
    yield* TestClock.adjust(10)
    reconnect += 10
  }
  yield* Fiber.interrupt(fiber)
  const [cause] = causes
  const walSenderWas = cause?._tag === "WalReceiverTimeout" ? cause.walSender : cause
  return { waited, pings, reconnect, walSenderWas, inquiries: walSender.inquiries() }
})

const working = { standing: { wait_event_type: "IO" } }

describe("liveness", () => {
  it.effect(
    "[N3, N4] drops a silent peer that waits for us within 30 s, after one ping of ours went unanswered, and connects again",
    () =>
      Effect.gen(function* () {
        const { inquiries, pings, reconnect, waited, walSenderWas } = yield* detection({})
        assert.strictEqual(pings, 1)
        assert.isAtMost(waited, 30_500)
        assert.isAtLeast(waited, 30_000)
        assert.strictEqual(walSenderWas, "Waiting")
        assert.strictEqual(inquiries, 1)
        assert.isAtMost(reconnect, 250)
      })
  )

  it.effect("[N3] drops it when the limit that was set is over and the question answered", () =>
    Effect.gen(function* () {
      for (const receiverTimeout of [400, 2000, 10_000]) {
        const { waited } = yield* detection({ overrides: { receiverTimeout } })
        assert.isAtLeast(waited, receiverTimeout)
        assert.isAtMost(waited, receiverTimeout + 500)
      }
    })
  )

  it.effect("[N3] drops at once one that has not got the slot any more", () =>
    Effect.gen(function* () {
      for (const active_pid of [null, "101"]) {
        const found = yield* detection({ later: () => ({ ...deaf, standing: { active_pid } }) })
        assert.isAtMost(found.waited, 30_500)
        assert.strictEqual(found.walSenderWas, "Gone")
      }
    })
  )

  it.effect("[N13] keeps one that is at work for as long as it is, and drops it within the limit afterwards", () =>
    Effect.gen(function* () {
      let isWorking = true
      const { first, walSender } = yield* silence({ later: () => ({ ...deaf, ...(isWorking ? working : {}) }) })
      assert.strictEqual(yield* untilClosed(first, 3_600_000, 2000), 3_600_000, "still there")
      assert.isAtLeast(walSender.inquiries(), 110, "asked every half minute")
      assert.isAtLeast(first.statuses.length, 350, "and reported all along")
      isWorking = false
      assert.isAtMost(yield* untilClosed(first), 31_000)
    })
  )

  it.effect("[V5] gives nobody up while a handler holds the socket back: what was answered is not read", () =>
    Effect.gen(function* () {
      const walSender = yield* FakeWalSender.make(() => deaf)
      const started = yield* Deferred.make<void>()
      const gate = yield* Deferred.make<undefined>()
      yield* Effect.addFinalizer(() => Deferred.succeed(gate, undefined))
      const { run } = yield* make(options)
      yield* run(() => Effect.andThen(Deferred.succeed(started, undefined), Deferred.await(gate))).pipe(
        Effect.provide(walSender.layer),
        Effect.forkChild
      )
      const server = yield* walSender.accept
      yield* server.say(FakeWalSender.relation(), FakeWalSender.transaction("0/100", "0/130", 1))
      yield* Deferred.await(started)
      // One is read ahead; with the next the reader waits for the handler.
      for (const [commit, end] of [
        ["0/200", "0/230"],
        ["0/300", "0/330"]
      ] as const) {
        yield* server.say(FakeWalSender.transaction(commit, end, 2))
        yield* TestClock.adjust("1 second")
      }
      yield* TestClock.adjust("1 hour")
      assert.isFalse(server.isClosed)
      assert.strictEqual(walSender.inquiries(), 0)
      assert.isTrue(server.statuses.every((status) => !status.replyRequested && status.flushed === 0n))
      assert.isAtLeast(server.statuses.length, 350, "and reports all along")
    })
  )

  it.effect("[N13] goes on where the answer came after all, and asks no more", () =>
    Effect.gen(function* () {
      const { first, walSender } = yield* silence({ later: () => ({ ...deaf, ...working }) })
      yield* TestClock.adjust("40 seconds")
      yield* first.say(FakeWalSender.keepAlive("0/0"))
      yield* TestClock.adjust("29 seconds")
      assert.isFalse(first.isClosed)
      assert.strictEqual(walSender.inquiries(), 1)
    })
  )

  it.effect("[N13] says in the log that it waits, louder as it lasts", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const logger = Logger.make(({ logLevel, message }) => void lines.push(`${logLevel} ${String(message)}`))
      yield* Effect.gen(function* () {
        yield* silence({ later: () => ({ ...deaf, ...working }) })
        yield* TestClock.adjust("10 minutes")
      }).pipe(Effect.provide(Logger.layer([logger])))
      const levels = lines.filter((line) => line.includes("is at work")).map((line) => line.split(" ")[0])
      assert.deepStrictEqual(levels, ["Info", "Warn", "Warn", "Warn"])
    })
  )

  it.effect("[N13] by default gives nobody up without proof before all of wal_sender_timeout is over", () =>
    Effect.gen(function* () {
      for (const [walSenderTimeout, limit] of [
        [60_000, 75_000],
        [300_000, 315_000],
        [0, 30_000],
        [1000, 30_000]
      ] as const) {
        const { first, fiber } = yield* silence({ later: () => full, walSenderTimeout })
        const waited = yield* untilClosed(first, 1_000_000, 250)
        yield* Fiber.interrupt(fiber)
        assert.isAtLeast(waited, limit)
        assert.isAtMost(waited, limit + 500, `of ${walSenderTimeout}`)
      }
    })
  )

  it.effect("[N13] does not take another server's word, nor a row that it may not see", () =>
    Effect.gen(function* () {
      for (const standing of [{ server_start: "2" }, { backend_type: null, wait_event_type: null }]) {
        const { fiber, first } = yield* silence({ later: () => ({ ...deaf, standing }) })
        const waited = yield* untilClosed(first)
        yield* Fiber.interrupt(fiber)
        assert.isAtLeast(waited, 75_000)
      }
    })
  )

  it.effect("[N13] gives a question up that is not answered, and with it the walsender", () =>
    Effect.gen(function* () {
      const { fiber, first } = yield* silence({
        overrides: { receiverTimeout: 2000 },
        later: () => ({ ...deaf, isMute: true })
      })
      const waited = yield* untilClosed(first)
      yield* Fiber.interrupt(fiber)
      assert.isAtLeast(waited, 4000)
      assert.isAtMost(waited, 4500)
    })
  )

  it.effect(
    "[N13] waits twice as long after each verdict without proof, an hour at most, until the position moves",
    () =>
      Effect.gen(function* () {
        const { first, walSender } = yield* silence({
          overrides: { receiverTimeout: 600_000 },
          // Whoever asks about a connection is turned away.
          later: (): FakeWalSender.FakeOptions | ReplicationError =>
            walSender.connections.every(({ isClosed }) => isClosed) ? deaf : full
        })
        let current = first
        const verdict = Effect.gen(function* () {
          const waited = yield* untilClosed(current, 10_000_000, 15_000)
          yield* TestClock.adjust("11 seconds")
          current = yield* walSender.accept
          return waited / 1000
        })
        const times: Array<number> = []
        for (let attempt = 0; attempt < 6; attempt++) times.push(yield* verdict)
        for (const [index, expected] of [600, 900, 1500, 2700, 3900, 3900].entries()) {
          assert.approximately(times[index]!, expected, 30)
        }
        yield* current.say(FakeWalSender.keepAlive("0/900"))
        assert.approximately(yield* verdict, 3900, 30)
        assert.approximately(yield* verdict, 900, 30)
      })
  )
})
