/** `replicant codegen`: tables of a live database as a TypeScript module that declares them. */
import { Publication, type ReplicationError } from "@replicant/core"
import type { ReplicantConnection } from "@replicant/core/driver"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import { catalogTables, type Selection } from "../codegen/TableCatalog.ts"
import { type CatalogTable, tableModule } from "../codegen/TableModule.ts"
import { CodegenFailed, UsageError } from "./Report.ts"
import * as Root from "./Root.ts"
import { Output } from "./StandardOutput.ts"

/** What the command was asked for. */
export interface CodegenFlags {
  readonly publication: ReadonlyArray<string>
  readonly table: ReadonlyArray<string>
  readonly schema: ReadonlyArray<string>
  readonly out: Option.Option<string>
  readonly check: boolean
}

/** Which tables, and the same said in flags, or what makes no sense. */
export interface CodegenPlan {
  readonly selection: Selection
  /** Sorted, each once: a module does not depend on the order in which its tables were named. */
  readonly args: ReadonlyArray<string>
}

const wrong = (message: string, remedy: string): Result.Result<never, UsageError> =>
  Result.fail(new UsageError({ message, remedy }))

const distinct = (names: ReadonlyArray<string>): ReadonlyArray<string> => Array.from(new Set(names)).toSorted()

export const codegenPlan = (flags: CodegenFlags): Result.Result<CodegenPlan, UsageError> => {
  const publications = distinct(flags.publication)
  const tables = distinct(flags.table)
  const schemas = distinct(flags.schema)
  const chosen: ReadonlyArray<readonly [flag: string, names: ReadonlyArray<string>, selection: Selection]> = [
    ["--publication", publications, { _tag: "Publications", publications }],
    ["--table", tables, { _tag: "Tables", tables }],
    ["--schema", schemas, { _tag: "Schemas", schemas }]
  ]
  const [first, ...others] = chosen.filter(([, names]) => names.length > 0)
  const remedy = "give --publication NAME, or --table TABLE, or --schema SCHEMA; again for more"
  if (first === undefined) return wrong("no table is named", remedy)
  if (others.length > 0) return wrong("--publication, --table and --schema exclude each other", remedy)
  if (flags.check && Option.isNone(flags.out))
    return wrong("--check compares a file, and none is named", "add --out FILE")
  const [flag, names, selection] = first
  return Result.succeed({ selection, args: names.flatMap((name) => [flag, name]) })
}

const label = ({ name, schema }: { readonly schema: string; readonly name: string }): string => `${schema}.${name}`

/** Why no module can be made of what was found. */
const unfit = (selection: Selection, tables: ReadonlyArray<CatalogTable>): CodegenFailed | undefined => {
  const found = new Set(tables.map(label))
  if (selection._tag === "Tables") {
    const missing = selection.tables
      .map((table) => label(Publication.tableName(table)))
      .filter((name) => !found.has(name))
    if (missing.length > 0) {
      const message = `no table ${missing.map((name) => `"${name}"`).join(", ")} in this database`
      return new CodegenFailed({ message, remedy: "schema.table, in the case it was made with; views have no changes" })
    }
  }
  if (tables.length === 0) {
    const what = selection._tag === "Publications" ? "publication sends" : "schema has"
    return new CodegenFailed({ message: `the ${what} no table`, remedy: "add tables to it, or name another" })
  }
  const clash = tables.map(label).find((name, index, all) => all.indexOf(name) !== index)
  return clash === undefined
    ? undefined
    : new CodegenFailed({
        message: `two tables are ${clash}, since names may hold dots: typed changes could not tell them apart`,
        remedy: "make a module of each"
      })
}

const query = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  selection: Selection
): Effect.fn.Return<ReadonlyArray<CatalogTable>, ReplicationError> {
  if (selection._tag === "Publications") yield* Publication.checkPublications(connection, selection.publications)
  return yield* catalogTables(connection, selection)
})

/** The file as it is; `undefined` where there is none. */
const existing = Effect.fnUntraced(function* (path: string) {
  const files = yield* FileSystem.FileSystem
  return yield* files
    .readFileString(path)
    .pipe(
      Effect.catch((error) =>
        error.reason._tag === "NotFound"
          ? Effect.undefined
          : Effect.fail(
              new CodegenFailed({ message: `cannot read ${path} (${error.reason._tag})`, remedy: "check the path" })
            )
      )
    )
})

const write = Effect.fnUntraced(function* (path: string, source: string) {
  const files = yield* FileSystem.FileSystem
  yield* files.writeFileString(path, source).pipe(
    Effect.mapError(
      (error) =>
        new CodegenFailed({
          message: `cannot write ${path} (${error.reason._tag})`,
          remedy: "check the path: its directory must be there"
        })
    )
  )
})

const flags = {
  publication: Flag.String("publication").pipe(
    Flag.withDescription("The tables and columns that a publication sends; again for more"),
    Flag.atLeast(0)
  ),
  table: Flag.String("table").pipe(
    Flag.withMetavar("schema.table"),
    Flag.withDescription("A table, in schema public unless it names one; again for more"),
    Flag.atLeast(0)
  ),
  schema: Flag.String("schema").pipe(
    Flag.withDescription("Every table of a schema, partitions left out; again for more"),
    Flag.atLeast(0)
  ),
  out: Flag.String("out").pipe(
    Flag.withMetavar("FILE"),
    Flag.withDescription("Writes to this file, where it differs; standard output when left out"),
    Flag.optional
  ),
  check: Root.switchFlag("check", "Writes nothing, and fails where the file differs")
}

export const command = Command.make("codegen", flags, (given) =>
  Effect.gen(function* () {
    const shared = yield* Root.command
    const output = yield* Output
    const { args, selection } = yield* Effect.fromResult(codegenPlan(given))
    const tables = yield* Root.withConnection((connection) => query(connection, selection)).pipe(
      Effect.provide(Root.walSender(shared))
    )
    const refusal = unfit(selection, tables)
    if (refusal !== undefined) return yield* refusal
    const source = tableModule(tables, args)
    const names = tables.map(label).toSorted()
    if (Option.isNone(given.out)) {
      return yield* output.write(shared.json ? `${JSON.stringify({ tables: names, module: source })}\n` : source)
    }
    const path = given.out.value
    const isSame = (yield* existing(path)) === source
    if (given.check && !isSame) {
      const command = ["replicant", "codegen", ...args, "--out", path].join(" ")
      return yield* new CodegenFailed({ message: `${path} is not what the database has`, remedy: command })
    }
    if (!isSame) yield* write(path, source)
    const count = names.length === 1 ? "1 table" : `${names.length} tables`
    yield* output.write(
      shared.json
        ? `${JSON.stringify({ tables: names, out: path, written: !isSame })}\n`
        : `${path} ${isSame ? "is up to date" : "is written"}: ${count}\n`
    )
  })
).pipe(
  Command.withDescription("Tables of the database as a TypeScript module that declares them"),
  Command.withExamples([
    { command: "replicant codegen --publication orders --out src/tables.ts", description: "What a publication sends" },
    {
      command: "replicant codegen --table orders --table crm.customers",
      description: "Some tables, to standard output"
    },
    { command: "replicant codegen --publication orders --out src/tables.ts --check", description: "In CI" }
  ])
)
