import { assert, describe, it } from "@effect/vitest"
import type { Health } from "@replicant/core/operations"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"
import { CopyHealth } from "../../src/copy/CopyHealth.ts"

const well: Health.Health = { status: "ok", since: 5, reasons: [] }
const stuck: Health.Health = {
  status: "degraded",
  since: 7,
  reasons: [{ code: "HandlerStuck", status: "degraded", since: 7, says: "the handler has not ended what it was given" }]
}

const of = (health: Health.Health) => ({ health: Effect.succeed(health), observe: Effect.never })

const made = Effect.map(Clock.Clock, (clock) => new CopyHealth(clock))
const pass = (seconds: number) => TestClock.adjust(`${seconds} seconds`)

const told = ({ health }: CopyHealth) =>
  Effect.map(health, ({ reasons, status }) => [status, ...reasons.map(({ code }) => code)])

describe("the health of a copy", () => {
  it.effect("is its stream's while that runs", () =>
    Effect.gen(function* () {
      const copy = yield* made
      copy.enters("Running")
      copy.begins()
      assert.deepStrictEqual(yield* copy.during(of(well), copy.health), well)
      assert.deepStrictEqual(yield* copy.during(of(stuck), copy.health), stuck)
    })
  )

  it.effect("is never ok without a stream, and failing when that has lasted", () =>
    Effect.gen(function* () {
      const copy = yield* made
      assert.deepStrictEqual(yield* told(copy), ["degraded", "NotRun"])
      copy.enters("Running")
      copy.begins()
      yield* pass(10)
      assert.deepStrictEqual(yield* told(copy), ["degraded", "NotStreaming"])
      yield* copy.during(of(well), pass(100))
      copy.fails("TargetLost: the target went away")
      yield* pass(59)
      assert.deepStrictEqual(yield* told(copy), ["degraded", "NotStreaming"])
      yield* pass(1)
      const { reasons, since } = yield* copy.health
      assert.deepStrictEqual(yield* told(copy), ["failing", "NotStreaming"])
      assert.strictEqual(since, (yield* Clock.currentTimeMillis) - 60_000)
      assert.include(reasons[0]?.says, "TargetLost: the target went away")
      copy.enters("Stopped")
      assert.deepStrictEqual(yield* told(copy), ["failing", "Stopped"])
    })
  )

  it.effect("is not that of a stream which is well, where one attempt after the other fails", () =>
    Effect.gen(function* () {
      const copy = yield* made
      copy.enters("Running")
      for (let attempt = 1; attempt <= 10; attempt++) {
        copy.begins()
        yield* pass(1)
        assert.deepStrictEqual(copy.fails("TargetFailed: no"), { hasGotOn: false, attempt })
        if (attempt !== 3 && attempt !== 10) continue
        copy.begins()
        const during = copy.during(of(well), told(copy))
        assert.deepStrictEqual(yield* during, [attempt === 3 ? "degraded" : "failing", "NotGettingOn"])
      }
      yield* pass(30)
      assert.deepStrictEqual(yield* copy.during(of(well), told(copy)), ["ok"])
      assert.deepStrictEqual(copy.fails("TargetFailed: no"), { hasGotOn: true, attempt: 1 })
    })
  )
})
