/**
 * Rows of COPY's text format, by the columns that read the stream's tuples: so that a value cannot differ between the two.
 * COPY and pgoutput both print with the type's output function, and only what stands between the values is another.
 *
 * Most values hold no backslash and are read where they lie. One with an escape is written out beside them first. This
 * is the loop over the columns, and what it shares with the reader that is compiled, see `CompiledCopyReader.ts`.
 *
 * Bytes are borrowed for a call, but those of one array must stay as they are from one row to the next.
 *
 * Source: https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2 and `CopyAttributeOutText` in
 * src/backend/commands/copyto.c, which writes these escapes and no others.
 */
import type { Row } from "../change/Change.ts"
import { ByteReader } from "../protocol/ByteReader.ts"
import { DecodeError } from "../ReplicationError.ts"
import { AsciiCutter } from "./ColumnBytes.ts"
import { readText } from "./RowReader.ts"
import { type ColumnReader, partialRow, TupleScratch } from "./Tuple.ts"

export const tab = 0x09
export const newline = 0x0a
export const backslash = 0x5c
/** `\N` is NULL; a text `\N` comes as `\\N`. */
export const nullLetter = 0x4e

/** What a letter after a backslash stands for; 0 for what COPY does not write. */
const escapes = new Uint8Array(256)
escapes[0x62] = 0x08 // b
escapes[0x66] = 0x0c // f
escapes[0x6e] = newline // n
escapes[0x72] = 0x0d // r
escapes[0x74] = tab // t
escapes[0x76] = 0x0b // v
escapes[backslash] = backslash

/** Reads one row, all of `reader.bytes[reader.offset, reader.end)` with its newline. Throws `DecodeError` and nothing else. */
export type CopyRowReader = (reader: ByteReader, scratch: CopyScratch) => Row

/** What is longer than this when it is written out has a buffer of its own, which goes with it. */
const keptLength = 1024 * 1024

/** What readers need beside the bytes. One serves all relations. */
export class CopyScratch {
  readonly ascii = new AsciiCutter()
  readonly tuple = new TupleScratch()
  /** Where the value ends that was written out last: at its tab or newline. */
  end = 0
  private kept = new Uint8Array(0)
  private reader: ByteReader | undefined

  /** The value that begins at `start` and has an escape. */
  readEscaped(reader: ByteReader, column: ColumnReader, start: number): unknown {
    const { bytes } = reader
    let end = start
    while (end < reader.end && bytes[end] !== tab && bytes[end] !== newline) end += bytes[end] === backslash ? 2 : 1
    // The row's last newline stood behind a backslash.
    if (end >= reader.end) failOnEscape(reader.end - 1)
    const unescaped = this.room(end - start)
    let length = 0
    for (let at = start; at < end; at++) {
      let byte = bytes[at]!
      if (byte === backslash) {
        at += 1
        byte = escapes[bytes[at]!]!
        if (byte === 0) failOnEscape(at)
      }
      unescaped[length++] = byte
    }
    this.end = end
    this.reader ??= new ByteReader(reader.slices)
    this.tuple.text.reset()
    try {
      return readText(this.reader.reset(unescaped, 0, length), this.tuple, column, 0, length)
    } catch (error) {
      throw new DecodeError({ ...DecodeError.caught(error), offset: start })
    }
  }

  private room(length: number): Uint8Array {
    if (length <= this.kept.length) return this.kept
    const room = new Uint8Array(2 * length)
    if (length <= keptLength) this.kept = room
    return room
  }
}

const fail = (problem: string, offset: number): never => {
  throw new DecodeError({ problem, offset })
}

const failOnEscape = (offset: number): never =>
  fail("an escape in a row of a copy that PostgreSQL does not write", offset)

/** A row is searched for its delimiters without a look at where it ends: so its last byte must be one. */
export const expectRow = (reader: ByteReader): void => {
  const { bytes, end, offset } = reader
  if (end <= offset || bytes[end - 1] !== newline) fail("a row of a copy without its end", offset)
}

/** Another delimiter than was due after a column: a row too short, or too long. */
export const failOnWidth = (columns: number, offset: number): never =>
  fail(`a row of a copy that has not ${columns} columns`, offset)

/** Which column of the row at `start` has its value at an offset: delimiters within values are escaped. */
export const copyColumnAt =
  (columns: ReadonlyArray<ColumnReader>, { bytes }: ByteReader, start: number) =>
  (offset: number): ColumnReader | undefined => {
    let index = 0
    for (let at = start; at < offset; at++) {
      if (bytes[at] === backslash) at += 1
      else if (bytes[at] === tab) index += 1
    }
    return columns[index]
  }

/** The reader that needs no code generation. */
export const interpretedCopyReader =
  (columns: ReadonlyArray<ColumnReader>): CopyRowReader =>
  (reader, scratch) => {
    expectRow(reader)
    const { bytes, end } = reader
    const values: Array<unknown> = []
    // The row of a relation without columns is a newline alone.
    let at = columns.length === 0 ? reader.offset + 1 : reader.offset
    scratch.tuple.text.reset()
    for (const [index, column] of columns.entries()) {
      const start = at
      while (bytes[at] !== tab && bytes[at] !== newline && bytes[at] !== backslash) at++
      if (bytes[at] !== backslash) values.push(readText(reader, scratch.tuple, column, start, at))
      else if (at === start && bytes[at + 1] === nullLetter) {
        values.push(null)
        at += 2
      } else {
        values.push(scratch.readEscaped(reader, column, start))
        at = scratch.end
      }
      if (bytes[at] !== (index === columns.length - 1 ? newline : tab)) failOnWidth(columns.length, at)
      at += 1
    }
    if (at !== end) failOnWidth(columns.length, at)
    reader.offset = end
    return partialRow(scratch.tuple, columns, values)
  }
