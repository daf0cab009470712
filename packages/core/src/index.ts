/** The public surface of `@replicant/core`. What drivers and plugins are written with is in `driver.ts`. */
export * from "./change/Change.ts"
export { changeId } from "./change/ChangeId.ts"
export type * as InProgress from "./change/InProgress.ts"
export { NextLsn } from "./change/NextLsn.ts"
export * as Relation from "./change/Relation.ts"
export type { Transaction } from "./change/Transaction.ts"
// By themselves, so that a declaration file of yours can name what an inferred type holds.
export { CheckpointError } from "./checkpoint/CheckpointService.ts"
export * as CheckpointStore from "./checkpoint/CheckpointStore.ts"
export * as DeadLetters from "./handling/DeadLetters.ts"
export * as Handler from "./handling/Handler.ts"
export { isReplicationError } from "./isReplicationError.ts"
export * as Table from "./keeping/Table.ts"
export * as Lsn from "./Lsn.ts"
export * as SlotLease from "./lease/SlotLease.ts"
export * as PgTimestamp from "./PgTimestamp.ts"
export * as Pgoutput from "./pgoutput/Pgoutput.ts"
export {
  AuthenticationFailed,
  ConnectionError,
  DecodeError,
  InvalidOption,
  LogicalDecodingDisabled,
  PermissionDenied,
  PublicationMismatch,
  PublicationNotFound,
  type ReplicationError,
  ServerError,
  SlotAheadOfCheckpoint,
  SlotAlreadyExists,
  SlotCreationBlocked,
  SlotInUse,
  SlotInvalidated,
  SlotMismatch,
  SlotNotFound,
  SpillFailed,
  StandbyBehind,
  SystemMismatch,
  TransactionTooLarge,
  UnsupportedByServer,
  WalReceiverTimeout
} from "./ReplicationError.ts"
export * as TransactionSpill from "./replication/TransactionSpill.ts"
export * as Publication from "./server/Publication.ts"
export * as ReplicationSlot from "./server/ReplicationSlot.ts"
export * as Tables from "./server/Tables.ts"
export { WalSender } from "./server/WalSender.ts"
export { isSnapshotChange } from "./snapshot/SnapshotChange.ts"
export { SnapshotDisturbed, SnapshotLocked } from "./snapshot/SnapshotError.ts"
export * as LogicalStream from "./stream/LogicalStream.ts"
export { withLogicalStream } from "./stream/LogicalStream.ts"
export * as Outbox from "./stream/Outbox.ts"
export * as Replication from "./stream/Replication.ts"
export * as Snapshot from "./stream/Snapshot.ts"
export * as TransactionContext from "./stream/TransactionContext.ts"
export * as TypeDecoder from "./values/TypeDecoder.ts"
export * as Wal2Json from "./wal2json/Wal2Json.ts"
