/**
 * Whether a Schema can take what the decoders give for a column's type: told from the Schema's shape alone, before any row.
 * Where it cannot be told, in a `Suspend` or a declaration of the program's own, the answer is yes: a check that refuses
 * what works would be worse than none. Single values are no concern of this module: a row is decoded by `RowDecoder.ts`.
 */
import * as Schema from "effect/Schema"
import type { ValueDecoder } from "../values/TypeDecoder.ts"
import type { ScalarKind } from "../values/ValueForm.ts"

type Ast = Schema.Top["ast"]

/** What a column's values are in JavaScript; `undefined` when only the program knows: JSON, a decoder of its own. */
type ValueKind = ScalarKind | { readonly element: ValueDecoder }

const kindOf = ({ element, kind }: ValueDecoder): ValueKind | undefined => (element === undefined ? kind : { element })

/** A declaration is a predicate: those that take a class's instance and nothing plain are known by trying. */
const declared = (ast: Ast, kind: ValueKind): boolean => {
  const is = Schema.is(Schema.make(ast))
  const takes = (value: unknown): boolean => {
    try {
      return is(value)
    } catch {
      return false // A predicate that throws tells nothing.
    }
  }
  if (takes(new Uint8Array())) return kind === "bytes"
  return !takes(new Date(0))
}

/** Whether this side of a Schema takes values of that kind. */
const takesKind = (ast: Ast, kind: ValueKind): boolean => {
  switch (ast._tag) {
    case "String":
    case "TemplateLiteral":
      return kind === "string"
    case "Number":
      return kind === "number"
    case "BigInt":
      return kind === "bigint"
    case "Boolean":
      return kind === "boolean"
    case "Literal":
      return typeof ast.literal === kind
    case "Enum":
      return ast.enums.some(([, value]) => typeof value === kind)
    case "Union":
      return ast.types.some((type) => takesKind(type, kind))
    case "Null":
    case "Undefined":
    case "Never":
    case "Symbol":
    case "UniqueSymbol":
      return false
    case "Arrays": {
      if (typeof kind === "string") return false
      // An array of arrays is of the same type in PostgreSQL, and an empty one fits any tuple without elements.
      const element = kindOf(kind.element)
      const parts = [...ast.elements, ...ast.rest]
      return element === undefined || parts.every((part) => takesKind(part, element) || takesKind(part, kind))
    }
    case "Objects":
      // Without properties it takes everything but null.
      return ast.propertySignatures.length === 0 && ast.indexSignatures.length === 0
    case "ObjectKeyword":
      return kind === "bytes" || typeof kind === "object"
    case "Declaration":
      return declared(ast, kind)
    default:
      return true // Any, Unknown, Void, Suspend
  }
}

/** Whether `field` may take what `decoder` gives; NULL is not considered. */
export const takesValues = (field: Schema.Constraint, decoder: ValueDecoder): boolean => {
  const kind = kindOf(decoder)
  return kind === undefined || takesKind(Schema.toEncoded(field).ast, kind)
}
