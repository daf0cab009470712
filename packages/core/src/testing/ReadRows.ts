/**
 * Rows of the test's tables as they are read: COPY … TO STDOUT of pieces and chunks, and the question where a chunk ends.
 * The texts are our own (`snapshot/CopyCommand.ts`, `rereading/Chunk.ts`), and no others are known.
 *
 * A condition of the user's own (`where` of a request) is SQL, which is not known here: it is refused by name.
 */
import type { ServerMessage } from "../ReplicationError.ts"
import type { QueryRow } from "../server/WalSender.ts"
import { conditionOf, orderBy, UnknownCondition } from "./RowCondition.ts"
import { refusal } from "./TestCatalog.ts"
import type { TestServer } from "./TestServer.ts"
import { isSeen, type RowVersion, type TestTable, type Value } from "./TestTables.ts"

const identifier = '"(?:[^"]|"")*"'
const source = `(?:ONLY )?(${identifier})\\.(${identifier})`
const tail = `(?: WHERE (.*?))?(?: ORDER BY (${identifier}(?:, ${identifier})*) LIMIT (\\d+))?`

const copyCommand = new RegExp(`^COPY \\(SELECT ((?:${identifier}(?:, )?)*) FROM ${source}${tail}\\) TO STDOUT$`, "s")
const chunkEnd = new RegExp(
  `FROM \\(SELECT \\* FROM ${source}${tail}\\) ordered.* before < (\\d+) ORDER BY n DESC LIMIT 1$`,
  "s"
)

const unquoted = (text: string): string => text.slice(1, -1).replaceAll('""', '"')

const unknown = (text: string): ServerMessage =>
  refusal("0A000", `the test's server does not know how to read this: ${text}`)

/** What a text says of which rows to read. */
interface Select {
  readonly schema: string
  readonly name: string
  readonly where: string | undefined
  readonly order: string | undefined
  readonly limit: string | undefined
}

const readTable = (
  server: TestServer,
  { limit, name, order, schema, where }: Select,
  snapshot: number
): { readonly table: TestTable; readonly versions: ReadonlyArray<RowVersion> } | ServerMessage => {
  const table = server.tables.find(unquoted(schema), unquoted(name))
  if (table === undefined) return refusal("42P01", `relation ${schema}.${name} does not exist`)
  try {
    const isMeant = conditionOf(table, where)
    const versions = table.versions.filter((version) => isSeen(version, snapshot) && isMeant(version))
    if (order !== undefined) versions.sort(orderBy(table, order))
    return { table, versions: limit === undefined ? versions : versions.slice(0, Number(limit)) }
  } catch (error) {
    if (error instanceof UnknownCondition) return unknown(error.message)
    throw error
  }
}

const escapes: { readonly [letter: string]: string } = {
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\v": "\\v",
  "\\": "\\\\"
}

const escaped = /[\b\f\n\r\t\v\\]/g

const copyText = (value: Value): string =>
  value === null ? "\\N" : value.replaceAll(escaped, (letter) => escapes[letter]!)

/** A COPY's rows, each as the line that COPY prints, with its newline. */
export const copyRows = (server: TestServer, text: string, snapshot: number): ReadonlyArray<string> | ServerMessage => {
  const match = copyCommand.exec(text)
  if (match === null) return unknown(text)
  const [, columns = "", schema = "", name = "", where, order, limit] = match
  const read = readTable(server, { schema, name, where, order, limit }, snapshot)
  if ("sqlState" in read) return read
  const { relation } = read.table
  const places = [...columns.matchAll(new RegExp(identifier, "g"))].map(([quoted]) =>
    relation.columns.findIndex((column) => column.name === unquoted(quoted))
  )
  return read.versions.map(({ values }) => `${places.map((place) => copyText(values[place] ?? null)).join("\t")}\n`)
}

/** Where the next chunk of a table ends, and how many rows it has: `undefined` for another question. */
export const answerChunkEnd = (
  server: TestServer,
  text: string,
  snapshot: number
): ReadonlyArray<QueryRow> | ServerMessage | undefined => {
  const match = chunkEnd.exec(text)
  if (match === null) return undefined
  const [, schema = "", name = "", where, order = "", limit, bytes] = match
  const read = readTable(server, { schema, name, where, order, limit }, snapshot)
  if ("sqlState" in read) return read
  let before = 0
  let count = 0
  for (const { values } of read.versions) {
    if (count > 0 && before >= Number(bytes)) break
    before += values.reduce((sum, value) => sum + (value?.length ?? 0), 0)
    count++
  }
  const last = read.versions[count - 1]
  if (last === undefined) return []
  const keys = [...order.matchAll(new RegExp(identifier, "g"))].map(([quoted], index) => {
    const place = read.table.relation.columns.findIndex((column) => column.name === unquoted(quoted))
    return [`k${index + 1}`, last.values[place] ?? null] as const
  })
  return [{ ...Object.fromEntries(keys), chunk_rows: String(count) }]
}
