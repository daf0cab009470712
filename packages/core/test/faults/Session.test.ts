/**
 * Faults of a session in the middle of things: a connection that ends between any two messages, and a clock that jumps.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import { type Change, nextLsn } from "../../src/change/Change.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as PgTimestamp from "../../src/PgTimestamp.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import * as Handler from "../../src/stream/Handler.ts"
import { withLogicalStream } from "../../src/stream/LogicalStream.ts"
import * as Fake from "../support/FakeWalSender.ts"

const options = { slot: "orders", plugin: Pgoutput.make({ publications: ["orders"] }) }

/** Lets every fiber run as far as it can without time passing. */
const settle = Effect.andThen(
  TestClock.adjust(0),
  Effect.forEach(Array.from({ length: 50 }), () => Effect.yieldNow)
)

/** Two transactions, message by message. */
const messages: ReadonlyArray<Uint8Array> = [
  Fake.relation(),
  Fake.begin("0/100"),
  Fake.insert("0/100", 1),
  Fake.insert("0/110", 2),
  Fake.commit("0/100", "0/130"),
  Fake.begin("0/200"),
  Fake.insert("0/200", 3),
  Fake.commit("0/200", "0/230")
]

describe("a walsender that ends", () => {
  for (let count = 0; count <= messages.length; count++) {
    it.effect(
      `[V1] after ${count} of ${messages.length} messages, and sends the rest again from where we are, loses and doubles nothing`,
      () =>
        Effect.gen(function* () {
          const fake = yield* Fake.make()
          const whole: Array<ReadonlyArray<number>> = []
          yield* withLogicalStream(
            options,
            Handler.transactions(({ changes }) =>
              Effect.sync(() => {
                whole.push(changes.flatMap((change) => (change._tag === "Insert" ? [change.row.id as number] : [])))
              })
            )
          ).pipe(Effect.provide(fake.layer), Effect.forkChild)
          const first = yield* fake.accept
          for (const message of messages.slice(0, count)) yield* first.say(message)
          yield* settle
          yield* first.drop
          yield* settle
          yield* TestClock.adjust("250 millis")
          const second = yield* fake.accept
          // As the server does: whole transactions, from the first whose end lies beyond the position it is given.
          const [, from = "0/0"] = / LOGICAL (\S+)/.exec(second.commands.at(-1) ?? "") ?? []
          const start = Lsn.fromString(from)!
          yield* second.say(Fake.relation())
          if (start < Lsn.fromString("0/130")!) yield* second.say(...messages.slice(1, 5))
          if (start < Lsn.fromString("0/230")!) yield* second.say(...messages.slice(5))
          yield* settle
          assert.deepStrictEqual(whole, [[1, 2], [3]])
        })
    )
  }
})

const day = 24 * 60 * 60 * 1000

/** The test's clock, with a wall clock that somebody sets. */
const jumpingClock = Effect.gen(function* () {
  const clock = yield* Clock.Clock
  let jump = 0
  const jumping: Clock.Clock = {
    currentTimeMillis: Effect.sync(() => jumping.currentTimeMillisUnsafe()),
    currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + jump,
    currentTimeNanos: Effect.sync(() => jumping.currentTimeNanosUnsafe()),
    currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe() + BigInt(jump) * 1_000_000n,
    monotonicTimeNanos: clock.monotonicTimeNanos,
    monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
    sleep: (duration) => clock.sleep(duration)
  }
  return {
    clock: jumping,
    by: (millis: number): Effect.Effect<void> =>
      Effect.sync(() => {
        jump += millis
      })
  }
})

describe("a wall clock that jumps", () => {
  for (const [where, millis] of [
    ["a day ahead", day],
    ["a day back", -day]
  ] as const) {
    it.effect(`[C11] ${where} shifts the time that status updates tell, and nothing else`, () =>
      Effect.gen(function* () {
        const fake = yield* Fake.make(() => ({ walSenderTimeout: 6000 }))
        const jump = yield* jumpingClock
        const changes: Array<Change> = []
        const fiber = yield* withLogicalStream(options, (change) => {
          changes.push(change)
          return Effect.succeed(nextLsn(change))
        }).pipe(Effect.provide(fake.layer), Effect.provideService(Clock.Clock, jump.clock), Effect.forkChild)
        const server = yield* fake.accept
        yield* server.say(Fake.relation(), Fake.transaction("0/100", "0/130", 1))
        yield* settle
        yield* TestClock.adjust("10 seconds")
        yield* settle
        const before = server.statuses.length
        assert.isAtLeast(before, 4, "one every two seconds")
        yield* jump.by(millis)
        yield* settle
        assert.strictEqual(server.statuses.length, before, "no burst")
        yield* TestClock.adjust("10 seconds")
        yield* settle
        const after = server.statuses.length - before
        assert.isAtLeast(after, 4)
        assert.isAtMost(after, 7)
        const sent = server.statuses.map(({ sendTime }) => PgTimestamp.toMillis(sendTime))
        assert.approximately(sent.at(-1)! - sent[before - 1]!, millis + 10_000, 3000)
        yield* server.say(Fake.transaction("0/130", "0/160", 2))
        yield* settle
        assert.lengthOf(changes, 6)
        assert.isFalse(server.isClosed)
        assert.strictEqual(fake.connections.length, 1)
        yield* Fiber.interrupt(fiber)
      })
    )
  }
})
