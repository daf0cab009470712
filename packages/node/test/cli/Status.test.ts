import { assert, describe, it } from "@effect/vitest"
import { Lsn } from "@replicant/core"
import { Metrics } from "@replicant/core/operations"
import { Effect, Metric } from "effect"
import { TestClock } from "effect/testing"
import { acknowledgedLsn, formatStatus, formatTotals, statusReader } from "../../src/cli/Status.ts"
import { lsn } from "../support/Changes.ts"

describe("Status", () => {
  it("is one line for people", () => {
    const status = {
      changes: 12_345,
      transactions: 1,
      changesPerSecond: 1234.5,
      lagBytes: 16_777_216n,
      lagMillis: 3.4,
      acknowledged: lsn("0/1A2B3C8")
    }
    assert.strictEqual(
      formatStatus(status),
      "1,235/s | 12,345 changes in 1 transaction | lag 16 MB, 3 ms | acknowledged 0/1A2B3C8"
    )
    assert.match(
      formatStatus({ ...status, changesPerSecond: 0.5, lagMillis: 3_600_000, acknowledged: Lsn.zero }),
      /^0\.5\/s .* 3,600 s \| acknowledged nothing yet$/
    )
  })

  it("counts one as one", () => {
    assert.strictEqual(formatTotals({ changes: 1, transactions: 0 }), "1 change in 0 transactions")
  })

  it.effect("reads what this slot has acknowledged, and no other's", () =>
    Effect.gen(function* () {
      yield* Metric.update(Metrics.flushedLsn, lsn("0/42")).pipe(
        Effect.provideService(Metric.CurrentMetricAttributes, { slot: "one" })
      )
      assert.strictEqual(yield* acknowledgedLsn("one"), lsn("0/42"))
      assert.strictEqual(yield* acknowledgedLsn("two"), Lsn.zero)
    })
  )

  it.effect("takes the rate over the last seconds, and not over all of it", () =>
    Effect.gen(function* () {
      const totals = { changes: 0, transactions: 0 }
      const status = yield* statusReader("four", totals)
      const rates: Array<number> = []
      for (const changes of [100, 200, 200, 200, 200]) {
        totals.changes = changes
        yield* TestClock.adjust("1 second")
        rates.push(Math.round((yield* status).changesPerSecond))
      }
      assert.deepStrictEqual(rates, [100, 100, 50, 0, 0])
    })
  )
})
