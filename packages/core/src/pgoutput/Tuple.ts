/**
 * TupleData, and what its two readers share: the kinds of columns, the scratch beside the bytes, the failures, and the
 * rows that go without a column. The readers themselves are `RowReader.ts` and `CompiledRowReader.ts`.
 *
 * Bytes are borrowed for a call: rows own what they hold.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html, TupleData
 */
import type { Row } from "../change/Change.ts"
import { type ByteReader, isOfText } from "../protocol/ByteReader.ts"
import { DecodeError } from "../ReplicationError.ts"
import { textAt } from "../values/ScalarBytes.ts"
import { undecodable, type ValueDecoder, type ValuePlace } from "../values/TypeDecoder.ts"
import { type BinaryColumn, readBinaryValue } from "./BinaryColumn.ts"
import { TextCutter } from "./ColumnBytes.ts"

/** SQL's NULL: `n`. */
export const nullKind = 0x6e
/** A TOAST value that the update left alone, and that is not sent: `u`. */
export const unchangedKind = 0x75
/** A length and the type's text: `t`. */
export const textKind = 0x74
/** A length and the type's binary form: `b`. Sent only to who asks for it. */
export const binaryKind = 0x62

/** How one column of a relation is read. */
export interface ColumnReader {
  readonly name: string
  /** False for what a key tuple fills up with nulls: such columns are stepped over. */
  readonly isRead: boolean
  readonly decoder: ValueDecoder
  /** Only where binary format was asked for: values may then come in either. */
  readonly binary?: BinaryColumn | undefined
  readonly place: ValuePlace
  readonly onUndecodable: "fail" | "text" | undefined
}

/** A column of a stream in binary format. */
export interface BinaryColumnReader extends ColumnReader {
  readonly binary: BinaryColumn
}

export const isBinaryColumn = (column: ColumnReader): column is BinaryColumnReader => column.binary !== undefined

/** No column: the common case is one shared array. */
export const none: ReadonlyArray<string> = Object.freeze([])

/** What readers need beside the bytes, and tell beside the row. One serves a whole stream. */
export class TupleScratch {
  readonly text: TextCutter = new TextCutter()
  /** After a read: the columns whose values were not sent and are not in the row. */
  unchanged: ReadonlyArray<string> = none
  /** Among the readers of a tuple's parts: the row goes without some column. */
  isPartial = false
}

/**
 * Reads one TupleData, from its column count on. A column sent as unchanged takes its value from `old`; where `old` has
 * none the row goes without it, and `scratch.unchanged` names it.
 */
export type RowReader = (reader: ByteReader, scratch: TupleScratch, old: Row | undefined) => Row

/** A value by a decoder that takes text and may throw anything. */
export const readCustom = (
  reader: ByteReader,
  scratch: TupleScratch,
  column: ColumnReader,
  start: number,
  end: number
): unknown => {
  const text = scratch.text.cut(reader, reader.bytes, start, end)
  try {
    return column.decoder.decode(text)
  } catch {
    return refuse(reader, column, start, end)
  }
}

/** A text that is none of its type: the text itself where the policy says so, else the end of the stream. */
export const refuse = (reader: ByteReader, column: ColumnReader, start: number, end: number): string => {
  if (column.onUndecodable === "text") return textAt(reader, reader.bytes, start, end)
  throw new DecodeError({ problem: undecodable(column.place), offset: start })
}

/** A value in binary format that its reader does not read by itself. */
export const readBinary = (
  reader: ByteReader,
  scratch: TupleScratch,
  column: BinaryColumnReader,
  start: number,
  end: number
): unknown =>
  column.binary.form === "utf8"
    ? scratch.text.cut(reader, reader.bytes, start, end)
    : readBinaryValue(reader, column, start, end)

/** A column that is neither null, unchanged nor text, at `reader.offset`. */
export const failOnKind = (reader: ByteReader, column: ColumnReader): never => {
  const kind = reader.uint8()
  const where = `column "${column.name}" of "${column.place.schema}"."${column.place.relation}"`
  return reader.fail(
    kind === binaryKind
      ? `${where} in binary format, which was not asked for`
      : `${where} of unknown kind 0x${kind.toString(16)}`
  )
}

/** A length that leaves the message. `start` is where the value would begin. */
export const failOnLength = (reader: ByteReader, column: ColumnReader, start: number): never => {
  const { relation, schema } = column.place
  const problem = `a value of column "${column.name}" of "${schema}"."${relation}" that reaches beyond its message`
  throw new DecodeError({ problem, offset: Math.min(start, reader.end) })
}

/**
 * The failure of a text to become a string, with its column: what cuts texts out of bytes knows of none. `columnAt`
 * finds it by the offset that the failure bears, which costs nothing as long as there is none.
 */
export const inColumn = (error: DecodeError, columnAt: (offset: number) => ColumnReader | undefined): DecodeError => {
  const column = isOfText(error) ? columnAt(error.offset) : undefined
  if (column === undefined) return error
  const { relation, schema } = column.place
  return new DecodeError({
    ...error,
    problem: `column "${column.name}" of "${schema}"."${relation}": ${error.problem}`
  })
}

/** Which column of the tuple at `start` has its value at an offset. */
export const tupleColumnAt =
  (columns: ReadonlyArray<ColumnReader>, { bytes, end }: ByteReader, start: number) =>
  (offset: number): ColumnReader | undefined => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    let at = start + 2
    for (const column of columns) {
      const kind = bytes[at]
      if (kind !== textKind && kind !== binaryKind) {
        at += 1
        continue
      }
      if (at + 5 > end) return undefined
      const next = at + 5 + view.getInt32(at + 1)
      if (offset >= at + 5 && offset < next) return column
      at = next
    }
    return undefined
  }

/** A tuple of another width than its relation's, at `reader.offset`. */
export const failOnCount = (reader: ByteReader, expected: number, found: number): never =>
  reader.fail(`a row of ${found} columns where its relation has ${expected}`)

/** Sets a column as a property of the row's own, whatever its name: `row.__proto__ = …` would set the prototype. */
const setColumn = (row: Record<string, unknown>, name: string, value: unknown): void => {
  if (name === "__proto__") {
    Object.defineProperty(row, name, { value, configurable: true, enumerable: true, writable: true })
  } else {
    row[name] = value
  }
}

/** Stands for the value of a column that was not sent, until the row is made without it. */
export const absent: unique symbol = Symbol("absent")

/** The value that `old` has of a column, or {@link absent}. */
export const valueBefore = (old: Row | undefined, name: string): unknown =>
  old !== undefined && Object.hasOwn(old, name) ? old[name] : absent

/** A row of `values`, one a column that is read, without those that are {@link absent}; these go to `scratch.unchanged`. */
export const partialRow = (
  scratch: TupleScratch,
  columns: ReadonlyArray<ColumnReader>,
  values: ReadonlyArray<unknown>
): Row => {
  const row: Record<string, unknown> = {}
  const unchanged: Array<string> = []
  let index = 0
  for (const column of columns) {
    if (!column.isRead) continue
    const value = values[index++]
    if (value === absent) unchanged.push(column.name)
    else setColumn(row, column.name, value)
  }
  if (unchanged.length > 0) scratch.unchanged = unchanged
  return row
}
