/**
 * How a table is read: the COPY commands that together give each row once, in pieces that several connections share.
 *
 * Text format and not binary: it has every type, and its texts are those of pgoutput, as both are made by the type's output
 * function. So what reads the one reads the other, see `pgoutput/CopyRow.ts`.
 *
 * Source: https://www.postgresql.org/docs/current/sql-copy.html
 */
import { qualifiedName, quoteIdentifier } from "../protocol/ReplicationCommand.ts"
import type { PublishedTable } from "./PublishedTables.ts"

/** Where every table ends, however long it grows: no page has this number (`InvalidBlockNumber`). */
export const endOfTable = 0xffff_ffff

/** Pages of a table that are to be read. */
export interface PageRange {
  readonly from: number
  /** Not included; {@link endOfTable} is wherever it ends. */
  readonly to: number
  /**
   * Of these pages only the rows that were written by this transaction or a later one: an id as rows bear it, in 32 bits.
   * Left out, all of them.
   */
  readonly since?: number | undefined
}

/** One COPY: a table, or some of its pages. */
export interface CopyPiece {
  readonly table: PublishedTable
  /** OID of the table or partition that it is of, and its place among the pieces of that one: 0, 1, 2 and on. */
  readonly part: number
  readonly index: number
  readonly pages: PageRange
  readonly command: string
}

/** How a table is cut, and what of it is read. */
export interface PieceOptions {
  /**
   * Pages (mostly of 8 kB) of one piece: 2048. Small enough for connections to end at about the same time, large enough for
   * the command and its answer not to show: 16 MB take some 100 ms.
   */
  readonly piecePages?: number | undefined
  /** Of a table or partition, by OID; all of it where nothing is said. Without pages in parts, it is read whole. */
  readonly ranges?: ReadonlyMap<number, ReadonlyArray<PageRange>> | undefined
}

/** See {@link PieceOptions}. */
export const defaultPiecePages = 2048

/** Of a table's filters any will do, and a publication without one sends every row. */
export const filterOf = ({ filters }: PublishedTable): string | undefined =>
  filters.some((filter) => filter === null) ? undefined : filters.map((filter) => `(${filter})`).join(" OR ")

/**
 * Cuts a range of pages. What begins at the first page or ends at the last is open there: rows that the snapshot sees lie in
 * whatever pages the table has by then, and VACUUM cannot have taken any away under our lock.
 */
const cut = (range: PageRange, pages: number, piecePages: number): ReadonlyArray<PageRange> => {
  const { from, since, to } = range
  const end = to === endOfTable ? Math.max(from, pages) : to
  const count = Math.max(1, Math.floor((end - from) / piecePages))
  return Array.from({ length: count }, (_, index) => ({
    from: from + index * piecePages,
    to: index === count - 1 ? to : from + (index + 1) * piecePages,
    since
  }))
}

const tid = (page: number): string => `'(${page},0)'::pg_catalog.tid`

/** A row that is frozen keeps the id of who wrote it, from PostgreSQL 9.4 on. Ids are compared by age, as they wrap around. */
const conditionsOf = ({ from, since, to }: PageRange): ReadonlyArray<string> => [
  ...(from === 0 ? [] : [`ctid >= ${tid(from)}`]),
  ...(to === endOfTable ? [] : [`ctid < ${tid(to)}`]),
  ...(since === undefined ? [] : [`pg_catalog.age(xmin) <= (SELECT pg_catalog.age('${since}'::pg_catalog.xid))`])
]

const wholePart: ReadonlyArray<PageRange> = [{ from: 0, to: endOfTable }]

/** Every piece of a table, and of each of its partitions. */
export const copyPieces = (
  table: PublishedTable,
  { piecePages = defaultPiecePages, ranges }: PieceOptions = {}
): ReadonlyArray<CopyPiece> => {
  const columns = table.columns.map((column) => quoteIdentifier(column.name)).join(", ")
  const filter = filterOf(table)
  return table.parts.flatMap((part) => {
    const wanted = ranges?.get(part.oid) ?? wholePart
    const pieces = part.isHeap ? wanted.flatMap((range) => cut(range, part.pages, piecePages)) : wholePart
    return pieces.map((pages, index) => {
      const conditions = [...conditionsOf(pages), ...(filter === undefined ? [] : [`(${filter})`])]
      const where = conditions.length === 0 ? "" : ` WHERE ${conditions.join(" AND ")}`
      const command = `COPY (SELECT ${columns} FROM ONLY ${qualifiedName(part)}${where}) TO STDOUT`
      return { table, part: part.oid, index, pages, command }
    })
  })
}

/** How many pages a piece has, as far as the size of its table is known. */
export const pieceSize = ({ pages: { from, to }, part, table }: CopyPiece): number =>
  Math.max(1, Math.min(to, table.parts.find(({ oid }) => oid === part)?.pages ?? 0) - from)

/** What keeps every table as it is until the copy has ended: reading and writing go on, ALTER, TRUNCATE and DROP wait. */
export const lockCommand = (tables: ReadonlyArray<PublishedTable>): string | undefined => {
  const names = new Set(tables.flatMap(({ ancestors, parts }) => [...ancestors, ...parts].map(qualifiedName)))
  return names.size === 0
    ? undefined
    : `LOCK TABLE ${Array.from(names, (name) => `ONLY ${name}`).join(", ")} IN ACCESS SHARE MODE`
}
