/**
 * Which types are understood in PostgreSQL's binary format, and how: what the text format tells in the type's text, this
 * format tells by send functions, one a type. A type that is not here is refused, for a guess would be a wrong value.
 *
 * Not here, though built in: `money`, whose text hangs on the server's `lc_monetary`; `tsquery`; and the types that hold
 * the OID of an object and print its name (`regclass` and its kin).
 */
import { arrayText, multirangeText, rangeText, vectorText } from "./BinaryContainer.ts"
import { dateTextOf, intervalText, timestampText, timestamptzText, timeText, timetzText } from "./BinaryDateTime.ts"
import { boxText, circleText, lineText, lsegText, pathText, pointText, polygonText } from "./BinaryGeometry.ts"
import { cidrText, inetText, macaddr8Text, macaddrText } from "./BinaryNetwork.ts"
import {
  float4Text,
  float8Text,
  int2Text,
  int4Text,
  int8Text,
  numericText,
  uint4Text,
  uint8Text
} from "./BinaryNumber.ts"
import {
  bitText,
  booleanText,
  byteaText,
  charText,
  lsnText,
  snapshotText,
  type TextOf,
  tidText,
  tsvectorText,
  utf8Text,
  uuidText,
  versionedText
} from "./BinaryText.ts"
import { type BuiltinMatch, builtinByName, builtinByOid } from "./BuiltinTypes.ts"
import type { QualifiedName } from "./TypeDecoder.ts"

/** What the bytes of a type are, where they are the value themselves; `printed` is what must be printed first. */
export type BinaryForm =
  | "boolean"
  | "int2"
  | "int4"
  | "uint4"
  | "int8"
  | "float4"
  | "float8"
  | "bytea"
  | "utf8"
  | "printed"

/** What an array is made of. */
export interface BinaryElement {
  readonly type: BinaryType
  /** The OID that stands in the array itself; `undefined` for a type whose OID nothing tells. */
  readonly oid: number | undefined
}

export interface BinaryType {
  readonly form: BinaryForm
  /** The text that the text format would have brought. */
  readonly text: TextOf
  readonly element?: BinaryElement | undefined
}

const printed = (text: TextOf): BinaryType => ({ form: "printed", text })
const utf8: BinaryType = { form: "utf8", text: utf8Text }
const int4: BinaryType = { form: "int4", text: int4Text }
const uint4: BinaryType = { form: "uint4", text: uint4Text }

/** A type without a send function, which the server sends as text in either format. */
const sentAsText = printed((reader) => reader.fail("a binary form that no PostgreSQL has"))

/** By `pg_type.typname`. */
const types: ReadonlyMap<string, BinaryType> = new Map<string, BinaryType>([
  ["aclitem", sentAsText],
  ["bit", printed(bitText)],
  ["bool", { form: "boolean", text: booleanText }],
  ["box", printed(boxText)],
  ["bpchar", utf8],
  ["bytea", { form: "bytea", text: byteaText }],
  ["char", printed(charText)],
  ["cid", uint4],
  ["cidr", printed(cidrText)],
  ["circle", printed(circleText)],
  ["date", printed(dateTextOf)],
  ["datemultirange", printed(multirangeText(dateTextOf))],
  ["daterange", printed(rangeText(dateTextOf))],
  ["float4", { form: "float4", text: float4Text }],
  ["float8", { form: "float8", text: float8Text }],
  ["gtsvector", sentAsText],
  ["inet", printed(inetText)],
  ["int2", { form: "int2", text: int2Text }],
  ["int2vector", printed(vectorText(int2Text, 21))],
  ["int4", int4],
  ["int4multirange", printed(multirangeText(int4Text))],
  ["int4range", printed(rangeText(int4Text))],
  ["int8", { form: "int8", text: int8Text }],
  ["int8multirange", printed(multirangeText(int8Text))],
  ["int8range", printed(rangeText(int8Text))],
  ["interval", printed(intervalText)],
  ["json", utf8],
  ["jsonb", printed(versionedText)],
  ["jsonpath", printed(versionedText)],
  ["line", printed(lineText)],
  ["lseg", printed(lsegText)],
  ["macaddr", printed(macaddrText)],
  ["macaddr8", printed(macaddr8Text)],
  ["name", utf8],
  ["numeric", printed(numericText)],
  ["nummultirange", printed(multirangeText(numericText))],
  ["numrange", printed(rangeText(numericText))],
  ["oid", uint4],
  ["oidvector", printed(vectorText(uint4Text, 26))],
  ["path", printed(pathText)],
  ["pg_lsn", printed(lsnText)],
  ["pg_snapshot", printed(snapshotText)],
  ["point", printed(pointText)],
  ["polygon", printed(polygonText)],
  ["refcursor", utf8],
  ["text", utf8],
  ["tid", printed(tidText)],
  ["time", printed(timeText)],
  ["timestamp", printed(timestampText)],
  ["timestamptz", printed(timestamptzText)],
  ["timetz", printed(timetzText)],
  ["tsmultirange", printed(multirangeText(timestampText))],
  ["tsrange", printed(rangeText(timestampText))],
  ["tstzmultirange", printed(multirangeText(timestamptzText))],
  ["tstzrange", printed(rangeText(timestamptzText))],
  ["tsvector", printed(tsvectorText)],
  ["txid_snapshot", printed(snapshotText)],
  ["uuid", printed(uuidText)],
  ["varbit", printed(bitText)],
  ["varchar", utf8],
  ["xid", uint4],
  ["xid8", printed(uint8Text)],
  ["xml", utf8]
])

const arrayOf = (type: BinaryType, oid: number | undefined, delimiter: "," | ";"): BinaryType => ({
  form: "printed",
  text: arrayText(type.text, oid, delimiter),
  element: { type, oid }
})

const builtin = ({ isArray, type }: BuiltinMatch): BinaryType | undefined => {
  const single = types.get(type.name)
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
