/** `replicant publication`: which tables the plugin pgoutput sends. */
import { Publication } from "@replicant/core"
import { qualifiedName, quoteIdentifier } from "@replicant/core/driver"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as ReplicaIdentity from "./ReplicaIdentity.ts"
import { UsageError } from "./Report.ts"
import * as Root from "./Root.ts"
import { Output } from "./StandardOutput.ts"
import { type Column, firstFew, formatTable } from "./Table.ts"

/** A publication, and what it sends now. */
interface Listed extends Publication.Publication {
  readonly tables: ReadonlyArray<ReplicaIdentity.SentTable>
}

const mostNamed = 5

const namesOf = (tables: ReadonlyArray<ReplicaIdentity.SentTable>): string =>
  firstFew(
    tables.map(({ name, schema }) => `${schema}.${name}`),
    mostNamed
  )

/** Those whose UPDATE and DELETE the source refuses. */
const broken = ({ operations, tables }: Listed): ReadonlyArray<ReplicaIdentity.SentTable> =>
  operations.includes("update") || operations.includes("delete") ? tables.filter(({ hasIdentity }) => !hasIdentity) : []

const columns: ReadonlyArray<Column<Listed>> = [
  { heading: "publication", value: (publication) => publication.name },
  { heading: "tables", value: ({ isAllTables, tables }) => (isAllTables ? `all ${tables.length}` : namesOf(tables)) },
  { heading: "publishes", value: (publication) => publication.operations.join(", ") },
  { heading: "without identity", value: (publication) => namesOf(broken(publication)) || undefined }
]

const list = Command.make("list", {}, () =>
  Effect.gen(function* () {
    const shared = yield* Root.command
    const output = yield* Output
    const publications = yield* Root.withConnection((connection) =>
      Effect.zipWith(Publication.listPublications(connection), ReplicaIdentity.tablesOf(connection), (all, sent) =>
        all.map((publication): Listed => ({ ...publication, tables: sent.get(publication.name) ?? [] }))
      )
    ).pipe(Effect.provide(Root.walSender(shared)))
    const json = publications.map((publication) => ({
      name: publication.name,
      allTables: publication.isAllTables,
      operations: publication.operations,
      tables: publication.tables.map(({ hasIdentity, name, schema }) => ({
        schema,
        table: name,
        replicaIdentity: hasIdentity
      }))
    }))
    yield* output.write(shared.json ? `${JSON.stringify(json)}\n` : formatTable(columns, publications))
  })
).pipe(Command.withDescription("Every publication of the database"))

/** What `create` was asked to publish. */
export interface TargetFlags {
  readonly table: ReadonlyArray<string>
  readonly schema: ReadonlyArray<string>
  readonly allTables: boolean
}

/** Exactly one kind of target, or why not. */
export const publicationTarget = (flags: TargetFlags): Effect.Effect<Publication.PublicationTarget, UsageError> => {
  const chosen = [
    ...(flags.table.length > 0 ? [Publication.tables(...flags.table)] : []),
    ...(flags.schema.length > 0 ? [Publication.schemas(...flags.schema)] : []),
    ...(flags.allTables ? [Publication.allTables] : [])
  ]
  const [target] = chosen
  return target !== undefined && chosen.length === 1
    ? Effect.succeed(target)
    : Effect.fail(
        new UsageError({
          message: chosen.length === 0 ? "no table is named" : "--table, --schema and --all-tables exclude each other",
          remedy: "give --table TABLE (again for more), or --schema SCHEMA, or --all-tables"
        })
      )
}

export const tableFlag = Flag.String("table").pipe(
  Flag.withMetavar("schema.table"),
  Flag.withDescription("A table, in schema public unless it names one; again for more"),
  Flag.atLeast(0)
)

export const withoutIdentityFlag = Root.switchFlag(
  "without-identity",
  "Publish also what has no replica identity: its UPDATE and DELETE fail at the source from then on"
)

const operationFlag = (leftOut: string) =>
  Flag.Literals("operation", ["insert", "update", "delete", "truncate"]).pipe(
    Flag.withDescription(`A kind of change to publish; again for more; ${leftOut}`),
    Flag.atLeast(0)
  )

const create = Command.make(
  "create",
  {
    name: Argument.String("name"),
    table: tableFlag,
    schema: Flag.String("schema").pipe(
      Flag.withDescription("Every table of a schema, also those made later (PostgreSQL 15); again for more"),
      Flag.atLeast(0)
    ),
    allTables: Root.switchFlag("all-tables", "Every table, also those made later; needs a superuser"),
    withoutIdentity: withoutIdentityFlag,
    operations: operationFlag("all four when left out")
  },
  ({ allTables, name, operations, schema, table, withoutIdentity }) =>
    Effect.gen(function* () {
      const shared = yield* Root.command
      const output = yield* Output
      const target = yield* publicationTarget({ table, schema, allTables })
      const options = { name, target, operations: operations.length === 0 ? undefined : operations }
      yield* Root.withConnection(
        Effect.fnUntraced(function* (connection) {
          if (!withoutIdentity) yield* ReplicaIdentity.check(connection, options)
          yield* Publication.createPublication(connection, options)
        })
      ).pipe(Effect.provide(Root.walSender(shared)))
      yield* output.write(shared.json ? `${JSON.stringify({ created: name })}\n` : `publication ${name} is made\n`)
    })
).pipe(
  Command.withDescription("Makes a publication"),
  Command.withExamples([
    { command: "replicant publication create orders --table orders --table order_items", description: "Of two tables" },
    { command: "replicant publication create everything --all-tables", description: "Of all tables" }
  ])
)

const tablesFlag = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar("schema.table"), Flag.withDescription(description), Flag.atLeast(0))

const quoted = (table: Publication.TableName): string => qualifiedName(Publication.tableName(table))

const alter = Command.make(
  "alter",
  {
    name: Argument.String("name"),
    add: tablesFlag("add-table", "A table that it sends from now on; again for more"),
    drop: tablesFlag("drop-table", "A table that it sends no more; again for more"),
    operations: operationFlag("as they are when left out"),
    withoutIdentity: withoutIdentityFlag
  },
  ({ add, drop, name, operations, withoutIdentity }) =>
    Effect.gen(function* () {
      const shared = yield* Root.command
      const output = yield* Output
      const clauses = [
        ...(add.length > 0 ? [`ADD TABLE ${add.map(quoted).join(", ")}`] : []),
        ...(drop.length > 0 ? [`DROP TABLE ${drop.map(quoted).join(", ")}`] : []),
        ...(operations.length > 0 ? [`SET (publish = '${operations.join(", ")}')`] : [])
      ]
      if (clauses.length === 0) {
        const remedy = "give --add-table TABLE, --drop-table TABLE or --operation"
        return yield* new UsageError({ message: "nothing is to be altered", remedy })
      }
      yield* Root.withConnection(
        Effect.fnUntraced(function* (connection) {
          yield* Publication.checkPublications(connection, [name])
          const before = (yield* Publication.listPublications(connection)).find((one) => one.name === name)
          // What it sends already is looked at where it may send more of it.
          const kept = operations.length > 0 ? ((yield* ReplicaIdentity.tablesOf(connection)).get(name) ?? []) : []
          const leaving = new Set(drop.map(quoted))
          const tables = [...kept, ...add].filter((table) => !leaving.has(quoted(table)))
          const after = operations.length > 0 ? operations : before?.operations
          if (!withoutIdentity && tables.length > 0) {
            const target = Publication.tables(...tables)
            yield* ReplicaIdentity.check(connection, { name, target, operations: after })
          }
          // One message is one transaction: all of it, or nothing.
          yield* connection.query(
            clauses.map((clause) => `ALTER PUBLICATION ${quoteIdentifier(name)} ${clause}`).join("; ")
          )
        })
      ).pipe(Effect.provide(Root.walSender(shared)))
      return yield* output.write(
        shared.json ? `${JSON.stringify({ altered: name })}\n` : `publication ${name} is altered\n`
      )
    })
).pipe(
  Command.withDescription("Changes what a publication sends; rows that are there already do not come with a new table"),
  Command.withExamples([
    { command: "replicant publication alter orders --add-table refunds", description: "One more table" }
  ])
)

const drop = Command.make("drop", { name: Argument.String("name") }, ({ name }) =>
  Effect.gen(function* () {
    const shared = yield* Root.command
    const output = yield* Output
    yield* Root.withConnection((connection) =>
      Effect.andThen(
        Publication.checkPublications(connection, [name]),
        connection.query(`DROP PUBLICATION ${quoteIdentifier(name)}`)
      )
    ).pipe(Effect.provide(Root.walSender(shared)))
    yield* output.write(shared.json ? `${JSON.stringify({ dropped: name })}\n` : `publication ${name} is dropped\n`)
  })
).pipe(Command.withDescription("Drops a publication: streams that read it end with an error"))

export const command = Command.make("publication").pipe(
  Command.withSubcommands([list, create, alter, drop]),
  Command.withDescription("Publications: list, create, alter, drop")
)
