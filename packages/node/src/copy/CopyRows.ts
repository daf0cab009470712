/**
 * Rows as COPY's text format, gathered until they are worth a command. Values are PostgreSQL's own text.
 *
 * Source: https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-TEXT-FORMAT
 */
import type { Row } from "@replicant/core"

const special = /[\\\t\n\r]/

const escapes: { readonly [character: string]: string } = { "\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r" }

const field = (value: unknown): string => {
  if (value === null || value === undefined) return "\\N"
  const text = value as string
  return special.test(text) ? text.replaceAll(/[\\\t\n\r]/g, (character) => escapes[character]!) : text
}

/**
 * A row as one line.
 *
 * @example
 * copyLine(["id", "note"], { id: "1", note: null }) // => "1\t\\N\n"
 */
export const copyLine = (columns: ReadonlyArray<string>, row: Row): string => {
  let line = ""
  for (let index = 0; index < columns.length; index++) {
    line += index === 0 ? field(row[columns[index]!]) : `\t${field(row[columns[index]!])}`
  }
  return `${line}\n`
}

/** Lines of one table. */
export class CopyBuffer {
  private readonly columns: ReadonlyArray<string>
  private text = ""
  /** Rows that wait. */
  rows = 0

  constructor(columns: ReadonlyArray<string>) {
    this.columns = columns
  }

  /** About how many bytes wait. */
  get size(): number {
    return this.text.length
  }

  add(row: Row): void {
    this.text += copyLine(this.columns, row)
    this.rows += 1
  }

  /** What has been gathered, to be sent; nothing is left here. */
  take(): Uint8Array {
    const bytes = Buffer.from(this.text)
    this.text = ""
    this.rows = 0
    return bytes
  }
}
