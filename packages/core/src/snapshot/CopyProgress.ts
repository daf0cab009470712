/** How far a first copy is, as a value: its metrics are computed from it, but for the counts in `Metrics.ts`. */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type { Relation } from "../change/Relation.ts"

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
export interface CopyProgress {
  /** 1, and one more each time that it has begun anew or was taken up again. */
  readonly attempt: number
  /** Every row is handled, and the slot is permanent. */
  readonly isCompleted: boolean
  readonly tables: ReadonlyArray<TableProgress>
  /** Rows a second of all tables together, smoothed over some seconds. */
  readonly rowsPerSecond?: number | undefined
  /** How long the rest will take at that rate; `undefined` while a table without an estimate is left. */
  readonly remaining?: Duration.Duration | undefined
}

/** Tells how far the copy is, from how far it was. */
export type TellProgress = (change: (current: CopyProgress) => CopyProgress) => Effect.Effect<void>
