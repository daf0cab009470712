/**
 * Row readers written for a relation's columns and compiled: no loop, no lookup of decoders, and one object literal, so
 * that all rows of a relation share one hidden class. Several times as fast as the loop in `RowReader.ts`, to which they
 * are equal in every other respect.
 *
 * A reader is made of two functions. One takes the values out of the bytes; it knows no names, and serves every relation
 * with the same {@link layoutOf | layout}, so that V8 optimizes it once for ten thousand of them. The other makes the row
 * of the values, and is the relation's own. Above {@link partLength} columns the first comes in parts: V8 would leave one
 * function for all of them unoptimized for long, or for good.
 *
 * The code is made of fixed text, array indexes and column names. Names are data from the server, and enter only by way
 * of `JSON.stringify`: no name can end its string.
 * Where code generation is refused (`--disallow-code-generation-from-strings`, a content security policy) there is no
 * compiled reader, and the loop serves.
 */
import type { Row } from "../change/Change.ts"
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

/** What the generated code calls, by the names it calls it, whatever the columns are. */
const runtime = {
  absent,
  failOnCount,
  failOnKind,
  failOnLength,
  none,
  partialRow,
  readBinary,
  readCustom,
  refuse,
  valueBefore
}

type Functions = Readonly<Record<string, unknown>>

/** What code for these columns calls to read the bytes of text, a function a form. */
export const textFunctions = (columns: ReadonlyArray<ColumnReader>): Functions =>
  Object.fromEntries(
    columns.flatMap(({ decoder: { at, form }, isRead }) => (at === undefined || !isRead ? [] : [[`${form}At`, at]]))
  )

/** The expression for a value whose text is `bytes[start, at)`; `undefined` is what it gives for a text it refuses. */
export const textExpression = ({ decoder }: ColumnReader): string => `${decoder.form}At(bytes, start, at, reader)`

/** The same for binary values of the length that all of their form have. */
const binaryFunctions = (columns: ReadonlyArray<ColumnReader>): Functions =>
  Object.fromEntries(
    columns.flatMap(({ binary, isRead }) =>
      binary?.fixed === undefined || !isRead ? [] : [[`${binary.form}BinaryAt`, binary.fixed.at]]
    )
  )

const runtimeOf = (columns: ReadonlyArray<ColumnReader>): Functions => ({
  ...runtime,
  ...textFunctions(columns),
  ...binaryFunctions(columns)
})

const textOf = (column: ColumnReader, index: number): string => {
  const { at, form } = column.decoder
  if (form === "text") return `v${index} = cutter.cut(reader, bytes, start, at)`
  if (at === undefined) return `v${index} = readCustom(reader, scratch, columns[${index}], start, at)`
  return `v${index} = ${textExpression(column)}
    if (v${index} === undefined) v${index} = refuse(reader, columns[${index}], start, at)`
}

/** Any other length, and bytes that are no value, go the way of `readBinary`, which knows what is wrong. */
const binaryOf = (column: BinaryColumnReader, index: number): string => {
  const { fixed, form } = column.binary
  if (form === "utf8") return `v${index} = cutter.cut(reader, bytes, start, at)`
  const general = `readBinary(reader, scratch, columns[${index}], start, at)`
  return fixed === undefined
    ? `v${index} = ${general}`
    : `v${index} = length === ${fixed.length} ? ${form}BinaryAt(bytes, start) : undefined
    if (v${index} === undefined) v${index} = ${general}`
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
    ${column.isRead ? `v${index} = valueBefore(old, columns[${index}].name)\n    if (v${index} === absent) isPartial = true` : ""}
  } else {
    reader.offset = at
    failOnKind(reader, columns[${index}])
  }`

/** Columns that one function reads. */
export const partLength = 32

/** One column of some relation, and where in its tuples it stands. */
interface Placed {
  readonly column: ColumnReader
  readonly index: number
}

const placed = (columns: ReadonlyArray<ColumnReader>): ReadonlyArray<Placed> =>
  columns.map((column, index) => ({ column, index }))

const onlyRead = (columns: ReadonlyArray<Placed>): ReadonlyArray<Placed> =>
  columns.filter(({ column }) => column.isRead)

const variablesOf = (columns: ReadonlyArray<Placed>): ReadonlyArray<string> =>
  onlyRead(columns).map(({ index }) => `v${index}`)

/** Declarations, and the code that reads `columns` from `at` on, each into its variable. */
const readCode = (columns: ReadonlyArray<Placed>): string => {
  const variables = variablesOf(columns)
  return `const bytes = reader.bytes
  const end = reader.end
  const cutter = scratch.text
  let kind = 0
  let start = 0
  let length = 0
  let isPartial = false
  ${variables.length > 0 ? `let ${variables.join(", ")}` : ""}
  ${columns.map(({ column, index }) => columnCode(column, index)).join("")}`
}

const prologue = (columns: ReadonlyArray<ColumnReader>): string => `
  const count = reader.uint16()
  if (count !== ${columns.length}) failOnCount(reader, ${columns.length}, count)
  scratch.unchanged = none
  let at = reader.offset`

const wholeSource = (columns: ReadonlyArray<ColumnReader>): string => {
  const values = variablesOf(placed(columns)).join(", ")
  return `return (columns, makeRow) => (reader, scratch, old) => {${prologue(columns)}
  ${readCode(placed(columns))}
  reader.offset = at
  if (isPartial) return partialRow(scratch, columns, [${values}])
  return makeRow(${values})
}`
}

const partSource = (columns: ReadonlyArray<Placed>, part: number, before: number): string => `
const part${part} = (reader, scratch, old, columns, values, at) => {
  ${readCode(columns)}
  ${variablesOf(columns)
    .map((variable, index) => `values[${before + index}] = ${variable}`)
    .join("\n  ")}
  if (isPartial) scratch.isPartial = true
  return at
}`

const partsSource = (columns: ReadonlyArray<ColumnReader>): string => {
  const parts: Array<string> = []
  const all = placed(columns)
  let before = 0
  for (let from = 0; from < all.length; from += partLength) {
    const part = all.slice(from, from + partLength)
    parts.push(partSource(part, parts.length, before))
    before += onlyRead(part).length
  }
  return `${parts.join("")}
return (columns, makeRow) => (reader, scratch, old) => {${prologue(columns)}
  const values = new Array(${before})
  scratch.isPartial = false
  ${parts.map((_, part) => `at = part${part}(reader, scratch, old, columns, values, at)`).join("\n  ")}
  reader.offset = at
  return scratch.isPartial ? partialRow(scratch, columns, values) : makeRow(values)
}`
}

const isInParts = (columns: ReadonlyArray<ColumnReader>): boolean => columns.length > partLength

/** The body of a function of {@link runtimeOf | its runtime} that gives a {@link Binder}. It holds no name of any column. */
export const rowReaderSource = (columns: ReadonlyArray<ColumnReader>): string => `"use strict"
const { ${Object.keys(runtimeOf(columns)).join(", ")} } = runtime
${isInParts(columns) ? partsSource(columns) : wholeSource(columns)}`

/** `"__proto__": …` in a literal sets the prototype; as a computed key it is a property like any other. */
export const propertyKey = (name: string): string => (name === "__proto__" ? `["__proto__"]` : JSON.stringify(name))

/** The body of a function that gives a {@link MakeRow}. */
export const makeRowSource = (columns: ReadonlyArray<ColumnReader>): string => {
  const read = onlyRead(placed(columns))
  const [parameters, value] = isInParts(columns)
    ? ["values", (position: number) => `values[${position}]`]
    : [variablesOf(read).join(", "), (position: number) => `v${read[position]!.index}`]
  const properties = read.map(({ column }, position) => `${propertyKey(column.name)}: ${value(position)}`)
  return `"use strict"
return (${parameters}) => ({ ${properties.join(", ")} })`
}

/** Makes a row of its values: each an argument, or in one array where the reader comes in parts. */
type MakeRow = (...values: ReadonlyArray<unknown>) => Row

/** Binds the code that reads to a relation. */
type Binder = (columns: ReadonlyArray<ColumnReader>, makeRow: MakeRow) => RowReader

/** What the reading code depends on: equal layouts, equal code. */
const layoutOf = (columns: ReadonlyArray<ColumnReader>): string =>
  columns.map(({ binary, decoder, isRead }) => `${isRead ? decoder.form : ""} ${binary?.form ?? ""}`).join()

/** Beyond this many, what was made is forgotten and made anew: who alters tables for ever must not fill memory. */
const mostRemembered = 1024

/** Remembers what was made for a key. A connection made anew finds its code, optimized as it is. */
const remember = <A>(make: (columns: ReadonlyArray<ColumnReader>) => A) => {
  const known = new Map<string, A>()
  return (key: string, columns: ReadonlyArray<ColumnReader>): A => {
    const before = known.get(key)
    if (before !== undefined) return before
    const made = make(columns)
    if (known.size >= mostRemembered) known.clear()
    known.set(key, made)
    return made
  }
}

const binderOf = remember((columns) => new Function("runtime", rowReaderSource(columns))(runtimeOf(columns)) as Binder)

/** The code for all relations whose columns have the same names and layout, and how much use it has been, or would be. */
export interface RowShape {
  /** Rows read by the loop so far. */
  rows: number
  compiled: { readonly bind: Binder; readonly makeRow: MakeRow } | undefined
}

const shapes = remember((): RowShape => ({ rows: 0, compiled: undefined }))

/** The shape of a relation's rows, shared with every relation that has the same. */
export const rowShapeOf = (columns: ReadonlyArray<ColumnReader>): RowShape =>
  shapes(`${layoutOf(columns)}${JSON.stringify(columns.map(({ name }) => name))}`, columns)

/** The compiled reader, or `undefined` where the runtime generates no code from strings. */
export const compileRowReader = (
  columns: ReadonlyArray<ColumnReader>,
  shape: RowShape = rowShapeOf(columns)
): RowReader | undefined => {
  try {
    shape.compiled ??= {
      bind: binderOf(layoutOf(columns), columns),
      makeRow: new Function(makeRowSource(columns))() as MakeRow
    }
    return shape.compiled.bind(columns, shape.compiled.makeRow)
  } catch {
    return undefined
  }
}
