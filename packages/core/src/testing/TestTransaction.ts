/**
 * The words of a script: what happened in the database, in the order of the WAL. Plain data; nothing is sent until a
 * `TestWalSender` writes it. A row that does not fit its table is a mistake of the test and throws `TypeError` at once.
 */
import type { Row } from "../change/Change.ts"
import { type Cell, unchanged } from "../pgoutput/PgoutputBytes.ts"
import {
  cellsOf,
  type KeyRow,
  type PartialRow,
  relationOf,
  type Source,
  type TestRelation,
  type WholeRow
} from "./TestRelation.ts"

/** What the server tells of the row before: its letter, and its values. */
export interface OldCells {
  readonly kind: "K" | "O"
  readonly cells: ReadonlyArray<Cell>
}

/** A row that came to be, or is there. */
export interface TestInsert {
  readonly _tag: "Insert"
  readonly relation: TestRelation
  readonly cells: ReadonlyArray<Cell>
}

/** A change of a row or of tables, or a message, in a transaction. */
export type TestChange =
  | TestInsert
  | {
      readonly _tag: "Update"
      readonly relation: TestRelation
      readonly cells: ReadonlyArray<Cell>
      readonly old: OldCells | undefined
    }
  | { readonly _tag: "Delete"; readonly relation: TestRelation; readonly old: OldCells }
  | {
      readonly _tag: "Truncate"
      readonly relations: ReadonlyArray<TestRelation>
      readonly cascade: boolean
      readonly restartIdentity: boolean
    }
  | TestMessage

/** `pg_logical_emit_message`: transactional within {@link tx}, by itself otherwise. */
export interface TestMessage {
  readonly _tag: "Message"
  readonly prefix: string
  readonly content: Uint8Array
}

/** A transaction that commits. */
export interface TestTransaction {
  readonly _tag: "Transaction"
  readonly changes: ReadonlyArray<TestChange>
}

/** WAL that is in no publication: other tables, vacuum, checkpoints. */
export interface Unpublished {
  readonly _tag: "Unpublished"
  readonly bytes: number
}

/** What the WAL can hold. */
export type TestEntry = TestTransaction | TestMessage | Unpublished

/** One transaction. Without changes it is one that the server does not send. */
export const tx = (...changes: ReadonlyArray<TestChange>): TestTransaction => ({ _tag: "Transaction", changes })

/** A row that came to be. A column left out is NULL. */
export const insert = <S extends Source>(source: S, row: WholeRow<S>): TestInsert => {
  const relation = relationOf(source)
  return { _tag: "Insert", relation, cells: cellsOf(relation, row as Row, null) }
}

const oldCells = (relation: TestRelation, row: Row): OldCells => {
  if (relation.replicaIdentity === "full") return { kind: "O", cells: cellsOf(relation, row, null) }
  const { columns, name, schema } = relation
  const keys = columns.filter(({ isKey }) => isKey)
  // PostgreSQL refuses the UPDATE or DELETE itself: there is nothing to tell subscribers which row is meant.
  if (keys.length === 0) throw new TypeError(`"${schema}"."${name}" has no replica identity: it takes inserts only`)
  const missing = keys.find(({ property }) => row[property] === undefined)
  if (missing !== undefined) {
    throw new TypeError(`a key of "${schema}"."${name}" without its column "${missing.name}"`)
  }
  const key = Object.fromEntries(keys.map(({ property }) => [property, row[property]]))
  return { kind: "K", cells: cellsOf(relation, key, null) }
}

/** What an update tells of the row before. */
export interface UpdateOptions<S> {
  /** The row before: its key if that has changed, all of it under `REPLICA IDENTITY FULL`, where it is sent always. */
  readonly old?: KeyRow<S> | undefined
}

/** A row that changed. A column left out is sent as unchanged, as PostgreSQL does with large values (TOAST). */
export const update = <S extends Source>(source: S, row: PartialRow<S>, options: UpdateOptions<S> = {}): TestChange => {
  const relation = relationOf(source)
  const { old } = options
  if (old === undefined && relation.replicaIdentity === "full") {
    throw new TypeError(`"${relation.schema}"."${relation.name}" is REPLICA IDENTITY FULL: give the row before as old`)
  }
  return {
    _tag: "Update",
    relation,
    cells: cellsOf(relation, row as Row, unchanged),
    old: old === undefined ? undefined : oldCells(relation, old as Row)
  }
}

/** A row that is gone, by its key; under `REPLICA IDENTITY FULL` by all of it. */
export const remove = <S extends Source>(source: S, old: KeyRow<S>): TestChange => {
  const relation = relationOf(source)
  return { _tag: "Delete", relation, old: oldCells(relation, old as Row) }
}

/** What a TRUNCATE says beside its tables. Both are false when left out. */
export interface TruncateOptions {
  readonly cascade?: boolean | undefined
  readonly restartIdentity?: boolean | undefined
}

/** One TRUNCATE of one or more tables. */
export const truncate = (sources: Source | ReadonlyArray<Source>, options: TruncateOptions = {}): TestChange => ({
  _tag: "Truncate",
  relations: (Array.isArray(sources) ? (sources as ReadonlyArray<Source>) : [sources as Source]).map(relationOf),
  cascade: options.cascade ?? false,
  restartIdentity: options.restartIdentity ?? false
})

/** A message; text becomes UTF-8. */
export const message = (prefix: string, content: string | Uint8Array = ""): TestMessage => ({
  _tag: "Message",
  prefix,
  content: typeof content === "string" ? new TextEncoder().encode(content) : content
})

/** So many bytes of WAL that no subscriber hears of, but for the server's position. */
export const unpublished = (bytes = 64): Unpublished => ({ _tag: "Unpublished", bytes })
