/**
 * What the bytes of a type are in PostgreSQL's binary format: the value itself, its text, or something that is printed to
 * the text that the text format would have brought. Which type has which form is told by `BuiltinTypes.ts`.
 */
import type { ByteReader } from "../protocol/ByteReader.ts"
import {
  float4At,
  float4Text,
  float8At,
  float8Text,
  int2At,
  int2Text,
  int4At,
  int4Text,
  int8At,
  int8Text,
  uint4At,
  uint4Text
} from "./BinaryNumber.ts"
import { booleanText, byteaText, type TextOf, utf8Text } from "./BinaryText.ts"

/** Bytes that are the value: what they give is what the form of the type's text gives. */
export interface NativeForm {
  /** Reads the value; that it is all there is, its caller sees to. Throws `DecodeError` and nothing else. */
  readonly read: (reader: ByteReader) => unknown
  /** Where all values have one length: the value in bytes of that length, or `undefined` for what `read` refuses. */
  readonly fixed?: FixedForm | undefined
}

export interface FixedForm {
  readonly length: number
  readonly at: (bytes: Uint8Array, start: number) => unknown
}

/** What an array is made of. */
export interface BinaryElement {
  readonly type: BinaryType
  /** The OID that stands in the array itself; `undefined` for a type whose OID nothing tells. */
  readonly oid: number | undefined
}

export interface BinaryType {
  /** Its name: an identifier, for compiled readers call it so. Nobody looks for any but `utf8` and `printed`. */
  readonly form: string
  /** The text that the text format would have brought. */
  readonly text: TextOf
  readonly native?: NativeForm | undefined
  readonly element?: BinaryElement | undefined
}

const fixed = (form: string, length: number, at: FixedForm["at"], text: TextOf): BinaryType => ({
  form,
  text,
  native: { read: (reader) => at(reader.bytes, reader.skip(length)), fixed: { length, at } }
})

/** One byte, 0 or 1. */
export const oneByte: BinaryType = {
  form: "boolean",
  text: booleanText,
  native: {
    read: (reader) => booleanByteAt(reader.bytes, reader.skip(1)) ?? reader.fail("a boolean neither true nor false"),
    fixed: { length: 1, at: (bytes, start) => booleanByteAt(bytes, start) }
  }
}

const booleanByteAt = (bytes: Uint8Array, start: number): boolean | undefined => {
  const byte = bytes[start]
  return byte === 1 ? true : byte === 0 ? false : undefined
}

export const int2 = fixed("int2", 2, int2At, int2Text)
export const int4 = fixed("int4", 4, int4At, int4Text)
export const uint4 = fixed("uint4", 4, uint4At, uint4Text)
export const int8 = fixed("int8", 8, int8At, int8Text)
export const float4 = fixed("float4", 4, float4At, float4Text)
export const float8 = fixed("float8", 8, float8At, float8Text)

/** Any bytes. */
export const bytes: BinaryType = {
  form: "bytea",
  text: byteaText,
  native: { read: (reader) => reader.copy(reader.remaining) }
}

/** The bytes are the text. */
export const utf8: BinaryType = { form: "utf8", text: utf8Text, native: { read: utf8Text } }

/** What must be printed before it is anything. */
export const printed = (text: TextOf): BinaryType => ({ form: "printed", text })

/** A type without a send function, which the server sends as text in either format. */
export const sentAsText = printed((reader) => reader.fail("a binary form that no PostgreSQL has"))
