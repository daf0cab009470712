/**
 * What values become in JavaScript, a form each, with everything that anybody has to know of one: how it is read from
 * text and from bytes, what it is in JavaScript, and the Schema that takes it. Which type has which form is told by
 * `BuiltinTypes.ts`.
 *
 * A form of your own is an object like these: nobody looks for names but `text` (whose bytes are cut, not read).
 */
import type { ByteReader } from "../protocol/ByteReader.ts"
import { bigintAt, booleanAt, byteaAt, floatAt, integerAt } from "./ScalarBytes.ts"
import * as ScalarText from "./ScalarText.ts"

/** What a value is in JavaScript, as far as a Schema's shape tells who takes it. */
export type ScalarKind = "boolean" | "number" | "bigint" | "string" | "bytes"

export interface ValueForm {
  /** Its name: an identifier, for compiled readers call it so. Forms of one name must be one form. */
  readonly form: string
  /** A value of its text. Throws for a text that is none. */
  readonly decode: (text: string) => unknown
  /**
   * The same of the bytes of a text, which lie within the message; `undefined` where `decode` throws. Without it the text
   * is made first.
   */
  readonly at?: ((bytes: Uint8Array, start: number, end: number, reader: ByteReader) => unknown) | undefined
  /** `undefined` when only the program knows: JSON, a decoder of its own. */
  readonly kind?: ScalarKind | undefined
  /** The Schema of its values, in source; `undefined` for one that takes anything. */
  readonly schema?: string | undefined
}

export const text: ValueForm = {
  form: "text",
  decode: ScalarText.text,
  kind: "string",
  schema: "Schema.String"
}

export const boolean: ValueForm = {
  form: "boolean",
  decode: ScalarText.boolean,
  at: booleanAt,
  kind: "boolean",
  schema: "Schema.Boolean"
}

export const integer: ValueForm = {
  form: "integer",
  decode: ScalarText.integer,
  at: integerAt,
  kind: "number",
  schema: "Schema.Number"
}

export const bigint: ValueForm = {
  form: "bigint",
  decode: ScalarText.bigint,
  at: bigintAt,
  kind: "bigint",
  schema: "Schema.BigInt"
}

export const float: ValueForm = {
  form: "float",
  decode: ScalarText.float,
  at: floatAt,
  kind: "number",
  schema: "Schema.Number"
}

export const bytea: ValueForm = {
  form: "bytea",
  decode: ScalarText.bytea,
  at: byteaAt,
  kind: "bytes",
  schema: "Schema.Uint8Array"
}

export const json: ValueForm = { form: "json", decode: ScalarText.json }

/** By a decoder that is told nothing of but that it takes text. */
export const custom = (decode: ValueForm["decode"]): ValueForm => ({ form: "custom", decode })
