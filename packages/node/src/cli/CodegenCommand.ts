/** `replicant codegen`: tables of a live database as a TypeScript module that declares them. */
import { Publication, type ReplicationError } from "@replicant/core"
import type { ReplicantConnection } from "@replicant/core/driver"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as ColumnSchema from "../codegen/ColumnSchema.ts"
import { isPattern, matcher } from "../codegen/NamePattern.ts"
import { shellWord } from "../codegen/SourceText.ts"
import { catalogTables } from "../codegen/TableCatalog.ts"
import { type CatalogTable, tableModule } from "../codegen/TableModule.ts"
import { CodegenConfig, type CodegenPlan, codegenPlan, configPlans, isConfigured } from "./CodegenPlan.ts"
import { CodegenFailed } from "./Report.ts"
import * as Root from "./Root.ts"
import { Output } from "./StandardOutput.ts"

const label = ({ name, schema }: { readonly schema: string; readonly name: string }): string => `${schema}.${name}`

/** Why no module can be made of what was found. */
const unfit = (
  { columns, exclude, selection }: CodegenPlan,
  tables: ReadonlyArray<CatalogTable>
): CodegenFailed | undefined => {
  const found = new Set(tables.map(label))
  const isExcluded = matcher(exclude)
  if (selection._tag === "Tables") {
    const missing = selection.tables
      .filter((table) => !isPattern(table))
      .map((table) => Publication.tableName(table))
      .filter((table) => !found.has(label(table)) && !isExcluded(table))
      .map(label)
    if (missing.length > 0) {
      const message = `no table ${missing.map((name) => `"${name}"`).join(", ")} in this database`
      return new CodegenFailed({ message, remedy: "schema.table, in the case it was made with; views have no changes" })
    }
  }
  if (tables.length === 0) {
    const message = {
      Publications: "the publication sends no table",
      Schemas: "the schema has no table",
      Tables: "no table has such a name"
    }[selection._tag]
    return new CodegenFailed({ message, remedy: "add tables to it, or name another" })
  }
  const stray = columns.find(
    ({ column, schema, table }) =>
      !tables.some((of) => of.schema === schema && of.name === table && of.columns.some(({ name }) => name === column))
  )
  if (stray !== undefined) {
    const message = `no column "${stray.schema}.${stray.table}.${stray.column}" among those of the module`
    return new CodegenFailed({ message, remedy: "schema.table.column, in the case it was made with" })
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
  { exclude, selection }: CodegenPlan
): Effect.fn.Return<ReadonlyArray<CatalogTable>, ReplicationError> {
  if (selection._tag === "Publications") yield* Publication.checkPublications(connection, selection.publications)
  return yield* catalogTables(connection, selection, exclude)
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

const formatFailed = (command: string, why: string) =>
  new CodegenFailed({
    message: `the formatter failed: ${why}`,
    remedy: `it reads a module and prints it as it is to be; try: ${command} < FILE`
  })

/** What a formatter makes of a module. */
const formatted = Effect.fnUntraced(function* (source: string, command: string, directory: string | undefined) {
  const spawner = yield* ChildProcessSpawner
  const child = yield* spawner
    .spawn(
      ChildProcess.make(command, {
        shell: true,
        cwd: directory,
        stdin: Stream.make(new TextEncoder().encode(source)),
        stderr: "inherit"
      })
    )
    .pipe(Effect.mapError((error) => formatFailed(command, error.reason._tag)))
  const [text, code] = yield* Effect.all([Stream.mkString(Stream.decodeText(child.stdout)), child.exitCode], {
    concurrency: "unbounded"
  }).pipe(Effect.mapError((error) => formatFailed(command, error.reason._tag)))
  if (code !== 0) return yield* formatFailed(command, `exit code ${code}`)
  return text.trim() === "" ? yield* formatFailed(command, "it printed nothing") : text
}, Effect.scoped)

/** The text of a module, and the tables in it. */
const made = Effect.fnUntraced(function* (plan: CodegenPlan, directory?: string) {
  const shared = yield* Root.command
  const tables = yield* Root.withConnection((connection) => query(connection, plan)).pipe(
    Effect.provide(Root.walSender(shared))
  )
  const refusal = unfit(plan, tables)
  if (refusal !== undefined) return yield* refusal
  const source = tableModule(tables, plan.args, plan)
  const { format } = plan
  return {
    source: format === undefined ? source : yield* formatted(source, format, directory),
    names: tables.map(label).toSorted()
  }
})

/** Whether a file is what the database has; made so, unless it is only to be looked at. */
const kept = Effect.fnUntraced(function* (path: string, source: string, check: boolean, again: string) {
  const isSame = (yield* existing(path)) === source
  if (check && !isSame)
    return yield* new CodegenFailed({ message: `${path} is not what the database has`, remedy: again })
  if (!isSame) yield* write(path, source)
  return isSame
})

/** What is said of one that is written. */
const told = Effect.fnUntraced(function* (path: string, names: ReadonlyArray<string>, isSame: boolean) {
  const { json } = yield* Root.command
  const output = yield* Output
  const count = names.length === 1 ? "1 table" : `${names.length} tables`
  yield* output.write(
    json
      ? `${JSON.stringify({ tables: names, out: path, written: !isSame })}\n`
      : `${path} ${isSame ? "is up to date" : "is written"}: ${count}\n`
  )
})

const readConfig = Effect.fnUntraced(function* (file: string) {
  const text = yield* existing(file)
  if (text === undefined) {
    return yield* new CodegenFailed({ message: `there is no ${file}`, remedy: "check the path of --config" })
  }
  return yield* Schema.decodeEffect(Schema.fromJsonString(CodegenConfig))(text, {
    errors: "all",
    onExcessProperty: "error"
  }).pipe(
    Effect.mapError(
      (error) => new CodegenFailed({ message: `${file} is no file of modules: ${error.message}`, remedy: configPage })
    )
  )
})

const configPage = "see docs/cli.md, replicant codegen"

/** Every module of a file, relative to it, one after the other. */
const fromConfig = Effect.fnUntraced(function* (file: string, check: boolean) {
  const path = yield* Path.Path
  const directory = path.dirname(file)
  const plans = yield* Effect.fromResult(configPlans(yield* readConfig(file), path.basename(file)))
  for (const plan of plans) {
    const { names, source } = yield* made(plan, directory)
    const out = path.join(directory, plan.out)
    yield* told(out, names, yield* kept(out, source, check, `replicant codegen --config ${shellWord(file)}`))
  }
})

const many = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), Flag.atLeast(0))

const flags = {
  publication: many("publication", "NAME", "The tables and columns that a publication sends; again for more"),
  table: many(
    "table",
    "schema.table",
    "A table, in schema public unless it names one, or a pattern: 'shop.*'; again for more"
  ),
  schema: many("schema", "NAME", "Every table of a schema, partitions left out; again for more"),
  exclude: many("exclude", "schema.table", "Not this one, or those of a pattern; again for more"),
  casing: Flag.Literals("casing", ["keep", "camel"]).pipe(
    Flag.withDescription("Properties as columns are named, or placed_at as placedAt"),
    Flag.withDefault("keep")
  ),
  column: many("column", ColumnSchema.form, "A Schema of yours for a column, of JSON mostly; again for more"),
  format: Flag.String("format").pipe(
    Flag.withMetavar("COMMAND"),
    Flag.withDescription("A shell command that reads the module and prints it as it is to be"),
    Flag.optional
  ),
  out: Flag.String("out").pipe(
    Flag.withMetavar("FILE"),
    Flag.withDescription("Writes to this file, where it differs; standard output when left out"),
    Flag.optional
  ),
  config: Flag.String("config").pipe(
    Flag.withMetavar("FILE"),
    Flag.withDescription("Makes every module that a file of JSON names, instead of one by flags"),
    Flag.optional
  ),
  check: Root.switchFlag("check", "Writes nothing, and fails where a file differs")
}

export const command = Command.make("codegen", flags, (given) =>
  Effect.gen(function* () {
    if ((yield* Effect.fromResult(isConfigured(given))) && Option.isSome(given.config)) {
      return yield* fromConfig(given.config.value, given.check)
    }
    const plan = yield* Effect.fromResult(codegenPlan(given))
    const { names, source } = yield* made(plan)
    if (Option.isSome(given.out)) {
      const path = given.out.value
      const again = ["replicant", "codegen", ...plan.args, "--out", path].map(shellWord).join(" ")
      return yield* told(path, names, yield* kept(path, source, given.check, again))
    }
    const { json } = yield* Root.command
    const output = yield* Output
    yield* output.write(json ? `${JSON.stringify({ tables: names, module: source })}\n` : source)
  })
).pipe(
  Command.withDescription("Tables of the database as a TypeScript module that declares them"),
  Command.withExamples([
    { command: "replicant codegen --publication orders --out src/tables.ts", description: "What a publication sends" },
    {
      command: "replicant codegen --table 'shop.*' --exclude 'shop.tmp_*' --casing camel",
      description: "Some tables, to standard output"
    },
    { command: "replicant codegen --config replicant.codegen.json --check", description: "In CI" }
  ])
)
