/**
 * Values and rows as JSON, for readers of any language: lines of the command, messages of sinks. Nothing is lost on the way:
 * what JSON's numbers or most readers of them cannot hold is a string, and `json` and `jsonb` columns are PostgreSQL's own text.
 *
 * Written by hand rather than by `JSON.stringify`, which knows no bigint, no NaN, no -0 and no text that is JSON already. The
 * public module `ValueJson`.
 */
import type { Row } from "../change/Change.ts"
import { toHex } from "../values/BinaryText.ts"
import type { TypeDecoders } from "../values/TypeDecoder.ts"

/** The text of a `json` or `jsonb` column: goes into the line as it is, numbers with all their digits. */
export class JsonText {
  readonly text: string
  /** A value of a column that is not NULL. */
  get isNull(): boolean {
    return this.text.trim() === "null"
  }

  constructor(text: string) {
    // Line breaks can stand between JSON's tokens only, and would break ours.
    this.text = text.replaceAll(/[\r\n]+/g, " ")
  }
}

const jsonText = (text: string): JsonText => new JsonText(text)

/**
 * How columns are decoded when they are to be written as JSON: `json` and `jsonb` stay PostgreSQL's own text.
 *
 * @example
 * Pgoutput.make({ publications: ["orders"], types: ValueJson.types })
 */
export const types: TypeDecoders = {
  byOid: new Map([
    [114, jsonText],
    [3802, jsonText]
  ]),
  byName: new Map([
    ["json", jsonText],
    ["jsonb", jsonText]
  ])
}

const isObeyed = /[\u007f-\u009f]/

/** Text, quoted. `JSON.stringify` leaves DEL and the C1 controls alone, and some terminals obey those. */
export const quote = (text: string): string => {
  const quoted = JSON.stringify(text)
  return isObeyed.test(quoted)
    ? quoted.replaceAll(
        /[\u007f-\u009f]/g,
        (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`
      )
    : quoted
}

/** Bytes as PostgreSQL writes them: `"\\x00ff"`. */
export const encodeBytes = (bytes: Uint8Array): string => `"\\\\x${toHex(bytes, 0, bytes.length)}"`

/**
 * A column's value.
 *
 * @example
 * ValueJson.encodeValue(9007199254740993n) // => "\"9007199254740993\""
 */
export const encodeValue = (value: unknown): string => {
  switch (typeof value) {
    case "string":
      return quote(value)
    case "number":
      return Number.isFinite(value) ? (Object.is(value, -0) ? "-0" : String(value)) : `"${value}"`
    case "bigint":
      return `"${value}"`
    case "boolean":
      return String(value)
    case "object":
      if (value === null) return "null"
      if (value instanceof JsonText) return value.text
      if (value instanceof Uint8Array) return encodeBytes(value)
      if (Array.isArray(value)) return `[${value.map(encodeValue).join(",")}]`
      return encodeRow(value as Row)
    default:
      return "null"
  }
}

/** A row: an object's own members, for a column may be named `__proto__`. */
export const encodeRow = (row: Row): string => {
  let text = "{"
  for (const name of Object.keys(row)) {
    text += `${text.length === 1 ? "" : ","}${quote(name)}:${encodeValue(row[name])}`
  }
  return `${text}}`
}

const pointerStep = (name: string): string => `/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`

const addJsonNulls = (value: unknown, pointer: string, found: Array<string>): void => {
  if (value instanceof JsonText) {
    if (value.isNull) found.push(pointer)
  } else if (Array.isArray(value)) {
    for (const [index, element] of value.entries()) addJsonNulls(element, `${pointer}/${index}`, found)
  }
}

/**
 * Which nulls of these rows are JSON's own, and not SQL's: no JSON value could tell that in its place, since a `jsonb` may
 * be any. They are told by where they are in the object, as a member of its own with a comma before; mostly nothing.
 *
 * Source: RFC 6901, JSON Pointer
 */
export const jsonNulls = (rows: { readonly [member: string]: Row | undefined }): string => {
  let found: Array<string> | undefined
  for (const member in rows) {
    const row = rows[member]
    if (row === undefined) continue
    for (const name of Object.keys(row)) {
      const value = row[name]
      // A row mostly has neither JSON nor arrays.
      if (typeof value !== "object" || value === null) continue
      found ??= []
      addJsonNulls(value, `/${member}${pointerStep(name)}`, found)
    }
  }
  return found === undefined || found.length === 0 ? "" : `,"jsonNull":${encodeValue(found)}`
}

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** The content of a message, as a member: messages are bytes that mostly are text. */
export const encodeContent = (bytes: Uint8Array): string => {
  try {
    return `"content":${quote(strictUtf8.decode(bytes))}`
  } catch {
    return `"bytes":${encodeBytes(bytes)}`
  }
}
