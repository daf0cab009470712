/**
 * Values of an envelope, back in the form that a declared table's Schema decodes: what JSON could not hold went as text, and the
 * Schema says what it was. The other side of `ValueJson`.
 */
import * as Schema from "effect/Schema"
import { bytea } from "../values/ScalarText.ts"

type Ast = Schema.Top["ast"]

/** Only what `ValueJson` makes of bytes: other text is none, though it might be bytes in PostgreSQL's older format. */
const bytesOf = (text: string): Uint8Array | undefined => {
  try {
    return text.startsWith("\\x") ? bytea(text) : undefined
  } catch {
    return undefined
  }
}

const takesBytes = (ast: Ast): boolean => {
  try {
    return Schema.is(Schema.make(ast))(new Uint8Array())
  } catch {
    return false // A predicate that throws tells nothing.
  }
}

const integer = /^-?\d+$/
const special: { readonly [text: string]: number } = {
  NaN: Number.NaN,
  Infinity: Number.POSITIVE_INFINITY,
  "-Infinity": Number.NEGATIVE_INFINITY
}

/** The value, if this side of a Schema takes it otherwise than JSON has it; else `undefined`. */
const restored = (ast: Ast, json: unknown): unknown => {
  switch (ast._tag) {
    case "BigInt":
      if (typeof json === "string" && integer.test(json)) return BigInt(json)
      return typeof json === "number" ? BigInt(json) : undefined
    case "Number":
      return typeof json === "string" ? special[json] : undefined
    case "Declaration":
      return typeof json === "string" && takesBytes(ast) ? bytesOf(json) : undefined
    case "Union": {
      // Text that a member takes as it is, is text.
      const isText = typeof json === "string" && ast.types.some((type) => type._tag === "String")
      if (isText || json === null) return undefined
      for (const type of ast.types) {
        const value = restored(type, json)
        if (value !== undefined) return value
      }
      return undefined
    }
    case "Arrays": {
      if (!Array.isArray(json)) return undefined
      const [element] = [...ast.elements, ...ast.rest]
      if (element === undefined) return undefined
      // An array of arrays has one type of element.
      const each = (value: unknown): unknown => (Array.isArray(value) ? restore(ast, value) : restore(element, value))
      return json.map(each)
    }
    default:
      return undefined
  }
}

const restore = (ast: Ast, json: unknown): unknown => restored(ast, json) ?? json

/** A function that gives a field's values the form that its Schema decodes. */
export const restoring = (field: Schema.Constraint): ((json: unknown) => unknown) => {
  const { ast } = Schema.toEncoded(field)
  return (json) => restore(ast, json)
}
