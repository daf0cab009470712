/**
 * Which part of a stream a command shows: up to `--limit` changes, up to `--until-lsn`. It ends between transactions
 * only, since PostgreSQL confirms whole ones: so nothing that was printed comes again, and every run gets on. A snapshot
 * that the stream goes on from is one of them.
 */
import { Lsn, type NextLsn, nextLsn, type Snapshot } from "@replicant/core"

export interface WindowOptions {
  /** Ends with the transaction in which this many changes are reached. */
  readonly limit?: number | undefined
  /** Shows what was committed before this position. */
  readonly untilLsn?: Lsn.Lsn | undefined
  /** There is a snapshot and no more: nothing resumes after it, so it may end at any row. */
  readonly isSnapshotOnly?: boolean | undefined
}

type Change = Snapshot.ChangeAfterSnapshot

/** What of one read is to be shown. */
export interface Shown {
  readonly changes: ReadonlyArray<Change>
  /** Acknowledges what is shown with this read, as far as its transactions are whole. */
  readonly nextLsn: NextLsn | undefined
  /** Nothing that comes later is shown. */
  readonly isFinished: boolean
}

/** Whether it stands around the changes of a transaction that is committed, or the rows of some pages: shown with `--boundaries` only. */
export const isFrame = (change: Change): boolean => {
  switch (change._tag) {
    case "Begin":
    case "Commit":
    case "Origin":
    case "RelationChanged":
    case "SnapshotRangeCompleted":
      return true
    default:
      return false
  }
}

/** Whether it is one of the changes that `--limit` counts. What became of a prepared transaction is none. */
export const isCounted = (change: Change): boolean => {
  switch (change._tag) {
    case "Prepare":
    case "CommitPrepared":
    case "RollbackPrepared":
    case "Gap":
    case "SnapshotStarted":
    case "SnapshotResumed":
    case "SnapshotTableRestarted":
    case "TableSnapshotStarted":
    case "TableSnapshotResumed":
    case "TableSnapshotCompleted":
    case "SnapshotTableCompleted":
    case "SnapshotCompleted":
      return false
    default:
      return !isFrame(change)
  }
}

/** Where a unit ends that is never cut: a transaction, or a snapshot, which is whole or nothing. */
const unitEnd = (change: Change): Lsn.Lsn | undefined =>
  change._tag === "SnapshotCompleted" ? change.snapshot.consistentPoint : nextLsn(change)?.lsn

export class StreamWindow {
  private readonly limit: number
  private readonly untilLsn: Lsn.Lsn
  private readonly isSnapshotOnly: boolean
  /** Changes of transactions that are whole, and of the one under way. */
  private counted = 0
  private open = 0
  private isFinished = false

  constructor({ isSnapshotOnly = false, limit, untilLsn }: WindowOptions) {
    this.isSnapshotOnly = isSnapshotOnly
    this.limit = limit ?? Number.POSITIVE_INFINITY
    this.untilLsn = untilLsn ?? Lsn.maxValue
  }

  /** Whether the window ends before this change. */
  private isBeyond(change: Change): boolean {
    if (change._tag === "Begin") return change.commitLsn >= this.untilLsn
    return change._tag === "Message" && change.nextLsn !== undefined && change.lsn > this.untilLsn
  }

  /** The part of the next changes that lies within the window. */
  take(changes: ReadonlyArray<Change>): Shown {
    const shown: Array<Change> = []
    let last: NextLsn | undefined
    for (const change of changes) {
      this.isFinished ||= this.isBeyond(change)
      if (this.isFinished) break
      // What was seen of a transaction that never ended came from a connection that broke: it comes again, whole.
      if (change._tag === "Begin" || change._tag === "SnapshotStarted") this.open = 0
      if (isCounted(change)) this.open++
      shown.push(change)
      if (this.isSnapshotOnly) this.isFinished = this.open >= this.limit
      const end = unitEnd(change)
      if (end === undefined) continue
      last = nextLsn(change) ?? last
      this.counted += this.open
      this.open = 0
      this.isFinished ||= this.counted >= this.limit || end >= this.untilLsn
    }
    return { changes: shown, nextLsn: last, isFinished: this.isFinished }
  }
}
