/**
 * The SQL that reads a table by its key, a chunk at a time: where the next chunk ends, and its rows. Text and nothing else.
 *
 * With the empty search path of our sessions an operator is PostgreSQL's own or it is named with its schema: a key of an
 * extension's type is compared as the index over it compares, and never as the text it may be cast to.
 *
 * Sources: https://www.postgresql.org/docs/current/functions-comparisons.html#ROW-WISE-COMPARISON and
 * https://www.postgresql.org/docs/current/indexes-ordering.html
 */
import { qualifiedName, quoteIdentifier, quoteLiteral } from "../protocol/ReplicationCommand.ts"
import { filterOf } from "../snapshot/CopyCommand.ts"
import type { PublishedTable } from "../snapshot/PublishedTables.ts"

/** A column of the key, and the schema of the operators that it is ordered by. */
export interface KeyColumn {
  readonly name: string
  readonly operators: string
  /** The type that it is compared as, where its own is a domain: polymorphic operators, as those of enums, take none. */
  readonly base?: string | null | undefined
}

/** What is read: a published table, by its key, and of its rows those that somebody asked for. */
export interface ChunkTable {
  readonly table: PublishedTable
  readonly key: ReadonlyArray<KeyColumn>
  /** A condition in SQL over the table's columns; every row without one. */
  readonly where: string | undefined
}

/** Values of the key, as text that PostgreSQL reads: after these the next chunk begins. */
export type KeyPosition = ReadonlyArray<string>

const list = (texts: Iterable<string>): string => Array.from(texts).join(", ")

const names = (key: ReadonlyArray<KeyColumn>): string => list(key.map(({ name }) => quoteIdentifier(name)))

/** The column as it is compared. An index over a domain serves its base type as well. */
const operand = ({ base, name }: KeyColumn): string =>
  base === null || base === undefined ? quoteIdentifier(name) : `${quoteIdentifier(name)}::${base}`

/** An operator of the key's own. */
const operator = ({ operators }: KeyColumn, sign: string): string => `OPERATOR(${quoteIdentifier(operators)}.${sign})`

const compare = (column: KeyColumn, sign: string, value: string): string =>
  `${operand(column)} ${operator(column, sign)} ${quoteLiteral(value)}`

const isAt = (key: ReadonlyArray<KeyColumn>, position: KeyPosition): string =>
  key.map((column, index) => compare(column, "=", position[index]!)).join(" AND ")

/** Row-wise where one operator serves all columns: that is what an index over several is searched by. */
const isAfter = (key: ReadonlyArray<KeyColumn>, position: KeyPosition): string => {
  const [first] = key
  if (key.length > 1 && key.every(({ operators }) => operators === first!.operators)) {
    return `ROW(${list(key.map(operand))}) ${operator(first!, ">")} ROW(${list(position.map(quoteLiteral))})`
  }
  if (key.length === 1) return compare(first!, ">", position[0]!)
  const steps = key.map((column, index) =>
    [
      ...key.slice(0, index).map((equal, at) => compare(equal, "=", position[at]!)),
      compare(column, ">", position[index]!)
    ].join(" AND ")
  )
  return `${compare(first!, ">=", position[0]!)} AND (${steps.join(" OR ")})`
}

/** Where the rows are: of a partitioned table in those leaves that are streamed, which reading through the root hides. */
const source = ({ table }: ChunkTable): string =>
  table.ancestors.length === 0 ? `ONLY ${qualifiedName(table)}` : qualifiedName(table)

const conditions = ({ table, where }: ChunkTable): ReadonlyArray<string> => {
  const filter = filterOf(table)
  return [
    ...(filter === undefined ? [] : [`(${filter})`]),
    ...(where === undefined ? [] : [`(${where}\n)`]),
    ...(table.ancestors.length === 0
      ? []
      : [`tableoid IN (${list(table.parts.length === 0 ? ["0"] : table.parts.map(({ oid }) => `${oid}`))})`])
  ]
}

const clause = (texts: ReadonlyArray<string>): string => (texts.length === 0 ? "" : ` WHERE ${texts.join(" AND ")}`)

/** Types whose length is known without their value being fetched from its TOAST table and unpacked: text, varchar, bytea. */
const plainTexts: ReadonlySet<number> = new Set([17, 25, 1043])

/** What a row weighs in COPY, about. Of other types what is stored is counted, which may be compressed. */
const weight = ({ table }: ChunkTable): string =>
  table.columns
    .map(({ name, typeOid }) => {
      const column = quoteIdentifier(name)
      return plainTexts.has(typeOid) ? `coalesce(octet_length(${column}), 0)` : `coalesce(pg_column_size(${column}), 0)`
    })
    .join(" + ")

/**
 * Asks for the key of the chunk's last row, by its columns' names, and for `chunk_rows`, how many they are: at most `rows`,
 * and no more than come to `bytes`, but one at least. No row where the table is at its end.
 */
export const chunkEndQuery = (
  chunk: ChunkTable,
  after: KeyPosition | undefined,
  { bytes, rows }: { readonly rows: number; readonly bytes: number }
): string => {
  const { key } = chunk
  const columns = key.map((_, index) => `k${index + 1}`)
  const aliased = list(key.map(({ name }, index) => `${quoteIdentifier(name)} AS ${columns[index]!}`))
  const where = clause([...(after === undefined ? [] : [isAfter(key, after)]), ...conditions(chunk)])
  return `SELECT ${list(columns.map((column) => `${column}::text`))}, n AS chunk_rows FROM (
    SELECT ${list(columns)}, row_number() OVER w AS n, sum(weight) OVER w - weight AS before FROM (
      SELECT ${aliased}, row_number() OVER () AS place, ${weight(chunk)} AS weight
      FROM (SELECT * FROM ${source(chunk)}${where} ORDER BY ${names(key)} LIMIT ${rows}) ordered
    ) weighed WINDOW w AS (ORDER BY place ROWS UNBOUNDED PRECEDING)
  ) summed WHERE n = 1 OR before < ${bytes} ORDER BY n DESC LIMIT 1`
}

const columnList = ({ table }: ChunkTable): string => list(table.columns.map(({ name }) => quoteIdentifier(name)))

/** Copies so many rows in the order of the key. */
export const chunkCommand = (chunk: ChunkTable, after: KeyPosition | undefined, rows: number): string => {
  const where = clause([...(after === undefined ? [] : [isAfter(chunk.key, after)]), ...conditions(chunk)])
  const order = ` ORDER BY ${names(chunk.key)} LIMIT ${rows}`
  return `COPY (SELECT ${columnList(chunk)} FROM ${source(chunk)}${where}${order}) TO STDOUT`
}

/** Copies the rows at these keys, of which there is one at least. */
export const rereadCommand = (chunk: ChunkTable, keys: ReadonlyArray<KeyPosition>): string => {
  const at = `(${keys.map((position) => `(${isAt(chunk.key, position)})`).join(" OR ")})`
  return `COPY (SELECT ${columnList(chunk)} FROM ${source(chunk)}${clause([at, ...conditions(chunk)])}) TO STDOUT`
}
