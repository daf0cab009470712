/**
 * Which types are understood in PostgreSQL's binary format: what the text format tells in the type's text, this format
 * tells by send functions, one a type. A type that is not understood is refused, for a guess would be a wrong value.
 */
import { arrayText } from "./BinaryContainer.ts"
import { type BinaryType, sentAsText, utf8 } from "./BinaryForm.ts"
import { type BuiltinMatch, builtinByName, builtinByOid } from "./BuiltinCatalog.ts"
import type { QualifiedName } from "./TypeDecoder.ts"

const arrayOf = (type: BinaryType, oid: number | undefined, delimiter: "," | ";"): BinaryType => ({
  form: "printed",
  text: arrayText(type.text, oid, delimiter),
  element: { type, oid }
})

const builtin = ({ isArray, type }: BuiltinMatch): BinaryType | undefined => {
  const single = type.binary
  if (!isArray || single === undefined) return single
  // An array of what has no send function has one, which fails on the server.
  return single === sentAsText ? undefined : arrayOf(single, type.oid, type.delimiter)
}

/**
 * A type by OID, and by the name the walsender gave it: for a domain, its base type's. `undefined` for a type not
 * understood.
 *
 * On the wire nothing tells an enum from a composite type: `enums` does, by `schema.name` or `name`, and serves arrays of
 * them too (`_name`, as PostgreSQL calls those).
 */
export const binaryTypeForOid = (
  oid: number,
  name: QualifiedName | undefined,
  enums: ReadonlySet<string>
): BinaryType | undefined => {
  const known = builtinByOid(oid)
  if (known !== undefined) return builtin(known)
  if (name === undefined) return undefined
  if (name.schema === "" || name.schema === "pg_catalog") {
    const base = builtinByName(name.name)
    return base === undefined ? undefined : builtin(base)
  }
  const isEnum = (bare: string): boolean => enums.has(bare) || enums.has(`${name.schema}.${bare}`)
  if (isEnum(name.name)) return utf8
  return name.name.startsWith("_") && isEnum(name.name.slice(1)) ? arrayOf(utf8, undefined, ",") : undefined
}
