/**
 * Applies a stream at the target. Each transaction of the source is in one transaction there, together with its end; several
 * that came with one read share one, since the position moves over all of them at once. A large one is written as it comes,
 * and committed when it has ended.
 *
 * What comes again is passed over by its position, and what came in part is undone when it begins anew.
 */
import { type Change, type Commit, type Handled, type Insert, Lsn, type Relation, type Truncate } from "@replicant/core"
import * as Effect from "effect/Effect"
import * as CopyPosition from "./CopyPosition.ts"
import { copyLine } from "./CopyRows.ts"
import type { Step } from "./PgBatch.ts"
import { setupTransaction } from "./ReplicationOrigin.ts"
import type { TableStatements } from "./TableStatements.ts"
import { begin, commit, type Expected, type TargetWriter, type WriteError } from "./TargetWriter.ts"

/** What is sent to the target one after the other. */
type Work =
  | { readonly _tag: "Steps"; readonly steps: Array<Step>; readonly expected: Array<Expected> }
  | { readonly _tag: "Copy"; readonly command: string; readonly rows: Uint8Array }

/** So many inserts in a row go faster by COPY, which costs two round trips more. */
const copyFrom = 64

/** One round trip takes no more steps than this, so that memory is bounded. */
const maxSteps = 4000

export interface TransactionOptions {
  /** Whether what we write bears an origin. */
  readonly origin: "marked" | "unmarked"
  /** Whether transactions that were themselves replicated to the source are left out. */
  readonly replicated: "apply" | "skip"
  /** Everything before it is there. */
  readonly committed: Lsn.Lsn
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
  private committed: Lsn.Lsn
  /** Of the transaction that is being delivered: it is in the target, or not for it. */
  private isPassedOver = false
  private works: Array<Work> = []
  /** Works are being carried out, one after the other. */
  private isWriting = false
  /** Names of statements, by their texts. */
  private readonly truncates = new Map<string, string>()

  constructor(writer: TargetWriter, options: TransactionOptions) {
    this.writer = writer
    this.options = options
    this.committed = options.committed
  }

  /** Applies what one read brought. Gives what acknowledges the transactions that are committed now. */
  handle(changes: ReadonlyArray<Change>): Effect.Effect<Handled, WriteError> {
    const self = this
    return Effect.gen(function* () {
      const { writer } = self
      if (self.beginsAnew(changes)) yield* writer.rollback()
      const own = changes.filter((change) => !("relation" in change && CopyPosition.isPositionTable(change.relation)))
      for (const relation of relationsOf(own)) {
        if (writer.known(relation) === undefined) yield* writer.describe(relation)
      }
      const last = self.plan(own)
      yield* self.carryOut()
      if (last === undefined) return undefined
      self.committed = Lsn.max(self.committed, last.endLsn)
      return last.nextLsn
    })
  }

  /** Stores how far an idle slot is moved on. Not while a transaction is open, whose part it would become. */
  storeIdleFlush(lsn: Lsn.Lsn): Effect.Effect<void, WriteError | "busy"> {
    return Effect.suspend(
      (): Effect.Effect<void, WriteError | "busy"> =>
        this.writer.isOpen || this.isWriting
          ? Effect.fail("busy")
          : this.writer.run([CopyPosition.idle(this.writer.slot, lsn)], ["position"])
    )
  }

  /** A transaction that is open and begins again was cut off with its connection. */
  private beginsAnew(changes: ReadonlyArray<Change>): boolean {
    return this.writer.isOpen && changes[0]?._tag === "Begin"
  }

  /** Writes down what is to be done. Gives the last commit, which the target's transaction ends with. */
  private plan(changes: ReadonlyArray<Change>): Commit | undefined {
    const last = changes.findLast((change) => change._tag === "Commit")
    this.works = []
    for (let index = 0; index < changes.length; index++) {
      const change = changes[index]!
      switch (change._tag) {
        case "Begin":
          this.isPassedOver = change.commitLsn < this.committed
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
          if (step !== undefined) this.add(step, statements)
          this.writer.totals.changes += 1
          break
        }
        case "Delete": {
          if (this.isPassedOver) break
          const statements = this.writer.known(change.relation)!
          this.add(statements.delete(change), statements)
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
    if (change.endLsn <= this.committed) return
    this.add(CopyPosition.advance(this.writer.slot, change.endLsn), "position")
    if (this.options.origin === "marked") this.add(setupTransaction(change), undefined)
    this.add(commit, undefined)
    this.writer.isOpen = false
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
        this.add(statements.insert(changes[index] as Insert), undefined)
      }
    } else this.planCopy(statements, changes.slice(from, from + count) as ReadonlyArray<Insert>)
    return from + count - 1
  }

  private planCopy(statements: TableStatements, inserts: ReadonlyArray<Insert>): void {
    this.open()
    const names = statements.columns.map(({ name }) => name)
    let text = ""
    for (const { row } of inserts) text += copyLine(names, row)
    this.works.push({ _tag: "Copy", command: copyCommand(statements), rows: Buffer.from(text) })
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
    const text = `TRUNCATE ${names.join(", ")}`
    const name = this.truncates.get(text) ?? `replicant_truncate_${this.truncates.size}`
    this.truncates.set(text, name)
    this.add({ statement: { name, text }, values: [] }, undefined)
  }

  private open(): void {
    if (this.writer.isOpen) return
    this.writer.isOpen = true
    this.push(begin, undefined)
  }

  private add(step: Step, expected: Expected): void {
    this.open()
    this.push(step, expected)
  }

  private push(step: Step, expected: Expected): void {
    const current = this.works.at(-1)
    if (current?._tag === "Steps" && current.steps.length < maxSteps) {
      current.steps.push(step)
      current.expected.push(expected)
    } else this.works.push({ _tag: "Steps", steps: [step], expected: [expected] })
  }

  private carryOut(): Effect.Effect<void, WriteError> {
    const { works, writer } = this
    this.isWriting = true
    return Effect.forEach(
      works,
      (work) =>
        work._tag === "Copy" ? writer.session.copyIn(work.command, work.rows) : writer.run(work.steps, work.expected),
      { discard: true }
    ).pipe(
      Effect.ensuring(
        Effect.sync(() => {
          this.isWriting = false
        })
      )
    )
  }
}

/** Rows for all columns that are written. COPY writes identity columns as they come. */
export const copyCommand = ({ columnList, table }: Pick<TableStatements, "columnList" | "table">): string =>
  `COPY ${table} (${columnList}) FROM STDIN`
