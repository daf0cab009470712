/** The watch over a connection, on a clock of its own: when it asks, and what it makes of the answer. */
import { assert, describe, it } from "@effect/vitest"
import type { ConnectionError } from "@replicant/core"
import { Duration, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { type Standing, watchAnswers } from "../../src/pg/AnswerWatch.ts"

/** A connection on which an answer is due from the beginning. */
const make = Effect.fnUntraced(function* (standing: () => Standing, limit = 10_000) {
  const state = { isWaiting: true, moved: 0, asked: 0 }
  let failure: ConnectionError | undefined
  const fiber = yield* watchAnswers(
    {
      address: "db:5432",
      isWaiting: () => state.isWaiting,
      moved: () => `${state.moved}`,
      askStanding: Effect.sync(() => {
        state.asked++
        return standing()
      }),
      giveUp: (error) => {
        failure = error
      }
    },
    limit
  ).pipe(Effect.forkChild({ startImmediately: true }))
  const pass = (seconds: number) =>
    Effect.forEach(Array.from({ length: seconds }), () => TestClock.adjust(Duration.seconds(1)), { discard: true })
  return { state, failure: () => failure, pass, fiber }
})

describe("watchAnswers", () => {
  for (const standing of ["Waiting", "Gone", "Unreachable"] as const) {
    it.effect(`[N14] gives a connection up whose server is ${standing}, after the limit and not before`, () =>
      Effect.gen(function* () {
        const { failure, fiber, pass, state } = yield* make(() => standing)
        yield* pass(10)
        assert.strictEqual(state.asked, 0)
        yield* pass(2)
        assert.strictEqual(state.asked, 1)
        assert.strictEqual(failure()?.reason, "TimedOut")
        assert.match(failure()?.message ?? "", /db:5432: no answer for 1\d{4} ms/)
        yield* Fiber.join(fiber)
      })
    )
  }

  it.effect("[N14] waits for a server at work, however long, and asks again after as long a silence", () =>
    Effect.gen(function* () {
      let standing: Standing = "Working"
      const { failure, pass, state } = yield* make(() => standing)
      yield* pass(3600)
      assert.strictEqual(failure(), undefined)
      assert.isAtLeast(state.asked, 350)
      standing = "Waiting"
      yield* pass(11)
      assert.strictEqual(failure()?.reason, "TimedOut")
    })
  )

  it.effect("[N14] has more patience with a server that is there and would not tell, but not for ever", () =>
    Effect.gen(function* () {
      const { failure, pass } = yield* make(() => "Unknown")
      yield* pass(95)
      assert.strictEqual(failure(), undefined)
      yield* pass(10)
      assert.strictEqual(failure()?.reason, "TimedOut")
    })
  )

  it.effect("[N14] asks nobody while bytes come, or while no answer is due", () =>
    Effect.gen(function* () {
      const { pass, state } = yield* make(() => "Waiting")
      for (let round = 0; round < 20; round++) {
        yield* pass(9)
        state.moved++
      }
      state.isWaiting = false
      yield* pass(100)
      assert.strictEqual(state.asked, 0)
    })
  )

  it.effect("[N14] takes an answer that came while it asked", () =>
    Effect.gen(function* () {
      const { failure, pass, state } = yield* make(() => {
        state.moved++
        return "Waiting"
      })
      yield* pass(60)
      assert.isAtLeast(state.asked, 2)
      assert.strictEqual(failure(), undefined)
    })
  )

  it.live("[C10, N14] does not take our own absence for the server's silence", () =>
    Effect.gen(function* () {
      const { failure, state } = yield* make(() => "Waiting", 3000)
      // Blocks this thread, as a long collection of garbage does, or a laptop's lid.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 4000)
      yield* Effect.sleep(200)
      assert.deepStrictEqual([state.asked, failure()], [0, undefined])
    })
  )
})
