/**
 * A row reader written for one relation's columns and compiled: no loop, no lookup of decoders, and one object literal,
 * so that all rows of a relation share one hidden class. Several times as fast as the loop in `RowReader.ts`, to which it
 * is equal in every other respect.
 *
 * The code is made of fixed text, array indexes and column names. Names are data from the server, and enter only by way
 * of `JSON.stringify`: no name can end its string.
 * Where code generation is refused (`--disallow-code-generation-from-strings`, a content security policy) there is no
 * compiled reader, and the loop serves.
 */
import { float4At, float8At, int2At, int4At, int8At, uint4At } from "../values/BinaryNumber.ts"
import type { BinaryForm } from "../values/BinaryType.ts"
import { bigintAt, booleanAt, byteaAt, floatAt, integerAt } from "./ColumnBytes.ts"
import {
  absent,
  type BinaryColumnReader,
  binaryKind,
  type ColumnReader,
  failOnCount,
  failOnKind,
  failOnLength,
  isBinaryColumn,
  none,
  nullKind,
  partialRow,
  type RowReader,
  readBinary,
  readCustom,
  refuse,
  textKind,
  unchangedKind,
  valueBefore
} from "./Tuple.ts"

/** What the generated code calls, by the names it calls it. */
const runtime = {
  absent,
  bigintAt,
  booleanAt,
  byteaAt,
  failOnCount,
  failOnKind,
  failOnLength,
  float4At,
  float8At,
  floatAt,
  int2At,
  int4At,
  int8At,
  integerAt,
  none,
  partialRow,
  readBinary,
  readCustom,
  refuse,
  uint4At,
  valueBefore
}

/** The expression for a value whose text is `bytes[start, at)`; `undefined` is what it gives for a text it refuses. */
export const textExpressions = {
  boolean: "booleanAt(bytes, start, at)",
  integer: "integerAt(bytes, start, at)",
  bigint: "bigintAt(bytes, start, at)",
  float: "floatAt(reader, bytes, start, at)",
  bytea: "byteaAt(reader, bytes, start, at)"
} as const

const textOf = (column: ColumnReader, index: number): string => {
  const { form } = column.decoder
  if (form === "text") return `v${index} = cutter.cut(reader, bytes, start, at)`
  if (form === "custom") return `v${index} = readCustom(reader, scratch, columns[${index}], start, at)`
  return `v${index} = ${textExpressions[form]}
    if (v${index} === undefined) v${index} = refuse(reader, columns[${index}], start, at)`
}

/**
 * The expression for a value whose binary form is `bytes[start, at)`, and the length it must have: any other length, and
 * a boolean that is neither, goes the way of `readBinary`, which knows what is wrong.
 */
const binaryExpressions: Partial<Record<BinaryForm, readonly [condition: string, value: string]>> = {
  boolean: ["length === 1 && bytes[start] < 2", "bytes[start] === 1"],
  int2: ["length === 2", "int2At(bytes, start)"],
  int4: ["length === 4", "int4At(bytes, start)"],
  uint4: ["length === 4", "uint4At(bytes, start)"],
  int8: ["length === 8", "int8At(bytes, start)"],
  float4: ["length === 4", "float4At(bytes, start)"],
  float8: ["length === 8", "float8At(bytes, start)"]
}

const binaryOf = (column: BinaryColumnReader, index: number): string => {
  const { form } = column.binary
  if (form === "utf8") return `v${index} = cutter.cut(reader, bytes, start, at)`
  const general = `readBinary(reader, scratch, columns[${index}], start, at)`
  const expression = binaryExpressions[form]
  return expression === undefined
    ? `v${index} = ${general}`
    : `v${index} = ${expression[0]} ? ${expression[1]} : ${general}`
}

const lengthCode = (index: number): string => `
    start = at + 5
    if (start > end) failOnLength(reader, columns[${index}], end)
    length = (bytes[at + 1] << 24) | (bytes[at + 2] << 16) | (bytes[at + 3] << 8) | bytes[at + 4]
    if (length < 0 || length > end - start) failOnLength(reader, columns[${index}], start)
    at = start + length`

const binaryCode = (column: ColumnReader, index: number): string =>
  !isBinaryColumn(column)
    ? ""
    : `if (kind === ${binaryKind}) {${lengthCode(index)}
    ${column.isRead ? binaryOf(column, index) : ""}
  } else `

const columnCode = (column: ColumnReader, index: number): string => `
  kind = bytes[at]
  ${binaryCode(column, index)}if (kind === ${textKind}) {${lengthCode(index)}
    ${column.isRead ? textOf(column, index) : ""}
  } else if (at >= end) {
    failOnLength(reader, columns[${index}], at)
  } else if (kind === ${nullKind}) {
    at += 1
    ${column.isRead ? `v${index} = null` : ""}
  } else if (kind === ${unchangedKind}) {
    at += 1
    ${column.isRead ? `v${index} = valueBefore(old, ${JSON.stringify(column.name)})\n    if (v${index} === absent) isPartial = true` : ""}
  } else {
    reader.offset = at
    failOnKind(reader, columns[${index}])
  }`

/** `"__proto__": …` in a literal sets the prototype; as a computed key it is a property like any other. */
export const propertyKey = (name: string): string => (name === "__proto__" ? `["__proto__"]` : JSON.stringify(name))

/** The body of the factory: a function of `runtime` and `columns` that gives the reader. */
export const rowReaderSource = (columns: ReadonlyArray<ColumnReader>): string => {
  const read = columns.flatMap((column, index) => (column.isRead ? [{ column, index }] : []))
  const variables = read.map(({ index }) => `v${index}`)
  const properties = read.map(({ column, index }) => `${propertyKey(column.name)}: v${index}`)
  return `"use strict"
const { ${Object.keys(runtime).join(", ")} } = runtime
return (reader, scratch, old) => {
  const count = reader.uint16()
  if (count !== ${columns.length}) failOnCount(reader, ${columns.length}, count)
  const bytes = reader.bytes
  const end = reader.end
  const cutter = scratch.text
  let at = reader.offset
  let kind = 0
  let start = 0
  let length = 0
  let isPartial = false
  ${variables.length > 0 ? `let ${variables.join(", ")}` : ""}
  scratch.unchanged = none
  ${columns.map(columnCode).join("")}
  reader.offset = at
  if (isPartial) return partialRow(scratch, columns, [${variables.join(", ")}])
  return { ${properties.join(", ")} }
}`
}

/** The compiled reader, or `undefined` where the runtime generates no code from strings. */
export const compileRowReader = (columns: ReadonlyArray<ColumnReader>): RowReader | undefined => {
  try {
    return new Function("runtime", "columns", rowReaderSource(columns))(runtime, columns) as RowReader
  } catch {
    return undefined
  }
}
