/**
 * How a stream is doing while it streams: how much, how fast, how far behind, and as one line. Read from core's metrics, which
 * cost nothing per change.
 */
import { Lsn } from "@replicant/core"
import { Metrics } from "@replicant/core/operations"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import { formatBytes, formatCount, plural } from "./Table.ts"

export interface Status {
  readonly changes: number
  readonly transactions: number
  /** Over the last seconds. */
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

/** What a stream has come to so far: its owner goes on counting here. */
export interface Totals {
  readonly changes: number
  readonly transactions: number
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

/** Over how many milliseconds the rate is taken, so that it does not flicker. */
const rateWindow = 2000

const nanosPerMilli = 1_000_000

/** Reads the status of a stream, each time anew. */
export const statusReader = Effect.fnUntraced(function* (
  slot: string,
  totals: Totals
): Effect.fn.Return<Effect.Effect<Status>> {
  const millis = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos) / nanosPerMilli)
  const samples = [{ at: yield* millis, changes: totals.changes }]
  const sample = (at: number): number => {
    const now = { at, changes: totals.changes }
    samples.push(now)
    while (samples.length > 2 && at - samples[1]!.at >= rateWindow) samples.shift()
    const first = samples[0]!
    return at === first.at ? 0 : ((now.changes - first.changes) * 1000) / (at - first.at)
  }
  return Effect.zipWith(millis, read(slot), (at, { flushed, lagSeconds, received }) => ({
    ...totals,
    changesPerSecond: sample(at),
    lagBytes: received.value > flushed.value ? received.value - flushed.value : 0n,
    lagMillis: lagSeconds.value * 1000,
    acknowledged: Lsn.make(flushed.value) ?? Lsn.zero
  }))
})
