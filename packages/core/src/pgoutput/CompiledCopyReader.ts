/**
 * A reader of COPY's rows written for one relation's columns and compiled, as `CompiledRowReader.ts` is for the stream's
 * tuples, and under the same rules: fixed text, array indexes, and names by way of `JSON.stringify`. It gives what the
 * loop in `CopyRow.ts` gives, errors included.
 *
 * Each value is one run over its bytes for the delimiter, which also tells whether they are all ASCII, and then the value.
 */
import type { CopiedRows } from "../change/OutputPlugin.ts"
import { DecodeError } from "../ReplicationError.ts"
import { textAt } from "../values/ScalarBytes.ts"
import { propertyKey, textExpression, textFunctions } from "./CompiledRowReader.ts"
import {
  backslash,
  type CopyRowReader,
  type CopyScratch,
  copyColumnAt,
  expectRow,
  failOnWidth,
  interpretedCopyReader,
  newline,
  nullLetter,
  tab
} from "./CopyRow.ts"
import { compileAfter } from "./RowReader.ts"
import { type ColumnReader, inColumn, readCustom, refuse } from "./Tuple.ts"

/** What the generated code calls, by the names it calls it. */
const runtimeOf = (columns: ReadonlyArray<ColumnReader>) => ({
  expectRow,
  failOnWidth,
  readCustom,
  refuse,
  textAt,
  ...textFunctions(columns)
})

const valueCode = (column: ColumnReader, index: number): string => {
  const { at, form } = column.decoder
  if (form === "text") {
    return `v${index} = mask < 0x80 ? ascii.cut(reader, bytes, start, at) : textAt(reader, bytes, start, at)`
  }
  if (at === undefined) return `v${index} = readCustom(reader, tuple, columns[${index}], start, at)`
  return `v${index} = ${textExpression(column)}
      if (v${index} === undefined) v${index} = refuse(reader, columns[${index}], start, at)`
}

const columnCode = (column: ColumnReader, index: number, { length }: ReadonlyArray<ColumnReader>): string => {
  const isText = column.decoder.form === "text"
  return `
  start = at
  ${isText ? "mask = 0" : ""}
  byte = bytes[at]
  while (byte > ${backslash} || (byte > ${newline} && byte !== ${backslash}) || (byte !== ${tab} && byte !== ${newline} && byte !== ${backslash})) {
    ${isText ? "mask |= byte" : ""}
    byte = bytes[++at]
  }
  if (byte !== ${backslash}) {
    ${valueCode(column, index)}
  } else if (at === start && bytes[at + 1] === ${nullLetter}) {
    v${index} = null
    at += 2
  } else {
    v${index} = scratch.readEscaped(reader, columns[${index}], start)
    at = scratch.end
  }
  if (bytes[at++] !== ${index === length - 1 ? newline : tab}) failOnWidth(${length}, at - 1)`
}

/**
 * The statement that makes a constructor of rows, and the expression that makes a row; both may be plain objects alone.
 *
 * By a constructor rather than a literal, though both give objects of `Object.prototype` and of one hidden class: V8 watches
 * where literals are made, and when the first few hundred happen to outlive a collection it makes all that follow in the old
 * generation for good. Rows that then die young cost two to three times as much, in one process of six. It does not watch
 * constructors. A name that objects inherit something by must not be assigned to; such rows are made by a literal after all.
 */
const rowCode = (columns: ReadonlyArray<ColumnReader>): readonly [statement: string, expression: string] => {
  const variables = columns.map((_, index) => `v${index}`).join(", ")
  if (columns.some(({ name }) => name in Object.prototype)) {
    return ["", `{ ${columns.map(({ name }, index) => `${propertyKey(name)}: v${index}`).join(", ")} }`]
  }
  const assignments = columns.map(({ name }, index) => `this[${JSON.stringify(name)}] = v${index}`)
  return [
    `function Row(${variables}) {\n  ${assignments.join("\n  ")}\n}\nRow.prototype = Object.prototype`,
    `new Row(${variables})`
  ]
}

/** The body of the factory: a function of `runtime` and `columns` that gives the reader. */
export const copyReaderSource = (columns: ReadonlyArray<ColumnReader>): string => {
  const variables = columns.map((_, index) => `v${index}`)
  const [statement, row] = rowCode(columns)
  return `"use strict"
const { ${Object.keys(runtimeOf(columns)).join(", ")} } = runtime
${statement}
return (reader, scratch) => {
  expectRow(reader)
  const bytes = reader.bytes
  const end = reader.end
  const ascii = scratch.ascii
  const tuple = scratch.tuple
  let at = reader.offset
  let start = 0
  let byte = 0
  let mask = 0
  ${variables.length > 0 ? `let ${variables.join(", ")}` : "at += 1"}
  tuple.text.reset()
  ${columns.map(columnCode).join("")}
  if (at !== end) failOnWidth(${columns.length}, at)
  reader.offset = end
  return ${row}
}`
}

/** The compiled reader, or `undefined` where the runtime generates no code from strings. */
export const compileCopyReader = (columns: ReadonlyArray<ColumnReader>): CopyRowReader | undefined => {
  try {
    return new Function("runtime", "columns", copyReaderSource(columns))(runtimeOf(columns), columns) as CopyRowReader
  } catch {
    return undefined
  }
}

/** Beyond this V8 leaves the generated function unoptimized, and it is slower than the loop. */
const mostCompiledColumns = 200

/** A reader that compiles itself when its relation proves busy, where the runtime lets it. */
export const makeCopyReader = (columns: ReadonlyArray<ColumnReader>, scratch: CopyScratch): CopiedRows["readRow"] => {
  let read = interpretedCopyReader(columns)
  let rows = columns.length > mostCompiledColumns ? compileAfter : 0
  return (reader) => {
    const start = reader.offset
    rows += 1
    if (rows === compileAfter) read = compileCopyReader(columns) ?? read
    try {
      return read(reader, scratch)
    } catch (error) {
      throw inColumn(DecodeError.caught(error), copyColumnAt(columns, reader, start))
    }
  }
}
