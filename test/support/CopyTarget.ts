/**
 * What a consumer makes of a snapshot that may be interrupted: tables in memory, with a part of them that is durable. A
 * crash loses what is not, or keeps it, as a database may.
 *
 * It is strict: from `SnapshotCompleted` on an insert meets no row of its key, an update and a delete meet one. Transactions
 * that are streamed again are passed over by their commit's position, as any consumer can.
 */
import { type Change, Lsn, nextLsn, type Relation, type Row, type Snapshot } from "@replicant/core"
import { rowText } from "./FollowSnapshot.ts"

/** By key, or by their own text where there is none; and how often. */
type Rows = Map<string, { readonly row: Row; readonly count: number }>

interface State {
  readonly tables: Map<string, Rows>
  lastCommit: Lsn.Lsn
  isComplete: boolean
}

const copyOf = ({ isComplete, lastCommit, tables }: State): State => ({
  tables: new Map(Array.from(tables, ([name, rows]) => [name, new Map(rows)])),
  lastCommit,
  isComplete
})

const sorted = (row: Row): Row =>
  Object.fromEntries(Object.entries(row).sort(([self], [that]) => (self < that ? -1 : 1)))

export class CopyTarget {
  private state: State = { tables: new Map(), lastCommit: Lsn.zero, isComplete: false }
  private durable: State = copyOf(this.state)
  /** Of the transaction that is being streamed: it is applied as a whole, by its commit. */
  private changes: Array<Change> = []
  /** Rows that `SnapshotRow` brought, of all runs; and those of them that were durable and the same already. */
  rowsCopied = 0
  rowsRepeated = 0
  /** What went against what is promised. */
  readonly problems: Array<string> = []

  private keyOf(relation: Relation.Relation, row: Row): string {
    const isWhole = relation.replicaIdentity === "full" || !relation.columns.some(({ isKey }) => isKey)
    const entries = Object.entries(sorted(row)).filter(
      ([name]) => isWhole || relation.columns.some((column) => column.isKey && column.name === name)
    )
    return rowText(Object.fromEntries(entries))
  }

  private rowsOf({ name }: { readonly name: string }): Rows {
    const rows = this.state.tables.get(name) ?? new Map()
    this.state.tables.set(name, rows)
    return rows
  }

  private isKeyed(relation: Relation.Relation): boolean {
    return relation.replicaIdentity !== "full" && relation.columns.some(({ isKey }) => isKey)
  }

  private add(relation: Relation.Relation, row: Row): void {
    const rows = this.rowsOf(relation)
    const key = this.keyOf(relation, row)
    const count = this.isKeyed(relation) ? 0 : (rows.get(key)?.count ?? 0)
    rows.set(key, { row: sorted(row), count: count + 1 })
  }

  private take(relation: Relation.Relation, row: Row): Row | undefined {
    const rows = this.rowsOf(relation)
    const key = this.keyOf(relation, row)
    const found = rows.get(key)
    if (found === undefined) return undefined
    if (found.count > 1) rows.set(key, { ...found, count: found.count - 1 })
    else rows.delete(key)
    return found.row
  }

  private problem(what: string, relation: Relation.Relation, row: Row): void {
    this.problems.push(`${what} ${relation.name} ${rowText(row).slice(0, 100)}`)
  }

  private applyTransaction(commitLsn: Lsn.Lsn): void {
    const { changes } = this
    this.changes = []
    if (commitLsn <= this.state.lastCommit) return
    for (const change of changes) this.applyChange(change)
    this.state.lastCommit = commitLsn
  }

  private applyChange(change: Change): void {
    switch (change._tag) {
      case "Insert": {
        const { relation, row } = change
        if (this.isKeyed(relation) && this.rowsOf(relation).has(this.keyOf(relation, row))) {
          this.problem("inserted twice", relation, row)
        }
        this.add(relation, row)
        break
      }
      case "Update": {
        const before = this.take(change.relation, change.old?.row ?? change.row)
        if (before === undefined) this.problem("nothing to update", change.relation, change.row)
        const kept = Object.fromEntries(change.unchanged.map((name) => [name, before?.[name]]))
        this.add(change.relation, { ...kept, ...change.row })
        break
      }
      case "Delete":
        if (this.take(change.relation, change.old.row) === undefined) {
          this.problem("nothing to delete", change.relation, change.old.row)
        }
        break
      case "Truncate":
        for (const relation of change.relations) this.rowsOf(relation).clear()
        break
      default:
    }
  }

  apply(change: Snapshot.ChangeAfterSnapshot) {
    switch (change._tag) {
      case "SnapshotStarted":
        this.state = { tables: new Map(), lastCommit: Lsn.zero, isComplete: false }
        break
      case "SnapshotResumed":
        for (const { name } of change.unpublished) this.state.tables.delete(name)
        break
      case "SnapshotTableRestarted":
        this.rowsOf(change.relation).clear()
        break
      case "SnapshotRowDeleted":
        this.take(change.relation, change.old.row)
        break
      case "SnapshotRow": {
        this.rowsCopied++
        const stored = this.durable.tables.get(change.relation.name)?.get(this.keyOf(change.relation, change.row))
        if (stored !== undefined && rowText(stored.row) === rowText(sorted(change.row))) this.rowsRepeated++
        this.add(change.relation, change.row)
        break
      }
      case "SnapshotRangeCompleted":
        this.commit()
        break
      case "SnapshotCompleted":
        this.state.isComplete = true
        this.commit()
        break
      case "SnapshotTableCompleted":
      case "TableSnapshotStarted":
      case "TableSnapshotResumed":
      case "TableSnapshotCompleted":
        break
      case "Begin":
        // What came of it before a connection was lost comes again.
        this.changes = []
        break
      case "Commit":
        this.applyTransaction(change.commitLsn)
        break
      default:
        this.changes.push(change)
    }
    return nextLsn(change)
  }

  /** Everything is durable from here on. */
  commit(): void {
    this.durable = copyOf(this.state)
  }

  /** The process is gone. `keep` is what a database may do with rows that nobody waited for. */
  crash(keep: "all" | "durable"): void {
    this.changes = []
    if (this.state.isComplete) return
    if (keep === "all") this.commit()
    this.state = copyOf(this.durable)
  }

  /** The rows of a table as sorted text, duplicates included. */
  rows(name: string): ReadonlyArray<string> {
    return Array.from(this.state.tables.get(name)?.values() ?? [])
      .flatMap(({ count, row }) => Array.from({ length: count }, () => rowText(row)))
      .sort()
  }

  get isComplete(): boolean {
    return this.state.isComplete
  }
}
