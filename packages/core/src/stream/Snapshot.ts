/** The public module `Snapshot`: what is there, before what changes, in names without its own. */
export type { ChunkOptions } from "../rereading/ChunkPace.ts"
export type {
  SnapshotRequest as Request,
  SnapshotRequestOptions as RequestOptions,
  SnapshotRequestProgress as RequestProgress
} from "../rereading/Request.ts"
export type { SnapshotRequestError as RequestError } from "../rereading/RequestError.ts"
export {
  SnapshotBlocked as Blocked,
  SnapshotCancelled as Cancelled,
  SnapshotRefused as Refused
} from "../rereading/RequestError.ts"
export type {
  ChangeAfterSnapshot,
  ResumedTable,
  SnapshotBeginning as Beginning,
  SnapshotChange as Change,
  SnapshotCompleted as Completed,
  SnapshotRangeCompleted as RangeCompleted,
  SnapshotResumed as Resumed,
  SnapshotRow as Row,
  SnapshotRowDeleted as RowDeleted,
  SnapshotStarted as Started,
  SnapshotTable as Table,
  SnapshotTableCompleted as TableCompleted,
  SnapshotTableRestarted as TableRestarted
} from "../snapshot/SnapshotChange.ts"
export {
  isSnapshotError as isError,
  SnapshotDisturbed as Disturbed,
  type SnapshotError as Error,
  SnapshotLocked as Locked
} from "../snapshot/SnapshotError.ts"
export type {
  TableSnapshot as OneTable,
  TableSnapshotChange as OneTableChange,
  TableSnapshotCompleted as OneTableCompleted,
  TableSnapshotResumed as OneTableResumed,
  TableSnapshotStarted as OneTableStarted
} from "../snapshot/TableSnapshotChange.ts"
export type { SnapshotMark as Mark } from "./Delivery.ts"
export type { SnapshotMode as Mode } from "./LogicalStreamOptions.ts"
