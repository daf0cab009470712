/** What the fibers of a stream count: see `Metrics.ts`. One plain step each, at the grain of a read. */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Metrics from "./Metrics.ts"

/** What one read brought. */
export interface ReadMeasures {
  readonly bytes: number
  readonly changes: number
  readonly transactions: number
}

/** Records one read, in one plain step: there may be thousands a second. */
export const received = (context: Context.Context<never>, read: ReadMeasures): void => {
  Metrics.receivedBytes.updateUnsafe(read.bytes, context)
  if (read.changes > 0) Metrics.changes.updateUnsafe(read.changes, context)
  if (read.transactions > 0) Metrics.transactions.updateUnsafe(read.transactions, context)
}

/** Records changes of a transaction that was gathered: its bytes were counted as they came. */
export const gathered = (count: number): Effect.Effect<void> => Metric.update(Metrics.changes, count)

/** Records bytes that were moved to a file. */
export const spilled = (bytes: number): Effect.Effect<void> => Metric.update(Metrics.spilledBytes, bytes)

/** Records a failure that another attempt follows, by its tag: of these there are as many as errors are declared. */
export const retried = (error: { readonly _tag: string }): Effect.Effect<void> =>
  Effect.asVoid(Metric.update(Metric.withAttributes(Metrics.retries, { cause: error._tag }), 1))
