/**
 * The source of a module that declares tables, from what the catalog says of them: text from data, and the same text from
 * the same data. The catalog is asked by `TableCatalog.ts`.
 *
 * Which Schema a column gets follows the decoder that core would choose for it, so that what is declared is what comes.
 */
import { TypeDecoder } from "@replicant/core"
import { type Casing, propertyNames } from "./Casing.ts"
import type { ColumnSchema } from "./ColumnSchema.ts"
import { commentText, constantNames, propertyKey, shellWord, stringLiteral } from "./SourceText.ts"

/** A column as the catalog has it. */
export interface CatalogColumn {
  readonly name: string
  readonly typeOid: number
  /** The type, or a domain's base type. */
  readonly base: { readonly schema: string; readonly name: string }
  /** As `format_type` prints it. */
  readonly type: string
  /** Of an enum, or a domain over one, in their order. */
  readonly labels: ReadonlyArray<string> | null
  /** As declared, which binds no value; 0 where none were. */
  readonly dimensions: number
  readonly isNullable: boolean
}

/** A table as the catalog has it: its columns in table order, its keys in index order. */
export interface CatalogTable {
  readonly schema: string
  readonly name: string
  /** `relreplident`. */
  readonly replicaIdentity: string
  /** Key columns of the identity's index; empty where there is none. */
  readonly identity: ReadonlyArray<string>
  readonly primaryKey: ReadonlyArray<string>
  readonly columns: ReadonlyArray<CatalogColumn>
}

/** A call of one argument, or source as it is. */
type Expression = string | { readonly call: string; readonly argument: Expression }

const call = (name: string, argument: Expression): Expression => ({ call: `Schema.${name}`, argument })

const width = 120

const inline = (expression: Expression): string =>
  typeof expression === "string" ? expression : `${expression.call}(${inline(expression.argument)})`

/** The expression behind what stands on its line already (`taken` columns), with `after` more to come. */
const layOut = (expression: Expression, indent: string, taken: number, after: number): string => {
  const line = inline(expression)
  if (typeof expression === "string" || taken + line.length + after <= width) return line
  const inner = `${indent}  `
  return `${expression.call}(\n${inner}${layOut(expression.argument, inner, inner.length, 0)}\n${indent})`
}

/** A list: on the line that it begins on, or an item a line. `before` and `after` stand on its first and last. */
const listed = (items: ReadonlyArray<string>, indent: string, before: string, after: string): string => {
  const line = `${before}[${items.join(", ")}]${after}`
  if (indent.length + line.length <= width) return line
  return `${before}[\n${items.map((item) => `${indent}  ${item}`).join(",\n")}\n${indent}]${after}`
}

/** The Schema of what a decoder gives. The elements of an array may be NULL whatever the column says. */
const schemaOf = (decoder: TypeDecoder.ValueDecoder, enumName: string | undefined, dimensions: number): Expression => {
  if (decoder.element === undefined) return enumName ?? decoder.schema ?? "Schema.Unknown"
  const element = orNull(schemaOf(decoder.element, undefined, 0))
  return Array.from({ length: Math.max(1, dimensions) }).reduce<Expression>((of) => call("Array", of), element)
}

/** Nothing is added to what takes anything. */
const orNull = (expression: Expression): Expression =>
  expression === "Schema.Unknown" ? expression : call("NullOr", expression)

/** By code units, so that no locale decides. */
const compare = (left: string, right: string): number => (left < right ? -1 : left > right ? 1 : 0)

type QualifiedName = { readonly schema: string; readonly name: string }
const byName = (left: QualifiedName, right: QualifiedName): number =>
  compare(left.schema, right.schema) || compare(left.name, right.name)

const keyOf = ({ name, schema }: QualifiedName): string => JSON.stringify([schema, name])

/** The columns that identify a row: the replica identity's, or else the primary key, where the module has them all. */
const declaredKey = ({ columns, identity, primaryKey }: CatalogTable): ReadonlyArray<string> => {
  const key = identity.length > 0 ? identity : primaryKey
  return key.every((name) => columns.some((column) => column.name === name)) ? key : []
}

/** The name as `Table.make` takes it, in the place of its first argument. */
const nameSource = ({ name, schema }: QualifiedName): string => {
  if (schema !== "" && !schema.includes(".")) return stringLiteral(`${schema}.${name}`)
  const [first, second] = [`schema: ${stringLiteral(schema)}`, `name: ${stringLiteral(name)}`]
  const line = `{ ${first}, ${second} }`
  return line.length + 3 <= width ? line : `{\n    ${first},\n    ${second}\n  }`
}

/** An object's fields, on one line or one a line, as what `before` begins. */
const fieldsOf = (fields: ReadonlyArray<string>, indent: string, before: string): string => {
  const line = `${before}{ ${fields.join(", ")} }`
  if (indent.length + line.length <= width && !line.includes("\n")) return line
  return `${before}{\n${fields.map((field) => `${indent}  ${field}`).join(",\n")}\n${indent}}`
}

/** The last argument of `Table.make`, where there is anything to say. */
const optionsSource = (table: CatalogTable, properties: ReadonlyMap<string, string>): string => {
  const key = declaredKey(table).map((name) => stringLiteral(properties.get(name)!))
  const renamed = [...properties]
    .filter(([column, property]) => column !== property)
    .map(([column, property]) => `${propertyKey(property)}: ${stringLiteral(column)}`)
  const fields = [
    ...(key.length === 0 ? [] : [listed(key, "    ", "key: ", "")]),
    ...(renamed.length === 0 ? [] : [fieldsOf(renamed, "    ", "columns: ")])
  ]
  return fields.length === 0 ? "" : `,\n  ${fieldsOf(fields, "  ", "")}`
}

/** What a module is made with, beside tables. */
export interface ModuleOptions {
  readonly casing?: Casing | undefined
  readonly columns?: ReadonlyArray<ColumnSchema> | undefined
}

/** What a table's source needs to know of the rest of the module. */
interface Names {
  readonly casing: Casing
  readonly enums: ReadonlyMap<string, string>
  readonly columns: ReadonlyArray<ColumnSchema>
}

const ownSchema = (table: CatalogTable, column: string, columns: ReadonlyArray<ColumnSchema>): string | undefined =>
  columns.find((own) => own.schema === table.schema && own.table === table.name && own.column === column)?.name

const tableSource = (table: CatalogTable, constant: string, names: Names): string => {
  const declaredName = nameSource(table)
  const properties = propertyNames(
    table.columns.map(({ name }) => name),
    names.casing
  )
  const last = table.columns.length - 1
  const columns = table.columns.map((column, index) => {
    const decoder = TypeDecoder.decoderForOid(column.typeOid, {}, column.base)
    const enumName = column.labels === null ? undefined : names.enums.get(keyOf(column.base))
    const declared = ownSchema(table, column.name, names.columns) ?? schemaOf(decoder, enumName, column.dimensions)
    const key = propertyKey(properties.get(column.name)!)
    const comma = index === last ? "" : ","
    const value = layOut(column.isNullable ? orNull(declared) : declared, "    ", key.length + 6, comma.length)
    return `    ${key}: ${value}${comma} // ${commentText(column.type)}\n`
  })
  const options = optionsSource(table, properties)
  const struct = columns.length === 0 ? "Schema.Struct({})" : `Schema.Struct({\n${columns.join("")}  })`
  const note =
    table.identity.length === 0 && table.replicaIdentity !== "f"
      ? "/** It has no replica identity: while its updates or deletes are published, the source refuses them. */\n"
      : ""
  const source =
    columns.length === 0 && options === ""
      ? `Table.make(${declaredName}, ${struct})`
      : `Table.make(\n  ${declaredName},\n  ${struct}${options}\n)`
  return `${note}export const ${constant} = ${source}\n`
}

const header = (args: ReadonlyArray<string>): string =>
  `/**
 * Tables as the database has them, made by
 *
 *     ${commentText(["replicant", "codegen", ...args.map(shellWord)].join(" "))}
 *
 * What is changed here by hand is lost when it is made again.
 */
`

/** By module, sorted. */
const importsOf = (columns: ReadonlyArray<ColumnSchema>): ReadonlyArray<string> => {
  const modules = Array.from(new Set(columns.map(({ module }) => module))).toSorted(compare)
  return modules.map((module) => {
    const of = columns.filter((column) => column.module === module).map(({ name }) => name)
    const names = Array.from(new Set(of)).toSorted(compare)
    const line = `import { ${names.join(", ")} } from ${stringLiteral(module)}`
    return line.length <= width ? line : `import {\n  ${names.join(",\n  ")}\n} from ${stringLiteral(module)}`
  })
}

/** The module. `args` are what the command was told, for its header: flags and names, nothing of the connection. */
export const tableModule = (
  tables: ReadonlyArray<CatalogTable>,
  args: ReadonlyArray<string>,
  { casing = "keep", columns = [] }: ModuleOptions = {}
): string => {
  const sorted = tables.toSorted(byName)
  const used = new Map(
    sorted
      .flatMap(({ columns }) => columns)
      .flatMap(({ base, labels }) =>
        // An enum without labels has no values; when it gets some, text is what they are.
        labels === null || labels.length === 0 ? [] : [[keyOf(base), { ...base, labels }] as const]
      )
  )
  const enums = Array.from(used.values()).toSorted(byName)
  const names = constantNames(
    [
      ...sorted.map(({ name, schema }) => ({ schema, name, suffix: "Table" })),
      ...enums.map(({ name, schema }) => ({ schema, name, suffix: "Enum" }))
    ],
    columns.map(({ name }) => name)
  )
  const enumNames = new Map(enums.map((type, index) => [keyOf(type), names[sorted.length + index]!]))
  const enumSources = enums.map((type) => {
    const before = `export const ${enumNames.get(keyOf(type))} = Schema.Literals(`
    return `/** The type ${commentText(`${type.schema}.${type.name}`)}. */\n${listed(type.labels.map(stringLiteral), "", before, ")")}\n`
  })
  const tableSources = sorted.map((table, index) =>
    tableSource(table, names[index]!, { casing, columns, enums: enumNames })
  )
  const all = `${listed(names.slice(0, sorted.length), "", "export const tables = ", " as const")}\n`
  const own = importsOf(columns).map((line) => `${line}\n`)
  const imports = `import { Table } from "@replicant/core"\nimport * as Schema from "effect/Schema"\n${own.join("")}`
  return [`${header(args)}${imports}`, ...enumSources, ...tableSources, all].join("\n")
}
