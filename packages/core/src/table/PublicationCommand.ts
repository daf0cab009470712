/**
 * The statements that make a publication of declared tables, or give one that is there these tables: text with exact
 * quoting, gated by the server's version. What PostgreSQL would refuse or read as something else is refused here.
 *
 * Source: https://www.postgresql.org/docs/current/sql-createpublication.html
 */
import * as Result from "effect/Result"
import { objectName, qualifiedName, quoteIdentifier } from "../protocol/ReplicationCommand.ts"
import { InvalidOption, UnsupportedByServer } from "../ReplicationError.ts"
import type { Types } from "../values/TypeDecoder.ts"
import type { Any } from "./Table.ts"

/** What a publication of declared tables is like. */
export interface TablePublicationOptions<T extends Any = Any> {
  readonly name: string
  /**
   * `declared`: the columns that the tables declare and no others, as column lists, for which PostgreSQL 15 is needed;
   * declare the whole replica identity, or the source would refuse UPDATE and DELETE. `all`, the default: every column, also
   * those added later.
   */
  readonly columns?: "all" | "declared" | undefined
  /**
   * Row filters by the table's declared name: what stands within `WHERE ( )`, PostgreSQL 15. Trusted SQL: it is sent as it
   * is, so never make it from what others may choose. Unless only inserts are published, it may read the columns of the
   * replica identity alone.
   */
  readonly filters?: { readonly [Name in T["name"]]?: string | undefined } | undefined
  /** `publish`. All four when left out. */
  readonly operations?: ReadonlyArray<"insert" | "update" | "delete" | "truncate"> | undefined
  /** Sends the changes of partitions under the name of their partitioned table. PostgreSQL's default is false. */
  readonly publishViaPartitionRoot?: boolean | undefined
  /** The plugin's `types`, where it has any: tables are checked as they will be decoded. */
  readonly types?: Types | undefined
}

type Refusal = InvalidOption | UnsupportedByServer

const invalid = (option: string, problem: string, remedy?: string) =>
  Result.fail(new InvalidOption({ option, problem, remedy }))

const columnLists = 150_000

const needs = (feature: string, serverVersion: number): Result.Result<void, UnsupportedByServer> =>
  serverVersion < columnLists
    ? Result.fail(new UnsupportedByServer({ feature, serverVersion, neededVersion: columnLists }))
    : Result.succeed(undefined)

/** Distinct tables whose names PostgreSQL takes as they are. */
export const checkedTables = (tables: ReadonlyArray<Any>): Result.Result<void, InvalidOption> => {
  if (tables.length === 0) return invalid("tables", "names no table")
  const seen = new Set<string>()
  for (const { name, relation } of tables) {
    const names = Result.all([objectName("tables", relation.schema), objectName("tables", relation.name)])
    if (Result.isFailure(names)) return Result.fail(names.failure)
    const key = JSON.stringify([relation.schema, relation.name])
    if (seen.has(key)) return invalid("tables", `declares ${name} twice`)
    seen.add(key)
  }
  return Result.succeed(undefined)
}

/** What the catalog says that the text depends on. */
export interface CommandContext {
  readonly serverVersion: number
  /** Columns to list where `declared` are asked for: in table order, none that cannot be published. */
  readonly columnsOf: (table: Any) => ReadonlyArray<string>
}

/** One table as both statements take it. */
const tableClause = (
  table: Any,
  { columns, filters = {} }: TablePublicationOptions,
  { columnsOf, serverVersion }: CommandContext
): Result.Result<string, Refusal> =>
  Result.gen(function* () {
    let clause = qualifiedName(table.relation)
    if (columns === "declared") {
      yield* needs("a column list", serverVersion)
      const listed = columnsOf(table)
      if (listed.length === 0) yield* invalid("columns", `${table.name} declares no column that could be published`)
      clause += ` (${listed.map(quoteIdentifier).join(", ")})`
    }
    const filter = Object.hasOwn(filters, table.name) ? filters[table.name] : undefined
    if (filter !== undefined) {
      yield* needs("a row filter", serverVersion)
      if (filter.trim() === "") yield* invalid("filters", `the filter of ${table.name} is empty`, "leave it out")
      if (filter.includes("\0")) yield* invalid("filters", `the filter of ${table.name} holds a zero byte`)
      // On a line of its own, the bracket is not part of a comment that ends the filter.
      clause += ` WHERE (${filter}\n)`
    }
    return clause
  })

/** What a publication sends where nothing is left out. */
export const everyOperation = ["insert", "update", "delete", "truncate"] as const

const parameters = ({
  operations = everyOperation,
  publishViaPartitionRoot = false
}: TablePublicationOptions): string =>
  `(publish = '${operations.join(", ")}', publish_via_partition_root = ${publishViaPartitionRoot})`

/** The name, quoted, and a clause for each table, or why not. */
const clauses = (tables: ReadonlyArray<Any>, options: TablePublicationOptions, context: CommandContext) =>
  Result.gen(function* () {
    yield* checkedTables(tables)
    const name = quoteIdentifier(yield* objectName("publication", options.name))
    if (options.operations?.length === 0) yield* invalid("operations", "is empty", "leave it out for all four")
    const known = new Set(tables.map((table) => table.name))
    const unknown = Object.keys(options.filters ?? {}).find((label) => !known.has(label))
    if (unknown !== undefined) yield* invalid("filters", `no table is declared as ${unknown}`)
    const made: Array<string> = []
    for (const table of tables) made.push(yield* tableClause(table, options, context))
    return { name, tables: made.join(", ") }
  })

/** CREATE PUBLICATION for these tables. */
export const createPublicationCommand = (
  tables: ReadonlyArray<Any>,
  options: TablePublicationOptions,
  context: CommandContext
): Result.Result<string, Refusal> =>
  Result.map(
    clauses(tables, options, context),
    (quoted) => `CREATE PUBLICATION ${quoted.name} FOR TABLE ${quoted.tables} WITH ${parameters(options)}`
  )

/**
 * The two statements that make a publication what CREATE PUBLICATION would have made, in the order in which they work: a
 * partitioned table may have a column list or filter only where it is sent as itself.
 */
export const alterPublicationCommands = (
  tables: ReadonlyArray<Any>,
  options: TablePublicationOptions,
  context: CommandContext
): Result.Result<ReadonlyArray<string>, Refusal> =>
  Result.map(clauses(tables, options, context), (quoted) => {
    const alter = `ALTER PUBLICATION ${quoted.name} SET`
    const commands = [`${alter} TABLE ${quoted.tables}`, `${alter} ${parameters(options)}`]
    return options.publishViaPartitionRoot === true ? commands.toReversed() : commands
  })
