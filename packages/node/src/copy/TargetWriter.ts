/**
 * What the two writers of a copy, of rows and of transactions, have in common: the session and its transaction, the
 * statements of each relation, and what is counted. It holds the state of one session: a new one begins with a new writer.
 */
import type { Relation } from "@replicant/core"
import * as Effect from "effect/Effect"
import { CopyMismatch, CopyPositionLost } from "./CopyError.ts"
import type { CopyTotals } from "./CopyTotals.ts"
import type { Step } from "./PgBatch.ts"
import { missingColumns, TableStatements } from "./TableStatements.ts"
import { type TargetTable, tableKey, targetTables } from "./TargetCatalog.ts"
import type { SessionError, TargetSession } from "./TargetSession.ts"

/** How writing fails. */
export type WriteError = SessionError | CopyMismatch | CopyPositionLost

const sql = (name: string, text: string): Step => ({ statement: { name: `replicant_${name}`, text }, values: [] })

export const begin: Step = sql("begin", "BEGIN")
export const commit: Step = sql("commit", "COMMIT")

/** What a step must meet: one row of a table, or that of our position, or nothing in particular. */
export type Expected = "position" | TableStatements | undefined

export class TargetWriter {
  readonly session: TargetSession
  readonly slot: string
  readonly totals: CopyTotals
  /** A transaction of the target is open, and what it holds is nobody's yet. */
  isOpen = false
  /** Temporary tables that the session has made. */
  stages = 0
  private readonly tables: Map<string, TargetTable>
  private readonly statements = new WeakMap<Relation.Relation, TableStatements>()
  private readonly warned = new Set<string>()
  private described = 0

  constructor(options: {
    readonly session: TargetSession
    readonly slot: string
    readonly tables: ReadonlyMap<string, TargetTable>
    readonly totals: CopyTotals
  }) {
    this.session = options.session
    this.slot = options.slot
    this.tables = new Map(options.tables)
    this.totals = options.totals
  }

  /** The statements of a relation that was described before; `undefined` for one that was not. */
  known(relation: Relation.Relation): TableStatements | undefined {
    return this.statements.get(relation)
  }

  /** Describes a relation. The target is asked once more where it does not fit: it may have been altered meanwhile. */
  describe(relation: Relation.Relation): Effect.Effect<TableStatements, WriteError> {
    const self = this
    return Effect.gen(function* () {
      const label = tableKey(relation)
      let target = self.tables.get(label)
      if (target === undefined || missingColumns(relation, target).length > 0) {
        target = (yield* targetTables(self.session, [relation])).tables.get(label)
      }
      if (target === undefined) return yield* new CopyMismatch({ problems: [`${label} is missing`] })
      const missing = missingColumns(relation, target)
      if (missing.length > 0) {
        return yield* new CopyMismatch({ problems: missing.map((name) => `${label}, column "${name}" is missing`) })
      }
      self.tables.set(label, target)
      const made = new TableStatements(relation, target, { id: self.described++, triggers: self.session.triggers })
      self.statements.set(relation, made)
      return made
    })
  }

  /** Ends a transaction that came to nothing: what it held comes again. */
  rollback(): Effect.Effect<void, SessionError> {
    return Effect.suspend(() => {
      if (!this.isOpen) return Effect.void
      this.isOpen = false
      return Effect.asVoid(this.session.query("ROLLBACK"))
    })
  }

  /** Runs steps in one round trip, and counts what they met. */
  run(steps: ReadonlyArray<Step>, expected: ReadonlyArray<Expected>): Effect.Effect<void, WriteError> {
    return Effect.flatMap(this.session.batch(steps), (counts) => this.check(counts, expected))
  }

  /** A step by itself. */
  execute(text: string): Effect.Effect<void, SessionError> {
    return Effect.asVoid(this.session.query(text))
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
