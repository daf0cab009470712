/**
 * PostgreSQL's built-in types, a row each: OIDs, both names, its array, what its values become, and what its bytes are in
 * binary format. To make another type understood, add its row: every decoder, reader, check and generator goes by it.
 *
 * OIDs are fixed for all versions and databases; all other types get theirs when they are made. Not a type system:
 * composites of catalog tables, pseudo-types and the types of other schemas are left out, and stay text. The list is what
 * this asks of PostgreSQL 18, with the forms added by hand:
 *
 *     SELECT oid, typarray, typname, format_type(oid, NULL), typdelim FROM pg_type
 *     WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm') AND typarray <> 0
 *
 * Source: src/include/catalog/pg_type.dat
 */
import { multirangeText, rangeText, vectorText } from "./BinaryContainer.ts"
import { dateTextOf, intervalText, timestampText, timestamptzText, timeText, timetzText } from "./BinaryDateTime.ts"
import {
  type BinaryType,
  bytes,
  float4,
  float8,
  int2,
  int4,
  int8,
  oneByte,
  printed,
  sentAsText,
  uint4,
  utf8
} from "./BinaryForm.ts"
import { boxText, circleText, lineText, lsegText, pathText, pointText, polygonText } from "./BinaryGeometry.ts"
import { cidrText, inetText, macaddr8Text, macaddrText } from "./BinaryNetwork.ts"
import { int2Text, int4Text, int8Text, numericText, uint4Text, uint8Text } from "./BinaryNumber.ts"
import {
  bitText,
  charText,
  lsnText,
  snapshotText,
  tidText,
  tsvectorText,
  uuidText,
  versionedText
} from "./BinaryText.ts"
import { bigint, boolean, bytea, float, integer, json, text, type ValueForm } from "./ValueForm.ts"

export interface BuiltinType {
  readonly oid: number
  /** OID of the array of this type. */
  readonly arrayOid: number
  /** What its text becomes. */
  readonly form: ValueForm
  /**
   * What its bytes are in binary format. Not told of `money`, whose text hangs on the server's `lc_monetary`, of `tsquery`,
   * and of the types that hold the OID of an object and print its name (`regclass` and its kin): these are refused there,
   * for a guess would be a wrong value.
   */
  readonly binary: BinaryType | undefined
  /** `pg_type.typname`: `int4`. */
  readonly name: string
  /** What `format_type` prints: `integer`. */
  readonly sqlName: string
  /** What separates the elements of such an array. */
  readonly delimiter: "," | ";"
}

const type = (
  oid: number,
  arrayOid: number,
  form: ValueForm,
  binary: BinaryType | undefined,
  name: string,
  sqlName: string = name,
  delimiter: "," | ";" = ","
): BuiltinType => ({ oid, arrayOid, form, binary, name, sqlName, delimiter })

/** Every base, range and multirange type of `pg_catalog` that has an array type, by OID. */
export const builtinTypes: ReadonlyArray<BuiltinType> = [
  type(16, 1000, boolean, oneByte, "bool", "boolean"),
  type(17, 1001, bytea, bytes, "bytea"),
  type(18, 1002, text, printed(charText), "char", '"char"'),
  type(19, 1003, text, utf8, "name"),
  type(20, 1016, bigint, int8, "int8", "bigint"),
  type(21, 1005, integer, int2, "int2", "smallint"),
  type(22, 1006, text, printed(vectorText(int2Text, 21)), "int2vector"),
  type(23, 1007, integer, int4, "int4", "integer"),
  type(24, 1008, text, undefined, "regproc"),
  type(25, 1009, text, utf8, "text"),
  type(26, 1028, integer, uint4, "oid"),
  type(27, 1010, text, printed(tidText), "tid"),
  type(28, 1011, integer, uint4, "xid"),
  type(29, 1012, integer, uint4, "cid"),
  type(30, 1013, text, printed(vectorText(uint4Text, 26)), "oidvector"),
  type(114, 199, json, utf8, "json"),
  type(142, 143, text, utf8, "xml"),
  type(600, 1017, text, printed(pointText), "point"),
  type(601, 1018, text, printed(lsegText), "lseg"),
  type(602, 1019, text, printed(pathText), "path"),
  type(603, 1020, text, printed(boxText), "box", "box", ";"),
  type(604, 1027, text, printed(polygonText), "polygon"),
  type(628, 629, text, printed(lineText), "line"),
  type(650, 651, text, printed(cidrText), "cidr"),
  type(700, 1021, float, float4, "float4", "real"),
  type(701, 1022, float, float8, "float8", "double precision"),
  type(718, 719, text, printed(circleText), "circle"),
  type(774, 775, text, printed(macaddr8Text), "macaddr8"),
  type(790, 791, text, undefined, "money"),
  type(829, 1040, text, printed(macaddrText), "macaddr"),
  type(869, 1041, text, printed(inetText), "inet"),
  type(1033, 1034, text, sentAsText, "aclitem"),
  type(1042, 1014, text, utf8, "bpchar", "character"),
  type(1043, 1015, text, utf8, "varchar", "character varying"),
  type(1082, 1182, text, printed(dateTextOf), "date"),
  type(1083, 1183, text, printed(timeText), "time", "time without time zone"),
  type(1114, 1115, text, printed(timestampText), "timestamp", "timestamp without time zone"),
  type(1184, 1185, text, printed(timestamptzText), "timestamptz", "timestamp with time zone"),
  type(1186, 1187, text, printed(intervalText), "interval"),
  type(1266, 1270, text, printed(timetzText), "timetz", "time with time zone"),
  type(1560, 1561, text, printed(bitText), "bit"),
  type(1562, 1563, text, printed(bitText), "varbit", "bit varying"),
  type(1700, 1231, text, printed(numericText), "numeric"),
  type(1790, 2201, text, utf8, "refcursor"),
  type(2202, 2207, text, undefined, "regprocedure"),
  type(2203, 2208, text, undefined, "regoper"),
  type(2204, 2209, text, undefined, "regoperator"),
  type(2205, 2210, text, undefined, "regclass"),
  type(2206, 2211, text, undefined, "regtype"),
  type(2950, 2951, text, printed(uuidText), "uuid"),
  type(2970, 2949, text, printed(snapshotText), "txid_snapshot"),
  type(3220, 3221, text, printed(lsnText), "pg_lsn"),
  type(3614, 3643, text, printed(tsvectorText), "tsvector"),
  type(3615, 3645, text, undefined, "tsquery"),
  type(3642, 3644, text, sentAsText, "gtsvector"),
  type(3734, 3735, text, undefined, "regconfig"),
  type(3769, 3770, text, undefined, "regdictionary"),
  type(3802, 3807, json, printed(versionedText), "jsonb"),
  type(3904, 3905, text, printed(rangeText(int4Text)), "int4range"),
  type(3906, 3907, text, printed(rangeText(numericText)), "numrange"),
  type(3908, 3909, text, printed(rangeText(timestampText)), "tsrange"),
  type(3910, 3911, text, printed(rangeText(timestamptzText)), "tstzrange"),
  type(3912, 3913, text, printed(rangeText(dateTextOf)), "daterange"),
  type(3926, 3927, text, printed(rangeText(int8Text)), "int8range"),
  type(4072, 4073, text, printed(versionedText), "jsonpath"),
  type(4089, 4090, text, undefined, "regnamespace"),
  type(4096, 4097, text, undefined, "regrole"),
  type(4191, 4192, text, undefined, "regcollation"),
  type(4451, 6150, text, printed(multirangeText(int4Text)), "int4multirange"),
  type(4532, 6151, text, printed(multirangeText(numericText)), "nummultirange"),
  type(4533, 6152, text, printed(multirangeText(timestampText)), "tsmultirange"),
  type(4534, 6153, text, printed(multirangeText(timestamptzText)), "tstzmultirange"),
  type(4535, 6155, text, printed(multirangeText(dateTextOf)), "datemultirange"),
  type(4536, 6157, text, printed(multirangeText(int8Text)), "int8multirange"),
  type(5038, 5039, text, printed(snapshotText), "pg_snapshot"),
  type(5069, 271, text, printed(uint8Text), "xid8")
]
