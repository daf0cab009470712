/** What the two fibers of a stream record of themselves: see `Metrics.ts`. One plain step each, at the grain of a read. */
import type * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Lsn from "../Lsn.ts"
import * as Metrics from "./Metrics.ts"

/** What one read brought. */
export interface ReadMeasures {
  readonly bytes: number
  readonly changes: number
  readonly transactions: number
  readonly received: Lsn.Lsn
  readonly flushed: Lsn.Lsn
  readonly lagMillis: number
}

/** Records one read, in one plain step: there may be thousands a second. */
export const received = (context: Context.Context<never>, read: ReadMeasures): void => {
  Metrics.receivedBytes.updateUnsafe(read.bytes, context)
  if (read.changes > 0) Metrics.changes.updateUnsafe(read.changes, context)
  if (read.transactions > 0) Metrics.transactions.updateUnsafe(read.transactions, context)
  Metrics.receivedLsn.updateUnsafe(read.received, context)
  Metrics.lagBytes.updateUnsafe(read.received > read.flushed ? Lsn.sub(read.received, read.flushed) : 0n, context)
  Metrics.lagSeconds.updateUnsafe(read.lagMillis / 1000, context)
}

/** Records changes of a transaction that was gathered: its bytes were counted as they came. */
export const gathered = (count: number): Effect.Effect<void> => Metric.update(Metrics.changes, count)

/** Records one status update. */
export const reported = (flushed: Lsn.Lsn): Effect.Effect<void> => Metric.update(Metrics.flushedLsn, flushed)
