/**
 * Leaves out of the stream what the rows of a resumed copy have already.
 *
 * The stream begins at the slot's consistent point, but a table that was copied under a later snapshot holds all that this
 * snapshot sees. PostgreSQL says exactly which transactions that is, so exactly their changes of that table are left out:
 * none is applied twice, and none is lost, also for a table without a key. Pure; there is none for a copy in one go.
 */
import type { Begin, Change, Truncate } from "../change/Change.ts"
import type * as Lsn from "../Lsn.ts"
import { isVisible, type TransactionSnapshot } from "../snapshot/TransactionSnapshot.ts"
import { type SnapshotCheckpoint, snapshotAt, wholeAsOf } from "./CopyCheckpoint.ts"

export class SeamFilter {
  /** By OID of the table, as the stream names it. */
  private readonly asOf: ReadonlyMap<number, TransactionSnapshot>
  /** Everything that its tables hold was committed before, on that timeline. */
  readonly seam: Lsn.Lsn
  readonly timeline: number | undefined
  private begin: Begin | undefined
  private isBeyond = false
  private readonly verdicts = new Map<TransactionSnapshot, boolean>()

  private constructor(asOf: ReadonlyMap<number, TransactionSnapshot>, { seam, timeline }: SnapshotCheckpoint) {
    this.asOf = asOf
    this.seam = seam
    this.timeline = timeline
  }

  /** The filter for the stream after this copy; `undefined` where all of it is as of the slot's own snapshot. */
  static make(checkpoint: SnapshotCheckpoint): SeamFilter | undefined {
    const snapshots = checkpoint.snapshots.map((_, index) => snapshotAt(checkpoint, index))
    const asOf = new Map<number, TransactionSnapshot>()
    for (const table of checkpoint.tables) {
      const index = table.goneAt ?? wholeAsOf(table) ?? 0
      if (index > 0) asOf.set(table.oid, snapshots[index]!)
    }
    return asOf.size === 0 ? undefined : new SeamFilter(asOf, checkpoint)
  }

  /** The change, what is left of it, or `undefined` for nothing. */
  keep(change: Change): Change | undefined {
    switch (change._tag) {
      case "Insert":
      case "Update":
      case "Delete":
      case "RelationChanged":
        return this.isContained(change.begin, change.relation.oid) ? undefined : change
      case "Truncate":
        return this.keepTruncate(change)
      default:
        return change
    }
  }

  /** What is left of many. */
  keepAll(changes: ReadonlyArray<Change>): ReadonlyArray<Change> {
    return changes.flatMap((change) => this.keep(change) ?? [])
  }

  private keepTruncate(change: Truncate): Truncate | undefined {
    const relations = change.relations.filter(({ oid }) => !this.isContained(change.begin, oid))
    if (relations.length === change.relations.length) return change
    return relations.length === 0 ? undefined : { ...change, relations }
  }

  /** Asked once a transaction and snapshot: a transaction may have millions of changes. */
  private isContained(begin: Begin, oid: number): boolean {
    if (this.begin !== begin) {
      this.begin = begin
      this.verdicts.clear()
      // Each snapshot was taken before this position, so what commits from there on is in none.
      this.isBeyond = begin.commitLsn >= this.seam
    }
    if (this.isBeyond) return false
    const snapshot = this.asOf.get(oid)
    if (snapshot === undefined) return false
    let verdict = this.verdicts.get(snapshot)
    if (verdict === undefined) {
      verdict = isVisible(snapshot, begin.xid)
      this.verdicts.set(snapshot, verdict)
    }
    return verdict
  }
}
