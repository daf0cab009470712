/**
 * A table as the test's server has it: columns with PostgreSQL's types, and how a value of a test becomes the text that
 * the server would print. Made from a declared `Table`, whose Schema encodes its rows, or from names of types.
 */
import * as Schema from "effect/Schema"
import type * as SchemaAST from "effect/SchemaAST"
import type { Row } from "../change/Change.ts"
import type { ReplicaIdentity } from "../change/Relation.ts"
import type { Cell } from "../pgoutput/PgoutputBytes.ts"
import type * as Table from "../table/Table.ts"
import { type TableName, tableName } from "../table/TableName.ts"
import { builtinByName, builtinByOid } from "../values/BuiltinCatalog.ts"
import { textOf } from "./ValueText.ts"

/** A column's type: built in, by its OID, or made by a user, by its names. */
export type ColumnType = number | { readonly schema: string; readonly name: string }

/** A column, and how a row's value becomes text. */
export interface TestColumn {
  readonly name: string
  /** What rows of a test call it. */
  readonly property: string
  readonly type: ColumnType
  readonly isKey: boolean
  /** From the value in a row of a test to what the plugin's decoder gives. */
  readonly encode: (value: unknown) => unknown
}

/** A relation whose rows can be scripted: whole ones, ones that lack unchanged values, and ones that identify. */
export interface TestRelation<Whole = Row, Part = Row, Key = Row> {
  readonly schema: string
  readonly name: string
  readonly replicaIdentity: ReplicaIdentity
  readonly columns: ReadonlyArray<TestColumn>
  /** Columns of the primary key; none where there is none. */
  readonly key: ReadonlyArray<string>
  /** For the compiler alone. */
  readonly "~rows"?: { readonly whole: Whole; readonly part: Part; readonly key: Key } | undefined
}

/** What rows can be scripted of. */
export type Source = Table.Any | TestRelation<unknown, unknown, unknown>

/** Every column of a row: of a declared table as its Schema has it. */
export type WholeRow<S> =
  S extends TestRelation<infer Whole, infer _, infer _> ? Whole : S extends Table.Any ? Table.Row<S> : never
/** Some columns of a row. */
export type PartialRow<S> =
  S extends TestRelation<infer _, infer Part, infer _> ? Part : S extends Table.Any ? Table.PartialRow<S> : never
/** The columns that identify a row; of a declared table, the whole row will do. */
export type KeyRow<S> =
  S extends TestRelation<infer _, infer _, infer Key>
    ? Key
    : S extends Table.Any
      ? Table.KeyRow<S> | Table.Row<S>
      : never

/** What a relation has beyond its rows. */
interface IdentityOptions {
  /** `default` when there is a key, `nothing` when there is none. `full` sends whole rows before. */
  readonly replicaIdentity?: ReplicaIdentity | undefined
}

/** A relation without a declared table. */
export interface RelationOptions extends IdentityOptions {
  /** Columns and their types as SQL or `pg_type` names them, `integer`, `text[]`; any other name is a type of your own. */
  readonly columns: { readonly [column: string]: string }
  readonly key?: ReadonlyArray<string> | undefined
}

/** How a declared table is in the database, where its Schema does not tell. */
export interface TableOptions<T extends Table.Any> extends IdentityOptions {
  /** Types of columns by property. Left out: from the Schema's encoded side, see {@link relation}. */
  readonly types?: { readonly [P in Table.Property<T>]?: string | undefined } | undefined
}

const columnType = (name: string): ColumnType => {
  const known = builtinByName(name)
  if (known !== undefined) return known.isArray ? known.type.arrayOid : known.type.oid
  return tableName(name)
}

/** The type whose text decodes to what a Schema has on its encoded side. */
const inferredType = (ast: SchemaAST.AST): string => {
  switch (ast._tag) {
    case "String":
    case "TemplateLiteral":
    case "Enum":
      return "text"
    case "Number":
      return "double precision"
    case "Boolean":
      return "boolean"
    case "BigInt":
      return "bigint"
    case "Literal":
      return typeof ast.literal === "number" ? "double precision" : inferredLiteral(ast.literal)
    case "Union": {
      const present = ast.types.filter(({ _tag }) => _tag !== "Null" && _tag !== "Undefined")
      const types = new Set(present.map(inferredType))
      return types.size === 1 ? present.map(inferredType)[0]! : "jsonb"
    }
    case "Declaration":
      return isBytes(ast) ? "bytea" : "timestamp with time zone"
    default:
      return "jsonb"
  }
}

const inferredLiteral = (literal: unknown): string =>
  typeof literal === "string" ? "text" : typeof literal === "bigint" ? "bigint" : "boolean"

const isBytes = (ast: SchemaAST.AST): boolean => Schema.is(Schema.make<Schema.Schema<unknown>>(ast))(new Uint8Array(0))

const encoderOf = (field: Schema.Top): ((value: unknown) => unknown) =>
  Schema.encodeUnknownSync(field as unknown as Schema.Codec<unknown, unknown>)

const fromTable = (table: Table.Any, options: TableOptions<Table.Any>): TestRelation => {
  const isFull = options.replicaIdentity === "full"
  const fields = table.rowSchema.fields as { readonly [property: string]: Schema.Top }
  const types: { readonly [property: string]: string | undefined } = options.types ?? {}
  return {
    schema: table.relation.schema,
    name: table.relation.name,
    replicaIdentity: options.replicaIdentity ?? (table.key.length > 0 ? "default" : "nothing"),
    key: Array.from(table.columns).flatMap(([property, name]) => (table.key.includes(property) ? [name] : [])),
    columns: Array.from(table.columns, ([property, name]) => ({
      name,
      property,
      type: columnType(types[property] ?? inferredType(Schema.toEncoded(fields[property]!).ast)),
      isKey: isFull || table.key.includes(property),
      encode: encoderOf(fields[property]!)
    }))
  }
}

const fromColumns = (name: TableName, options: RelationOptions): TestRelation => {
  const { columns, key = [] } = options
  const missing = key.find((column) => !Object.hasOwn(columns, column))
  if (missing !== undefined) throw new TypeError(`the key has a column "${missing}" that the relation has not`)
  const isFull = options.replicaIdentity === "full"
  return {
    ...tableName(name),
    replicaIdentity: options.replicaIdentity ?? (key.length > 0 ? "default" : "nothing"),
    key,
    columns: Object.entries(columns).map(([column, type]) => ({
      name: column,
      property: column,
      type: columnType(type),
      isKey: isFull || key.includes(column),
      encode: (value) => value
    }))
  }
}

/**
 * A relation to script rows of. A declared `Table` can be used as it is; this says more of it, its types or replica
 * identity, or does without.
 *
 * Left to itself, a column of a table has the type whose text decodes to what its Schema has on the encoded side: `text`
 * for a string, `double precision` for a number, `boolean`, `bigint`, `bytea`, `timestamptz` for a `Date`, and `jsonb` for
 * everything else. Throws `TypeError` for a key that names no column.
 *
 * @example
 * const orders = relation(Orders, { types: { total: "numeric" }, replicaIdentity: "full" })
 * const notes = relation("public.notes", { columns: { id: "bigint", body: "text" }, key: ["id"] })
 */
export const relation: {
  <T extends Table.Any>(
    table: T,
    options?: TableOptions<T>
  ): TestRelation<Table.Row<T>, Table.PartialRow<T>, Table.KeyRow<T> | Table.Row<T>>
  (name: TableName, options: RelationOptions): TestRelation
} = (source: Table.Any | TableName, options: TableOptions<Table.Any> | RelationOptions = {}) =>
  (typeof source === "object" && "rowSchema" in source
    ? fromTable(source, options as TableOptions<Table.Any>)
    : fromColumns(source, options as RelationOptions)) as never

const relations = new WeakMap<Table.Any, TestRelation>()

/** The relation of a source: of one table, always the same. */
export const relationOf = (source: Source): TestRelation => {
  if (!("rowSchema" in source)) return source as TestRelation
  const known = relations.get(source) ?? fromTable(source, {})
  relations.set(source, known)
  return known
}

/** A row's values in the relation's order; `absent` stands for those it lacks. Throws `TypeError` for what does not fit. */
export const cellsOf = (relation: TestRelation, row: Row, absent: Cell): ReadonlyArray<Cell> => {
  const at = `"${relation.schema}"."${relation.name}"`
  const stray = Object.keys(row).find((key) => !relation.columns.some(({ property }) => property === key))
  if (stray !== undefined) throw new TypeError(`a row of ${at} with "${stray}", which it has no column for`)
  return relation.columns.map(({ encode, property, type }) => {
    const value = row[property]
    if (value === undefined) return absent
    try {
      const encoded = encode(value)
      return encoded === null || encoded === undefined ? null : textOf(encoded, builtinOf(type))
    } catch (cause) {
      throw new TypeError(`a row of ${at} whose "${property}" does not fit`, { cause })
    }
  })
}

const builtinOf = (type: ColumnType) => (typeof type === "number" ? builtinByOid(type) : undefined)
