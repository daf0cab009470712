/**
 * A JavaScript value to the text that PostgreSQL prints for it, by the column's type: the way back from `values/`. For a
 * test's server; a text that PostgreSQL would print otherwise can always be given as a string.
 */
import type { BuiltinMatch } from "../values/BuiltinCatalog.ts"
import { json } from "../values/ValueForm.ts"

const hex = (bytes: Uint8Array): string =>
  `\\x${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`

/** `2026-01-31 12:00:00.5+00`, as a session in UTC prints it. */
const timestamp = (date: Date): string =>
  `${date
    .toISOString()
    .replace("T", " ")
    .replace(/\.?0*Z$/, "")}+00`

const scalar = (value: unknown): string => {
  switch (typeof value) {
    case "string":
      return value
    case "number":
      return Object.is(value, -0) ? "-0" : String(value)
    case "bigint":
      return String(value)
    case "boolean":
      return value ? "t" : "f"
    default:
      if (value instanceof Uint8Array) return hex(value)
      if (value instanceof Date) return timestamp(value)
      throw new TypeError("a value that stands for no text of its column's type")
  }
}

/** `{1,2,NULL}`: every element but NULL in quotes, which is always allowed. */
const array = (values: ReadonlyArray<unknown>, delimiter: string): string => {
  const elements = values.map((value): string => {
    if (value === null) return "NULL"
    if (Array.isArray(value)) return array(value, delimiter)
    return `"${scalar(value).replaceAll(/["\\]/g, "\\$&")}"`
  })
  return `{${elements.join(delimiter)}}`
}

/** The text of a value that is not null, for a column of a built-in type or of another. Throws `TypeError`. */
export const textOf = (value: unknown, type: BuiltinMatch | undefined): string => {
  if (type !== undefined && type.type.form === json && !type.isArray) return JSON.stringify(value)
  return Array.isArray(value) ? array(value, type?.type.delimiter ?? ",") : scalar(value)
}
