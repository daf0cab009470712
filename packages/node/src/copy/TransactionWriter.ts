/**
 * Applies a stream at the target. Each transaction of the source is in one transaction there, together with its end; several
 * that came with one read share one, since the position moves over all of them at once. A large one is written as it comes,
 * and committed when it has ended.
 *
 * Of a table that is not covered nothing is applied: its rows are read anew, from a place of the stream on, and then they are
 * part of its transactions. While that goes on, a change may be of a row that is still to come.
 *
 * What comes again is passed over by its position. One is made for each connection, since what that leaves in part begins
 * anew with the next.
 */
import {
  type Change,
  type Commit,
  type Handler,
  type Insert,
  Lsn,
  type Relation,
  type Snapshot,
  type Truncate,
  type Update
} from "@replicant/core"
import * as Effect from "effect/Effect"
import { CopyMismatch } from "./CopyError.ts"
import * as CopyPosition from "./CopyPosition.ts"
import { copyLine } from "./CopyRows.ts"
import { setupTransaction } from "./ReplicationOrigin.ts"
import { emptyTables, type TableStatements } from "./TableStatements.ts"
import { tableKey } from "./TargetCatalog.ts"
import type { TargetWriter, WriteError } from "./TargetWriter.ts"

/** So many inserts in a row go faster by COPY, which costs two round trips more. */
const copyFrom = 64

/** What a stream brings: changes, and tables that are read beside it. */
export type StreamChange = Change | Snapshot.Row | Snapshot.OneTableChange

/** What of a stream is applied, and how. */
export interface TransactionOptions {
  /** Whether what we write bears an origin. */
  readonly origin: "marked" | "unmarked"
  /** Whether transactions that were themselves replicated to the source are left out. */
  readonly replicated: "apply" | "skip"
}

/** Every relation that changes are of. */
const relationsOf = (changes: ReadonlyArray<StreamChange>): ReadonlySet<Relation.Relation> => {
  const relations = new Set<Relation.Relation>()
  for (const change of changes) {
    if (change._tag === "Truncate") for (const relation of change.relations) relations.add(relation)
    else if ("relation" in change && change._tag !== "RelationChanged") relations.add(change.relation)
  }
  return relations
}

export class TransactionWriter {
  private readonly writer: TargetWriter
  private readonly options: TransactionOptions
  /** Of the transaction that is being delivered: it is in the target, or not for it. */
  private isPassedOver = false

  constructor(writer: TargetWriter, options: TransactionOptions) {
    this.writer = writer
    this.options = options
  }

  /** Applies what one read brought. Gives what acknowledges the transactions that are committed now. */
  handle(changes: ReadonlyArray<StreamChange>): Effect.Effect<Handler.Handled, WriteError> {
    return Effect.gen({ self: this }, function* () {
      const { writer } = this
      const strangers = new Set<Relation.Relation>()
      for (const relation of relationsOf(changes)) {
        if (!this.isApplied(relation, changes[0])) strangers.add(relation)
        else if (writer.known(relation) === undefined) yield* writer.describe(relation)
      }
      if (changes[0]?._tag === "TableSnapshotStarted") yield* this.checkKey(changes[0].relation)
      const isOwn = (change: StreamChange) => !("relation" in change && strangers.has(change.relation))
      const last = this.plan(strangers.size === 0 ? changes : changes.filter(isOwn), strangers)
      yield* writer.send()
      if (last === undefined) return undefined
      writer.committed = Lsn.max(writer.committed, last.endLsn)
      return last.nextLsn
    })
  }

  /** Whether it is ours to write. A table's beginning, which comes by itself, makes it so. */
  private isApplied(relation: Relation.Relation, first: StreamChange | undefined): boolean {
    if (CopyPosition.isPositionTable(relation)) return false
    return first?._tag === "TableSnapshotStarted" || this.writer.followed.follows(tableKey(relation))
  }

  private checkKey(relation: Relation.Relation): Effect.Effect<void, CopyMismatch> {
    const { canUpsert, table } = this.writer.known(relation)!
    const problem = `${table} has no unique index over the key that its rows are found by`
    return canUpsert ? Effect.void : Effect.fail(new CopyMismatch({ problems: [problem] }))
  }

  /** Puts down what is to be done. Gives the last commit, which the target's transaction ends with. */
  private plan(changes: ReadonlyArray<StreamChange>, strangers: ReadonlySet<Relation.Relation>): Commit | undefined {
    const last = changes.findLast((change) => change._tag === "Commit")
    for (let index = 0; index < changes.length; index++) {
      const change = changes[index]!
      switch (change._tag) {
        case "Begin":
          this.isPassedOver = change.commitLsn < this.writer.committed
          break
        case "Origin":
          if (this.options.replicated === "skip") this.isPassedOver = true
          break
        case "Commit":
          if (!this.isPassedOver) this.writer.totals.transactions += 1
          if (change === last) this.planCommit(change)
          break
        case "Insert":
          if (!this.isPassedOver) index = this.planInserts(changes, index)
          break
        case "Update": {
          if (this.isPassedOver) break
          this.planUpdate(change, this.writer.known(change.relation)!)
          this.writer.totals.changes += 1
          break
        }
        case "Delete": {
          if (this.isPassedOver) break
          const statements = this.writer.known(change.relation)!
          this.writer.add(statements.delete(change), this.isReading(statements) ? undefined : statements)
          this.writer.totals.changes += 1
          break
        }
        case "Truncate":
          if (!this.isPassedOver) this.planTruncate(change, strangers)
          break
        case "SnapshotRow":
        case "TableSnapshotStarted":
        case "TableSnapshotResumed":
        case "TableSnapshotCompleted":
          if (!this.isPassedOver) this.planRows(change)
          break
        default:
        // Messages are nobody's here, and a changed relation is seen by its next change.
      }
    }
    return last
  }

  private planCommit(change: Commit): void {
    const { committed, slot } = this.writer
    const timeline = this.writer.timeline()
    if (change.endLsn <= committed) return
    const origin = this.options.origin === "marked" ? [setupTransaction(change)] : []
    this.writer.commit(CopyPosition.advance(slot, { lsn: change.endLsn, timeline }), ...origin)
  }

  /** A run of inserts into one table by COPY, where it is long enough. Gives the index of its last. */
  private planInserts(changes: ReadonlyArray<StreamChange>, from: number): number {
    const first = changes[from] as Insert
    const statements = this.writer.known(first.relation)!
    const isLike = (change: StreamChange | undefined): change is Insert =>
      change?._tag === "Insert" && change.relation === first.relation && change.unchanged.length === 0
    let end = from
    while (isLike(changes[end])) end += 1
    const count = Math.max(1, end - from)
    this.writer.totals.changes += count
    const isReading = this.isReading(statements)
    if (isReading || count < copyFrom || statements.columns.length === 0) {
      for (let index = from; index < from + count; index++) {
        const change = changes[index] as Insert
        this.writer.add(isReading ? statements.upsert(change) : statements.insert(change))
      }
    } else this.planCopy(statements, changes.slice(from, from + count) as ReadonlyArray<Insert>)
    return from + count - 1
  }

  private planCopy(statements: TableStatements, inserts: ReadonlyArray<Insert>): void {
    const names = statements.columns.map(({ name }) => name)
    let text = ""
    for (const { row } of inserts) text += copyLine(names, row)
    this.writer.copy(copyCommand(statements), Buffer.from(text), statements.written)
  }

  private isReading({ table }: TableStatements): boolean {
    return this.writer.followed.isReading(table)
  }

  /** Of a row that is still to come, what the source did not send comes with it: then there is nothing to be put in. */
  private planUpdate(change: Update, statements: TableStatements): void {
    const step = statements.update(change)
    const isReading = this.isReading(statements)
    if (step !== undefined) this.writer.add(step, isReading ? undefined : statements)
    if (isReading && change.unchanged.length === 0) {
      this.writer.add(statements.upsert({ row: change.row, unchanged: [] }))
    }
  }

  /** A table that is read: what it holds is void at its beginning, and each row is written over one that is there. */
  private planRows(change: Snapshot.Row | Snapshot.OneTableChange): void {
    const { followed, totals } = this.writer
    switch (change._tag) {
      case "TableSnapshotStarted":
        followed.set(change.relation, "reading")
        this.writer.execute(emptyTables([change.relation]))
        break
      case "TableSnapshotResumed":
        followed.set(change.relation, "reading")
        break
      case "SnapshotRow":
        totals.rows += 1
        this.writer.add(this.writer.known(change.relation)!.upsert({ row: change.row, unchanged: [] }))
        break
      case "TableSnapshotCompleted":
        followed.set(change.relation, "covered")
    }
  }

  /**
   * Tables of the statement alone: one that only the target has, and that refers to them, is not emptied behind anybody's
   * back. Sequences are not copied, so none is restarted.
   */
  private planTruncate({ relations }: Truncate, strangers: ReadonlySet<Relation.Relation>): void {
    const own = relations.filter((relation) => !strangers.has(relation))
    const names = own.map((relation) => {
      const { table, target } = this.writer.known(relation)!
      return target.isPartitioned ? table : `ONLY ${table}`
    })
    if (names.length === 0) return
    this.writer.totals.changes += 1
    this.writer.execute(`TRUNCATE ${names.join(", ")}`)
  }
}

/** Rows for all columns that are written. COPY writes identity columns as they come. */
export const copyCommand = ({ columnList, table }: Pick<TableStatements, "columnList" | "table">): string =>
  `COPY ${table} (${columnList}) FROM STDIN`
