/**
 * How a stream or a copy is doing, for people: by its state one line, or while rows are copied a few, for all of it and for the
 * tables under way. What is not known is left out: a table that was never analyzed has no estimate, and so no share and no end
 * in sight. Shown by `LiveLine`.
 */
import type { LogicalStream } from "@replicant/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Copy from "../copy/Copy.ts"
import * as LiveLine from "./LiveLine.ts"
import { formatRate, formatStatus, formatTotals, type Status, statusReader, type Totals } from "./Status.ts"
import { formatCount, plural } from "./Table.ts"

/** Tables shown at a time: more connections than that are rare. */
const maxTables = 8

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

type Volume = Pick<LogicalStream.TableProgress, "rows" | "estimatedRows" | "rowsPerSecond" | "remaining">

/** How much, how much of it, how fast, how long still. */
const formatVolume = ({ estimatedRows, remaining, rows, rowsPerSecond }: Volume): string =>
  [
    estimatedRows === undefined
      ? plural(rows, "row")
      : `${formatCount(rows)} of ~${plural(estimatedRows, "row")}, ${formatShare(rows, estimatedRows)}`,
    ...(rowsPerSecond === undefined ? [] : [`${formatRate(rowsPerSecond)}/s`]),
    ...(remaining === undefined ? [] : [`${formatRemaining(Duration.toMillis(remaining))} left`])
  ].join(" | ")

const whole = ({ remaining, rowsPerSecond, tables }: LogicalStream.CopyProgress): Volume => ({
  rows: tables.reduce((sum, table) => sum + table.rows, 0),
  estimatedRows: tables.reduce<number | undefined>(
    (sum, { estimatedRows, isDone, rows }) =>
      isDone ? (sum ?? 0) + rows : estimatedRows === undefined || sum === undefined ? undefined : sum + estimatedRows,
    0
  ),
  rowsPerSecond,
  remaining
})

const qualifiedName = ({ relation }: LogicalStream.TableProgress): string => `${relation.schema}.${relation.name}`

/**
 * The lines of a first copy: one for all of it, and one for each table that has begun and is not done.
 *
 * @example
 * const lines = (progress: LogicalStream.CopyProgress) => formatCopying(progress)
 * // => ["snapshot | 1 of 2 tables | 1,200 of ~2,400 rows, 50 % | 400/s | 3 s left",
 * //     "  public.orders | 1,000 of ~2,200 rows, 45 % | 400/s | 3 s left"]
 */
export const formatCopying = (progress: LogicalStream.CopyProgress): ReadonlyArray<string> => {
  const { attempt, tables } = progress
  const done = tables.filter(({ isDone }) => isDone).length
  const underWay = tables.filter(({ isDone, rows }) => !isDone && rows > 0)
  const title = attempt > 1 ? `snapshot, attempt ${attempt}` : "snapshot"
  return [
    `${title} | ${formatCount(done)} of ${plural(tables.length, "table")} | ${formatVolume(whole(progress))}`,
    ...underWay.slice(0, maxTables).map((table) => `  ${qualifiedName(table)} | ${formatVolume(table)}`)
  ]
}

/**
 * The lines of any state. What does not stream says so first: how fast it was is of no use then.
 *
 * @example
 * const lines = (...[state, status]: Parameters<typeof formatState>) => formatState(state, status)
 * // => ["reconnecting (2) after ConnectionError | 345 changes in 67 transactions"]
 */
export const formatState = (state: Copy.State, status: Status): ReadonlyArray<string> => {
  const waiting = (what: string) => [`${what} | ${formatTotals(status)}`]
  switch (state._tag) {
    case "Copying":
      return formatCopying(state)
    case "Idle":
    case "Connecting":
      return ["waiting for connection, slot and locks"]
    case "WaitingForSlot":
      return waiting(`waiting for pid ${state.activePid}, which has the slot`)
    case "WaitingForGap":
      return waiting("waiting for a gap to be acknowledged")
    case "Stalled":
      return waiting(`stalled: ${state.reason}`)
    case "Reconnecting":
      return waiting(`reconnecting (${state.attempt}) after ${state.cause._tag}`)
    case "Streaming":
    case "Stopped":
      return [formatStatus(status)]
  }
}

/** Whether it is still before the stream. */
const isBefore = ({ _tag }: Copy.State): boolean => _tag === "Idle" || _tag === "Connecting" || _tag === "Copying"

/** How often a terminal's line is rewritten, and how often a line is added where there is no terminal: milliseconds. */
const pace = { terminal: 250, lines: 5000 } as const

/** What is shown. */
export interface StreamLineOptions {
  readonly slot: string
  /** What it is doing now. */
  readonly state: Effect.Effect<Copy.State>
  readonly totals: Totals
  /** `before`: only what comes before the stream, whose changes show by themselves how it goes. */
  readonly shows: "all" | "before"
}

/** Shows it until interrupted, and takes the live line away then. */
export const showStream = Effect.fnUntraced(function* ({
  shows,
  slot,
  state,
  totals
}: StreamLineOptions): Effect.fn.Return<never> {
  const line = yield* LiveLine.Standard
  const readStatus = yield* statusReader(slot, totals)
  const show = Effect.zipWith(state, readStatus, (now, status) =>
    shows === "all" || isBefore(now) ? line.show(...formatState(now, status)) : line.hide()
  )
  return yield* Effect.sleep(line.isTerminal ? pace.terminal : pace.lines).pipe(
    Effect.andThen(show),
    Effect.forever,
    Effect.ensuring(Effect.sync(() => line.hide()))
  )
})
