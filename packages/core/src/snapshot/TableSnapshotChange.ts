/**
 * What a table that is read anew delivers, among the changes that go on: where it begins, its rows (`SnapshotRow`), and
 * where it ends. Each chunk of rows stands in a transaction of the stream that holds nothing else, between its `Begin` and
 * its `Commit`: so rows are acknowledged as changes are, and a store that keeps its position with its data keeps both.
 * Docs: docs/resnapshot.md.
 */
import type { Relation } from "../change/Relation.ts"
import type * as Lsn from "../Lsn.ts"

/** What is read, and from where on. */
export interface TableRead {
  /** The request's. */
  readonly id: string
  /** As an `Insert` of the stream has it; under `publish_via_partition_root` that of the root. */
  readonly relation: Relation
  /** The request's condition, in SQL; without one all rows come. */
  readonly where: string | undefined
  /** The commit that it stands in: from here on rows and changes of this table go together. */
  readonly consistentPoint: Lsn.Lsn
  /** The planner's estimate (`reltuples`), of the whole table; `undefined` while it was never analyzed. */
  readonly estimatedRows: number | undefined
}

/**
 * A table is read, from its first row. Without a condition what is stored of it is void: it is to be emptied here, or
 * what is there now and is neither written by a row nor by a change until the end is to be removed at the end. Under a
 * condition nothing is void.
 *
 * From here on a change may be of a row that has not come yet: inserts and updates are to be upserted.
 */
export interface TableSnapshotStarted extends TableRead {
  readonly _tag: "TableSnapshotStarted"
  /** 1, and one more each time that it begins anew: the table was altered, or what was missed is not known. */
  readonly attempt: number
}

/** The reading of a table goes on after a restart, where it stood. Nothing is void. */
export interface TableSnapshotResumed extends TableRead {
  readonly _tag: "TableSnapshotResumed"
  /** Rows of the chunks before, which had been acknowledged. */
  readonly rows: number
}

/** What rows belong to. */
export type TableSnapshot = TableSnapshotStarted | TableSnapshotResumed

/** The table's rows have come: it is, here, what it was on the server when this transaction was committed. */
export interface TableSnapshotCompleted {
  readonly _tag: "TableSnapshotCompleted"
  readonly snapshot: TableSnapshot
  readonly relation: Relation
  /** Handed over, in all. */
  readonly rows: number
  /** As the server sent them, in COPY's text format. */
  readonly bytes: number
}

/** Everything but the rows. */
export type TableSnapshotChange = TableSnapshot | TableSnapshotCompleted
