/** The built-in types as they are asked for: by OID, and by either name. */
import { type BuiltinType, builtinTypes } from "./BuiltinTypes.ts"

/** A built-in type, or the array of one. */
export interface BuiltinMatch {
  readonly type: BuiltinType
  readonly isArray: boolean
}

const byOid = new Map<number, BuiltinMatch>()
const byName = new Map<string, BuiltinMatch>()
for (const type of builtinTypes) {
  const single: BuiltinMatch = { type, isArray: false }
  const array: BuiltinMatch = { type, isArray: true }
  byOid.set(type.oid, single).set(type.arrayOid, array)
  byName.set(type.name, single).set(type.sqlName, single)
  byName.set(`_${type.name}`, array).set(`${type.name}[]`, array).set(`${type.sqlName}[]`, array)
}

/** By OID in `pg_type`; `undefined` for types made by users and extensions. */
export const builtinByOid = (oid: number): BuiltinMatch | undefined => byOid.get(oid)

/** By either name: `int4`, `integer`, `_int4`, `integer[]`. */
export const builtinByName = (name: string): BuiltinMatch | undefined => byName.get(name)

/** What `format_type` prints for a built-in type or the array of one: `integer`, `integer[]`. */
export const builtinTypeName = ({ isArray, type }: BuiltinMatch): string =>
  isArray ? `${type.sqlName}[]` : type.sqlName
