/**
 * The name of a table as people write it, and as its two parts. Raw names, as in `pg_class`: no quotes, no case folding.
 * Quoting for SQL is `quoteIdentifier`'s.
 */

/** A table by its raw names. A text is `schema.table`, or `table` in `public`; names that hold a dot take the object. */
export type TableName = string | { readonly schema: string; readonly name: string }

/** The two names of a table. */
export const tableName = (table: TableName): { readonly schema: string; readonly name: string } => {
  if (typeof table !== "string") return table
  const dot = table.indexOf(".")
  return dot < 0 ? { schema: "public", name: table } : { schema: table.slice(0, dot), name: table.slice(dot + 1) }
}
