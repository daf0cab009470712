/**
 * What a snapshot delivers, before the changes that follow it: where it stands, the rows that were there, and its ends.
 * Plain objects with a `_tag`; they own what they hold and may be kept.
 */
import type { Change, Row } from "../change/Change.ts"
import type { Relation } from "../change/Relation.ts"
import type * as Lsn from "../Lsn.ts"

/** A table that will be copied, under the name and with the columns that the stream sends it. */
export interface SnapshotTable {
  readonly relation: Relation
  /** The planner's estimate (`reltuples`), before any row filter; `undefined` while the table was never analyzed. */
  readonly estimatedRows: number | undefined
}

/**
 * A snapshot begins, with all of its rows still to come. Whatever an earlier one has brought is void: it may lack rows, and
 * hold some that are gone. So what it filled is to be emptied now, also when `attempt` is 1, for the process before this
 * one may have been killed half way.
 */
export interface SnapshotStarted {
  readonly _tag: "SnapshotStarted"
  /** 1, and one more each time this call has to begin anew: the connection was lost, or the server restarted. */
  readonly attempt: number
  /** The seam: rows are as of here, and every transaction that commits from here on is streamed. */
  readonly consistentPoint: Lsn.Lsn
  readonly tables: ReadonlyArray<SnapshotTable>
}

/** A row that was there at the seam. Rows come in no order, and those of several tables by turns. */
export interface SnapshotRow {
  readonly _tag: "SnapshotRow"
  readonly snapshot: SnapshotStarted
  /** As an `Insert` of the stream has it; under `publish_via_partition_root` that of the root. */
  readonly relation: Relation
  /** The published columns, each with the value that the stream would give it. */
  readonly row: Row
}

/** Every row of a table has been handed over. */
export interface SnapshotTableCompleted {
  readonly _tag: "SnapshotTableCompleted"
  readonly snapshot: SnapshotStarted
  readonly relation: Relation
  readonly rows: number
  /** As the server sent them, in COPY's text format. */
  readonly bytes: number
}

/**
 * Every row of every table has been handed over. When the handler has ended this one, all of them must be durable: the
 * slot is then made permanent, and they never come again.
 */
export interface SnapshotCompleted {
  readonly _tag: "SnapshotCompleted"
  readonly snapshot: SnapshotStarted
  readonly rows: number
  readonly bytes: number
}

/** Everything of a snapshot. */
export type SnapshotChange = SnapshotStarted | SnapshotRow | SnapshotTableCompleted | SnapshotCompleted

/** What a stream that begins with a snapshot delivers: first the one kind, then the other. */
export type ChangeAfterSnapshot = SnapshotChange | Change
