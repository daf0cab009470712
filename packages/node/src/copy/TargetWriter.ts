/**
 * What is written at the target, whether it is of rows or of changes: put down first, then sent. It alone knows whether a
 * transaction is open there: the first step begins one, `commit` ends it, and the scope of a handler undoes what is left.
 *
 * It has the state of one session, statements of each relation above all: a new session begins with a new writer.
 */
import type { Lsn, Relation } from "@replicant/core"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { CopyMismatch, CopyPositionLost, type TargetNotEmpty } from "./CopyError.ts"
import type { CopyTotals } from "./CopyTotals.ts"
import { step as coverageStep, type FollowedTables } from "./CoveredTables.ts"
import type { Step } from "./PgBatch.ts"
import type { Written } from "./RefusedValue.ts"
import { missingColumns, TableStatements } from "./TableStatements.ts"
import { type TargetTable, tableKey, targetTables } from "./TargetCatalog.ts"
import type { SessionError, TargetSession } from "./TargetSession.ts"

/** How writing fails. */
export type WriteError = SessionError | CopyMismatch | CopyPositionLost | TargetNotEmpty

const sql = (name: string, text: string): Step => ({ statement: { name, text }, values: [] })

const begin: Step = sql("replicant_begin", "BEGIN")
const commit: Step = sql("replicant_commit", "COMMIT")

/** What a step must meet: one row of a table, or that of our position, or nothing in particular. */
export type Expected = "position" | TableStatements | undefined

/** What is sent to the target one after the other: statements in one round trip, or rows by one COPY. */
type Work =
  | { readonly _tag: "Steps"; readonly steps: Array<Step>; readonly expected: Array<Expected> }
  | { readonly _tag: "Copy"; readonly command: string; readonly rows: Uint8Array; readonly written: Written }

/** One round trip takes no more steps than this, so that memory is bounded. */
const maxSteps = 4000

/** A target that does not answer undoes it by itself, once its session has ended. */
const rollbackTimeout = "2 seconds"

export class TargetWriter {
  readonly session: TargetSession
  readonly slot: string
  readonly totals: CopyTotals
  /** Everything of the stream before it is in the target. */
  committed: Lsn.Lsn
  /** Which timeline of the source positions are of now: a connection is accepted only where ours is part of its history. */
  timeline: () => number
  /** Of which tables changes are applied, and which rows are the copy's own. */
  readonly followed: FollowedTables
  /** Temporary tables that the session has made. */
  stages = 0
  private readonly tables: Map<string, TargetTable>
  private readonly statements = new WeakMap<Relation.Relation, TableStatements>()
  private readonly warned = new Set<string>()
  private described = 0
  /** Put down, and not in the target yet. */
  private works: Array<Work> = []
  /** Once these are sent, a transaction is open. */
  private isOpen = false
  /** What is so once these are sent. */
  private onSent: (() => void) | undefined

  constructor(options: {
    readonly session: TargetSession
    readonly slot: string
    readonly tables: ReadonlyMap<string, TargetTable>
    readonly totals: CopyTotals
    readonly committed: Lsn.Lsn
    readonly timeline: number
    readonly followed: FollowedTables
  }) {
    this.session = options.session
    this.slot = options.slot
    this.tables = new Map(options.tables)
    this.totals = options.totals
    this.committed = options.committed
    this.timeline = () => options.timeline
    this.followed = options.followed
  }

  /** What is not committed when the scope ends is undone: it comes again. */
  get transaction(): Effect.Effect<void, never, Scope.Scope> {
    return Effect.acquireRelease(
      Effect.suspend(() =>
        this.isIdle ? Effect.void : Effect.die(new Error("a session at the target that was cut off is used again"))
      ),
      () => this.rollback()
    )
  }

  /** No transaction is open, and nothing is on its way. */
  get isIdle(): boolean {
    return !this.isOpen && this.works.length === 0
  }

  /** The statements of a relation that was described before; `undefined` for one that was not. */
  known(relation: Relation.Relation): TableStatements | undefined {
    return this.statements.get(relation)
  }

  /** Describes a relation. The target is asked once more where it does not fit: it may have been altered meanwhile. */
  describe(relation: Relation.Relation): Effect.Effect<TableStatements, WriteError> {
    return Effect.gen({ self: this }, function* () {
      const label = tableKey(relation)
      let target = this.tables.get(label)
      if (target === undefined || missingColumns(relation, target).length > 0) {
        target = (yield* targetTables(this.session, [relation])).tables.get(label)
      }
      if (target === undefined) return yield* new CopyMismatch({ problems: [`${label} is missing`] })
      const missing = missingColumns(relation, target)
      if (missing.length > 0) {
        return yield* new CopyMismatch({ problems: missing.map((name) => `${label}, column "${name}" is missing`) })
      }
      this.tables.set(label, target)
      const made = new TableStatements(relation, target, { id: this.described++, triggers: this.session.triggers })
      this.statements.set(relation, made)
      return made
    })
  }

  /** Puts down a statement, in a transaction. */
  add(step: Step, expected?: Expected): void {
    this.open()
    this.push(step, expected)
  }

  /** Puts down SQL that is not worth to be prepared. */
  execute(text: string): void {
    this.add(sql("", text))
  }

  /** Puts down rows in COPY's text format. */
  copy(command: string, rows: Uint8Array, written: Written): void {
    this.open()
    this.works.push({ _tag: "Copy", command, rows, written })
  }

  /** Puts down the end of the transaction, with the position that it is of. */
  commit(position: Step, ...more: ReadonlyArray<Step>): void {
    this.add(position, "position")
    const change = this.followed.takeChange()
    if (change !== undefined) {
      this.push(coverageStep(this.slot, change.coverage), "position")
      this.onSent = change.done
    }
    for (const step of [...more, commit]) this.push(step, undefined)
    this.isOpen = false
  }

  /** Sends all that was put down. After a failure the session is of no more use. */
  send(): Effect.Effect<void, WriteError> {
    return Effect.suspend(() =>
      Effect.andThen(
        Effect.forEach(
          this.works,
          (work) =>
            work._tag === "Copy"
              ? this.session.copyIn(work.command, work.rows, work.written)
              : this.run(work.steps, work.expected),
          { discard: true }
        ),
        Effect.sync(() => {
          this.works = []
          this.onSent?.()
          this.onSent = undefined
        })
      )
    )
  }

  /** Moves our position by itself. Not while a transaction is open, whose part it would become. */
  store(position: Step): Effect.Effect<void, WriteError> {
    return this.run([position], ["position"])
  }

  private open(): void {
    if (this.isOpen) return
    this.isOpen = true
    this.push(begin, undefined)
  }

  private push(step: Step, expected: Expected): void {
    const current = this.works.at(-1)
    if (current?._tag === "Steps" && current.steps.length < maxSteps) {
      current.steps.push(step)
      current.expected.push(expected)
    } else this.works.push({ _tag: "Steps", steps: [step], expected: [expected] })
  }

  private rollback(): Effect.Effect<void> {
    return Effect.suspend(() => {
      // One that was cut off amid a statement, or refused it, is about to be closed: the server undoes what it held.
      if (!this.isOpen || this.works.length > 0) return Effect.void
      this.isOpen = false
      const undone = Effect.interruptible(this.session.query("ROLLBACK"))
      return Effect.ignore(Effect.timeoutOption(undone, rollbackTimeout))
    })
  }

  /** Runs steps in one round trip, and counts what they met. */
  private run(steps: ReadonlyArray<Step>, expected: ReadonlyArray<Expected>): Effect.Effect<void, WriteError> {
    return Effect.flatMap(this.session.batch(steps), (counts) => this.check(counts, expected))
  }

  private check(
    counts: ReadonlyArray<number>,
    expected: ReadonlyArray<Expected>
  ): Effect.Effect<void, CopyPositionLost> {
    const strays: Array<string> = []
    for (let index = 0; index < counts.length; index++) {
      if (counts[index] !== 0) continue
      const of = expected[index]
      if (of === "position") {
        return Effect.fail(
          new CopyPositionLost({
            slot: this.slot,
            problem: "its row in replicant.copy_position is gone from the target",
            remedy: "copy anew: drop the slot, and empty the tables"
          })
        )
      }
      if (of === undefined) continue
      this.totals.missing += 1
      if (!this.warned.has(of.table)) strays.push(of.table)
      this.warned.add(of.table)
    }
    return Effect.forEach(
      strays,
      (table) =>
        Effect.logWarning(`${table}: a changed or deleted row was not there: it is passed over, as are others`),
      { discard: true }
    )
  }
}
