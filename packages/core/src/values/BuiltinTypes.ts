/**
 * PostgreSQL's built-in types: OIDs, both names, array types, and how their text becomes a value. Their OIDs are fixed
 * for all versions and databases; all other types get theirs when they are made.
 *
 * Not a type system: composites of catalog tables, pseudo-types and the types of other schemas are left out, and stay
 * text. The list is what this asks of PostgreSQL 18, with `form` added by hand:
 *
 *     SELECT oid, typarray, typname, format_type(oid, NULL), typdelim FROM pg_type
 *     WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm') AND typarray <> 0
 *
 * Source: src/include/catalog/pg_type.dat
 */

/** How the text of a type becomes a value. */
export type BuiltinForm = "boolean" | "integer" | "bigint" | "float" | "bytea" | "json" | "text"

export interface BuiltinType {
  readonly oid: number
  /** `pg_type.typname`: `int4`. */
  readonly name: string
  /** What `format_type` prints: `integer`. */
  readonly sqlName: string
  /** OID of the array of this type. */
  readonly arrayOid: number
  /** What separates the elements of such an array. */
  readonly delimiter: "," | ";"
  readonly form: BuiltinForm
}

/** A built-in type, or the array of one. */
export interface BuiltinMatch {
  readonly type: BuiltinType
  readonly isArray: boolean
}

const type = (
  oid: number,
  arrayOid: number,
  form: BuiltinForm,
  name: string,
  sqlName: string = name,
  delimiter: "," | ";" = ","
): BuiltinType => ({ oid, name, sqlName, arrayOid, delimiter, form })

/** Every base, range and multirange type of `pg_catalog` that has an array type, by OID. */
export const builtinTypes: ReadonlyArray<BuiltinType> = [
  type(16, 1000, "boolean", "bool", "boolean"),
  type(17, 1001, "bytea", "bytea"),
  type(18, 1002, "text", "char", '"char"'),
  type(19, 1003, "text", "name"),
  type(20, 1016, "bigint", "int8", "bigint"),
  type(21, 1005, "integer", "int2", "smallint"),
  type(22, 1006, "text", "int2vector"),
  type(23, 1007, "integer", "int4", "integer"),
  type(24, 1008, "text", "regproc"),
  type(25, 1009, "text", "text"),
  type(26, 1028, "integer", "oid"),
  type(27, 1010, "text", "tid"),
  type(28, 1011, "integer", "xid"),
  type(29, 1012, "integer", "cid"),
  type(30, 1013, "text", "oidvector"),
  type(114, 199, "json", "json"),
  type(142, 143, "text", "xml"),
  type(600, 1017, "text", "point"),
  type(601, 1018, "text", "lseg"),
  type(602, 1019, "text", "path"),
  type(603, 1020, "text", "box", "box", ";"),
  type(604, 1027, "text", "polygon"),
  type(628, 629, "text", "line"),
  type(650, 651, "text", "cidr"),
  type(700, 1021, "float", "float4", "real"),
  type(701, 1022, "float", "float8", "double precision"),
  type(718, 719, "text", "circle"),
  type(774, 775, "text", "macaddr8"),
  type(790, 791, "text", "money"),
  type(829, 1040, "text", "macaddr"),
  type(869, 1041, "text", "inet"),
  type(1033, 1034, "text", "aclitem"),
  type(1042, 1014, "text", "bpchar", "character"),
  type(1043, 1015, "text", "varchar", "character varying"),
  type(1082, 1182, "text", "date"),
  type(1083, 1183, "text", "time", "time without time zone"),
  type(1114, 1115, "text", "timestamp", "timestamp without time zone"),
  type(1184, 1185, "text", "timestamptz", "timestamp with time zone"),
  type(1186, 1187, "text", "interval"),
  type(1266, 1270, "text", "timetz", "time with time zone"),
  type(1560, 1561, "text", "bit"),
  type(1562, 1563, "text", "varbit", "bit varying"),
  type(1700, 1231, "text", "numeric"),
  type(1790, 2201, "text", "refcursor"),
  type(2202, 2207, "text", "regprocedure"),
  type(2203, 2208, "text", "regoper"),
  type(2204, 2209, "text", "regoperator"),
  type(2205, 2210, "text", "regclass"),
  type(2206, 2211, "text", "regtype"),
  type(2950, 2951, "text", "uuid"),
  type(2970, 2949, "text", "txid_snapshot"),
  type(3220, 3221, "text", "pg_lsn"),
  type(3614, 3643, "text", "tsvector"),
  type(3615, 3645, "text", "tsquery"),
  type(3642, 3644, "text", "gtsvector"),
  type(3734, 3735, "text", "regconfig"),
  type(3769, 3770, "text", "regdictionary"),
  type(3802, 3807, "json", "jsonb"),
  type(3904, 3905, "text", "int4range"),
  type(3906, 3907, "text", "numrange"),
  type(3908, 3909, "text", "tsrange"),
  type(3910, 3911, "text", "tstzrange"),
  type(3912, 3913, "text", "daterange"),
  type(3926, 3927, "text", "int8range"),
  type(4072, 4073, "text", "jsonpath"),
  type(4089, 4090, "text", "regnamespace"),
  type(4096, 4097, "text", "regrole"),
  type(4191, 4192, "text", "regcollation"),
  type(4451, 6150, "text", "int4multirange"),
  type(4532, 6151, "text", "nummultirange"),
  type(4533, 6152, "text", "tsmultirange"),
  type(4534, 6153, "text", "tstzmultirange"),
  type(4535, 6155, "text", "datemultirange"),
  type(4536, 6157, "text", "int8multirange"),
  type(5038, 5039, "text", "pg_snapshot"),
  type(5069, 271, "text", "xid8")
]

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
