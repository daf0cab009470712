/** How a copy is doing, as one line: how many rows of how many and for how long yet, and then how far behind it is. */
import type { Snapshot } from "@replicant/core"
import * as Effect from "effect/Effect"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { CopyTotals } from "../copy/Copy.ts"
import * as LiveLine from "./LiveLine.ts"
import { showStatus } from "./Status.ts"
import { formatCount } from "./Table.ts"

/** How often the line is rewritten, in milliseconds; and over how long the rate is taken, so that it does not flicker. */
const pace = 250
const rateWindow = 3000

const formatSeconds = (seconds: number): string =>
  seconds < 90
    ? `${Math.ceil(seconds)} s`
    : seconds < 5400
      ? `${Math.ceil(seconds / 60)} min`
      : `${(seconds / 3600).toFixed(1)} h`

/**
 * The line of a first copy. The total is the planner's estimate: where that is less than what has come, none is told.
 *
 * @example
 * formatCopying(progress, 120_000) // => "copying 1 of 3 tables | 450,000 of about 900,000 rows | 120,000/s | 4 s left"
 */
export const formatCopying = ({ tables }: Snapshot.SnapshotProgress, rowsPerSecond: number): string => {
  const rows = tables.reduce((sum, table) => sum + table.rows, 0)
  const done = tables.filter(({ isDone }) => isDone).length
  const estimates = tables.map(({ estimatedRows, isDone, rows: read }) => (isDone ? read : estimatedRows))
  const total = estimates.every((estimate) => estimate !== undefined)
    ? estimates.reduce((sum, estimate) => sum + estimate, 0)
    : 0
  const isKnown = total > rows
  return [
    `copying ${done} of ${tables.length} tables`,
    `${formatCount(rows)}${isKnown ? ` of about ${formatCount(total)}` : ""} rows`,
    `${formatCount(rowsPerSecond)}/s`,
    ...(isKnown && rowsPerSecond > 0 ? [`${formatSeconds((total - rows) / rowsPerSecond)} left`] : [])
  ].join(" | ")
}

/** The line of a snapshot for as long as rows are copied. */
const showCopying = Effect.fnUntraced(function* (progress: Snapshot.ProgressRef): Effect.fn.Return<void> {
  const line = yield* LiveLine.Standard
  const samples: Array<{ readonly at: number; readonly rows: number }> = []
  while (true) {
    const current = yield* SubscriptionRef.get(progress)
    if (current.phase === "streaming") return line.hide()
    const now = { at: performance.now(), rows: current.tables.reduce((sum, { rows }) => sum + rows, 0) }
    samples.push(now)
    while (samples.length > 2 && now.at - samples[1]!.at >= rateWindow) samples.shift()
    const first = samples[0]!
    const rate = now.at === first.at ? 0 : ((now.rows - first.rows) * 1000) / (now.at - first.at)
    if (current.phase === "copying") line.show(formatCopying(current, Math.max(0, rate)))
    yield* Effect.sleep(pace)
  }
})

/** Shows all of it on a terminal, until interrupted; elsewhere nothing. */
export const showCopy = Effect.fnUntraced(function* (options: {
  readonly slot: string
  readonly progress: Snapshot.ProgressRef
  readonly totals: CopyTotals
}): Effect.fn.Return<never> {
  const line = yield* LiveLine.Standard
  if (!line.isTerminal) return yield* Effect.never
  return yield* showCopying(options.progress).pipe(
    Effect.andThen(showStatus(options.slot, options.totals)),
    Effect.ensuring(Effect.sync(() => line.hide()))
  )
})
