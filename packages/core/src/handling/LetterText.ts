/**
 * Changes as text, and back as they were: what a store of letters keeps. JSON, in which whatever JSON has no word for is an object
 * with a member `$`: bigints, bytes, times, numbers that are none. A column that is absent stays absent, and is not null.
 *
 * The envelope of sinks is for readers of any language, and does not tell a bigint from a text; this is for us alone.
 */
import * as Result from "effect/Result"
import { NextLsn } from "../change/NextLsn.ts"
import { DeadLettersError } from "./Letter.ts"

/** What has no form, and where it stands. */
class Formless {
  readonly what: string
  readonly path: ReadonlyArray<string>
  constructor(what: string, path: ReadonlyArray<string>) {
    this.what = what
    this.path = path
  }
}

const hexOf = (bytes: Uint8Array): string => {
  let text = ""
  for (const byte of bytes) text += byte.toString(16).padStart(2, "0")
  return text
}

const bytesOf = (hex: string): Uint8Array => {
  const bytes = new Uint8Array(hex.length / 2)
  for (let at = 0; at < bytes.length; at++) bytes[at] = Number.parseInt(hex.slice(at * 2, at * 2 + 2), 16)
  return bytes
}

const isPlain = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}

/** An object's own members, for a column may be named `__proto__`. */
const membersOf = (value: object, each: (member: unknown, name: string) => unknown): object =>
  Object.fromEntries(Object.entries(value).map(([name, member]) => [name, each(member, name)]))

const tagged = (type: string, value?: unknown): object => ({ $: type, ...(value === undefined ? {} : { value }) })

const nameOf = (value: object): string => {
  const { name } = (Object.getPrototypeOf(value) as { constructor?: { name?: string } }).constructor ?? {}
  return name === undefined || name === "" ? "a class" : `the class ${name}`
}

const toJson = (value: unknown, path: ReadonlyArray<string>): unknown => {
  switch (typeof value) {
    case "string":
    case "boolean":
      return value
    case "number":
      return Number.isFinite(value) && !Object.is(value, -0)
        ? value
        : tagged("number", Object.is(value, -0) ? "-0" : `${value}`)
    case "bigint":
      return tagged("bigint", `${value}`)
    case "undefined":
      return tagged("undefined")
    case "object": {
      if (value === null) return null
      if (Array.isArray(value)) return value.map((element, index) => toJson(element, [...path, `${index}`]))
      if (value instanceof Uint8Array) return tagged("bytes", hexOf(value))
      if (value instanceof Date) return tagged("date", Number.isNaN(value.getTime()) ? null : value.toISOString())
      // It acknowledges nothing any more: a parked change has been.
      if (value instanceof NextLsn) return tagged("undefined")
      if (!isPlain(value)) throw new Formless(nameOf(value), path)
      const members = membersOf(value, (member, name) => toJson(member, [...path, name]))
      return Object.hasOwn(value, "$") ? tagged("object", members) : members
    }
    default:
      throw new Formless(`a ${typeof value}`, path)
  }
}

const fromJson = (json: unknown): unknown => {
  if (typeof json !== "object" || json === null) return json
  if (Array.isArray(json)) return json.map(fromJson)
  const { $, value } = json as { readonly $?: unknown; readonly value?: unknown }
  switch (typeof $ === "string" ? $ : undefined) {
    case undefined:
      return membersOf(json, fromJson)
    case "number":
      return Number(value)
    case "bigint":
      return BigInt(value as string)
    case "bytes":
      return bytesOf(value as string)
    case "date":
      return new Date(value === null ? Number.NaN : (value as string))
    case "object":
      return membersOf(value as object, fromJson)
    default:
      return undefined
  }
}

/** The change as text, or what of it cannot be kept. */
export const encode = (change: unknown): Result.Result<string, DeadLettersError> => {
  try {
    return Result.succeed(JSON.stringify(toJson(change, [])))
  } catch (thrown) {
    if (!(thrown instanceof Formless)) throw thrown
    // A row and its column: what is within may be data.
    const where = thrown.path.length === 0 ? "" : ` at ${thrown.path.slice(0, 2).join(".")}`
    const problem = `the change holds a value of ${thrown.what}${where}, which has no form as text`
    return Result.fail(new DeadLettersError({ during: "encode", problem }))
  }
}

/** The change that this text is of. */
export const decode = (text: string): Result.Result<unknown, DeadLettersError> => {
  try {
    return Result.succeed(fromJson(JSON.parse(text)))
  } catch {
    return Result.fail(new DeadLettersError({ during: "find", problem: "what is stored is no change" }))
  }
}
