/**
 * What a snapshot delivers, before the changes that follow it: where it stands, the rows that were there, and its ends.
 * Plain objects with a `_tag`; they own what they hold and may be kept.
 */
import type { Change, OldRow, Row } from "../change/Change.ts"
import type { Relation } from "../change/Relation.ts"
import type * as Lsn from "../Lsn.ts"
import type { TableSnapshot, TableSnapshotChange } from "./TableSnapshotChange.ts"

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
  /** Only where checkpoints are kept: what a consumer stores that keeps them itself. Of no use yet but to be replaced. */
  readonly checkpoint?: string | undefined
}

/** A table of a snapshot that goes on. */
export interface ResumedTable extends SnapshotTable {
  /**
   * `complete`: all of its rows are there. `partial`: some are; the others come, and also those that have changed since.
   * `pending`: none that can be relied on; `SnapshotTableRestarted` follows, and all of its rows.
   */
  readonly state: "complete" | "partial" | "pending"
}

/**
 * A snapshot goes on where an earlier run or connection left it, instead of beginning anew. What is stored stays, but for
 * the tables that `SnapshotTableRestarted` names.
 *
 * Rows may come that are there already: store them by key, so that the new one takes the place of the old.
 */
export interface SnapshotResumed {
  readonly _tag: "SnapshotResumed"
  /** As in `SnapshotStarted`, counting both: 1 where an earlier process had begun. */
  readonly attempt: number
  /** Where the stream begins. Rows that come from now on are newer, and what they hold already is not streamed again. */
  readonly consistentPoint: Lsn.Lsn
  readonly tables: ReadonlyArray<ResumedTable>
  /** Tables that were begun and are no longer published: dropped, renamed, or taken out. What is stored of them is void. */
  readonly unpublished: ReadonlyArray<{ readonly schema: string; readonly name: string }>
  /** The plan of this run, to be stored before anything is thrown away for it. */
  readonly checkpoint: string
}

/** How a run begins. */
export type SnapshotBeginning = SnapshotStarted | SnapshotResumed

/** What is stored of this one table is void, and all of its rows are still to come. Comes after `SnapshotResumed`. */
export interface SnapshotTableRestarted {
  readonly _tag: "SnapshotTableRestarted"
  readonly snapshot: SnapshotResumed
  readonly relation: Relation
}

/**
 * A row that may be stored and is gone, or has another key: delete what has this key, if anything has. Comes after
 * `SnapshotResumed`, for tables that are `partial`, before any row. If one of that key is there again, it comes as a row.
 */
export interface SnapshotRowDeleted {
  readonly _tag: "SnapshotRowDeleted"
  readonly snapshot: SnapshotResumed
  readonly relation: Relation
  readonly old: OldRow
}

/**
 * A row that was there at the seam. Rows come in no order, and those of several tables by turns. Of a table that is read
 * anew while the stream goes on: a row as it is at this place of the stream.
 */
export interface SnapshotRow {
  readonly _tag: "SnapshotRow"
  readonly snapshot: SnapshotBeginning | TableSnapshot
  /** As an `Insert` of the stream has it; under `publish_via_partition_root` that of the root. */
  readonly relation: Relation
  /** The published columns, each with the value that the stream would give it. */
  readonly row: Row
}

/**
 * Only where checkpoints are kept: some pages of a table have been handed over. When the handler has ended this one,
 * everything before it must be durable: it is then recorded, and a later run does not bring it again.
 */
export interface SnapshotRangeCompleted {
  readonly _tag: "SnapshotRangeCompleted"
  readonly snapshot: SnapshotBeginning
  /** Whose rows were the last. Those of other tables before them are recorded as well. */
  readonly relation: Relation
  /** What will be saved: the same text, for a consumer that stores it together with its rows. */
  readonly checkpoint: string
}

/** Every row of a table has been handed over. `rows` and `bytes` are those of this run. */
export interface SnapshotTableCompleted {
  readonly _tag: "SnapshotTableCompleted"
  readonly snapshot: SnapshotBeginning
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
  readonly snapshot: SnapshotBeginning
  readonly rows: number
  readonly bytes: number
  /** As in `SnapshotRangeCompleted`; `undefined` where no checkpoints are kept. */
  readonly checkpoint?: string | undefined
}

/** Everything of a snapshot. Those from `SnapshotResumed` to `SnapshotRangeCompleted` come only where checkpoints are kept. */
export type SnapshotChange =
  | SnapshotStarted
  | SnapshotResumed
  | SnapshotTableRestarted
  | SnapshotRowDeleted
  | SnapshotRangeCompleted
  | SnapshotRow
  | SnapshotTableCompleted
  | SnapshotCompleted

/** What a stream that begins with a snapshot delivers: first the one kind, then the other, and tables read anew among it. */
export type ChangeAfterSnapshot = SnapshotChange | TableSnapshotChange | Change

/** Every kind of it: one that is added is missed here by the compiler. */
const tags: Readonly<Record<(SnapshotChange | TableSnapshotChange)["_tag"], true>> = {
  SnapshotStarted: true,
  SnapshotResumed: true,
  SnapshotTableRestarted: true,
  SnapshotRowDeleted: true,
  SnapshotRangeCompleted: true,
  SnapshotRow: true,
  SnapshotTableCompleted: true,
  SnapshotCompleted: true,
  TableSnapshotStarted: true,
  TableSnapshotResumed: true,
  TableSnapshotCompleted: true
}

/**
 * Whether it is of a snapshot, be it the first or a table that is read anew; else it is a `Change` of the stream. Typed rows
 * are told as well.
 *
 * @example
 * const handler = (change: Snapshot.ChangeAfterSnapshot) => (isSnapshotChange(change) ? stage(change) : store(change))
 */
export const isSnapshotChange = <C extends { readonly _tag: string }>(
  change: C
): change is Extract<C, { readonly _tag: keyof typeof tags }> => Object.hasOwn(tags, change._tag)
