/**
 * A column that comes in PostgreSQL's binary format: how its bytes become the value that the text format would have given
 * under the same decoders. Straight from the bytes where both are the same thing, by way of the text where a decoder
 * wants text.
 */
import type { ByteReader } from "../protocol/ByteReader.ts"
import { DecodeError } from "../ReplicationError.ts"
import { readArray } from "../values/BinaryContainer.ts"
import type { BinaryType, FixedForm } from "../values/BinaryForm.ts"
import type { TextOf } from "../values/BinaryText.ts"
import { undecodable, type ValueDecoder, type ValuePlace } from "../values/TypeDecoder.ts"

export interface BinaryColumn {
  /** Tells columns that are read alike: `utf8`, which readers of rows cut by themselves, `printed`, or a native form's. */
  readonly form: string
  /** Reads the value from `reader.offset`; throws what it likes when either the bytes or its decoder will not do. */
  readonly read: (reader: ByteReader) => unknown
  /** What compiled readers call in its place for values of that length; `undefined` is what it gives to leave one to `read`. */
  readonly fixed?: FixedForm | undefined
  /** The value's text. Throws `DecodeError` when the bytes will not do, and nothing else. */
  readonly text: TextOf
}

/** What is to be known of a column whose values are read here. */
interface BinaryPlace {
  readonly binary: BinaryColumn
  readonly place: ValuePlace
  readonly onUndecodable: "fail" | "text" | undefined
}

/** Joins what is on the wire and what shall become of it. */
export const makeBinaryColumn = (type: BinaryType, decoder: ValueDecoder): BinaryColumn => {
  const { element, form, native, text } = type
  if (decoder.form === "text") return { form: form === "utf8" ? form : "printed", read: text, text }
  // Whose text is read from its bytes has bytes that give the same; all others are decoded from a text.
  if (decoder.at !== undefined && native !== undefined) return { form, read: native.read, fixed: native.fixed, text }
  if (decoder.element !== undefined && element !== undefined) {
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
