/**
 * What tells the rows of one table apart while it is read anew beside the stream: the values of its key as one text, equal
 * exactly where the rows are the same, whether a value came from COPY or from the WAL. Pure; the server's order of keys is
 * not known here, and not needed.
 *
 * Source of what a key may be: https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-REPLICA-IDENTITY
 */
import type { Row } from "../change/Change.ts"

const hex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")

/** A value as PostgreSQL reads it; `undefined` for what is none that the built-in decoders give a key column. */
const literalOf = (value: unknown): string | undefined => {
  switch (typeof value) {
    case "string":
      return value
    case "number":
      return Object.is(value, -0) ? "-0" : String(value)
    case "bigint":
    case "boolean":
      return String(value)
    default:
      return value instanceof Uint8Array ? `\\x${hex(value)}` : undefined
  }
}

/** What a key column holds that cannot be compared. */
export interface UnusableColumn {
  readonly column: string
}

/**
 * The key's values in its columns' order, each as text that PostgreSQL reads as that value. Fails by naming the first
 * column that is missing, null or no plain value.
 */
export const keyValues = (columns: ReadonlyArray<string>, row: Row): ReadonlyArray<string> | UnusableColumn => {
  const values: Array<string> = []
  for (const column of columns) {
    const literal = literalOf(row[column])
    if (literal === undefined) return { column }
    values.push(literal)
  }
  return values
}

/** One text for all values: each under its length, so that no two keys have the same. */
export const keyText = (values: ReadonlyArray<string>): string =>
  values.length === 1 ? values[0]! : values.map((value) => `${value.length}:${value}`).join("")
