/**
 * Applies a stream at the target. Each transaction of the source is in one transaction there, together with its end; several
 * that came with one read share one, since the position moves over all of them at once. A large one is written as it comes,
 * and committed when it has ended.
 *
 * What comes again is passed over by its position. One is made for each connection, since what that leaves in part begins
 * anew with the next.
 */
import { type Change, type Commit, type Handler, type Insert, Lsn, type Relation, type Truncate } from "@replicant/core"
import * as Effect from "effect/Effect"
import * as CopyPosition from "./CopyPosition.ts"
import { copyLine } from "./CopyRows.ts"
import { setupTransaction } from "./ReplicationOrigin.ts"
import type { TableStatements } from "./TableStatements.ts"
import type { TargetWriter, WriteError } from "./TargetWriter.ts"

/** So many inserts in a row go faster by COPY, which costs two round trips more. */
const copyFrom = 64

/** What of a stream is applied, and how. */
export interface TransactionOptions {
  /** Whether what we write bears an origin. */
  readonly origin: "marked" | "unmarked"
  /** Whether transactions that were themselves replicated to the source are left out. */
  readonly replicated: "apply" | "skip"
}

/** Every relation that changes are of. */
const relationsOf = (changes: ReadonlyArray<Change>): ReadonlySet<Relation.Relation> => {
  const relations = new Set<Relation.Relation>()
  for (const change of changes) {
    if (change._tag === "Truncate") for (const relation of change.relations) relations.add(relation)
    else if (change._tag === "Insert" || change._tag === "Update" || change._tag === "Delete") {
      relations.add(change.relation)
    }
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
  handle(changes: ReadonlyArray<Change>): Effect.Effect<Handler.Handled, WriteError> {
    return Effect.gen({ self: this }, function* () {
      const { writer } = this
      const own = changes.filter((change) => !("relation" in change && CopyPosition.isPositionTable(change.relation)))
      for (const relation of relationsOf(own)) {
        if (writer.known(relation) === undefined) yield* writer.describe(relation)
      }
      const last = this.plan(own)
      yield* writer.send()
      if (last === undefined) return undefined
      writer.committed = Lsn.max(writer.committed, last.endLsn)
      return last.nextLsn
    })
  }

  /** Puts down what is to be done. Gives the last commit, which the target's transaction ends with. */
  private plan(changes: ReadonlyArray<Change>): Commit | undefined {
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
          const statements = this.writer.known(change.relation)!
          const step = statements.update(change)
          if (step !== undefined) this.writer.add(step, statements)
          this.writer.totals.changes += 1
          break
        }
        case "Delete": {
          if (this.isPassedOver) break
          const statements = this.writer.known(change.relation)!
          this.writer.add(statements.delete(change), statements)
          this.writer.totals.changes += 1
          break
        }
        case "Truncate":
          if (!this.isPassedOver) this.planTruncate(change)
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
  private planInserts(changes: ReadonlyArray<Change>, from: number): number {
    const first = changes[from] as Insert
    const statements = this.writer.known(first.relation)!
    const isLike = (change: Change | undefined): change is Insert =>
      change?._tag === "Insert" && change.relation === first.relation && change.unchanged.length === 0
    let end = from
    while (isLike(changes[end])) end += 1
    const count = Math.max(1, end - from)
    this.writer.totals.changes += count
    if (count < copyFrom || statements.columns.length === 0) {
      for (let index = from; index < from + count; index++) {
        this.writer.add(statements.insert(changes[index] as Insert))
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

  /**
   * Tables of the statement alone: one that only the target has, and that refers to them, is not emptied behind anybody's
   * back. Sequences are not copied, so none is restarted.
   */
  private planTruncate({ relations }: Truncate): void {
    const own = relations.filter((relation) => !CopyPosition.isPositionTable(relation))
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
