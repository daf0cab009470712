/**
 * What happened, in PostgreSQL's words. Plain objects with a `_tag`, in commit order, each inside its `Begin` … `Commit`.
 *
 * They own what they hold and may be kept; they are shared between consumers and must not be changed.
 */
import type * as Lsn from "../Lsn.ts"
import type { PgTimestamp } from "../PgTimestamp.ts"
import type { NextLsn } from "./NextLsn.ts"
import type { Relation } from "./Relation.ts"
import type { StreamCommit, StreamPrepare } from "./StreamedEnd.ts"

/** Column values by name. A column that was not sent is absent, never null; a null is SQL's NULL. */
export interface Row {
  readonly [column: string]: unknown
}

/**
 * Opens a transaction. Every change of it points here.
 *
 * With a `gid` the transaction is being prepared and not committed: `Prepare` closes it, `commitLsn` and `commitTime` are
 * its PREPARE's, and what becomes of it is told by a later `CommitPrepared` or `RollbackPrepared`. Such transactions come
 * only to who asks for them, with pgoutput's `twoPhase`.
 */
export interface Begin {
  readonly _tag: "Begin"
  readonly xid: number
  /** The commit record of this transaction: its place in commit order. Not what is acknowledged. */
  readonly commitLsn: Lsn.Lsn
  readonly commitTime: PgTimestamp
  /** The name that PREPARE TRANSACTION gave it: unique among those that are prepared at one time. */
  readonly gid?: string | undefined
}

/** Where a change stands: `(begin.commitLsn, ordinal)` names it uniquely, and for ever. See `changeId`. */
interface InTransaction {
  readonly begin: Begin
  /** 0 for the transaction's first change, then 1, 2, … */
  readonly ordinal: number
}

/** A row that came to be. */
export interface Insert extends InTransaction {
  readonly _tag: "Insert"
  readonly relation: Relation
  readonly row: Row
  /** Mostly empty. An update that enters a row filter is sent as an insert, and may leave columns out: see `Update`. */
  readonly unchanged: ReadonlyArray<string>
}

/** The replica identity's columns of the row before, and no others. */
export interface KeyRow {
  readonly _tag: "Key"
  readonly row: Row
}

/** The whole row before, under `REPLICA IDENTITY FULL`. */
export interface FullRow {
  readonly _tag: "Full"
  readonly row: Row
}

/** What the server tells of the row before. */
export type OldRow = KeyRow | FullRow

/** A row that changed. */
export interface Update extends InTransaction {
  readonly _tag: "Update"
  readonly relation: Relation
  /** The row as it is now, without the columns in `unchanged`. */
  readonly row: Row
  /** Columns stored out of line (TOAST) that the update left alone: the server does not send them. Mostly empty. */
  readonly unchanged: ReadonlyArray<string>
  /** `Full` under `REPLICA IDENTITY FULL`; else `Key` when the key changed; else `undefined`. */
  readonly old: OldRow | undefined
}

/** A row that is gone. `old` is what identifies it. */
export interface Delete extends InTransaction {
  readonly _tag: "Delete"
  readonly relation: Relation
  readonly old: OldRow
}

/** One TRUNCATE statement, of one or more relations. */
export interface Truncate extends InTransaction {
  readonly _tag: "Truncate"
  readonly relations: ReadonlyArray<Relation>
  readonly cascade: boolean
  readonly restartIdentity: boolean
}

/** What `pg_logical_emit_message` wrote. Outside a transaction it stands alone, and may be acknowledged alone. */
export interface Message {
  readonly _tag: "Message"
  readonly transactional: boolean
  /** The transaction it belongs to; `undefined` exactly when it is not transactional. */
  readonly begin: Begin | undefined
  readonly ordinal: number
  /** The end of its WAL record, as `pg_logical_emit_message` returned it. */
  readonly lsn: Lsn.Lsn
  readonly prefix: string
  readonly content: Uint8Array
  /** What acknowledges it; `undefined` exactly when it is transactional: then its `Commit` does. */
  readonly nextLsn: NextLsn | undefined
}

/** The transaction was replayed here from elsewhere (`pg_replication_origin_session_setup`). Follows `Begin`. */
export interface Origin extends InTransaction {
  readonly _tag: "Origin"
  readonly name: string
  /** The commit on the origin server. */
  readonly originLsn: Lsn.Lsn
}

/**
 * A relation is described anew, otherwise than before on this stream. Precedes the first change that has the new shape,
 * and bears its ordinal: it takes none of its own, since whether it is sent depends on where the stream began.
 */
export interface RelationChanged extends InTransaction {
  readonly _tag: "RelationChanged"
  readonly before: Relation
  readonly relation: Relation
}

/** Closes a transaction. */
export interface Commit {
  readonly _tag: "Commit"
  readonly begin: Begin
  readonly commitLsn: Lsn.Lsn
  /** The byte after the commit record, where the next record may begin: what an acknowledgement reports. */
  readonly endLsn: Lsn.Lsn
  /** Acknowledges the transaction. */
  readonly nextLsn: NextLsn
}

/**
 * Closes a transaction that was prepared (PREPARE TRANSACTION). It is not committed, and may never be. Acknowledge it
 * once its changes are stored where they can wait: the server sends them no more, only what becomes of them.
 */
export interface Prepare {
  readonly _tag: "Prepare"
  readonly begin: Begin
  readonly gid: string
  /** The PREPARE's record. */
  readonly prepareLsn: Lsn.Lsn
  /** The byte after it: what an acknowledgement reports. */
  readonly endLsn: Lsn.Lsn
  readonly nextLsn: NextLsn
}

/** What was prepared under `gid` is committed now. Stands outside any transaction. */
export interface CommitPrepared {
  readonly _tag: "CommitPrepared"
  readonly xid: number
  readonly gid: string
  readonly commitLsn: Lsn.Lsn
  readonly commitTime: PgTimestamp
  readonly endLsn: Lsn.Lsn
  readonly nextLsn: NextLsn
}

/** What was prepared under `gid` is undone. Stands outside any transaction. */
export interface RollbackPrepared {
  readonly _tag: "RollbackPrepared"
  readonly xid: number
  readonly gid: string
  /** The `endLsn` of the `Prepare` that is undone: a gid may be used again, this position may not. */
  readonly prepareEndLsn: Lsn.Lsn
  readonly prepareTime: PgTimestamp
  readonly rollbackTime: PgTimestamp
  /** The byte after the rollback's record. */
  readonly endLsn: Lsn.Lsn
  readonly nextLsn: NextLsn
}

/** What becomes of prepared transactions. Delivered only with pgoutput's `twoPhase`. */
export type TwoPhaseChange = Prepare | CommitPrepared | RollbackPrepared

/**
 * Here something is missing: the slot was lost, with what it still held, and another is ready in its place. Stands
 * outside any transaction, before all that the new slot brings. Delivered only to who asks for it, by `slotPolicy`:
 * everyone else gets an error.
 *
 * What was committed between `lastLsn` and `consistentPoint` never comes: whoever needs it copies the tables again.
 * Nothing follows until the gap is acknowledged, and until then it comes again with each connection: acknowledge it once
 * your store knows of it. Where you store positions, `consistentPoint` is the next one.
 */
export interface Gap {
  readonly _tag: "Gap"
  readonly slot: string
  /** Why the slot is lost: `missing`, or as in `pg_replication_slots.invalidation_reason` (`unknown` before PostgreSQL 17). */
  readonly reason: string
  /** Everything before it was handled, or confirmed; `undefined` where nobody knows how far the consumer was. */
  readonly lastLsn: Lsn.Lsn | undefined
  /** Every transaction that commits from here on comes. */
  readonly consistentPoint: Lsn.Lsn
  readonly nextLsn: NextLsn
}

/** Everything a stream delivers. */
export type Change =
  | Begin
  | Insert
  | Update
  | Delete
  | Truncate
  | Message
  | Origin
  | RelationChanged
  | Commit
  | TwoPhaseChange
  | Gap

/** The changes that stand between `Begin` and `Commit`. */
export type TransactionChange = Exclude<Change, Begin | Commit | TwoPhaseChange | Gap>

/** What ends a unit of delivery, and so can be acknowledged. */
type Acknowledgeable = Commit | Message | TwoPhaseChange | Gap | StreamCommit | StreamPrepare

/** Told apart by its `_tag`: a `Change`, or a change of a declared table. A `Transaction` is neither. */
type Delivered =
  | { readonly _tag: Acknowledgeable["_tag"]; readonly nextLsn: NextLsn | undefined }
  | { readonly _tag: string; readonly nextLsn?: undefined }

/**
 * What acknowledges `change`: its own for a `Commit`, for a `Message` outside a transaction, for what two-phase commit
 * tells and for a `Gap`; nothing for the rest, as PostgreSQL confirms whole transactions only.
 *
 * @example
 * withLogicalStream(options, (change) => store(change).pipe(Effect.as(nextLsn(change))))
 */
export const nextLsn = (change: Delivered): NextLsn | undefined => {
  switch (change._tag) {
    case "Commit":
    case "Message":
    case "Prepare":
    case "CommitPrepared":
    case "RollbackPrepared":
    case "Gap":
    case "StreamCommit":
    case "StreamPrepare":
      return change.nextLsn
    default:
      return undefined
  }
}
