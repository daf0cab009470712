/**
 * How a stream is doing, as one line: how much, how fast, how far behind. Read from core's metrics, which cost nothing per
 * change, and shown by `LiveLine`.
 */
import { Lsn, Metrics } from "@replicant/core"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as LiveLine from "./LiveLine.ts"
import { formatBytes, formatCount, plural } from "./Table.ts"

export interface Status {
  readonly changes: number
  readonly transactions: number
  /** Over the time since the last status. */
  readonly changesPerSecond: number
  /** WAL received and not confirmed to the server yet. */
  readonly lagBytes: bigint
  /** From the commit of what came last to its arrival. */
  readonly lagMillis: number
  /** What the server has been told is done. */
  readonly acknowledged: Lsn.Lsn
}

export const formatRate = (rate: number): string => (rate >= 100 ? formatCount(rate) : rate.toFixed(1))

const formatMillis = (millis: number): string =>
  millis < 10_000 ? `${formatCount(Math.max(0, millis))} ms` : `${formatCount(millis / 1000)} s`

/** What was seen in all: `345 changes in 67 transactions`. */
export const formatTotals = ({ changes, transactions }: Pick<Status, "changes" | "transactions">): string =>
  `${plural(changes, "change")} in ${plural(transactions, "transaction")}`

/**
 * The line.
 *
 * @example
 * const line = (status: Status) => formatStatus(status)
 * // => "12.4/s | 345 changes in 67 transactions | lag 0 B, 3 ms | acknowledged 0/1A2B3C8"
 */
export const formatStatus = (status: Status): string =>
  [
    `${formatRate(status.changesPerSecond)}/s`,
    formatTotals(status),
    `lag ${formatBytes(status.lagBytes)}, ${formatMillis(status.lagMillis)}`,
    `acknowledged ${status.acknowledged === Lsn.zero ? "nothing yet" : Lsn.format(status.acknowledged)}`
  ].join(" | ")

/** What a stream has shown so far: its owner counts here. */
export interface Totals {
  changes: number
  transactions: number
}

/** The last position reported as flushed on this slot; `0/0` before the first report. */
export const acknowledgedLsn = (slot: string): Effect.Effect<Lsn.Lsn> =>
  Metric.value(Metrics.flushedLsn).pipe(
    Effect.map(({ value }) => Lsn.make(value) ?? Lsn.zero),
    Effect.provideService(Metric.CurrentMetricAttributes, { slot })
  )

const read = (slot: string) =>
  Effect.all({
    received: Metric.value(Metrics.receivedLsn),
    flushed: Metric.value(Metrics.flushedLsn),
    lagSeconds: Metric.value(Metrics.lagSeconds)
  }).pipe(Effect.provideService(Metric.CurrentMetricAttributes, { slot }))

/** How often a terminal's line is rewritten, and how often a line is added where there is no terminal. */
const pace = { terminal: 250, lines: 5000 } as const

/** Over how many milliseconds the rate is taken, so that it does not flicker. */
const rateWindow = 2000

/** Shows the status of a stream until interrupted, and takes the live line away then. */
export const showStatus = Effect.fnUntraced(function* (slot: string, totals: Totals): Effect.fn.Return<never> {
  const line = yield* LiveLine.Standard
  const interval = line.isTerminal ? pace.terminal : pace.lines
  const samples: Array<{ readonly at: number; readonly changes: number }> = []
  const sample = (): number => {
    const now = { at: performance.now(), changes: totals.changes }
    samples.push(now)
    while (samples.length > 2 && now.at - samples[1]!.at >= rateWindow) samples.shift()
    const first = samples[0]!
    return now.at === first.at ? 0 : ((now.changes - first.changes) * 1000) / (now.at - first.at)
  }
  sample()
  return yield* Effect.sleep(interval).pipe(
    Effect.andThen(read(slot)),
    Effect.tap(({ flushed, lagSeconds, received }) =>
      Effect.sync(() =>
        line.show(
          formatStatus({
            ...totals,
            changesPerSecond: sample(),
            lagBytes: received.value > flushed.value ? received.value - flushed.value : 0n,
            lagMillis: lagSeconds.value * 1000,
            acknowledged: Lsn.make(flushed.value) ?? Lsn.zero
          })
        )
      )
    ),
    Effect.forever,
    Effect.ensuring(Effect.sync(() => line.hide()))
  )
})
