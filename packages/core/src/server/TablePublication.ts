/**
 * Publications from declared tables: made, altered, or checked. Every one is an explicit call; a stream asks for none.
 *
 * What is made is checked before it is kept: in one transaction, which is rolled back where the source would refuse its own
 * UPDATE or DELETE, or where not everything declared would come.
 */
import { isReadonlyArrayNonEmpty } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { objectName } from "../protocol/ReplicationCommand.ts"
import {
  InvalidOption,
  PublicationMismatch,
  PublicationNotFound,
  type ReplicationError,
  type UnsupportedByServer
} from "../ReplicationError.ts"
import { DeclarationMismatch, type DeclarationProblem } from "../table/DeclarationMismatch.ts"
import { problemsOf, type TableFacts } from "../table/PublicationCheck.ts"
import {
  alterPublicationCommands,
  type CommandContext,
  checkedTables,
  createPublicationCommand,
  everyOperation,
  type TablePublicationOptions
} from "../table/PublicationCommand.ts"
import type { Any } from "../table/Table.ts"
import type { Types } from "../values/TypeDecoder.ts"
import * as Catalog from "./Catalog.ts"
import * as Publication from "./Publication.ts"
import * as Tables from "./Tables.ts"
import type { ReplicantConnection } from "./WalSender.ts"

/** What a check asks for, beside the tables. */
export interface CheckPublicationOptions {
  /** The publications of the stream. Together they must publish the tables. */
  readonly publications: ReadonlyArray<string>
  /** What must be published. All four when left out. */
  readonly operations?: ReadonlyArray<Publication.Operation> | undefined
  /** The plugin's `types`, where it has any: what a column is decoded to depends on them. */
  readonly types?: Types | undefined
}

/** What decides whether the tables are worth a publication, before there is one. */
const ofTheTableAlone: ReadonlySet<DeclarationProblem["problem"]> = new Set([
  "tableMissing",
  "notPublishable",
  "columnMissing",
  "typeMismatch"
])

/** What the catalog says of each declared table, in order; null where there is none. `publications` must not be empty. */
const tableFacts = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  tables: ReadonlyArray<Any>,
  publications: ReadonlyArray<string>
): Effect.fn.Return<ReadonlyArray<TableFacts>, ReplicationError> {
  const described = yield* Tables.describe(connection, {
    selection: { _tag: "Names", names: tables.map(({ relation }) => relation) },
    publications,
    aspects: ["columns", "identity", "published", "namedBy", "sentAs", "bare"]
  })
  const found = new Map(described.map((table) => [JSON.stringify([table.schema, table.name]), table]))
  return tables.map(({ relation: { name, schema } }): TableFacts => {
    const table = found.get(JSON.stringify([schema, name]))
    if (table === undefined) return { schema, name, ...absent }
    const published = table.published.map((sent) => ({
      ...sent,
      filter: sent.filter === null ? null : `(${sent.filter})`
    }))
    return { ...table, published }
  })
})

const absent = {
  kind: null,
  persistence: null,
  replicaIdentity: null,
  identity: [],
  columns: [],
  published: [],
  namedBy: [],
  sentAs: [],
  bare: []
}

const problems = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  tables: ReadonlyArray<Any>,
  { operations = everyOperation, publications, types = {} }: CheckPublicationOptions
): Effect.fn.Return<ReadonlyArray<DeclarationProblem>, ReplicationError> {
  const all = yield* Publication.listPublications(connection)
  const named = publications.map((name) => all.find((publication) => publication.name === name))
  const found = named.filter((publication) => publication !== undefined)
  const missing = publications.filter((_, index) => named[index] === undefined)
  if (missing.length > 0)
    return yield* new PublicationNotFound({ publications: missing, available: all.map(({ name }) => name) })
  const facts = yield* tableFacts(connection, tables, publications)
  return problemsOf(tables, facts, {
    publications: found,
    operations,
    types,
    serverVersion: connection.serverVersion
  })
})

const failWith = (
  publications: ReadonlyArray<string>,
  found: ReadonlyArray<DeclarationProblem>
): Effect.Effect<void, DeclarationMismatch> =>
  isReadonlyArrayNonEmpty(found) && isReadonlyArrayNonEmpty(publications)
    ? Effect.fail(new DeclarationMismatch({ publications, problems: found }))
    : Effect.void

/**
 * Checks that these publications send what the tables declare, and that the source can still UPDATE and DELETE: fails with
 * one `DeclarationMismatch` that names everything wrong and its cure, or with `PublicationNotFound`. Changes nothing.
 * Whether a nullable column is declared so is not checked: that a column holds no NULL may be known to the program alone.
 *
 * @example
 * Table.checkPublication(connection, [Orders, Customers], { publications: ["shop"] })
 */
export const checkPublication = Effect.fn("Replicant.checkPublication")(function* (
  connection: ReplicantConnection,
  tables: ReadonlyArray<Any>,
  options: CheckPublicationOptions
): Effect.fn.Return<void, ReplicationError | DeclarationMismatch> {
  if (options.publications.length === 0) {
    return yield* new InvalidOption({ option: "publications", problem: "names no publication" })
  }
  yield* Effect.fromResult(checkedTables(tables))
  for (const name of options.publications) yield* Effect.fromResult(objectName("publications", name))
  yield* failWith(options.publications, yield* problems(connection, tables, options))
})

/** Commits what succeeds, and rolls back what fails or is interrupted. */
const inTransaction = <A, E>(
  connection: ReplicantConnection,
  body: Effect.Effect<A, E>
): Effect.Effect<A, E | ReplicationError> => {
  const run = (text: string) => Catalog.queryAt(connection, text, { stage: "Query" })
  return Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      yield* run("BEGIN")
      const result = yield* restore(body).pipe(Effect.onError(() => Effect.ignore(run("ROLLBACK"))))
      yield* run("COMMIT")
      return result
    })
  )
}

/** Columns to list: declared ones that can be published, and the replica identity's, without which the source fails. */
const commandContext = (
  tables: ReadonlyArray<Any>,
  facts: ReadonlyArray<TableFacts>,
  serverVersion: number
): CommandContext => ({
  serverVersion,
  columnsOf: (table) => {
    const { columns, identity } = facts[tables.indexOf(table)]!
    const wanted = new Set([...table.columns.values(), ...identity])
    const canList = (generated: string) => generated === "" || (generated === "s" && serverVersion >= 180_000)
    return columns.filter(({ generated, name }) => wanted.has(name) && canList(generated)).map(({ name }) => name)
  }
})

/** Runs statements that depend on the tables' facts, and keeps what they did if it passes the check. */
const publish = (
  connection: ReplicantConnection,
  tables: ReadonlyArray<Any>,
  options: TablePublicationOptions,
  commands: (context: CommandContext) => Result.Result<ReadonlyArray<string>, InvalidOption | UnsupportedByServer>
): Effect.Effect<void, ReplicationError | DeclarationMismatch> => {
  const { name, operations = everyOperation, types = {} } = options
  const { serverVersion } = connection
  const body = Effect.gen(function* () {
    const facts = yield* tableFacts(connection, tables, [name])
    const context = { publications: [{ name, operations }], operations, types, serverVersion }
    const early = problemsOf(tables, facts, context).filter(({ problem }) => ofTheTableAlone.has(problem))
    yield* failWith([name], early)
    for (const command of yield* Effect.fromResult(commands(commandContext(tables, facts, serverVersion)))) {
      yield* Catalog.queryAt(connection, command, { stage: "Query" })
    }
    yield* failWith([name], yield* problems(connection, tables, { publications: [name], operations, types }))
  })
  return Effect.andThen(
    Effect.all([Effect.fromResult(checkedTables(tables)), Effect.fromResult(objectName("publication", name))]),
    inTransaction(connection, body)
  )
}

/**
 * Makes a publication of these tables: whole, or with column lists and row filters (PostgreSQL 15, else
 * `UnsupportedByServer`). Fails with a `DeclarationMismatch`, and makes nothing, where {@link checkPublication} would fail
 * on what was made. A publication of that name is a `ServerError` 42710.
 *
 * @example
 * Table.createPublication(connection, [Orders, Customers], {
 *   name: "shop",
 *   columns: "declared",
 *   filters: { "public.orders": "region = 'eu'" }
 * })
 */
export const createPublication: <T extends Any>(
  connection: ReplicantConnection,
  tables: ReadonlyArray<T>,
  options: TablePublicationOptions<T>
) => Effect.Effect<void, ReplicationError | DeclarationMismatch> = Effect.fn("Replicant.createTablePublication")(
  (connection, tables, options) =>
    publish(connection, tables, options, (context) =>
      Result.map(createPublicationCommand(tables, options, context), (command) => [command])
    )
)

/**
 * Makes a publication that is there what {@link createPublication} would have made: these tables and no others, with these
 * columns, filters and operations. What is left out of the options goes back to its default. Fails as `createPublication`
 * does, and changes nothing then.
 */
export const alterPublication: <T extends Any>(
  connection: ReplicantConnection,
  tables: ReadonlyArray<T>,
  options: TablePublicationOptions<T>
) => Effect.Effect<void, ReplicationError | DeclarationMismatch> = Effect.fn("Replicant.alterTablePublication")(
  function* (connection, tables, options) {
    const { name } = options
    const found = (yield* Publication.listPublications(connection)).find((publication) => publication.name === name)
    if (found === undefined) return yield* new PublicationNotFound({ publications: [name] })
    if (found.isAllTables) {
      const remedy = "choose another name: such a publication cannot be given tables"
      return yield* new PublicationMismatch({ publication: name, problem: "is FOR ALL TABLES", remedy })
    }
    return yield* publish(connection, tables, options, (context) => alterPublicationCommands(tables, options, context))
  }
)
