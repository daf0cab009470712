/** `replicant publication`: which tables the plugin pgoutput sends. */
import { Publication } from "@replicant/core"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as ReplicaIdentity from "./ReplicaIdentity.ts"
import { UsageError } from "./Report.ts"
import * as Root from "./Root.ts"
import { Output } from "./StandardOutput.ts"
import { type Column, formatTable } from "./Table.ts"

const columns: ReadonlyArray<Column<Publication.Publication>> = [
  { heading: "publication", value: (publication) => publication.name },
  { heading: "tables", value: (publication) => (publication.isAllTables ? "all" : "listed") },
  { heading: "publishes", value: (publication) => publication.operations.join(", ") }
]

const list = Command.make("list", {}, () =>
  Effect.gen(function* () {
    const shared = yield* Root.command
    const output = yield* Output
    const publications = yield* Root.withConnection(Publication.listPublications).pipe(
      Effect.provide(Root.walSender(shared))
    )
    const json = publications.map((publication) => ({
      name: publication.name,
      allTables: publication.isAllTables,
      operations: publication.operations
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

export const withoutIdentityFlag = Flag.Boolean("without-identity").pipe(
  Flag.withoutNegation,
  Flag.withDescription(
    "Publish also what has no replica identity: its UPDATE and DELETE fail at the source from then on"
  ),
  Flag.withDefault(false)
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
    allTables: Flag.Boolean("all-tables").pipe(
      Flag.withoutNegation,
      Flag.withDescription("Every table, also those made later; needs a superuser"),
      Flag.withDefault(false)
    ),
    withoutIdentity: withoutIdentityFlag,
    operations: Flag.Literals("operation", ["insert", "update", "delete", "truncate"]).pipe(
      Flag.withDescription("A kind of change to publish; again for more; all four when left out"),
      Flag.atLeast(0)
    )
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

export const command = Command.make("publication").pipe(
  Command.withSubcommands([list, create]),
  Command.withDescription("Publications: list, create")
)
