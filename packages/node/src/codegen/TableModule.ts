/**
 * The source of a module that declares tables, from what the catalog says of them: text from data, and the same text from
 * the same data. The catalog is asked by `TableCatalog.ts`.
 *
 * Which Schema a column gets follows the decoder that core would choose for it, so that what is declared is what comes.
 */
import { TypeDecoder } from "@replicant/core"
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

const tableSource = (table: CatalogTable, constant: string, enums: ReadonlyMap<string, string>): string => {
  const declaredName = nameSource(table)
  const last = table.columns.length - 1
  const columns = table.columns.map((column, index) => {
    const decoder = TypeDecoder.decoderForOid(column.typeOid, {}, column.base)
    const declared = schemaOf(
      decoder,
      column.labels === null ? undefined : enums.get(keyOf(column.base)),
      column.dimensions
    )
    const key = propertyKey(column.name)
    const comma = index === last ? "" : ","
    const value = layOut(column.isNullable ? orNull(declared) : declared, "    ", key.length + 6, comma.length)
    return `    ${key}: ${value}${comma} // ${commentText(column.type)}\n`
  })
  const key = declaredKey(table).map(stringLiteral)
  const keySource =
    key.length === 0
      ? ""
      : `  { key: [${key.join(", ")}] }`.length <= width
        ? `,\n  { key: [${key.join(", ")}] }`
        : `,\n  {\n    ${listed(key, "    ", "key: ", "")}\n  }`
  const struct = columns.length === 0 ? "Schema.Struct({})" : `Schema.Struct({\n${columns.join("")}  })`
  const note =
    table.identity.length === 0 && table.replicaIdentity !== "f"
      ? "/** It has no replica identity: while its updates or deletes are published, the source refuses them. */\n"
      : ""
  const source =
    columns.length === 0 && keySource === ""
      ? `Table.make(${declaredName}, ${struct})`
      : `Table.make(\n  ${declaredName},\n  ${struct}${keySource}\n)`
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

/** The module. `args` are what the command was told, for its header: flags and names, nothing of the connection. */
export const tableModule = (tables: ReadonlyArray<CatalogTable>, args: ReadonlyArray<string>): string => {
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
  const names = constantNames([
    ...sorted.map(({ name, schema }) => ({ schema, name, suffix: "Table" })),
    ...enums.map(({ name, schema }) => ({ schema, name, suffix: "Enum" }))
  ])
  const enumNames = new Map(enums.map((type, index) => [keyOf(type), names[sorted.length + index]!]))
  const enumSources = enums.map((type) => {
    const before = `export const ${enumNames.get(keyOf(type))} = Schema.Literals(`
    return `/** The type ${commentText(`${type.schema}.${type.name}`)}. */\n${listed(type.labels.map(stringLiteral), "", before, ")")}\n`
  })
  const tableSources = sorted.map((table, index) => tableSource(table, names[index]!, enumNames))
  const all = `${listed(names.slice(0, sorted.length), "", "export const tables = ", " as const")}\n`
  const imports = `import { Table } from "@replicant/core"\nimport * as Schema from "effect/Schema"\n`
  return [`${header(args)}${imports}`, ...enumSources, ...tableSources, all].join("\n")
}
