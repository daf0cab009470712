/**
 * Keeps a store in step with a table: what the kinds of changes mean to one that has rows by key, once and for all. What it is
 * to be told is a function of `Operation`s: a `Map`, a key-value store and a SQL table are there, a search index takes a line.
 */
import { isReadonlyArrayNonEmpty, type NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Gap } from "../change/Change.ts"
import type { Relation } from "../change/Relation.ts"
import * as Lsn from "../Lsn.ts"
import { errorJson, InvalidOption } from "../ReplicationError.ts"
import type { Any } from "../table/Table.ts"
import { type ChangeOf, type Operation, Operations } from "./Operation.ts"

/** Carries operations out, in order; durable when it has ended. Of one id there is at most one, and a `Clear` is the first. */
export type Write<T extends Any, E = never, R = never> = (
  operations: NonEmptyReadonlyArray<Operation<T>>
) => Effect.Effect<unknown, E, R>

/** The slot was lost, and with it changes of the table: what is stored is not in step any more. Nothing is acknowledged. */
export class TableGap extends Schema.TaggedError<TableGap>("@replicant/core/TableGap")("TableGap", {
  table: Schema.String,
  slot: Schema.String,
  /** Every change that commits from here on comes. */
  consistentPoint: Lsn.Lsn
}) {
  get remedy(): string {
    return 'fill the store anew: drop the slot, and stream with `snapshot: "initial"`; for a cache that is filled as it is read: gap: "clear"'
  }
  get isRetryable(): boolean {
    return false
  }
  override toJSON(): unknown {
    return errorJson(this)
  }
  override get message(): string {
    const from = Lsn.format(this.consistentPoint)
    return `the slot "${this.slot}" was lost, and what changed in ${this.table} before ${from} was not told`
  }
}

/** How a store is kept. */
export interface ApplyToOptions {
  /**
   * What a `Gap` does, which only comes to who asks for it by `slotPolicy`: `fail`, when left out, ends the stream with a
   * {@link TableGap}; `clear` empties the store, which is right for a cache that is filled as it is read, and for nothing else.
   */
  readonly gap?: "fail" | "clear" | undefined
}

type Problem = TableGap | InvalidOption

/** One read, as operations. */
class Reading<T extends Any> {
  readonly operations: Operations<T>
  private readonly table: T
  private readonly gap: "fail" | "clear"

  constructor(table: T, gap: "fail" | "clear") {
    this.table = table
    this.gap = gap
    this.operations = new Operations(table)
  }

  take(change: ChangeOf<T>): Problem | undefined {
    const { operations, table } = this
    switch (change._tag) {
      case "SnapshotStarted":
        operations.clear()
        return undefined
      case "SnapshotResumed":
        if (change.unpublished.some((left) => this.isOf(left))) operations.clear()
        return undefined
      case "SnapshotTableRestarted":
        if (this.isOf(change.relation)) operations.clear()
        return undefined
      case "TableSnapshotStarted":
        // Under a condition the rows that it does not name stay.
        if (change.where === undefined && this.isOf(change.relation)) operations.clear()
        return undefined
      case "Begin":
        return change.gid === undefined ? undefined : notCommitted
      case "Truncate":
        if (change.tables.includes(table.name)) operations.clear()
        return undefined
      case "SnapshotRow":
      case "Insert":
        if (change.table === table.name) operations.put(change.row)
        return undefined
      case "Update":
        if (change.table === table.name) operations.update(change.row, change.isComplete, change.old?.row)
        return undefined
      case "SnapshotRowDeleted":
      case "Delete":
        if (change.table === table.name) operations.remove(change.old.row)
        return undefined
      case "Gap":
        return this.takeGap(change)
      default:
        return undefined
    }
  }

  private takeGap({ consistentPoint, slot }: Gap): TableGap | undefined {
    if (this.gap === "fail") return new TableGap({ table: this.table.name, slot, consistentPoint })
    this.operations.clear()
    return undefined
  }

  private isOf({ name, schema }: Pick<Relation, "name" | "schema">): boolean {
    const { relation } = this.table
    return relation.name === name && relation.schema === schema
  }
}

const notCommitted = new InvalidOption({
  option: "twoPhase",
  problem: "delivers what is not committed and may never be: a store is kept of what is"
})

const noKey = (table: Any) => new InvalidOption({ option: "key", problem: `is not declared of ${table.name}` })

/**
 * A function of many changes that keeps a store in step with a table, for whichever handler it is given to: `durable`, `batch`,
 * `once`. Partial updates, moved keys, truncates, first copies that begin anew and tables that are read again are taken care of; what
 * comes twice does no harm. Changes of other tables are passed over.
 *
 * The key has to be declared, and be one that no two rows have at any moment: a primary key that is not `DEFERRABLE`.
 *
 * @example
 * const orders = new Map<string, Table.Row<typeof Orders>>()
 * withLogicalStream(options, Table.handler([Orders], Handler.durable(Table.applyTo(Orders, Table.inMap(orders)))))
 *
 * @example
 * const index = Table.applyTo(Orders, (operations) => storeAll(operations))
 * withLogicalStream(options, Table.handler([Orders], Handler.batch({ rows: 500, within: "1 second" }, index)))
 */
export const applyTo =
  <T extends Any, E = never, R = never>(table: T, write: Write<T, E, R>, { gap = "fail" }: ApplyToOptions = {}) =>
  <C extends ChangeOf<T>>(changes: ReadonlyArray<C>): Effect.Effect<void, E | Problem, R> =>
    Effect.suspend(() => {
      if (table.key.length === 0) return Effect.fail(noKey(table))
      const reading = new Reading(table, gap)
      let problem: Problem | undefined
      for (const change of changes) {
        problem = reading.take(change)
        if (problem !== undefined) break
      }
      reading.operations.cut()
      const writes = Effect.forEach(
        reading.operations.runs,
        (run) => (isReadonlyArrayNonEmpty(run) ? write(run) : Effect.void),
        { discard: true }
      )
      return problem === undefined ? writes : Effect.andThen(writes, Effect.fail(problem))
    })
