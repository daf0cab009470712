/**
 * The conditions in the WHERE of our own reading, evaluated over a row: pages, ages and keys compared with literals, under
 * AND, OR and parentheses. Nothing else of SQL: another condition is refused, and named.
 */
import { builtinByOid } from "../values/BuiltinCatalog.ts"
import type { ColumnType } from "./TestRelation.ts"
import type { RowVersion, TestTable, Value } from "./TestTables.ts"

/** Whether a row is meant. */
export type Condition = (version: RowVersion) => boolean

/** A condition that is not known. */
export class UnknownCondition extends Error {}

const identifier = '"(?:[^"]|"")*"'
const literal = "E?'(?:[^']|'')*'"
const cast = `(?:::(?:${identifier}|[a-z_0-9]+)(?:\\.(?:${identifier}|[a-z_0-9]+))*)?`
const sign = `(?:OPERATOR\\((?:${identifier}|[a-z_]+)\\.([<>=]+)\\)|([<>=]+))`

const unquoted = (text: string): string => text.slice(1, -1).replaceAll('""', '"')

/** The text that a literal stands for. */
const textOf = (text: string): string => {
  const value = text.replace(/^E?'/, "").slice(0, -1).replaceAll("''", "'")
  return text.startsWith("E") ? value.replaceAll("\\\\", "\\") : value
}

/** In the order of the type: numbers by value, text by its letters, as under the collation C. */
const compareAs = (type: ColumnType): ((self: string, that: string) => number) => {
  const form = typeof type === "number" ? builtinByOid(type)?.type.form.form : undefined
  if (form === "bigint") return (self, that) => (BigInt(self) < BigInt(that) ? -1 : BigInt(self) > BigInt(that) ? 1 : 0)
  const isNumber = form === "integer" || form === "float" || type === numericOid
  if (isNumber) return (self, that) => Number(self) - Number(that)
  return (self, that) => (self < that ? -1 : self > that ? 1 : 0)
}

const numericOid = 1700

const holds = (order: number, operator: string): boolean => {
  switch (operator) {
    case "=":
      return order === 0
    case "<":
      return order < 0
    case "<=":
      return order <= 0
    case ">":
      return order > 0
    case ">=":
      return order >= 0
    default:
      throw new UnknownCondition(operator)
  }
}

/** A column's place, and how its values compare. NULL is last, as in an index. */
const columnOf = ({ relation }: TestTable, quoted: string) => {
  const name = unquoted(quoted)
  const index = relation.columns.findIndex((column) => column.name === name)
  const column = relation.columns[index]
  if (column === undefined) throw new UnknownCondition(quoted)
  const compare = compareAs(column.type)
  return (version: RowVersion, that: Value): number => {
    const value = version.values[index] ?? null
    if (value === null || that === null) return value === that ? 0 : value === null ? 1 : -1
    return compare(value, that)
  }
}

/** Compares rows by columns, in the order of a key. */
export const orderBy = (table: TestTable, columns: string) => {
  const keys = [...columns.matchAll(new RegExp(identifier, "g"))].map(([quoted]) => ({
    index: table.relation.columns.findIndex(({ name }) => name === unquoted(quoted)),
    compare: columnOf(table, quoted)
  }))
  return (self: RowVersion, that: RowVersion): number => {
    for (const { compare, index } of keys) {
      const order = compare(self, that.values[index] ?? null)
      if (order !== 0) return order
    }
    return 0
  }
}

/** Reads a text from its beginning, and ends where it does. */
class ConditionReader {
  private rest: string
  private readonly table: TestTable

  constructor(table: TestTable, text: string) {
    this.table = table
    this.rest = text
  }

  whole(): Condition {
    const condition = this.either()
    if (this.rest.trim() !== "") throw new UnknownCondition(this.rest.trim())
    return condition
  }

  private take(pattern: string): RegExpExecArray | undefined {
    const match = new RegExp(`^\\s*${pattern}`).exec(this.rest)
    if (match === null) return undefined
    this.rest = this.rest.slice(match[0].length)
    return match
  }

  private either(): Condition {
    const all = [this.both()]
    while (this.take("OR\\b") !== undefined) all.push(this.both())
    return (version) => all.some((condition) => condition(version))
  }

  private both(): Condition {
    const all = [this.one()]
    while (this.take("AND\\b") !== undefined) all.push(this.one())
    return (version) => all.every((condition) => condition(version))
  }

  private one(): Condition {
    if (this.take("\\(") !== undefined) {
      const condition = this.either()
      if (this.take("\\)") === undefined) throw new UnknownCondition(this.rest)
      return condition
    }
    const page = this.take("ctid ([<>=]+) '\\((\\d+),0\\)'::pg_catalog\\.tid")
    if (page !== undefined) return (version) => holds(version.page - Number(page[2]), page[1]!)
    const age = this.take("pg_catalog\\.age\\(xmin\\) <= \\(SELECT pg_catalog\\.age\\('(\\d+)'::pg_catalog\\.xid\\)\\)")
    if (age !== undefined) return (version) => version.writtenBy >= Number(age[1])
    return this.row() ?? this.comparison()
  }

  private row(): Condition | undefined {
    const match = this.take(`ROW\\((${identifier}${cast}(?:, ${identifier}${cast})*)\\) ${sign} ROW\\(`)
    if (match === undefined) return undefined
    const columns = [...match[1]!.matchAll(new RegExp(`(${identifier})${cast}(?:, |$)`, "g"))].map(([, name]) =>
      columnOf(this.table, name!)
    )
    const values = columns.map(
      (_, index) => this.take(`(${literal})${index === columns.length - 1 ? "\\)" : ","}`)?.[1]
    )
    const operator = match[2] ?? match[3]!
    return (version) => {
      const orders = columns.map((compare, index) => compare(version, textOf(values[index] ?? "''")))
      return holds(orders.find((order) => order !== 0) ?? 0, operator)
    }
  }

  private comparison(): Condition {
    const match = this.take(`(${identifier})${cast} ${sign}\\s*(${literal})`)
    if (match === undefined) throw new UnknownCondition(this.rest.trim())
    const compare = columnOf(this.table, match[1]!)
    const operator = match[2] ?? match[3]!
    const that = textOf(match[4]!)
    return (version) => holds(compare(version, that), operator)
  }
}

/** The condition of a text; of none, every row. Throws {@link UnknownCondition}. */
export const conditionOf = (table: TestTable, text: string | undefined): Condition =>
  text === undefined ? () => true : new ConditionReader(table, text).whole()
