/**
 * A table's Schema, compiled: for whole rows, and for rows that have only some of the columns. Compiled when first needed,
 * once each, so that an app's JIT (`effect/schema/SchemaJITCompiler/enable`) may be switched on at any time before.
 *
 * Rows are borrowed: decoding makes new objects, though values that need no decoding are the same.
 */
import * as Schema from "effect/Schema"
import type { Row } from "../change/Change.ts"
import type { Any, TableSchema } from "./Table.ts"

/** A row that its Schema refused. `error` may hold values: see `describeIssue.ts` for what may be told of it. */
export class Misfit {
  readonly error: unknown
  constructor(error: unknown) {
    this.error = error
  }
}

/** A row as its Schema has it, or a {@link Misfit}. Throws nothing. */
export type DecodeRow = (row: Row) => unknown

const compile = (schema: TableSchema): DecodeRow => {
  const decode = Schema.decodeUnknownSync(schema)
  return (row) => {
    try {
      return decode(row)
    } catch (error) {
      return new Misfit(error)
    }
  }
}

/** Columns under the names that the Schema has for them. */
const renamed = (columns: ReadonlyMap<string, string>, decode: DecodeRow): DecodeRow => {
  const pairs = Array.from(columns, ([property, column]) => ({ property, column }))
  return (row) => {
    const properties: Record<string, unknown> = {}
    for (const { column, property } of pairs) {
      if (Object.hasOwn(row, column)) properties[property] = row[column]
    }
    return decode(properties)
  }
}

/** Rows without certain columns. */
export interface PartDecoder {
  /** The columns left out, as the server lists them. */
  readonly columns: ReadonlyArray<string>
  /** The declared properties among them. */
  readonly unchanged: ReadonlyArray<string>
  readonly decode: DecodeRow
}

/** A table has few columns that are ever left out together; beyond this many sets the oldest is compiled anew. */
const mostParts = 32

const isSame = (left: ReadonlyArray<string>, right: ReadonlyArray<string>): boolean =>
  left.length === right.length && left.every((name, index) => name === right[index])

export class RowDecoder {
  private readonly table: Any
  private readonly isRenamed: boolean
  private whole: DecodeRow | undefined
  private parts: Array<PartDecoder> = []

  constructor(table: Any) {
    this.table = table
    this.isRenamed = Array.from(table.columns).some(([property, column]) => property !== column)
  }

  private compile(schema: TableSchema, properties: ReadonlyArray<string>): DecodeRow {
    const decode = compile(schema)
    if (!this.isRenamed) return decode
    return renamed(new Map(properties.map((property) => [property, this.table.columns.get(property)!])), decode)
  }

  /** Decodes a row that has every column. */
  get full(): DecodeRow {
    this.whole ??= this.compile(this.table.rowSchema, Array.from(this.table.columns.keys()))
    return this.whole
  }

  /** Decodes a row that has these properties. Checks of the row as a whole are left out, and so are defaults. */
  only(properties: ReadonlyArray<string>): DecodeRow {
    const { fields } = this.table.rowSchema
    const picked = Object.fromEntries(properties.map((property) => [property, fields[property]!]))
    return this.compile(Schema.Struct(picked) as unknown as TableSchema, properties)
  }

  /** Decodes a row that has all but these columns. */
  without(columns: ReadonlyArray<string>): PartDecoder {
    const known = this.parts.find((part) => isSame(part.columns, columns))
    if (known !== undefined) return known
    const declared = Array.from(this.table.columns)
    const unchanged = declared.filter(([, column]) => columns.includes(column)).map(([property]) => property)
    const rest = declared.filter(([, column]) => !columns.includes(column)).map(([property]) => property)
    const decode = unchanged.length === 0 ? this.full : this.only(rest)
    const part = { columns, unchanged: Object.freeze(unchanged), decode }
    this.parts = [part, ...this.parts.slice(0, mostParts - 1)]
    return part
  }
}
