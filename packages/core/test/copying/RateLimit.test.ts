import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { type RateLimit, RateLimiter, rateLimitProblem } from "../../src/copying/RateLimit.ts"
import { monotonicMillis } from "../../src/MonotonicTime.ts"

const make = (limit: RateLimit) => Effect.map(monotonicMillis, (now) => new RateLimiter(limit, now))

/** Takes portions until it is interrupted, and counts the rows. */
const takeForever = (limiter: RateLimiter, rows: number, bytes = rows) =>
  Effect.gen(function* () {
    const taken = { rows: 0 }
    const fiber = yield* Effect.forever(
      Effect.andThen(
        limiter.take(rows, bytes),
        Effect.sync(() => {
          taken.rows += rows
        })
      )
    ).pipe(Effect.forkChild({ startImmediately: true }))
    return { taken, fiber }
  })

/** In steps, as a clock goes. */
const pass = (millis: number) =>
  Effect.forEach(Array.from({ length: millis / 10 }), () => TestClock.adjust(10), { discard: true })

describe("a rate limit", () => {
  it.effect("lets rows through at its rate, evenly and over all who take them", () =>
    Effect.gen(function* () {
      const limiter = yield* make({ rows: 1000 })
      const first = yield* takeForever(limiter, 50)
      const second = yield* takeForever(limiter, 50)
      let before = 0
      for (let step = 1; step <= 100; step++) {
        yield* TestClock.adjust(100)
        const now = first.taken.rows + second.taken.rows
        // A tenth of a second's rows, give or take a portion; at the start what the slack allows besides.
        assert.isAtMost(now - before, step === 1 ? 300 : 150)
        assert.approximately(now, 100 * step, 200)
        before = now
      }
      assert.approximately(first.taken.rows, second.taken.rows, 50)
    })
  )

  it.effect("counts bytes where these are what is scarce", () =>
    Effect.gen(function* () {
      const { taken } = yield* takeForever(yield* make({ rows: 1000, bytes: 10_000 }), 10, 1000)
      yield* pass(10_000)
      assert.approximately(taken.rows, 1000, 20)
    })
  )

  it.effect("saves nothing up while nobody takes", () =>
    Effect.gen(function* () {
      const limiter = yield* make({ rows: 1000 })
      yield* TestClock.adjust("1 hour")
      const { taken } = yield* takeForever(limiter, 10)
      yield* pass(1000)
      assert.approximately(taken.rows, 1000, 150)
    })
  )

  it.effect("ends with who waits for it", () =>
    Effect.gen(function* () {
      const { fiber, taken } = yield* takeForever(yield* make({ rows: 0.001 }), 1)
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(fiber)
      yield* TestClock.adjust("1 day")
      assert.isAtMost(taken.rows, 1)
    })
  )

  it("hands over portions of a tenth of a second, and of a row at least", () => {
    assert.deepStrictEqual(new RateLimiter({ rows: 1000 }, 0).portion, { rows: 100, bytes: Number.POSITIVE_INFINITY })
    assert.deepStrictEqual(new RateLimiter({ rows: 3, bytes: 5000 }, 0).portion, { rows: 1, bytes: 500 })
  })

  it("is refused when it is none", () => {
    for (const rate of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
      assert.isDefined(rateLimitProblem({ rows: rate }))
      assert.isDefined(rateLimitProblem({ rows: 1, bytes: rate }))
    }
    for (const limit of [{}, { rows: 0.5 }, { bytes: 1e9 }]) assert.isUndefined(rateLimitProblem(limit))
  })
})
