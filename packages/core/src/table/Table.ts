/**
 * A table as a program expects it: its name, a Schema for its rows, and the columns that identify one. Declaring a table
 * asks nothing of the server and decodes nothing; `TypedChanges.ts` does, row by row.
 *
 * Columns that are not declared are dropped from typed rows, so a table may grow without its readers.
 */
import type * as Schema from "effect/Schema"
import { type TableName, tableName } from "./TableName.ts"

/**
 * What can describe a row: a `Schema.Struct` or a `Schema.Class` that decodes without services. Its encoded side is what
 * the plugin's decoders give for a column: see docs/values.md.
 */
export type TableSchema = Schema.ConstraintDecoder<unknown> & { readonly fields: Schema.Struct.Fields }

/** A name as it tells typed changes apart: `public.orders`, just as it was declared. */
export type Label<Name extends TableName> = Name extends string
  ? Name
  : Name extends { readonly schema: infer Namespace extends string; readonly name: infer Local extends string }
    ? `${Namespace}.${Local}`
    : never

/** A declared table. Its type parameters are the discriminant, the Schema, and the declared key. */
export interface Table<out Name extends string, out S extends TableSchema, out Key extends string> {
  /** The `table` of its typed changes. */
  readonly name: Name
  /** Its raw names in the database. */
  readonly relation: { readonly schema: string; readonly name: string }
  readonly rowSchema: S
  /** Properties of the row. Empty when not declared: then a key row may have any of them. */
  readonly key: ReadonlyArray<Key>
  /** The column that each property of the row comes from. */
  readonly columns: ReadonlyMap<string, string>
}

/** Any declared table. */
export type Any = Table<string, TableSchema, string>

/** A property of a table's rows. */
export type Property<T extends Any> = keyof T["rowSchema"]["fields"] & string

/** A whole row. */
export type Row<T extends Any> = T["rowSchema"]["Type"]

/** A row without the columns that were not sent. A plain object, also where whole rows are of a `Schema.Class`. */
export type PartialRow<T extends Any> = {
  readonly [P in keyof T["rowSchema"]["fields"]]?: T["rowSchema"]["fields"][P]["Type"]
}

/** The key's columns and no others, by the key that was declared; without one, whichever the server sends. */
export type KeyRow<T extends Any> =
  T extends Table<string, infer S, infer Key>
    ? [Key] extends [never]
      ? PartialRow<T>
      : { readonly [P in Key & keyof S["fields"]]: S["fields"][P]["Type"] }
    : never

/** What a declaration says beside the table's name and Schema. */
export interface TableOptions<S extends TableSchema, Key extends keyof S["fields"] & string> {
  /**
   * Properties that identify a row: the primary key, or the columns of `REPLICA IDENTITY USING INDEX`. With them declared
   * key rows have exactly these; each must be in the relation's replica identity, which is checked when it is first seen.
   */
  readonly key?: ReadonlyArray<Key> | undefined
  /** Columns that go by another name here: `{ placedAt: "placed_at" }`. */
  readonly columns?: { readonly [P in keyof S["fields"]]?: string | undefined } | undefined
}

/**
 * Declares a table. `name` is `schema.table`, or `table` in `public`; names that hold a dot take `{ schema, name }`.
 *
 * A column that may be missing from the relation is declared with `Schema.optionalKey`, a nullable one with
 * `Schema.NullOr`.
 *
 * @example
 * const Orders = Table.make(
 *   "public.orders",
 *   Schema.Struct({ id: Schema.Number, total: Schema.String, placedAt: Schema.Date }),
 *   { key: ["id"], columns: { placedAt: "placed_at" } }
 * )
 */
export const make = <
  const Name extends TableName,
  S extends TableSchema,
  const Key extends keyof S["fields"] & string = never
>(
  name: Name,
  rowSchema: S,
  options: TableOptions<S, Key> = {}
): Table<Label<Name>, S, Key> => {
  const relation = tableName(name)
  const renamed: { readonly [property: string]: string | undefined } = options.columns ?? {}
  const label = typeof name === "string" ? name : `${relation.schema}.${relation.name}`
  return {
    name: label as Label<Name>,
    relation: { schema: relation.schema, name: relation.name },
    rowSchema,
    key: options.key ?? [],
    columns: new Map(
      Object.keys(rowSchema.fields).map((property) => [
        property,
        (Object.hasOwn(renamed, property) ? renamed[property] : undefined) ?? property
      ])
    )
  }
}

/**
 * These tables as what a publication must have, for `Publication.setupPublication`: made when it is missing, checked when
 * it is there.
 *
 * @example
 * Publication.setupPublication(connection, { name: "shop", target: Table.publicationTarget([Orders, Customers]) })
 */
export const publicationTarget = (
  tables: ReadonlyArray<Any>
): { readonly _tag: "Tables"; readonly tables: ReadonlyArray<TableName> } => ({
  _tag: "Tables",
  tables: tables.map((table) => table.relation)
})
