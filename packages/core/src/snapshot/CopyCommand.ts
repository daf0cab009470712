/**
 * How a table is read: the COPY commands that together give each row once, in pieces that several connections share.
 *
 * Text format and not binary: it has every type, and its texts are those of pgoutput, as both are made by the type's output
 * function. So what reads the one reads the other, see `CopyText.ts`.
 *
 * Source: https://www.postgresql.org/docs/current/sql-copy.html
 */
import { qualifiedName, quoteIdentifier } from "../protocol/ReplicationCommand.ts"
import type { PublishedTable } from "./PublishedTables.ts"

/** One COPY: a table, or some of its pages. */
export interface CopyPiece {
  readonly table: PublishedTable
  /** OID of the table or partition that it is of, and its place among the pieces of that one: 0, 1, 2 and on. */
  readonly part: number
  readonly index: number
  readonly command: string
}

/**
 * Pages (mostly of 8 kB) of one piece. Small enough for connections to end at about the same time, large enough for the
 * command and its answer not to show: 16 MB take some 100 ms.
 */
const piecePages = 2048

/** Of a table's filters any will do, and a publication without one sends every row. */
const filterOf = ({ filters }: PublishedTable): string | undefined =>
  filters.some((filter) => filter === null) ? undefined : filters.map((filter) => `(${filter})`).join(" OR ")

/**
 * Where each piece begins and ends. The first and the last are open: rows that the snapshot sees lie in whatever pages the
 * table has by then, and VACUUM cannot have taken any away under our lock.
 */
const pageRanges = (pages: number, isHeap: boolean): ReadonlyArray<ReadonlyArray<string>> => {
  const count = isHeap ? Math.max(1, Math.floor(pages / piecePages)) : 1
  return Array.from({ length: count }, (_, index) => [
    ...(index === 0 ? [] : [`ctid >= '(${index * piecePages},0)'::pg_catalog.tid`]),
    ...(index === count - 1 ? [] : [`ctid < '(${(index + 1) * piecePages},0)'::pg_catalog.tid`])
  ])
}

/** Every piece of a table, and of each of its partitions. */
export const copyPieces = (table: PublishedTable): ReadonlyArray<CopyPiece> => {
  const columns = table.columns.map((column) => quoteIdentifier(column.name)).join(", ")
  const filter = filterOf(table)
  return table.parts.flatMap((part) =>
    pageRanges(part.pages, part.isHeap).map((range, index) => {
      const conditions = [...range, ...(filter === undefined ? [] : [`(${filter})`])]
      const where = conditions.length === 0 ? "" : ` WHERE ${conditions.join(" AND ")}`
      const command = `COPY (SELECT ${columns} FROM ONLY ${qualifiedName(part)}${where}) TO STDOUT`
      return { table, part: part.oid, index, command }
    })
  )
}

/** What keeps every table as it is until the copy has ended: reading and writing go on, ALTER, TRUNCATE and DROP wait. */
export const lockCommand = (tables: ReadonlyArray<PublishedTable>): string | undefined => {
  const names = new Set(tables.flatMap(({ ancestors, parts }) => [...ancestors, ...parts].map(qualifiedName)))
  return names.size === 0
    ? undefined
    : `LOCK TABLE ${Array.from(names, (name) => `ONLY ${name}`).join(", ")} IN ACCESS SHARE MODE`
}
