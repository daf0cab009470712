/**
 * Publications: which tables, and which kinds of change, pgoutput sends. Found, checked, or made.
 *
 * Source: https://www.postgresql.org/docs/current/sql-createpublication.html
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { qualifiedName, quoteIdentifier, quoteLiteral } from "../protocol/ReplicationCommand.ts"
import {
  InvalidOption,
  PermissionDenied,
  PublicationMismatch,
  PublicationNotFound,
  type ReplicationError,
  ServerError,
  UnsupportedByServer
} from "../ReplicationError.ts"
import { everyOperation } from "../table/PublicationCommand.ts"
import { type TableName, tableName } from "../table/TableName.ts"
import * as Catalog from "./Catalog.ts"
import type { ReplicantConnection } from "./WalSender.ts"

export { type TableName, tableName }

/** A kind of change that a publication may leave out. */
export type Operation = (typeof everyOperation)[number]

/** What to publish. */
export type PublicationTarget =
  | { readonly _tag: "Tables"; readonly tables: ReadonlyArray<TableName> }
  | { readonly _tag: "Schemas"; readonly schemas: ReadonlyArray<string> }
  | { readonly _tag: "AllTables" }

/** These tables. */
export const tables = (...names: ReadonlyArray<TableName>): PublicationTarget => ({ _tag: "Tables", tables: names })

/** Every table of these schemas, also those made later. PostgreSQL 15. */
export const schemas = (...names: ReadonlyArray<string>): PublicationTarget => ({ _tag: "Schemas", schemas: names })

/** Every table of the database, also those made later. Needs a superuser. */
export const allTables: PublicationTarget = { _tag: "AllTables" }

/** A publication to be made, or to be found as described. */
export interface PublicationOptions {
  readonly name: string
  readonly target: PublicationTarget
  /** All four when left out. */
  readonly operations?: ReadonlyArray<Operation> | undefined
}

/** A publication as `pg_publication` has it. */
export interface Publication {
  readonly name: string
  readonly isAllTables: boolean
  readonly operations: ReadonlyArray<Operation>
}

const PublicationRow = Schema.Struct({
  pubname: Schema.String,
  puballtables: Catalog.BooleanFromText,
  pubinsert: Catalog.BooleanFromText,
  pubupdate: Catalog.BooleanFromText,
  pubdelete: Catalog.BooleanFromText,
  pubtruncate: Catalog.BooleanFromText
})

const fromRow = (row: typeof PublicationRow.Type): Publication => ({
  name: row.pubname,
  isAllTables: row.puballtables,
  operations: [
    ...(row.pubinsert ? ["insert" as const] : []),
    ...(row.pubupdate ? ["update" as const] : []),
    ...(row.pubdelete ? ["delete" as const] : []),
    ...(row.pubtruncate ? ["truncate" as const] : [])
  ]
})

/** Every publication of the database, by name. */
export const listPublications = Effect.fn("Replicant.listPublications")(function* (
  connection: ReplicantConnection
): Effect.fn.Return<ReadonlyArray<Publication>, ReplicationError> {
  const text = `SELECT pubname, puballtables, pubinsert, pubupdate, pubdelete, pubtruncate
  FROM pg_catalog.pg_publication ORDER BY pubname`
  const rows = yield* Catalog.queryAt(connection, text, { stage: "Query" })
  return yield* Effect.forEach(rows, (row) =>
    Effect.map(Catalog.decodeRow(PublicationRow, row, "pg_publication"), fromRow)
  )
})

/** Those of the names that are not there. They are compared as they are: `MyPub` is not `mypub`. */
export const missingPublications = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  names: ReadonlyArray<string>
): Effect.fn.Return<ReadonlyArray<string>, ReplicationError> {
  if (names.length === 0) return []
  const found = new Set((yield* listPublications(connection)).map((publication) => publication.name))
  return names.filter((name) => !found.has(name))
})

/**
 * Fails with the names that are not there. Asked before streaming, because from PostgreSQL 18 the walsender only warns.
 */
export const checkPublications = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  names: ReadonlyArray<string>
): Effect.fn.Return<void, ReplicationError> {
  if (names.length === 0) return
  const available = (yield* listPublications(connection)).map((publication) => publication.name)
  const found = new Set(available)
  const missing = names.filter((name) => !found.has(name))
  if (missing.length > 0) return yield* new PublicationNotFound({ publications: missing, available })
})

const hasNul = (name: string) => name.includes("\0")

const targetClause = (
  options: PublicationOptions,
  serverVersion: number
): Effect.Effect<string, InvalidOption | UnsupportedByServer> => {
  const { target } = options
  const refuse = (problem: string) => Effect.fail(new InvalidOption({ option: "publication", problem }))
  switch (target._tag) {
    case "AllTables":
      return Effect.succeed("FOR ALL TABLES")
    case "Schemas":
      if (target.schemas.length === 0) return refuse("names no schema")
      if (target.schemas.some(hasNul)) return refuse("a schema name holds a zero byte")
      return serverVersion < 150_000
        ? Effect.fail(new UnsupportedByServer({ feature: "TABLES IN SCHEMA", serverVersion, neededVersion: 150_000 }))
        : Effect.succeed(`FOR TABLES IN SCHEMA ${target.schemas.map(quoteIdentifier).join(", ")}`)
    case "Tables": {
      const names = target.tables.map(tableName)
      if (names.length === 0) return refuse("names no table")
      if (names.some(({ name, schema }) => hasNul(name) || hasNul(schema))) {
        return refuse("a table name holds a zero byte")
      }
      const quoted = names.map(qualifiedName)
      return Effect.succeed(`FOR TABLE ${quoted.join(", ")}`)
    }
  }
}

const WhoRow = Schema.Struct({ role: Schema.String, database: Schema.String })

/** Who may make a publication: PostgreSQL names the database or the table that it refuses, and no more. */
const grantCreation = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  { target }: PublicationOptions,
  error: PermissionDenied
): Effect.fn.Return<never, ReplicationError> {
  const text = "SELECT current_user AS role, pg_catalog.current_database() AS database"
  const rows = yield* Catalog.queryAt(connection, text, { stage: "Query" })
  const who = yield* Catalog.decodeRow(WhoRow, rows[0], "current_user")
  const role = quoteIdentifier(who.role)
  const grant = `GRANT CREATE ON DATABASE ${quoteIdentifier(who.database)} TO ${role}`
  const ownership =
    target._tag === "Tables"
      ? `; and ${role} must own each table, or be a member of the role that does: GRANT owner TO ${role}`
      : "; and only a superuser may publish all tables, or all of a schema"
  const remedy = `${grant}${ownership}. Or have who may make it: then no right but REPLICATION is needed`
  return yield* new PermissionDenied({ stage: error.stage, detail: error.detail, remedy })
})

/** Makes a publication. */
export const createPublication = Effect.fn("Replicant.createPublication")(function* (
  connection: ReplicantConnection,
  options: PublicationOptions
): Effect.fn.Return<void, ReplicationError> {
  if (options.name === "" || hasNul(options.name) || new TextEncoder().encode(options.name).length > 63) {
    return yield* new InvalidOption({ option: "publication", problem: "a name has 1 to 63 bytes and no zero byte" })
  }
  const clause = yield* targetClause(options, connection.serverVersion)
  const publish =
    options.operations === undefined ? "" : ` WITH (publish = ${quoteLiteral(options.operations.join(", "))})`
  const text = `CREATE PUBLICATION ${quoteIdentifier(options.name)} ${clause}${publish}`
  yield* Catalog.queryAt(connection, text, { stage: "Query" }).pipe(
    Effect.catchTag("PermissionDenied", (error) => grantCreation(connection, options, error))
  )
})

/** The tables a publication names, and those it covers: a partitioned table is only named. */
const publishedTables = Effect.fnUntraced(function* (connection: ReplicantConnection, name: string) {
  const text = `SELECT schemaname, tablename FROM pg_catalog.pg_publication_tables WHERE pubname = ${quoteLiteral(name)}
  UNION SELECT n.nspname, c.relname FROM pg_catalog.pg_publication_rel r
    JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
    JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = ${quoteLiteral(name)}`
  const rows = yield* Catalog.queryAt(connection, text, { stage: "Query" })
  return new Set(rows.map((row) => JSON.stringify([row.schemaname, row.tablename])))
})

/** Adopts the publication if it publishes what is asked, makes it if there is none, and fails if it falls short. */
export const setupPublication = Effect.fn("Replicant.setupPublication")(function* (
  connection: ReplicantConnection,
  options: PublicationOptions
): Effect.fn.Return<Publication, ReplicationError> {
  const { name, operations = everyOperation, target } = options
  const find = Effect.map(listPublications(connection), (all) => all.find((publication) => publication.name === name))
  const found = yield* find
  if (found === undefined) {
    // 42710 here: another process made it meanwhile, and it is checked like any other.
    yield* createPublication(connection, options).pipe(
      Effect.catchIf(
        (error) => error instanceof ServerError && error.sqlState === "42710",
        () => Effect.void
      )
    )
  }
  const publication = found ?? (yield* find)
  const fail = (problem: string, remedy?: string) => new PublicationMismatch({ publication: name, problem, remedy })
  if (publication === undefined) return yield* new PublicationNotFound({ publications: [name] })
  const lacking = operations.filter((operation) => !publication.operations.includes(operation))
  const quotedName = quoteIdentifier(name)
  if (lacking.length > 0) {
    const publish = [...publication.operations, ...lacking].join(", ")
    const remedy = `ALTER PUBLICATION ${quotedName} SET (publish = '${publish}')`
    return yield* fail(`does not publish ${lacking.join(", ")}`, remedy)
  }
  if (publication.isAllTables) return publication
  if (target._tag === "AllTables") return yield* fail("is not FOR ALL TABLES")
  if (target._tag === "Tables") {
    const published = yield* publishedTables(connection, name)
    const missing = target.tables
      .map(tableName)
      .filter((table) => !published.has(JSON.stringify([table.schema, table.name])))
    if (missing.length > 0) {
      const quoted = missing.map(qualifiedName).join(", ")
      return yield* fail(`does not publish ${quoted}`, `ALTER PUBLICATION ${quotedName} ADD TABLE ${quoted}`)
    }
  } else {
    const text = `SELECT n.nspname FROM pg_catalog.pg_publication_namespace s
    JOIN pg_catalog.pg_namespace n ON n.oid = s.pnnspid
    JOIN pg_catalog.pg_publication p ON p.oid = s.pnpubid WHERE p.pubname = ${quoteLiteral(name)}`
    const rows = yield* Catalog.queryAt(connection, text, { stage: "Query" })
    const published = new Set(rows.map((row) => row.nspname))
    const missing = target.schemas.filter((schema) => !published.has(schema)).map(quoteIdentifier)
    if (missing.length > 0) {
      const list = missing.join(", ")
      return yield* fail(
        `does not publish schema ${list}`,
        `ALTER PUBLICATION ${quotedName} ADD TABLES IN SCHEMA ${list}`
      )
    }
  }
  return publication
})
