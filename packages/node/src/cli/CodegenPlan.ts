/** What `replicant codegen` is asked for, by flags or by a file of modules: checked, and nothing opened. */
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { Casing } from "../codegen/Casing.ts"
import * as ColumnSchema from "../codegen/ColumnSchema.ts"
import { shellWord } from "../codegen/SourceText.ts"
import type { Selection } from "../codegen/TableCatalog.ts"
import { UsageError } from "./Report.ts"

/** What the command was asked for. */
export interface CodegenFlags {
  readonly publication: ReadonlyArray<string>
  readonly table: ReadonlyArray<string>
  readonly schema: ReadonlyArray<string>
  readonly exclude: ReadonlyArray<string>
  readonly casing: Casing
  readonly column: ReadonlyArray<string>
  readonly format: Option.Option<string>
  readonly out: Option.Option<string>
  readonly config: Option.Option<string>
  readonly check: boolean
}

/** One module: which tables, how they are declared, and the same said in flags. */
export interface CodegenPlan {
  readonly selection: Selection
  readonly exclude: ReadonlyArray<string>
  readonly casing: Casing
  readonly columns: ReadonlyArray<ColumnSchema.ColumnSchema>
  /** A shell command that is given the module on its standard input and prints it as it is to be. */
  readonly format: string | undefined
  /** Sorted, each once: a module does not depend on the order in which its tables were named. */
  readonly args: ReadonlyArray<string>
}

const strings = Schema.optionalKey(Schema.Array(Schema.String))

/** One module of a file of them. */
const Module = Schema.Struct({
  out: Schema.String,
  publications: strings,
  tables: strings,
  schemas: strings,
  exclude: strings,
  casing: Schema.optionalKey(Schema.Literals(["keep", "camel"])),
  columns: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
  format: Schema.optionalKey(Schema.String)
})

/** `replicant.codegen.json`: modules, each as the flags would have it. */
export const CodegenConfig = Schema.Struct({
  $schema: Schema.optionalKey(Schema.String),
  modules: Schema.NonEmptyArray(Module)
})
export interface CodegenConfig extends Schema.Schema.Type<typeof CodegenConfig> {}

const wrong = (message: string, remedy: string): Result.Result<never, UsageError> =>
  Result.fail(new UsageError({ message, remedy }))

const distinct = (names: ReadonlyArray<string>): ReadonlyArray<string> => Array.from(new Set(names)).toSorted()

type Asked = Omit<CodegenFlags, "out" | "config" | "check">

const clash = (columns: ReadonlyArray<ColumnSchema.ColumnSchema>): string | undefined =>
  columns.find((one) => columns.some((other) => other.name === one.name && other.module !== one.module))?.name

/** What one module is made of. */
export const modulePlan = (asked: Asked): Result.Result<CodegenPlan, UsageError> => {
  const publications = distinct(asked.publication)
  const tables = distinct(asked.table)
  const schemas = distinct(asked.schema)
  const exclude = distinct(asked.exclude)
  const chosen: ReadonlyArray<readonly [flag: string, names: ReadonlyArray<string>, selection: Selection]> = [
    ["--publication", publications, { _tag: "Publications", publications }],
    ["--table", tables, { _tag: "Tables", tables }],
    ["--schema", schemas, { _tag: "Schemas", schemas }]
  ]
  const [first, ...others] = chosen.filter(([, names]) => names.length > 0)
  const remedy = "give --publication NAME, or --table TABLE, or --schema SCHEMA; again for more"
  if (first === undefined) return wrong("no table is named", remedy)
  if (others.length > 0) return wrong("--publication, --table and --schema exclude each other", remedy)
  const columns: Array<ColumnSchema.ColumnSchema> = []
  for (const text of distinct(asked.column)) {
    const column = ColumnSchema.parse(text)
    if (column === undefined) return wrong(`"${text}" is no column's Schema`, `say ${ColumnSchema.form}`)
    columns.push(column)
  }
  const shared = clash(columns)
  if (shared !== undefined) return wrong(`${shared} comes from two modules`, "give one of them another name")
  const [flag, names, selection] = first
  const format = Option.getOrUndefined(asked.format)
  const args = [
    ...names.flatMap((name) => [flag, name]),
    ...exclude.flatMap((name) => ["--exclude", name]),
    ...(asked.casing === "keep" ? [] : ["--casing", asked.casing]),
    ...columns.flatMap((column) => ["--column", ColumnSchema.format(column)]),
    ...(format === undefined ? [] : ["--format", format])
  ]
  return Result.succeed({ selection, exclude, casing: asked.casing, columns, format, args })
}

/** The module that flags ask for. */
export const codegenPlan = (flags: CodegenFlags): Result.Result<CodegenPlan, UsageError> =>
  flags.check && Option.isNone(flags.out)
    ? wrong("--check compares a file, and none is named", "add --out FILE")
    : modulePlan(flags)

/** A file of modules, and nothing beside it. */
export const isConfigured = (flags: CodegenFlags): Result.Result<boolean, UsageError> => {
  if (Option.isNone(flags.config)) return Result.succeed(false)
  const isAlone =
    [flags.publication, flags.table, flags.schema, flags.exclude, flags.column].every(({ length }) => length === 0) &&
    flags.casing === "keep" &&
    Option.isNone(flags.out) &&
    Option.isNone(flags.format)
  return isAlone ? Result.succeed(true) : wrong("--config says all of it", "leave out every other flag but --check")
}

/** The modules of a file, each with where it goes. */
export const configPlans = (
  config: CodegenConfig,
  file: string
): Result.Result<ReadonlyArray<CodegenPlan & { readonly out: string }>, UsageError> => {
  const plans: Array<CodegenPlan & { readonly out: string }> = []
  for (const [index, module] of config.modules.entries()) {
    const plan = modulePlan({
      publication: module.publications ?? [],
      table: module.tables ?? [],
      schema: module.schemas ?? [],
      exclude: module.exclude ?? [],
      casing: module.casing ?? "keep",
      column: Object.entries(module.columns ?? {}).map(([column, schema]) => `${column}=${schema}`),
      format: Option.fromUndefinedOr(module.format)
    })
    if (Result.isFailure(plan)) {
      const { message, remedy } = plan.failure
      return wrong(`${file}, modules[${index}]: ${message}`, remedy)
    }
    plans.push({ ...plan.success, out: module.out, args: ["--config", shellWord(file)] })
  }
  const outs = plans.map(({ out }) => out)
  const twice = outs.find((out, index) => outs.indexOf(out) !== index)
  return twice === undefined
    ? Result.succeed(plans)
    : wrong(`${file}: two modules go to ${twice}`, "give each a file of its own")
}
