/** The public module `Snapshot`: what is there, then what changes. */
export type { ChunkOptions } from "./ChunkPace.ts"
export type { RateLimit } from "./RateLimit.ts"
export type * from "./SnapshotChange.ts"
export { make as makeControl, type SnapshotControl } from "./SnapshotControl.ts"
export * from "./SnapshotError.ts"
export {
  makeProgress,
  type ProgressRef,
  type SnapshotProgress,
  type TableProgress
} from "./SnapshotProgress.ts"
export {
  layer,
  make,
  type SnapshotMark,
  SnapshotReplication,
  type SnapshotReplicationOptions,
  type SnapshotReplicationProgress
} from "./SnapshotReplication.ts"
export type { SnapshotRequest, SnapshotRequestOptions, SnapshotRequestProgress } from "./SnapshotRequest.ts"
export * from "./SnapshotRequestError.ts"
export {
  type Ended,
  type SnapshotMode,
  type SnapshotStreamOptions,
  withSnapshotStream,
  withSnapshotStreamArray
} from "./SnapshotStream.ts"
export type * from "./TableSnapshotChange.ts"
export * from "./TypedSnapshot.ts"
