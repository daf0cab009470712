import { assert, describe, it } from "@effect/vitest"
import { Lsn, Metrics } from "@replicant/core"
import { Effect, Fiber, Metric } from "effect"
import { TestClock } from "effect/testing"
import * as LiveLine from "../../src/cli/LiveLine.ts"
import { acknowledgedLsn, formatStatus, formatTotals, showStatus } from "../../src/cli/Status.ts"
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
      yield* Metrics.reported(lsn("0/42")).pipe(Effect.provideService(Metric.CurrentMetricAttributes, { slot: "one" }))
      assert.strictEqual(yield* acknowledgedLsn("one"), lsn("0/42"))
      assert.strictEqual(yield* acknowledgedLsn("two"), Lsn.zero)
    })
  )

  it.effect("adds a line every 5 s where there is no terminal", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const line = new LiveLine.LiveLine({ write: (text) => lines.push(text) })
      const fiber = yield* showStatus("three", { changes: 7, transactions: 2 }).pipe(
        Effect.provideService(LiveLine.Standard, line),
        Effect.forkChild({ startImmediately: true })
      )
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.interrupt(fiber)
      assert.lengthOf(lines, 2)
      assert.include(lines[0], "7 changes in 2 transactions")
    })
  )
})
