/** How far a snapshot is: metrics for who watches many, and a reference for who shows one. Nothing here costs per row. */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { Relation } from "../change/Relation.ts"

/** Rows read from tables, whether or not their snapshot was completed. */
export const rows = Metric.counter("replicant_snapshot_rows_total", {
  description: "Rows read by snapshots",
  incremental: true
})

/** Bytes of these rows, as the server sent them. */
export const bytes = Metric.counter("replicant_snapshot_bytes_total", {
  description: "Bytes of rows read by snapshots",
  incremental: true
})

/** One table under way. */
export interface TableProgress {
  readonly relation: Relation
  /** Read so far; the handler may be some thousand behind. */
  readonly rows: number
  readonly bytes: number
  /** The planner's estimate, before any row filter. */
  readonly estimatedRows: number | undefined
  readonly isDone: boolean
  /** Rows a second, smoothed over some seconds, of a table under way; `undefined` before and after. */
  readonly rowsPerSecond?: number | undefined
  /** How long it will take at that rate, by the estimate; `undefined` when there is none, or it was exceeded. */
  readonly remaining?: Duration.Duration | undefined
}

/** The whole of it. */
export interface SnapshotProgress {
  /** `waiting` before the first attempt, `streaming` once the slot is permanent or was there already. */
  readonly phase: "waiting" | "copying" | "completed" | "streaming"
  readonly attempt: number
  readonly tables: ReadonlyArray<TableProgress>
  /** Rows a second of all tables together, smoothed over some seconds, while copying. */
  readonly rowsPerSecond?: number | undefined
  /** How long the rest will take at that rate; `undefined` while a table without an estimate is left. */
  readonly remaining?: Duration.Duration | undefined
}

/** To be watched with `SubscriptionRef.changes`, and given to the stream as its `progress`. */
export type ProgressRef = SubscriptionRef.SubscriptionRef<SnapshotProgress>

/**
 * A place for a snapshot to tell how far it is.
 *
 * @example
 * const progress = yield* Snapshot.makeProgress
 * yield* SubscriptionRef.changes(progress).pipe(Stream.runForEach(show), Effect.forkScoped)
 * yield* Snapshot.withSnapshotStream({ ...options, progress }, handler)
 */
export const makeProgress: Effect.Effect<ProgressRef> = SubscriptionRef.make<SnapshotProgress>({
  phase: "waiting",
  attempt: 0,
  tables: []
})

/** Changes it, where there is one. */
export const updateProgress = (
  progress: ProgressRef | undefined,
  change: (current: SnapshotProgress) => SnapshotProgress
): Effect.Effect<void> => (progress === undefined ? Effect.void : SubscriptionRef.update(progress, change))
