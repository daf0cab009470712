/** The public module `Snapshot`: what is there, then what changes. */

export type { RateLimit } from "../copying/RateLimit.ts"
export type { ChunkOptions } from "../rereading/ChunkPace.ts"
export { make as makeControl, type SnapshotControl } from "../rereading/Control.ts"
export type { SnapshotRequest, SnapshotRequestOptions, SnapshotRequestProgress } from "../rereading/Request.ts"
export * from "../rereading/RequestError.ts"
export type * from "../snapshot/SnapshotChange.ts"
export * from "../snapshot/SnapshotError.ts"
export {
  makeProgress,
  type ProgressRef,
  type SnapshotProgress,
  type TableProgress
} from "../snapshot/SnapshotProgress.ts"
export type * from "../snapshot/TableSnapshotChange.ts"
export {
  layer,
  make,
  type SnapshotMark,
  SnapshotReplication,
  type SnapshotReplicationOptions,
  type SnapshotReplicationProgress
} from "./SnapshotReplication.ts"
export {
  type Ended,
  type SnapshotMode,
  type SnapshotStreamOptions,
  withSnapshotStream,
  withSnapshotStreamArray
} from "./SnapshotStream.ts"
export * from "./TypedSnapshot.ts"
