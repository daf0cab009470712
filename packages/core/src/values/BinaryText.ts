/**
 * Values in PostgreSQL's binary format to the text its output functions print, for types that are neither numbers nor
 * times nor made of other types.
 *
 * Source: the `…_send` and `…_out` functions of each type in src/backend/utils/adt
 */
import * as Lsn from "../Lsn.ts"
import type { ByteReader } from "../protocol/ByteReader.ts"
import { hexPairs } from "./BinaryNetwork.ts"
import { uint8Text } from "./BinaryNumber.ts"

/**
 * Prints the value that stands from `reader.offset` on and ends at `reader.end`. It moves past what it has read: that
 * this is all, its caller sees to. Throws `DecodeError` and nothing else.
 */
export type TextOf = (reader: ByteReader) => string

/** The text types, enums, `json` and `xml`: the bytes are the text. */
export const utf8Text: TextOf = (reader) => {
  const text = reader.utf8(reader.offset, reader.end)
  reader.offset = reader.end
  return text
}

/** `jsonb` and `jsonpath`: a version, and text. */
export const versionedText: TextOf = (reader) => {
  const version = reader.uint8()
  if (version !== 1) reader.fail(`version ${version} of a binary format; 1 is known`)
  return utf8Text(reader)
}

export const booleanText: TextOf = (reader) => {
  const byte = reader.uint8()
  return byte === 1 ? "t" : byte === 0 ? "f" : reader.fail("a boolean neither true nor false")
}

/** The hex digits of `bytes[start, end)`. */
export const toHex = (bytes: Uint8Array, start: number, end: number): string => {
  let text = ""
  for (let at = start; at < end; at++) text += hexPairs[bytes[at]!]
  return text
}

export const byteaText: TextOf = (reader) => {
  const at = reader.skip(reader.remaining)
  return `\\x${toHex(reader.bytes, at, reader.offset)}`
}

/** `"char"`: a single byte, of which zero prints as nothing and those beyond ASCII in octal (PostgreSQL 16). */
export const charText: TextOf = (reader) => {
  const byte = reader.uint8()
  return byte === 0 ? "" : byte < 0x80 ? String.fromCharCode(byte) : `\\${byte.toString(8)}`
}

/** The text of one uuid after another: its dashes stay. One call to make a string of it costs less than joining pieces. */
const uuidBytes = new Uint8Array(36).fill(0x2d)
/** Where the hex digits of each byte stand. */
const uuidDigits = Uint8Array.of(0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34)
const hexDigits = Uint8Array.from("0123456789abcdef", (digit) => digit.charCodeAt(0))

export const uuidText: TextOf = (reader) => {
  const at = reader.skip(16)
  const { bytes } = reader
  for (let index = 0; index < 16; index++) {
    const byte = bytes[at + index]!
    const to = uuidDigits[index]!
    uuidBytes[to] = hexDigits[byte >> 4]!
    uuidBytes[to + 1] = hexDigits[byte & 0x0f]!
  }
  return reader.slices.latin1(uuidBytes, 0, 36)
}

/** Each byte as the eight bits it is. */
const octets = Array.from({ length: 256 }, (_, byte) => byte.toString(2).padStart(8, "0"))

/** `bit` and `varbit`: a count of bits, and bytes whose last is filled up with zeros. */
export const bitText: TextOf = (reader) => {
  const count = reader.int32()
  const length = reader.remaining
  if (count < 0 || Math.ceil(count / 8) !== length) reader.fail("a count of bits that is not that of its bytes")
  const at = reader.skip(length)
  let text = ""
  for (let index = 0; index < length; index++) text += octets[reader.bytes[at + index]!]
  return text.slice(0, count)
}

export const lsnText: TextOf = (reader) => Lsn.format(reader.lsn())

/** Where a row lies: block and item. */
export const tidText: TextOf = (reader) => {
  const block = reader.uint32()
  return `(${block},${reader.uint16()})`
}

/** `pg_snapshot`: `xmin:xmax:xip,xip`. */
export const snapshotText: TextOf = (reader) => {
  const count = reader.int32()
  const xmin = uint8Text(reader)
  const xmax = uint8Text(reader)
  if (count < 0 || count * 8 !== reader.remaining) reader.fail("a snapshot of another length than its count tells")
  const running: Array<string> = []
  for (let index = 0; index < count; index++) running.push(uint8Text(reader))
  return `${xmin}:${xmax}:${running.join(",")}`
}

const weights = ["", "C", "B", "A"] as const

/** `'cat':3 'fat':2A,4`: lexemes as the server sorted them, positions of 14 bits behind 2 of weight. */
export const tsvectorText: TextOf = (reader) => {
  const count = reader.int32()
  // Each takes three bytes at least, so that a count too large runs out of them.
  if (count < 0 || count * 3 > reader.remaining) reader.fail("more lexemes than there are bytes for")
  const lexemes: Array<string> = []
  for (let index = 0; index < count; index++) {
    let text = `'${reader.cstring().replaceAll("\\", "\\\\").replaceAll("'", "''")}'`
    const positions = reader.uint16()
    for (let at = 0; at < positions; at++) {
      const position = reader.uint16()
      text += `${at === 0 ? ":" : ","}${position & 0x3fff}${weights[position >> 14]}`
    }
    lexemes.push(text)
  }
  return lexemes.join(" ")
}
