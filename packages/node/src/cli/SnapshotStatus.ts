/**
 * How a snapshot is doing, as a few lines: all of it, and the tables under way. What is not known is left out: a table that
 * was never analyzed has no estimate, and so no share and no end in sight. Shown by `LiveLine`.
 */
import type { Snapshot } from "@replicant/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as LiveLine from "./LiveLine.ts"
import { formatRate } from "./Status.ts"
import { formatCount, plural } from "./Table.ts"

/** Tables shown at a time: more connections than that are rare. */
const maxTables = 8

/** How often the lines are rewritten, in milliseconds. */
const pace = 250

/**
 * A time to wait, as one would say it.
 *
 * @example
 * formatRemaining(185_000) // => "3 min 5 s"
 */
export const formatRemaining = (millis: number): string => {
  const seconds = Math.ceil(millis / 1000)
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`
  return `${formatCount(Math.floor(seconds / 3600))} h ${Math.floor((seconds % 3600) / 60)} min`
}

/** An estimate may be too low: nothing is whole before it is done. */
const formatShare = (rows: number, estimatedRows: number): string =>
  `${Math.min(99, Math.floor((rows * 100) / Math.max(1, estimatedRows)))} %`

type Volume = Pick<Snapshot.TableProgress, "rows" | "estimatedRows" | "rowsPerSecond" | "remaining">

/** How much, how much of it, how fast, how long still. */
const formatVolume = ({ estimatedRows, remaining, rows, rowsPerSecond }: Volume): string =>
  [
    estimatedRows === undefined
      ? plural(rows, "row")
      : `${formatCount(rows)} of ~${plural(estimatedRows, "row")}, ${formatShare(rows, estimatedRows)}`,
    ...(rowsPerSecond === undefined ? [] : [`${formatRate(rowsPerSecond)}/s`]),
    ...(remaining === undefined ? [] : [`${formatRemaining(Duration.toMillis(remaining))} left`])
  ].join(" | ")

const whole = ({ remaining, rowsPerSecond, tables }: Snapshot.SnapshotProgress): Volume => ({
  rows: tables.reduce((sum, table) => sum + table.rows, 0),
  estimatedRows: tables.reduce<number | undefined>(
    (sum, { estimatedRows, isDone, rows }) =>
      isDone ? (sum ?? 0) + rows : estimatedRows === undefined || sum === undefined ? undefined : sum + estimatedRows,
    0
  ),
  rowsPerSecond,
  remaining
})

const qualifiedName = ({ relation }: Snapshot.TableProgress): string => `${relation.schema}.${relation.name}`

/**
 * The lines: one for all of it, and one for each table that has begun and is not done.
 *
 * @example
 * formatSnapshot(progress)
 * // => ["snapshot | 1 of 2 tables | 1,200 of ~2,400 rows, 50 % | 400/s | 3 s left",
 * //     "  public.orders | 1,000 of ~2,200 rows, 45 % | 400/s | 3 s left"]
 */
export const formatSnapshot = (progress: Snapshot.SnapshotProgress): ReadonlyArray<string> => {
  const { attempt, tables } = progress
  const done = tables.filter(({ isDone }) => isDone).length
  const underWay = tables.filter(({ isDone, rows }) => !isDone && rows > 0)
  const title = attempt > 1 ? `snapshot, attempt ${attempt}` : "snapshot"
  return [
    `${title} | ${formatCount(done)} of ${plural(tables.length, "table")} | ${formatVolume(whole(progress))}`,
    ...underWay.slice(0, maxTables).map((table) => `  ${qualifiedName(table)} | ${formatVolume(table)}`)
  ]
}

/** Shows a snapshot while it copies. Ends when there is no more of it; the lines are taken away with it. */
export const showSnapshot = Effect.fnUntraced(function* (progress: Snapshot.ProgressRef): Effect.fn.Return<void> {
  const line = yield* LiveLine.Standard
  const show = Effect.gen(function* () {
    while (true) {
      const current = yield* SubscriptionRef.get(progress)
      if (current.phase === "streaming") return
      line.show(
        ...(current.phase === "waiting" ? ["snapshot | waiting for locks, slot and view"] : formatSnapshot(current))
      )
      yield* Effect.sleep(pace)
    }
  })
  yield* Effect.ensuring(
    show,
    Effect.sync(() => line.hide())
  )
})
