/**
 * A message's value to its JSON and back, by one Schema. Compiled once per Schema, when first needed.
 *
 * The JSON is ASCII: every other character is escaped. So it is the same bytes in every database encoding, for every plugin,
 * and any driver can send it as text. What is read may be any JSON in UTF-8.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { portableText } from "../protocol/ByteReader.ts"
import { describeIssue } from "../table/describeIssue.ts"
import type { MessageSchema } from "./OutboxMessage.ts"

/** Where a value or content does not fit, and what would. Holds no value. */
export interface Misfit {
  readonly path: string
  readonly expected: string
}

/** A UTF-16 unit at a time, as JSON escapes are: a character beyond the BMP becomes its two surrogates. */
const escapeUnit = (unit: string): string => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`
const asciiJson = (json: string): string => json.replace(/[\u0080-\uffff]/g, escapeUnit)

/** `.items[0].price` */
const formatPath = (path: ReadonlyArray<string | number>): string =>
  path.map((part) => (typeof part === "number" ? `[${part}]` : `.${part}`)).join("")

const wayward: Misfit = { path: "", expected: "a value that its Schema takes without throwing or waiting" }
const notJson: Misfit = { path: "", expected: "JSON in UTF-8" }

/** What a parser gives, or why not: it throws where a Schema waits for something, or has code that throws. */
const attempt = <A>(
  parse: () => Result.Result<A, Schema.SchemaError>,
  ast: Schema.Constraint["ast"]
): Result.Result<A, Misfit> => {
  try {
    return Result.mapError(parse(), ({ issue }) => {
      const { expected, path } = describeIssue(issue, [], ast)
      return { path: formatPath(path), expected }
    })
  } catch {
    return Result.fail(wayward)
  }
}

/** Throws nothing. */
export interface MessageCodec<A> {
  /** ASCII text. */
  readonly encode: (value: A) => Result.Result<string, Misfit>
  /** Content is borrowed. */
  readonly decode: (content: Uint8Array) => Result.Result<A, Misfit>
}

const compile = (schema: MessageSchema): MessageCodec<unknown> => {
  const codec = Schema.toCodecJson(schema)
  const source = Schema.toType(schema).ast
  const encodeJson = Schema.encodeUnknownResult(codec)
  const decodeJson = Schema.decodeUnknownResult(codec)
  return {
    encode: (value) =>
      Result.flatMap(
        attempt(() => encodeJson(value), source),
        (encoded) => {
          const json: string | undefined = JSON.stringify(encoded)
          return json === undefined ? Result.fail(wayward) : Result.succeed(asciiJson(json))
        }
      ),
    decode: (content) => {
      const text = portableText.utf8(content, 0, content.length)
      if (text === undefined) return Result.fail(notJson)
      let json: unknown
      try {
        json = JSON.parse(text)
      } catch {
        // What it threw quotes the content.
        return Result.fail(notJson)
      }
      return attempt(() => decodeJson(json), codec.ast)
    }
  }
}

const codecs = new WeakMap<MessageSchema, MessageCodec<unknown>>()

/** The codec of a Schema, made at its first use and kept as long as the Schema is. */
export const codecOf = <S extends MessageSchema>(schema: S): MessageCodec<S["Type"]> => {
  const known = codecs.get(schema)
  if (known !== undefined) return known
  const codec = compile(schema)
  codecs.set(schema, codec)
  return codec
}
