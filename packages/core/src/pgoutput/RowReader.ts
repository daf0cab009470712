/**
 * Rows out of tuples: one reader per relation, made when the first row of it comes.
 *
 * A reader starts as a plain loop over the columns and is compiled once its relation proves busy, or others like it have:
 * see `CompiledRowReader.ts`. Both give the same rows and the same errors.
 */
import type { ByteReader } from "../protocol/ByteReader.ts"
import { DecodeError } from "../ReplicationError.ts"
import { compileRowReader, type RowShape, rowShapeOf } from "./CompiledRowReader.ts"
import {
  binaryKind,
  type ColumnReader,
  failOnCount,
  failOnKind,
  failOnLength,
  inColumn,
  isBinaryColumn,
  none,
  nullKind,
  partialRow,
  type RowReader,
  readBinary,
  readCustom,
  refuse,
  type TupleScratch,
  textKind,
  tupleColumnAt,
  unchangedKind,
  valueBefore
} from "./Tuple.ts"

/** A value from the bytes of its text, which lie within the message. */
export const readText = (
  reader: ByteReader,
  scratch: TupleScratch,
  column: ColumnReader,
  start: number,
  end: number
): unknown => {
  const { at, form } = column.decoder
  if (form === "text") return scratch.text.cut(reader, reader.bytes, start, end)
  if (at === undefined) return readCustom(reader, scratch, column, start, end)
  return at(reader.bytes, start, end, reader) ?? refuse(reader, column, start, end)
}

/** The reader that needs no code generation. */
export const interpretedRowReader =
  (columns: ReadonlyArray<ColumnReader>): RowReader =>
  (reader, scratch, old) => {
    const count = reader.uint16()
    if (count !== columns.length) failOnCount(reader, columns.length, count)
    const values: Array<unknown> = []
    scratch.unchanged = none
    for (const column of columns) {
      const kind =
        reader.offset < reader.end ? reader.bytes[reader.offset] : failOnLength(reader, column, reader.offset)
      if (kind === textKind || (kind === binaryKind && isBinaryColumn(column))) {
        if (reader.remaining < 5) failOnLength(reader, column, reader.end)
        reader.offset += 1
        const length = reader.int32()
        const start = reader.offset
        if (length < 0 || length > reader.end - start) failOnLength(reader, column, start)
        reader.offset = start + length
        if (!column.isRead) continue
        const isText = kind === textKind || !isBinaryColumn(column)
        values.push(
          isText
            ? readText(reader, scratch, column, start, start + length)
            : readBinary(reader, scratch, column, start, start + length)
        )
      } else if (kind === nullKind) {
        reader.offset += 1
        if (column.isRead) values.push(null)
      } else if (kind === unchangedKind) {
        reader.offset += 1
        if (column.isRead) values.push(valueBefore(old, column.name))
      } else {
        failOnKind(reader, column)
      }
    }
    return partialRow(scratch, columns, values)
  }

/** Compiling costs about what it saves over this many rows: quieter shapes of rows are not worth it. */
export const compileAfter = 128

/** A reader that compiles itself when rows of its shape prove busy, where the runtime lets it. */
export const makeRowReader = (columns: ReadonlyArray<ColumnReader>): RowReader => {
  const loop = interpretedRowReader(columns)
  let shape: RowShape | undefined
  let read: RowReader | undefined
  const choose = (): RowReader => {
    shape ??= rowShapeOf(columns)
    shape.rows += 1
    if (shape.rows < compileAfter) return loop
    read = compileRowReader(columns, shape) ?? loop
    return read
  }
  return (reader, scratch, old) => {
    const start = reader.offset
    try {
      return (read ?? choose())(reader, scratch, old)
    } catch (error) {
      throw inColumn(DecodeError.caught(error), tupleColumnAt(columns, reader, start))
    }
  }
}
