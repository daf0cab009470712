/**
 * Every built-in type and some of a user's own, with the values at their edges, as texts that PostgreSQL takes. Shared
 * by the tests that must not leave a type out. NULL and arrays are for the reader to make: they come with each by
 * themselves.
 */
import * as PostgresVersion from "./PostgresVersion.ts"

/** What the columns' types need: an enum, and domains over a number, over it and over an array. */
export const userTypes: ReadonlyArray<string> = [
  "CREATE TYPE mood AS ENUM ('sad', 'so, happy')",
  "CREATE DOMAIN positive AS integer CHECK (value > 0)",
  "CREATE DOMAIN label AS mood",
  "CREATE DOMAIN numbers AS integer[]"
]

/** The types that both formats of pgoutput know. */
export const typeEdges: Readonly<Record<string, ReadonlyArray<string>>> = {
  aclitem: ["pg_monitor=r/pg_monitor"],
  bool: ["true", "false"],
  bytea: ["", "\\x00ff5c2722", "\\x5c7861"],
  '"char"': ["x", "", "'", "\\351", "\\377"],
  name: ["pg_catalog", "", "naïve"],
  int8: ["-9223372036854775808", "9223372036854775807", "0", "-1", "4294967296"],
  int2: ["-32768", "32767", "0"],
  int4: ["-2147483648", "2147483647", "0", "-1"],
  text: ["", "NULL", "null", "naïve ☕ 🐘", 'a"b\\c,{d}', " ", "\t\n", "\u00a0", "x".repeat(300), "nullify"],
  oid: ["0", "4294967295"],
  xid: ["3", "4294967295"],
  cid: ["0", "4294967295"],
  tid: ["(0,0)", "(4294967295,65535)"],
  int2vector: ["1 2 -3", "", "7"],
  oidvector: ["1 4294967295", ""],
  json: ['{"a": [1, null, "x"], "a": 2}', "12345678901234567890.5", " null "],
  jsonb: ['{"__proto__": {"x": 1}, "b": 1.10}', "null", '"q\\"uote"'],
  jsonpath: ['$."a"[*] ? (@ > 1)', "strict $.x"],
  xml: ["<a>1</a>", '<?xml version="1.0" encoding="UTF-8"?><b é="☕"/>', '<?xml version="1.1" standalone="yes"?><c/>'],
  point: ["(1,-2.5)", "(1e23,-1e-7)", "(NaN,Infinity)", "(-0,123456789012345678)", "(1e15,0.0001)", "(1e14,9e-5)"],
  lseg: ["[(1,2),(3,4)]"],
  path: ["((1,2),(3,4))", "[(1,2),(3,4.5)]"],
  box: ["(1,1),(0,0)", "(2,2),(2,2)"],
  polygon: ["((0,0),(1,1),(2,0))"],
  line: ["{1,-1,0}", "{0.1,2,3}"],
  circle: ["<(1,2),3>"],
  cidr: ["10.0.0.0/8", "::/0", "2001:db8::/32", "192.168.1.1/32"],
  inet: [
    ...["192.168.0.1/24", "255.255.255.255", "0.0.0.0/0", "::1", "::", "::ffff:1.2.3.4", "::1.2.3.4/96", "fe80::1/64"],
    ...["1:0:0:2:0:0:0:3", "1:0:2:3:4:5:6:7", "1:2:3:4:5:6:7:8", "::2", "::1:0", "0:0:0:0:0:fffe:1:2", "1::"]
  ],
  macaddr: ["08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"],
  macaddr8: ["08:00:2b:01:02:03:04:05"],
  float4: [
    "NaN",
    "-0",
    "Infinity",
    "-Infinity",
    "0.1",
    "1e-45",
    "3.4028235e38",
    "2097152.25",
    "16777216",
    "1e10",
    "1e-7"
  ],
  float8: ["NaN", "-0", "Infinity", "-Infinity", "0.1", "5e-324", "1.7976931348623157e308", "1e23", "9007199254740993"],
  "char(5)": ["ab", "é", ""],
  "varchar(20)": ["", "a'b\"c\\d"],
  date: [
    "infinity",
    "-infinity",
    "0044-03-15 BC",
    "2000-01-01",
    "1999-12-31",
    "5874897-12-31",
    "4714-11-24 BC",
    "0001-01-01"
  ],
  time: ["24:00:00", "00:00:00", "00:00:00.000001", "23:59:59.999999", "12:34:56.78"],
  timetz: ["04:05:06.789+05:30", "00:00:00-15:59:59", "24:00:00+00", "12:00:00+15:59:59", "12:00-01"],
  timestamp: [
    ...["infinity", "-infinity", "294276-12-31 23:59:59.999999", "4714-11-24 00:00:00 BC", "2000-01-01 00:00:00"],
    ...["1999-12-31 23:59:59.999999", "0001-12-31 23:59:59.5 BC", "2024-02-29 12:34:56.789"]
  ],
  timestamptz: [
    "infinity",
    "4713-11-24 00:00:00 BC UTC",
    "2024-02-29 12:34:56.789012+05:30",
    "294276-12-31 23:59:59.999999+00"
  ],
  interval: [
    ...["-1 year 2 months -3 days 04:05:06.789", "0", "1 year 1 mon 1 day", "-1 day +00:00:01", "-00:00:00.000001"],
    ...["2 years -1 mon", "1 mon -1 day -1 sec", "1000000:00:00.5", "-1 year", "-1 mon 5 days"],
    "-1.5 seconds",
    // PostgreSQL 14 counts an interval's hours with 32 bits.
    ...(PostgresVersion.current() >= 15
      ? ["-9223372036854775808 microseconds", "9223372036854775807 microseconds"]
      : ["2147483647 hours", "-2147483647 hours"]),
    // Up to 16 intervals are finite.
    ...(PostgresVersion.current() >= 17 ? ["infinity", "-infinity"] : [])
  ],
  "bit(11)": ["10110011101", "00000000000"],
  varbit: ["", "1", "11111111", "101010101"],
  numeric: [
    ...[
      "NaN",
      "Infinity",
      "-Infinity",
      "0",
      "0.0000",
      "-0.00010",
      "1e-20",
      "10000",
      "99999999",
      "1e131071",
      "1e-16383"
    ],
    ...["-123456789012345678901234567890.000000001000", "0.1", "1000000000000.00000000000001", "12345.6789", "5e-5"]
  ],
  refcursor: ["c"],
  uuid: ["00000000-0000-0000-0000-000000000000", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
  pg_snapshot: ["1:10:", "10:20:10,14,15"],
  txid_snapshot: ["10:20:10,14,15"],
  xid8: ["0", "18446744073709551615"],
  pg_lsn: ["16/B374D848", "0/0", "FFFFFFFF/FFFFFFFF"],
  tsvector: ["a fat cat", "", "'it''s':1A,2B 'back\\\\slash':3C,16383 é"],
  int4range: ["empty", "[1,10)", "(,)", "[5,]"],
  numrange: ["(1.10,2.5]", "[,0)"],
  tsrange: ["[2024-01-01 00:00:00,infinity]", '["0044-03-15 00:00:00 BC",)'],
  tstzrange: ["[2024-01-01 00:00:00+00,infinity]", "empty"],
  daterange: ["[2024-01-01,2024-02-01)", "[-infinity,)"],
  int8range: ["[-9223372036854775808,9223372036854775807)"],
  int4multirange: ["{}", "{[1,3),[5,9)}"],
  nummultirange: ["{[1.5,2),(3,4]}"],
  tsmultirange: ["{[2024-01-01 00:00:00,2024-02-01 00:00:00)}"],
  tstzmultirange: ["{[2024-01-01 00:00:00+00,)}"],
  datemultirange: ["{[2024-01-01,2024-02-01)}"],
  int8multirange: ["{[1,2)}"],
  mood: ["sad", "so, happy"],
  positive: ["1", "2147483647"],
  label: ["sad"],
  numbers: ["{1,2,NULL}", "{}"]
}

/** What {@link textOnlyEdges} needs beyond. */
export const textOnlyUserTypes: ReadonlyArray<string> = [
  "CREATE TYPE pair AS (a int, b text)",
  "CREATE TYPE floats AS RANGE (subtype = float8)"
]

/** The types that come in text format alone: binary format refuses their tables. */
export const textOnlyEdges: Readonly<Record<string, ReadonlyArray<string>>> = {
  money: ["$0.00", "-$92,233,720,368,547,758.08", "$1,234.50"],
  tsquery: ["'a' & 'b c' | !'d':*", "'x' <2> 'y'", ""],
  regclass: ["pg_class", "-"],
  regtype: ["integer", "timestamp with time zone"],
  pair: ["(1,x)", '(,"a ""b"", (c\\\\d")', "(,)", '(-1,"")'],
  floats: ["[0.1,2)", "empty", "(,)"]
}

/**
 * No arrays of these: those of domains have a type that the wire does not explain, and one of `aclitem`, which has no
 * send function and comes as text, cannot be sent.
 */
export const withoutArrays: ReadonlyArray<string> = ["aclitem", "positive", "label", "numbers"]

/**
 * For the types of which the built-in decoders do not keep every text, as docs/values.md says: texts that they do keep.
 * A JSON null is not told from SQL's NULL, numbers keep 17 digits, and blanks go.
 */
export const keptEdges: Readonly<Record<string, ReadonlyArray<string>>> = {
  json: ['{"a":[1,null,"x\\n☕"],"b":{"c":-0.5}}', "true", '"q\\"uote"', "[]", "12345678.5"],
  jsonb: ['{"__proto__": {"x": 1}, "b": 1.5}', "false", '"q\\"uote"', "{}", "1e-3"]
}

/**
 * The texts that PostgreSQL takes and prints otherwise, and does not take as it prints them: no replica can hold these.
 */
export const printedOnly: ReadonlyMap<string, ReadonlyArray<string>> = new Map([
  ["interval", ["-9223372036854775808 microseconds"]]
])
