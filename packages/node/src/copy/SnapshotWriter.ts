/**
 * Writes the rows of a first copy, by COPY, and with them how far it is: the checkpoint is stored in the transaction of the
 * rows that it tells of. A copy that goes on writes over rows that are there already, by way of a temporary table. One is made
 * for each attempt: rows of one that is over are nobody's.
 */
import type { Lsn, Relation, Snapshot } from "@replicant/core"
import { quoteIdentifier } from "@replicant/core/driver"
import * as Effect from "effect/Effect"
import { CopyMismatch, TargetNotEmpty } from "./CopyError.ts"
import * as CopyPosition from "./CopyPosition.ts"
import { CopyBuffer } from "./CopyRows.ts"
import { emptyTables, type TableStatements } from "./TableStatements.ts"
import { tableKey, type UniqueKey } from "./TargetCatalog.ts"
import type { TargetWriter, WriteError } from "./TargetWriter.ts"
import { copyCommand } from "./TransactionWriter.ts"

/** So many characters of one table go in one COPY: large enough for the round trip not to show. */
const maxBuffer = 1024 * 1024

type Named = Parameters<typeof tableKey>[0]

/** One table under way. */
interface TableCopy {
  readonly statements: TableStatements
  readonly buffer: CopyBuffer
  /** Once rows have been written over in this session: where they are put first. */
  stage: string | undefined
}

export class SnapshotWriter {
  private readonly writer: TargetWriter
  private readonly copies = new Map<Relation.Relation, TableCopy>()
  /** Tables of which rows may be there already. */
  private readonly resumed = new Set<string>()

  constructor(writer: TargetWriter) {
    this.writer = writer
  }

  /** Takes what a snapshot hands over. All before a mark that must be durable is, when it has ended. */
  handle(changes: ReadonlyArray<Snapshot.Change>): Effect.Effect<undefined, WriteError> {
    return Effect.gen({ self: this }, function* () {
      for (const change of changes) {
        if ("relation" in change && CopyPosition.isPositionTable(change.relation)) {
          if (change._tag === "SnapshotRangeCompleted") yield* this.commit(change.checkpoint, undefined)
        } else if (change._tag === "SnapshotRow") {
          const copy = this.copies.get(change.relation) ?? (yield* this.begin(change.relation))
          copy.buffer.add(change.row)
          if (copy.buffer.size >= maxBuffer) yield* this.flush(copy)
        } else yield* this.mark(change)
      }
      yield* this.writer.send()
      return undefined
    })
  }

  private mark(change: Exclude<Snapshot.Change, Snapshot.Row>): Effect.Effect<void, WriteError> {
    switch (change._tag) {
      case "SnapshotStarted":
        return this.start(change)
      case "SnapshotResumed":
        return this.resume(change)
      case "SnapshotTableRestarted":
        this.resumed.delete(tableKey(change.relation))
        return Effect.andThen(this.own([change.relation]), this.empty([change.relation]))
      case "SnapshotRowDeleted":
        return this.deleteRow(change)
      case "SnapshotRangeCompleted":
        return this.commit(change.checkpoint, undefined)
      case "SnapshotTableCompleted":
        return Effect.void
      case "SnapshotCompleted":
        this.writer.followed.completeCopy()
        return this.commit(change.checkpoint, change.snapshot.consistentPoint)
    }
  }

  /** What an earlier attempt has brought is void. What was found empty is left alone. */
  private start({ checkpoint, tables }: Snapshot.Started): Effect.Effect<void, WriteError> {
    return Effect.gen({ self: this }, function* () {
      const relations = tables.map(({ relation }) => relation).filter((table) => !CopyPosition.isPositionTable(table))
      yield* this.own(relations)
      yield* this.empty(yield* this.filled(relations))
      yield* this.commit(checkpoint, undefined)
    })
  }

  private resume({ checkpoint, tables, unpublished }: Snapshot.Resumed): Effect.Effect<void, WriteError> {
    return Effect.gen({ self: this }, function* () {
      yield* this.commit(checkpoint, undefined)
      const count = (wanted: string) => tables.filter(({ state }) => state === wanted).length
      yield* Effect.logInfo(
        `the first copy goes on: ${count("complete")} tables are complete, ${count("partial")} in part, ${count("pending")} to come`
      )
      for (const { relation, state } of tables) {
        if (state !== "partial" || CopyPosition.isPositionTable(relation)) continue
        this.resumed.add(tableKey(relation))
        const { statements } = yield* this.begin(relation)
        if (!statements.canUpsert) {
          return yield* new CopyMismatch({
            problems: [`${statements.table} has no unique index over the key that its rows are found by`]
          })
        }
        if (this.writer.session.triggers === "fire" && statements.movingIdentities.length > 0) {
          const names = statements.movingIdentities.join(", ")
          yield* Effect.logWarning(
            `${statements.table}: of rows that are there already, ${names} (GENERATED ALWAYS) stays as it is: while triggers fire no row is taken out`
          )
        }
      }
      const { followed } = this.writer
      yield* this.empty(
        unpublished.filter((table) => !CopyPosition.isPositionTable(table) && followed.isOwn(tableKey(table)))
      )
      return undefined
    })
  }

  private deleteRow({ old, relation }: Snapshot.RowDeleted): Effect.Effect<void, WriteError> {
    const known = this.copies.get(relation)
    return Effect.map(known === undefined ? this.begin(relation) : Effect.succeed(known), ({ statements }) =>
      this.writer.add(statements.delete({ old }))
    )
  }

  private begin(relation: Relation.Relation): Effect.Effect<TableCopy, WriteError> {
    return Effect.map(this.writer.describe(relation), (statements) => {
      const buffer = new CopyBuffer(statements.columns.map(({ name }) => name))
      const copy: TableCopy = { statements, buffer, stage: undefined }
      this.copies.set(relation, copy)
      return copy
    })
  }

  /** Takes tables over that have joined since the setup looked: not those that hold rows of somebody else's. */
  private own(tables: ReadonlyArray<Relation.Relation>): Effect.Effect<void, WriteError> {
    return Effect.gen({ self: this }, function* () {
      const { followed } = this.writer
      const foreign = tables.filter((table) => !followed.isOwn(tableKey(table)) && !CopyPosition.isPositionTable(table))
      const filled = followed.mayEmpty ? [] : yield* this.filled(foreign)
      if (filled.length > 0) return yield* new TargetNotEmpty({ tables: filled.map(tableKey) })
      for (const table of foreign) followed.set(table, "copying")
      return undefined
    })
  }

  private empty(tables: ReadonlyArray<Named>): Effect.Effect<void> {
    return Effect.sync(() => {
      if (tables.length > 0) this.writer.execute(emptyTables(tables))
    })
  }

  /** Those that hold rows. */
  private filled(tables: ReadonlyArray<Named>): Effect.Effect<ReadonlyArray<Named>, WriteError> {
    if (tables.length === 0) return Effect.succeed([])
    const questions = tables.map((table) => `EXISTS (SELECT FROM ${tableKey(table)})`)
    return Effect.map(this.writer.session.query(`SELECT ARRAY[${questions.join(", ")}]::text AS filled`), ([row]) => {
      const answers = (row?.filled ?? "{}").slice(1, -1).split(",")
      return tables.filter((_, index) => answers[index] === "t")
    })
  }

  private flush(copy: TableCopy): Effect.Effect<void, WriteError> {
    const { buffer, statements } = copy
    if (buffer.rows === 0) return Effect.void
    this.writer.totals.rows += buffer.rows
    const count = buffer.rows
    const rows = buffer.take()
    if (statements.columns.length === 0) this.writer.execute(statements.defaultRows(count))
    else if (this.resumed.has(statements.table)) this.writeOver(copy, rows)
    else this.writer.copy(copyCommand(statements), rows, statements.written)
    return this.writer.send()
  }

  /**
   * Rows that may be there in an older version. A row of which another has now a unique value is an older version too, whose
   * newer one is still to come, or it is gone: so it makes way.
   */
  private writeOver(copy: TableCopy, rows: Uint8Array): void {
    const { statements } = copy
    const { columnList, key, table, target } = statements
    const made = copy.stage
    const name = made ?? `replicant_stage_${this.writer.stages++}`
    copy.stage = name
    const stage = `pg_temp.${quoteIdentifier(name)}`
    const isSent = (column: UniqueKey["columns"][number]) =>
      statements.columns.some((sent) => sent.name === column.name)
    const equal = ({ columns }: UniqueKey) =>
      columns
        .map((column) => `t.${quoteIdentifier(column.name)} ${column.operator} s.${quoteIdentifier(column.name)}`)
        .join(" AND ")
    // No INSERT … ON CONFLICT sets one: a row in which it has moved makes way. Where triggers fire, that would be a deletion.
    const moving = this.writer.session.triggers === "fire" ? [] : statements.movingIdentities
    const hasMoved = moving.map((name) => `t.${quoteIdentifier(name)} IS DISTINCT FROM s.${quoteIdentifier(name)}`)
    const others = target.uniqueKeys.filter((other) => other !== key && other.columns.every(isSent))
    const texts = [
      ...others.map(
        (other) => `DELETE FROM ${table} t USING ${stage} s WHERE ${equal(other)} AND NOT (${equal(key!)})`
      ),
      ...(moving.length === 0
        ? []
        : [`DELETE FROM ${table} t USING ${stage} s WHERE ${equal(key!)} AND (${hasMoved.join(" OR ")})`]),
      `INSERT INTO ${table} (${columnList}) OVERRIDING SYSTEM VALUE SELECT ${columnList} FROM ${stage}${statements.onConflict()}`
    ]
    this.writer.execute(
      made === undefined
        ? `CREATE TEMP TABLE ${quoteIdentifier(name)} ON COMMIT DELETE ROWS AS SELECT ${columnList} FROM ${table} WITH NO DATA`
        : `DELETE FROM ${stage}`
    )
    this.writer.copy(`COPY ${stage} (${columnList}) FROM STDIN`, rows, statements.written)
    for (const [index, text] of texts.entries()) {
      this.writer.add({ statement: { name: `${name}_${index}`, text }, values: [], written: { table, columns: [] } })
    }
  }

  /** Everything so far, and the checkpoint that tells of it, in one transaction. */
  private commit(
    checkpoint: string | undefined,
    consistentPoint: Lsn.Lsn | undefined
  ): Effect.Effect<void, WriteError> {
    return Effect.gen({ self: this }, function* () {
      for (const copy of this.copies.values()) yield* this.flush(copy)
      const { slot } = this.writer
      const position =
        consistentPoint === undefined
          ? CopyPosition.copying(slot, checkpoint)
          : CopyPosition.copied(slot, { lsn: consistentPoint, timeline: this.writer.timeline() }, checkpoint)
      this.writer.commit(position)
      yield* this.writer.send()
    })
  }
}
