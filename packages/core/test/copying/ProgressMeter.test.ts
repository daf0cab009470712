import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import { ProgressMeter, RecentRate } from "../../src/copying/ProgressMeter.ts"
import type { TableProgress } from "../../src/snapshot/CopyProgress.ts"

const relation = { oid: 1, schema: "public", name: "t", replicaIdentity: "default", columns: [] } as const

const table = (rows: number, estimatedRows: number | undefined, isDone = false): TableProgress => ({
  relation,
  rows,
  bytes: 10 * rows,
  estimatedRows,
  isDone
})

const seconds = (duration: Duration.Duration | undefined) =>
  duration === undefined ? undefined : Duration.toSeconds(duration)

describe("a rate", () => {
  it("is the average of a steady flow, from the first moment on", () => {
    const rate = new RecentRate(1000)
    assert.isUndefined(rate.perSecond)
    for (let step = 1; step <= 100; step++) {
      rate.add(25, 1000 + 250 * step)
      assert.approximately(rate.perSecond ?? 0, 100, 1e-9)
    }
  })

  it("follows what changes within some seconds, and not at once", () => {
    const rate = new RecentRate(0)
    for (let at = 100; at <= 20_000; at += 100) rate.add(10, at)
    rate.add(10_000, 20_100)
    assert.isBelow(rate.perSecond ?? 0, 5000)
    for (let at = 20_200; at <= 40_000; at += 100) rate.add(100, at)
    assert.approximately(rate.perSecond ?? 0, 1000, 100)
    rate.add(0, 100_000)
    assert.isBelow(rate.perSecond ?? 0, 1)
  })

  it("does not depend on how often anybody looks", () => {
    const often = new RecentRate(0)
    for (let at = 10; at <= 3000; at += 10) often.add(7, at)
    const once = new RecentRate(0)
    once.add(7 * 300, 3000)
    assert.approximately(often.perSecond ?? 0, once.perSecond ?? 1, 1e-6)
  })

  it("loses nothing that comes while no time passes", () => {
    const rate = new RecentRate(0)
    rate.add(50, 0)
    rate.add(50, 0)
    assert.isUndefined(rate.perSecond)
    rate.add(0, 1000)
    assert.isAbove(rate.perSecond ?? 0, 80)
  })
})

describe("the progress of a snapshot", () => {
  const begin = (...tables: ReadonlyArray<TableProgress>) => new ProgressMeter(tables, 0)

  it("knows nothing before any row, and that nothing is left of nothing", () => {
    const waiting = begin(table(0, 100)).measure([table(0, 100)], 5000)
    assert.strictEqual(waiting.rowsPerSecond, 0)
    assert.isUndefined(waiting.remaining)
    assert.isUndefined(waiting.tables[0]?.rowsPerSecond)
    assert.isUndefined(waiting.tables[0]?.remaining)
    assert.strictEqual(seconds(begin().measure([], 0).remaining), 0)
    const empty = begin(table(0, 0)).measure([table(0, 0, true)], 0)
    assert.strictEqual(seconds(empty.remaining), 0)
    assert.strictEqual(seconds(empty.tables[0]?.remaining), 0)
  })

  it("tells rate and time left, of each table and of all", () => {
    const meter = begin(table(0, 1000), table(0, 5000))
    let { remaining, rowsPerSecond, tables } = meter.measure([table(100, 1000), table(0, 5000)], 1000)
    assert.approximately(rowsPerSecond ?? 0, 100, 1e-9)
    assert.approximately(tables[0]?.rowsPerSecond ?? 0, 100, 1e-9)
    assert.strictEqual(seconds(tables[0]?.remaining), 9)
    assert.isUndefined(tables[1]?.remaining)
    assert.strictEqual(seconds(remaining), 59)
    // The second one's rate is of its own time alone.
    ;({ remaining, rowsPerSecond, tables } = meter.measure([table(1000, 1000, true), table(300, 5000)], 2000))
    assert.isUndefined(tables[0]?.rowsPerSecond)
    assert.strictEqual(seconds(tables[0]?.remaining), 0)
    assert.approximately(tables[1]?.rowsPerSecond ?? 0, 300, 1e-9)
    assert.approximately(seconds(tables[1]?.remaining) ?? 0, 4700 / 300, 0.01)
    assert.approximately(seconds(remaining) ?? 0, 4700 / (rowsPerSecond ?? 0), 0.01)
    const done = meter.measure([table(1000, 1000, true), table(5000, 5000, true)], 3000)
    assert.strictEqual(seconds(done.remaining), 0)
  })

  it("counts no rows that were there before, where a snapshot is gone on with", () => {
    const meter = begin(table(1_000_000, 1_001_000))
    const { rowsPerSecond, tables } = meter.measure([table(1_000_100, 1_001_000)], 1000)
    assert.approximately(rowsPerSecond ?? 0, 100, 1e-9)
    assert.strictEqual(seconds(tables[0]?.remaining), 9)
  })

  it("says nothing of a table without an estimate, and so nothing of the whole", () => {
    const meter = begin(table(0, undefined), table(0, 100))
    const { remaining, tables } = meter.measure([table(10, undefined), table(10, 100)], 1000)
    assert.approximately(tables[0]?.rowsPerSecond ?? 0, 10, 1e-9)
    assert.isUndefined(tables[0]?.remaining)
    assert.strictEqual(seconds(tables[1]?.remaining), 9)
    assert.isUndefined(remaining)
    const later = meter.measure([table(20, undefined, true), table(10, 100)], 2000)
    assert.isDefined(later.remaining)
  })

  it("takes a table that has outgrown its estimate to be at its end while others are left", () => {
    const meter = begin(table(0, 100), table(0, 100))
    const { remaining, tables } = meter.measure([table(150, 100), table(50, 100)], 1000)
    assert.isUndefined(tables[0]?.remaining)
    assert.strictEqual(seconds(remaining), 0.25)
    assert.isUndefined(meter.measure([table(200, 100), table(100, 100, true)], 2000).remaining)
  })

  it("gives no time where the rows have stopped", () => {
    const meter = begin(table(0, 1000))
    meter.measure([table(100, 1000)], 1000)
    const { remaining, tables } = meter.measure([table(100, 1000)], 200_000)
    assert.isUndefined(remaining)
    assert.isUndefined(tables[0]?.remaining)
    assert.isBelow(tables[0]?.rowsPerSecond ?? 1, 0.01)
  })
})
