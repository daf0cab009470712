/** The public module `Snapshot`: what is there, then what changes. */

export type { RateLimit } from "./RateLimit.ts"
export type * from "./SnapshotChange.ts"
export * from "./SnapshotError.ts"
export {
  makeProgress,
  type ProgressRef,
  type SnapshotProgress,
  type TableProgress
} from "./SnapshotProgress.ts"
export {
  type Ended,
  type SnapshotMode,
  type SnapshotStreamOptions,
  withSnapshotStream,
  withSnapshotStreamArray
} from "./SnapshotStream.ts"
export * from "./TypedSnapshot.ts"
