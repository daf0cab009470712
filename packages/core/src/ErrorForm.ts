/** What all errors have in common: their names, and the forms in which they are told. */
import * as Lsn from "./Lsn.ts"

/** What an error's Schema is known by. */
export const errorId = <const Name extends string>(name: Name): `@replicant/core/${Name}` => `@replicant/core/${name}`

/**
 * Text from elsewhere on one line of a log: whatever a terminal would obey, and whatever turns the direction of reading, is a
 * space. Names, notices and errors are somebody's text, and could otherwise pass for a line of ours.
 *
 * @example
 * logText("gone\u001b[2J\nERROR") // => "gone [2J ERROR"
 */
export const logText = (text: string): string =>
  text.replaceAll(/[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu, " ")

/**
 * An error as JSON takes it: `JSON.stringify` throws at a bigint, which LSNs are. Here they are as PostgreSQL writes them, and
 * the message is told as well.
 */
export const errorJson = (error: Error): { readonly [field: string]: unknown } => ({
  ...Object.fromEntries(
    Object.entries(error).map(([field, value]) => [
      field,
      typeof value === "bigint" ? Lsn.format(value as Lsn.Lsn) : value
    ])
  ),
  message: error.message
})
