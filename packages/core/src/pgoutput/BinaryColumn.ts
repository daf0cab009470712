/**
 * A column that comes in PostgreSQL's binary format: how its bytes become the value that the text format would have given
 * under the same decoders. Straight from the bytes where both are the same thing, by way of the text where a decoder
 * wants text.
 */
import type { ByteReader } from "../protocol/ByteReader.ts"
import { DecodeError } from "../ReplicationError.ts"
import { readArray } from "../values/BinaryContainer.ts"
import { float4At, float8At, int8At } from "../values/BinaryNumber.ts"
import { type TextOf, utf8Text } from "../values/BinaryText.ts"
import type { BinaryForm, BinaryType } from "../values/BinaryType.ts"
import { undecodable, type ValueDecoder, type ValuePlace } from "../values/TypeDecoder.ts"

export interface BinaryColumn {
  /** What the readers of rows may do by themselves; `printed` is for `read` alone. All forms give what `read` gives. */
  readonly form: BinaryForm
  /** Reads the value from `reader.offset`; throws what it likes when either the bytes or its decoder will not do. */
  readonly read: (reader: ByteReader) => unknown
  /** The value's text. Throws `DecodeError` when the bytes will not do, and nothing else. */
  readonly text: TextOf
}

/** What is to be known of a column whose values are read here. */
interface BinaryPlace {
  readonly binary: BinaryColumn
  readonly place: ValuePlace
  readonly onUndecodable: "fail" | "text" | undefined
}

/** The forms whose bytes are the value. Lengths are seen to by the reader, and at the end by who called. */
const natives: Readonly<Record<Exclude<BinaryForm, "printed">, (reader: ByteReader) => unknown>> = {
  boolean: (reader) => {
    const byte = reader.uint8()
    return byte === 1 ? true : byte === 0 ? false : reader.fail("a boolean neither true nor false")
  },
  int2: (reader) => reader.int16(),
  int4: (reader) => reader.int32(),
  uint4: (reader) => reader.uint32(),
  int8: (reader) => int8At(reader.bytes, reader.skip(8)),
  float4: (reader) => float4At(reader.bytes, reader.skip(4)),
  float8: (reader) => float8At(reader.bytes, reader.skip(8)),
  bytea: (reader) => reader.copy(reader.remaining),
  utf8: utf8Text
}

/** Joins what is on the wire and what shall become of it. */
export const makeBinaryColumn = (type: BinaryType, decoder: ValueDecoder): BinaryColumn => {
  const { element, form, text } = type
  if (decoder.form === "text") return { form: form === "utf8" ? form : "printed", read: text, text }
  if (decoder.form !== "custom") {
    if (form !== "printed") return { form, read: natives[form], text }
  } else if (decoder.element !== undefined && element !== undefined) {
    const item = makeBinaryColumn(element.type, decoder.element).read
    return { form: "printed", read: (reader) => readArray(reader, item, element.oid), text }
  }
  return { form: "printed", read: (reader) => decoder.decode(text(reader)), text }
}

/**
 * The value in `reader.bytes[start, end)`, read as a message of its own; afterwards `reader` stands behind it, and ends
 * where it ended before. Not so after a failure, which ends the stream.
 */
export const readBinaryValue = (reader: ByteReader, column: BinaryPlace, start: number, end: number): unknown => {
  const messageEnd = reader.end
  reader.offset = start
  reader.end = end
  try {
    const value = column.binary.read(reader)
    if (reader.offset !== end) reader.expectEnd()
    reader.end = messageEnd
    return value
  } catch {
    const value = undecodableValue(reader.reset(reader.bytes, start, end), column)
    reader.reset(reader.bytes, end, messageEnd)
    return value
  }
}

/**
 * What becomes of a value that was not to be read, after all else has failed: seldom, so that it may be read again. Where
 * its text can be had, its decoder is to blame, and the policy holds; else the bytes are.
 */
const undecodableValue = (reader: ByteReader, column: BinaryPlace): string => {
  const { binary, onUndecodable, place } = column
  const start = reader.offset
  let text: string
  try {
    text = binary.text(reader)
    reader.expectEnd()
  } catch {
    const where = `column "${place.column}" of "${place.schema}"."${place.relation}"`
    throw new DecodeError({ problem: `a value of ${where} that is no ${place.type} in binary format`, offset: start })
  }
  if (onUndecodable === "text") return text
  throw new DecodeError({ problem: undecodable(place), offset: start })
}
