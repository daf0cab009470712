/** For people: rows as a table, with columns as wide as they must be and nothing drawn; numbers and bytes in words. */
import { Doctor } from "@replicant/core/operations"
import { displayWidth, padTo } from "./DisplayWidth.ts"
import { plainText } from "./PlainText.ts"

export interface Column<Row> {
  readonly heading: string
  readonly value: (row: Row) => string | undefined
  readonly align?: "left" | "right" | undefined
}

/** The table's lines, with a line break after each. Rows without a value have a dash. */
export const formatTable = <Row>(columns: ReadonlyArray<Column<Row>>, rows: ReadonlyArray<Row>): string => {
  const cells = [
    columns.map((column) => column.heading.toUpperCase()),
    ...rows.map((row) => columns.map((column) => plainText(column.value(row) ?? "-")))
  ]
  const widths = columns.map((_, index) => Math.max(...cells.map((line) => displayWidth(line[index]!))))
  const pad = (text: string, index: number): string => padTo(text, widths[index]!, columns[index]!.align)
  return cells.map((line) => `${line.map(pad).join("  ").trimEnd()}\n`).join("")
}

/** A number with the thousands apart: `1,234,567`. */
export const formatCount = (count: number): string => Math.round(count).toLocaleString("en-US")

/**
 * So many of them, in words.
 *
 * @example
 * plural(1234, "row") // => "1,234 rows"
 */
export const plural = (count: number, word: string): string => `${formatCount(count)} ${word}${count === 1 ? "" : "s"}`

/** So many names as one line bears, and how many there are besides. */
export const firstFew = (names: ReadonlyArray<string>, most: number): string =>
  names.length > most
    ? `${names.slice(0, most).join(", ")} and ${formatCount(names.length - most)} more`
    : names.join(", ")

/**
 * Bytes for people, in PostgreSQL's units of 1024.
 *
 * @example
 * formatBytes(16_777_216) // => "16 MB"
 */
export const formatBytes = (bytes: number | bigint): string => Doctor.bytes(Number(bytes))
