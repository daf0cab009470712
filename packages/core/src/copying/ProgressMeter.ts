/**
 * How fast tables are copied, and how long they will take at that: what a snapshot tells beside its counts. It is shown the
 * counts and the time now and then, and nothing a row; it has no clock of its own. Times are milliseconds of a clock that
 * never goes back.
 */
import * as Duration from "effect/Duration"
import type { SnapshotProgress, TableProgress } from "../snapshot/SnapshotProgress.ts"

/** Milliseconds over which a rate is smoothed: what came as long ago counts about a third. */
const memory = 5000

/** Rows a second, lately: an average in which the past fades. */
export class RecentRate {
  private rows = 0
  private millis = 0
  private at: number

  constructor(now: number) {
    this.at = now
  }

  /** So many have come since the last time. */
  add(rows: number, now: number): void {
    const passed = now - this.at
    const kept = Math.exp(-passed / memory)
    // They are taken to have come evenly, so of a long time its end counts more than its beginning.
    const weight = passed > 0 ? (memory * (1 - kept)) / passed : 1
    this.rows = this.rows * kept + rows * weight
    this.millis = this.millis * kept + passed * weight
    this.at = now
  }

  /** `undefined` before any time has passed. */
  get perSecond(): number | undefined {
    return this.millis === 0 ? undefined : (1000 * this.rows) / this.millis
  }
}

/** The time for so many rows, where it can be told. Less than a row a minute is nobody's rate. */
const timeFor = (rows: number, perSecond: number | undefined): Duration.Duration | undefined =>
  perSecond === undefined || perSecond < 1 / 60 ? undefined : Duration.millis(Math.round((1000 * rows) / perSecond))

/** Rows still to come, by the estimate; `undefined` when there is none, or it was too low. */
const rowsLeft = ({ estimatedRows, rows }: TableProgress): number | undefined =>
  estimatedRows === undefined || rows > estimatedRows ? undefined : estimatedRows - rows

const remainingOf = (table: TableProgress, perSecond: number | undefined): Duration.Duration | undefined => {
  if (table.isDone) return Duration.zero
  const left = rowsLeft(table)
  return left === undefined ? undefined : timeFor(left, perSecond)
}

/**
 * A table that has outgrown its estimate is taken to be at its end as long as others are left; with one that was never
 * analyzed nothing can be said.
 */
const remainingOfAll = (
  tables: ReadonlyArray<TableProgress>,
  perSecond: number | undefined
): Duration.Duration | undefined => {
  const underWay = tables.filter(({ isDone }) => !isDone)
  if (underWay.length === 0) return Duration.zero
  if (underWay.some(({ estimatedRows }) => estimatedRows === undefined)) return undefined
  const left = underWay.reduce((total, table) => total + (rowsLeft(table) ?? 0), 0)
  return left === 0 ? undefined : timeFor(left, perSecond)
}

/** A table that has had rows, and how many when last seen. */
interface Metered {
  readonly rate: RecentRate
  rows: number
}

/** The rates of one snapshot and of its tables. */
export class ProgressMeter {
  private readonly all: RecentRate
  private readonly metered = new Map<number, Metered>()
  private readonly before: ReadonlyArray<number>
  private rows: number
  private at: number

  /** `tables` are as they stand before any row is read: with rows only where a snapshot is gone on with. */
  constructor(tables: ReadonlyArray<Pick<TableProgress, "rows">>, now: number) {
    this.all = new RecentRate(now)
    this.before = tables.map(({ rows }) => rows)
    this.rows = this.before.reduce((sum, rows) => sum + rows, 0)
    this.at = now
  }

  /** The same tables, in the same order, with what can be said of them now. */
  measure(
    tables: ReadonlyArray<TableProgress>,
    now: number
  ): Pick<SnapshotProgress, "tables" | "rowsPerSecond" | "remaining"> {
    const rows = tables.reduce((sum, table) => sum + table.rows, 0)
    this.all.add(rows - this.rows, now)
    this.rows = rows
    const measured = tables.map((table, index) => this.measureTable(table, index, now))
    this.at = now
    const { perSecond } = this.all
    return { tables: measured, rowsPerSecond: perSecond, remaining: remainingOfAll(tables, perSecond) }
  }

  private measureTable(table: TableProgress, index: number, now: number): TableProgress {
    if (table.isDone) {
      this.metered.delete(index)
      return { ...table, rowsPerSecond: undefined, remaining: Duration.zero }
    }
    let metered = this.metered.get(index)
    if (metered === undefined) {
      const rows = this.before[index] ?? 0
      if (table.rows === rows) return table
      // Its rows have come since the last time that anybody looked.
      metered = { rate: new RecentRate(this.at), rows }
      this.metered.set(index, metered)
    }
    metered.rate.add(table.rows - metered.rows, now)
    metered.rows = table.rows
    const { perSecond } = metered.rate
    return { ...table, rowsPerSecond: perSecond, remaining: remainingOf(table, perSecond) }
  }
}
