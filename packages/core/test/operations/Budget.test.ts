/** A budget's level, by what was seen and for how long. */
import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { type BudgetHistory, type BudgetOptions, next, unseen, WalBudget } from "../../src/operations/Budget.ts"
import { describe as inWords } from "../../src/operations/BudgetText.ts"
import type { WalSample } from "../../src/operations/WalForecast.ts"
import { mega, over, sample } from "./samples.ts"

const historyOf = (samples: ReadonlyArray<WalSample>, options?: BudgetOptions): BudgetHistory =>
  samples.reduce<BudgetHistory | undefined>((history, each) => next(history, "orders", each, options), undefined)!

const budgetOf = (samples: ReadonlyArray<WalSample>, options?: BudgetOptions) => historyOf(samples, options).budget

const growing = (safeBytes: number) =>
  over(
    120,
    (second) => ({ end: second }),
    () => ({ safeBytes })
  )

describe("a budget", () => {
  it("says what is kept, what may be, and how fast that goes", () => {
    const limits = { safeBytes: 7200 * mega, limitBytes: 7400 * mega, freeBytes: 72_000 * mega }
    assert.deepStrictEqual(
      budgetOf(
        over(
          120,
          (second) => ({ end: second }),
          () => limits
        )
      ),
      {
        slot: "orders",
        walStatus: "reserved",
        retainedBytes: 120 * mega,
        ...limits,
        writtenPerSecond: mega,
        growthPerSecond: mega,
        millisUntilLost: 7_200_000,
        millisUntilDiskFull: 72_000_000,
        unseenMillis: 0,
        level: "warning",
        reasons: ["TimeUntilLost"]
      }
    )
  })

  it("of four hours is a warning and of one is critical, unless thresholds say otherwise", () => {
    assert.strictEqual(budgetOf(growing(14_500 * mega)).level, "ok")
    assert.strictEqual(budgetOf(growing(14_300 * mega)).level, "warning")
    assert.strictEqual(budgetOf(growing(3500 * mega)).level, "critical")
    const later = { warning: { timeLeft: "10 minutes" }, critical: { timeLeft: "1 minute" } } as const
    assert.strictEqual(budgetOf(growing(3500 * mega), later).level, "ok")
    assert.strictEqual(budgetOf(growing(500 * mega), later).level, "warning")
  })

  it("is judged by bytes where that is asked, from the first sample on", () => {
    const one = [sample({ seconds: 0, end: 100 }, { safeBytes: 50 * mega })]
    assert.strictEqual(budgetOf(one).level, "ok")
    const retained = budgetOf(one, { warning: { retainedBytes: 100 * mega } })
    assert.deepStrictEqual([retained.level, retained.reasons], ["warning", ["RetainedBytes"]])
    const safe = budgetOf(one, { critical: { safeBytes: 50 * mega }, warning: { retainedBytes: 1 } })
    assert.deepStrictEqual([safe.level, safe.reasons], ["critical", ["SafeBytes"]])
    assert.strictEqual(
      inWords(safe),
      "slot orders keeps 100 MB of WAL: only 50 MB may be written until it is in danger"
    )
  })

  it("is critical once WAL that is needed may be removed", () => {
    const { level, reasons } = budgetOf([sample({ seconds: 0, end: 1 }, { walStatus: "unreserved", safeBytes: -1 })])
    assert.deepStrictEqual([level, reasons], ["critical", ["Unreserved", "TimeUntilLost"]])
  })

  it("of a slot that was given up is lost, and keeps nothing", () => {
    for (const lost of [{ walStatus: "lost" }, { walStatus: undefined, invalidationReason: "idle_timeout" }]) {
      const { level, reasons, retainedBytes } = budgetOf([sample({ seconds: 0, end: 9 }, lost)])
      assert.deepStrictEqual([level, reasons, retainedBytes], ["lost", ["Lost"], undefined])
    }
  })

  it("leaves a level only once it has been better for five minutes", () => {
    const worse = historyOf(growing(3500 * mega))
    const well = (seconds: number) => sample({ seconds, end: 120, restart: 120 }, { safeBytes: 9e12 })
    const soon = [130, 200, 300, 410].reduce((history, seconds) => next(history, "orders", well(seconds)), worse)
    assert.strictEqual(soon.budget.level, "critical")
    assert.strictEqual(next(soon, "orders", well(430)).budget.level, "ok")
  })

  it("of a slot that is made in place of a lost one begins anew", () => {
    const lost = historyOf([sample({ seconds: 0, end: 9 }, { walStatus: "lost" })])
    assert.strictEqual(next(lost, "orders", sample({ seconds: 10, end: 9, restart: 9 })).budget.level, "ok")
  })

  it("that nobody can look at any more is a warning after a minute, and never well", () => {
    const well = historyOf([sample({ seconds: 0, end: 9 })])
    assert.strictEqual(unseen(well, 60_000).budget.level, "ok")
    const { budget } = unseen(well, 61_000)
    assert.deepStrictEqual([budget.level, budget.reasons, budget.unseenMillis], ["warning", ["Unseen"], 61_000])
    assert.strictEqual(inWords(budget), "slot orders keeps 9 MB of WAL: it could not be looked at for 61 s")
    assert.strictEqual(unseen(historyOf(growing(3500 * mega)), 999_000).budget.level, "critical")
  })

  it("is JSON in which null is what is not known, and comes back from it", () => {
    const budget = budgetOf([sample({ seconds: 0, end: 9 })])
    const json = JSON.stringify(Schema.encodeSync(WalBudget)(budget))
    assert.include(json, '"safeBytes":null')
    assert.deepStrictEqual(Schema.decodeUnknownSync(WalBudget)(JSON.parse(json)), budget)
  })
})
