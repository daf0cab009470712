/**
 * How a copy goes on: whether it can, and what of each table is still to be read. Decisions;
 * `ResumableAttempt.ts` carries them out.
 *
 * Under a new snapshot S, a table of which some pages were copied under an older one X wants three things, in this order:
 *
 * 1. What is stored and gone is deleted: every key that a transaction which S sees and X does not has deleted or changed.
 *    The slot still has them. If a row of that key is there again, the third step brings it.
 * 2. The pages that were not copied are.
 * 3. Of the others, the rows that were written since X, which is told by their `xmin`: those that were changed, and those
 *    that came there from a page that was not copied.
 *
 * Then the table is as S sees it, and the stream goes on from there. It takes a key to do so. Where there is none, or the
 * table is not what it was, it is read from its beginning under S.
 */

import * as Lsn from "../Lsn.ts"
import type { ReplicationSlot } from "../server/SlotCatalog.ts"
import { isInvalidated } from "../server/SlotCatalog.ts"
import type { PageRange } from "../snapshot/CopyCommand.ts"
import { endOfTable } from "../snapshot/CopyCommand.ts"
import type { Listing, PublishedTable } from "../snapshot/PublishedTables.ts"
import type { ResumedTable, SnapshotResumed } from "../snapshot/SnapshotChange.ts"
import { format, type TransactionSnapshot } from "../snapshot/TransactionSnapshot.ts"
import {
  type CopiedRange,
  type CopiedTable,
  describe,
  hasCopied,
  type SnapshotCheckpoint,
  snapshotAt,
  wholeAsOf
} from "./CopyCheckpoint.ts"

/** What the next run has to do. */
export type NextStep =
  /** All is handled, and the slot is there. */
  | { readonly _tag: "Stream" }
  /** All is handled, and the slot is to be made from the one that was kept. */
  | { readonly _tag: "Finish" }
  | { readonly _tag: "Resume" }
  /** `lost` says what a copy that was begun cannot be gone on with for. */
  | { readonly _tag: "Begin"; readonly lost?: string | undefined }
  /** Somebody else has made the slot in the middle of the copy. */
  | { readonly _tag: "Refuse" }
  /** The slot is there, of a history that lacks what was copied: a failover to a standby that was behind. */
  | { readonly _tag: "Diverged" }

/** What there is of a copy: its checkpoint, the slot it is for, and the one that is kept meanwhile. */
export interface Remains {
  readonly checkpoint: SnapshotCheckpoint | undefined
  readonly slot: ReplicationSlot | undefined
  readonly workingSlot: ReplicationSlot | undefined
  /** Whether the server's history does not have all that was copied. */
  readonly isDiverged: boolean
}

const whyLost = (
  { consistentPoint }: SnapshotCheckpoint,
  { isDiverged, workingSlot: slot }: Remains
): string | undefined => {
  if (isDiverged) return "rows of it are of a history that the server does not have, after a failover"
  if (slot === undefined) return "its slot is gone"
  if (isInvalidated(slot)) return `its slot was invalidated (${slot.invalidationReason ?? "lost"})`
  return slot.confirmedFlushLsn === consistentPoint ? undefined : "its slot was moved by somebody"
}

/** Decides by what is left of an earlier run. */
export const nextStep = (remains: Remains): NextStep => {
  const { checkpoint, isDiverged, slot } = remains
  if (slot !== undefined) {
    if (checkpoint?.phase === "copying") return { _tag: "Refuse" }
    // Beyond the seam it is the stream's own position that has to hold.
    const isShort = isDiverged && checkpoint !== undefined && (slot.confirmedFlushLsn ?? Lsn.zero) < checkpoint.seam
    return { _tag: isShort ? "Diverged" : "Stream" }
  }
  if (checkpoint === undefined) return { _tag: "Begin" }
  const lost = whyLost(checkpoint, remains)
  if (checkpoint.phase === "completed") return lost === undefined ? { _tag: "Finish" } : { _tag: "Begin", lost }
  if (!hasCopied(checkpoint)) return { _tag: "Begin" }
  return lost === undefined ? { _tag: "Resume" } : { _tag: "Begin", lost }
}

/** What is to be done for one table. */
export interface TablePlan {
  readonly table: PublishedTable
  readonly state: ResumedTable["state"]
  /** What is still to be read, by OID of the part. */
  readonly ranges: ReadonlyMap<number, ReadonlyArray<PageRange>> | undefined
  /** Of a partial table: what was deleted up to this snapshot is deleted in the store already. */
  readonly deletedUpTo: TransactionSnapshot | undefined
}

/** What is to be done under the new snapshot. */
export interface ResumePlan {
  /** With the new snapshot, and without what no longer counts. */
  readonly checkpoint: SnapshotCheckpoint
  readonly tables: ReadonlyArray<TablePlan>
  readonly unpublished: SnapshotResumed["unpublished"]
}

/** Whether a row can be told by its key, and by its place. */
const isMergeable = ({ columns, keyLength, parts, replicaIdentity }: PublishedTable): boolean =>
  (replicaIdentity === "d" || replicaIdentity === "i") &&
  keyLength > 0 &&
  columns.filter(({ isKey }) => isKey).length === keyLength &&
  parts.every(({ isHeap }) => isHeap)

const isUnchanged = (copied: CopiedTable, table: PublishedTable): boolean =>
  copied.goneAt === undefined &&
  copied.description === describe(table) &&
  copied.parts.every(({ fileNode, oid }) => table.parts.some((part) => part.oid === oid && part.fileNode === fileNode))

/** An id as rows bear it. Those of snapshots have 64 bits. */
const rowXid = (xid: bigint): number => Number(BigInt.asUintN(32, xid))

/** What the copied ranges leave, and what was written in them since. */
const missing = (checkpoint: SnapshotCheckpoint, ranges: ReadonlyArray<CopiedRange>): ReadonlyArray<PageRange> => {
  const wanted: Array<PageRange> = []
  let at = 0
  for (const [from, to, snapshot] of ranges) {
    if (from > at) wanted.push({ from: at, to: from })
    wanted.push({ from, to, since: rowXid(snapshotAt(checkpoint, snapshot).xmin) })
    at = to
  }
  if (at < endOfTable) wanted.push({ from: at, to: endOfTable })
  return wanted
}

const planTable = (checkpoint: SnapshotCheckpoint, table: PublishedTable): TablePlan => {
  const copied = checkpoint.tables.find(({ oid }) => oid === table.oid)
  const pending: TablePlan = { table, state: "pending", ranges: undefined, deletedUpTo: undefined }
  if (copied === undefined || !isUnchanged(copied, table)) return pending
  if (copied.parts.length === table.parts.length && wholeAsOf(copied) !== undefined) {
    return { table, state: "complete", ranges: new Map(), deletedUpTo: undefined }
  }
  const snapshots = copied.parts.flatMap(({ ranges }) => ranges.map(([, , snapshot]) => snapshot))
  if (snapshots.length === 0 || !isMergeable(table)) return pending
  return {
    table,
    state: "partial",
    ranges: new Map(copied.parts.map(({ oid, ranges }) => [oid, missing(checkpoint, ranges)])),
    // A range was recorded once all before it was durable, the deletions of its run first of all.
    deletedUpTo: snapshotAt(checkpoint, Math.max(...snapshots))
  }
}

/** Keeps those snapshots that something was copied under, and gives them their new numbers. */
const compact = (checkpoint: SnapshotCheckpoint, next: string): SnapshotCheckpoint => {
  const used = new Set([0])
  for (const { goneAt, parts } of checkpoint.tables) {
    if (goneAt !== undefined) used.add(goneAt)
    for (const { ranges } of parts) for (const [, , snapshot] of ranges) used.add(snapshot)
  }
  const kept = Array.from(used).sort((self, that) => self - that)
  const renumber = (snapshot: number): number => kept.indexOf(snapshot)
  const [first, ...rest] = kept.map((index) => checkpoint.snapshots[index]!)
  return {
    ...checkpoint,
    snapshots: [first!, ...rest, next],
    tables: checkpoint.tables.map((table) => ({
      ...table,
      goneAt: table.goneAt === undefined ? undefined : renumber(table.goneAt),
      parts: table.parts.map((part) => ({
        ...part,
        ranges: part.ranges.map(([from, to, snapshot]) => [from, to, renumber(snapshot)] as const)
      }))
    }))
  }
}

/** The snapshot that is read under now. */
export interface NewSnapshot {
  readonly snapshot: TransactionSnapshot
  /** Taken after it. */
  readonly seam: Lsn.Lsn
}

/** Plans the rest of a copy: `listing` is what is published now, under locks. */
export const planResume = (
  before: SnapshotCheckpoint,
  listing: Listing,
  { seam, snapshot }: NewSnapshot
): ResumePlan => {
  const tables = listing.tables.map((table) => planTable(before, table))
  const isKept = ({ oid }: { readonly oid: number }) =>
    tables.some(({ state, table }) => table.oid === oid && state !== "pending")
  const isListed = (copied: CopiedTable) =>
    listing.tables.some(({ name, schema }) => copied.name === name && copied.schema === schema)
  const gone = before.tables.filter((copied) => !listing.tables.some(({ oid }) => oid === copied.oid))
  const compacted = compact(
    { ...before, tables: before.tables.filter((table) => isKept(table) || gone.includes(table)) },
    format(snapshot)
  )
  const now = compacted.snapshots.length - 1
  return {
    checkpoint: {
      ...compacted,
      seam,
      tables: compacted.tables.map((table) =>
        isKept(table) ? table : { ...table, parts: [], goneAt: table.goneAt ?? now }
      )
    },
    tables,
    unpublished: before.tables
      .filter((copied) => copied.goneAt === undefined && !isKept(copied) && !isListed(copied))
      .map(({ name, schema }) => ({ schema, name }))
  }
}
