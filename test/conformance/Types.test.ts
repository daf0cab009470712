/** Types and names: values byte for byte as the server prints them, and names as they are. */
import { assert, describe } from "@effect/vitest"
import { type Change, Pgoutput, type Row, type TypeDecoder } from "@replicant/core"
import { Effect } from "effect"
import { record, scenario } from "../support/Conformance.ts"
import { follow } from "../support/Follow.ts"
import * as PostgresVersion from "../support/PostgresVersion.ts"
import { makeWorkspace } from "../support/Workspace.ts"

const version = PostgresVersion.current()

const thousandDigits = `${"1234567890".repeat(50)}.${"0987654321".repeat(50)}`

/** By type: literals, and the value that the default decoder makes of each. A text alone stands for itself. */
const edges: Readonly<Record<string, ReadonlyArray<string | readonly [literal: string, value: unknown]>>> = {
  int8: [
    ["-9223372036854775808", -9_223_372_036_854_775_808n],
    ["9223372036854775807", 9_223_372_036_854_775_807n],
    ["9007199254740993", 9_007_199_254_740_993n]
  ],
  numeric: ["NaN", "Infinity", "-Infinity", thousandDigits, `-${thousandDigits}`, "0.0000", "1.10"],
  "numeric(1000,999)": [`1.${"0123456789".repeat(99)}012345678`],
  float8: [
    ["NaN", Number.NaN],
    ["-0", -0],
    ["Infinity", Number.POSITIVE_INFINITY],
    ["-Infinity", Number.NEGATIVE_INFINITY],
    ["1.7976931348623157e+308", Number.MAX_VALUE],
    ["5e-324", Number.MIN_VALUE],
    ["0.30000000000000004", 0.1 + 0.2]
  ],
  float4: [
    ["NaN", Number.NaN],
    ["-0", -0],
    ["3.4028235e+38", 3.4028235e38],
    ["1e-45", 1e-45],
    ["0.1", 0.1]
  ],
  date: ["infinity", "-infinity", "0044-03-15 BC", "4714-11-24 BC", "5874897-12-31", "2024-02-29"],
  time: ["24:00:00", "00:00:00.000001", "23:59:59.999999"],
  timetz: ["24:00:00+00", "24:00:00-15:59:59", "04:05:06.789+05:30"],
  timestamp: [
    ...["infinity", "-infinity", "0044-03-15 12:00:00.000001 BC", "4714-11-24 00:00:00 BC"],
    ...["294276-12-31 23:59:59.999999", "2024-02-29 12:34:56.789012"]
  ],
  timestamptz: [
    ...["infinity", "-infinity", "0044-03-15 12:00:00.000001+00 BC", "294276-12-31 23:59:59.999999+00"],
    "2024-02-29 12:34:56.789012+00"
  ],
  interval: [
    ...["00:00:00", "1 year 2 mons -3 days -04:05:06.789", "-1 mons +1 day -00:00:00.000001", "178000000 years"],
    ...(version >= 17 ? ["infinity", "-infinity"] : [])
  ],
  "int4[]": [
    ["{}", []],
    ["{NULL,1,NULL}", [null, 1, null]],
    [
      "{{1,2},{3,NULL}}",
      [
        [1, 2],
        [3, null]
      ]
    ],
    // Where it begins is not in the array: `arrays: "text"` tells it.
    ["[0:1]={5,6}", [5, 6]],
    ["[2:2][-1:0]={{7,8}}", [[7, 8]]]
  ],
  "int8[]": [["{-9223372036854775808,NULL}", [-9_223_372_036_854_775_808n, null]]],
  "text[]": [
    [
      '{"",NULL,"NULL","null","a,b","say \\"hi\\"","back\\\\slash","{x}"," s ",é☕}',
      ["", null, "NULL", "null", "a,b", 'say "hi"', "back\\slash", "{x}", " s ", "é☕"]
    ]
  ],
  "timestamptz[]": [['{infinity,"0044-03-15 00:00:00+00 BC"}', ["infinity", "0044-03-15 00:00:00+00 BC"]]],
  "numeric[]": [["{NaN,1.10}", ["NaN", "1.10"]]],
  int4range: ["empty", "(,)", "[1,10)"],
  int8range: ["[-9223372036854775808,9223372036854775807)"],
  numrange: ["(1.10,2.50]", "[NaN,)"],
  tstzrange: ['["0044-03-15 00:00:00+00 BC",infinity]'],
  int4multirange: ["{}", "{[1,3),[5,9)}"],
  pair: ['(1,"say ""hi"", (now) \\\\")', "(,)", '(,"")', '(-1," ")'],
  nest: ['("(2,""a """"b"""" c"")","{1,NULL}")', '("(,)",)'],
  "pair[]": ['{"(1,\\"a \\"\\"b\\"\\"\\")",NULL}'],
  bytea: [
    ["\\x", new Uint8Array()],
    ["\\x00ff5c2722000a", Uint8Array.of(0, 255, 92, 39, 34, 0, 10)]
  ],
  "char(5)": ["ab   ", "     ", "é    "],
  text: ["", "null", "NULL", "\\N", 'a"b\\c', "\t\r\n", "\u00a0", "\ufeffmarked", "🐘☕é", "\u{10ffff}"],
  bool: [
    ["t", true],
    ["f", false]
  ]
}

const tables = Object.entries(edges).map(([type, cases], index) => ({ name: `t${index}`, type, cases }))

const literalOf = (edge: string | readonly [string, unknown]): string => (typeof edge === "string" ? edge : edge[0])
const valueOf = (edge: string | readonly [string, unknown]): unknown => (typeof edge === "string" ? edge : edge[1])

const quote = (text: string): string => `E'${text.replaceAll("\\", "\\\\").replaceAll("'", "''")}'`

/** The values of column `v`, by table, in order. */
const valuesByTable = (changes: ReadonlyArray<Change>): ReadonlyMap<string, ReadonlyArray<unknown>> => {
  const values = new Map<string, Array<unknown>>()
  for (const change of changes) {
    if (change._tag !== "Insert") continue
    const { name } = change.relation
    if (!values.has(name)) values.set(name, [])
    values.get(name)!.push(change.row.v)
  }
  return values
}

describe("Types", () => {
  scenario("type-edges", "are the server's own text where text is asked for, and lose nothing where not", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: `CREATE TYPE pair AS (a int, b text); CREATE TYPE nest AS (p pair, n int[]);
              ${tables.map(({ name, type }) => `CREATE TABLE ${name} (id int, v ${type})`).join(";")}`
      })
      const oids = yield* workspace.sql("SELECT oid::int8::text AS oid FROM pg_type")
      const asText: TypeDecoder.TypeDecoders = {
        byOid: new Map(oids.map((row) => [Number(row.oid), (text: string) => text]))
      }
      const plugin = (types: TypeDecoder.TypeDecoders) =>
        Pgoutput.make({ publications: [workspace.publication], types })
      const streams = {
        byDefault: yield* follow(workspace),
        texts: yield* follow(workspace, { options: { slot: `${workspace.slot}_texts`, plugin: plugin(asText) } }),
        arrays: yield* follow(workspace, {
          options: { slot: `${workspace.slot}_arrays`, plugin: plugin({ arrays: "text" }) }
        })
      }
      const session = yield* workspace.session
      yield* session.query("SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET timezone = 'UTC'")
      yield* session.query(
        tables
          .flatMap(({ cases, name, type }) =>
            cases.map((edge, id) => `INSERT INTO ${name} VALUES (${id}, ${quote(literalOf(edge))}::${type})`)
          )
          .join(";")
      )
      for (const stream of Object.values(streams)) yield* stream.saw("Commit", 1)
      const [byDefault, texts, arrays] = [
        valuesByTable(streams.byDefault.changes),
        valuesByTable(streams.texts.changes),
        valuesByTable(streams.arrays.changes)
      ]
      for (const { cases, name, type } of tables) {
        // `format` calls the type's output function, as the walsender does; a cast to text would trim char(n).
        const printed = yield* session.query(`SELECT format('%s', v) AS v FROM ${name} ORDER BY id`)
        const own = printed.map((row) => row.v)
        assert.deepStrictEqual(own, cases.map(literalOf), `${type}: every literal here is what the server prints`)
        assert.deepStrictEqual(texts.get(name), own, type)
        assert.deepStrictEqual(byDefault.get(name), cases.map(valueOf), type)
        if (type.endsWith("[]")) assert.deepStrictEqual(arrays.get(name), own, `${type} with its lower bounds`)
      }
    })
  )
})

const sixtyThreeBytes = `${"é".repeat(31)}x`

/** Names that break whoever joins, splits, folds or unquotes them. */
const oddNames = [
  ...['quo"te', 'two""quotes', "apos'trophe", "do.t", "com,ma", "spa ce", " ", ";--", "🐘", "select", "MixedCase"],
  ...["back\\slash", "new\nline", "{brace}", "$1", "__proto__", "constructor", "null", sixtyThreeBytes]
]

const identifier = (name: string): string => `"${name.replaceAll('"', '""')}"`

describe("Names", () => {
  scenario("identifiers", "come raw, of schemas, tables and columns alike", (server) =>
    Effect.gen(function* () {
      const schema = 'sch.e"ma, 🐘;--'
      const recorder = yield* record(server, { sql: `CREATE SCHEMA ${identifier(schema)}` })
      const columns = oddNames.map((name) => `${identifier(name)} text`).join(", ")
      for (const name of oddNames) {
        const table = `${identifier(schema)}.${identifier(name)}`
        yield* recorder.run(
          `CREATE TABLE ${table} (${columns}, PRIMARY KEY (${identifier('quo"te')}, ${identifier("__proto__")}))`,
          `INSERT INTO ${table} VALUES (${oddNames.map((_, index) => `'${index}'`).join(", ")})`,
          `UPDATE ${table} SET ${identifier("__proto__")} = 'other'`
        )
      }
      const changes = (yield* recorder.take).filter(({ _tag }) => _tag !== "Begin" && _tag !== "Commit")
      const row: Row = Object.fromEntries(oddNames.map((name, index) => [name, `${index}`]))
      const key = Object.fromEntries([
        ['quo"te', row['quo"te']],
        ["__proto__", `${oddNames.indexOf("__proto__")}`]
      ])
      assert.lengthOf(changes, 2 * oddNames.length)
      for (const [index, name] of oddNames.entries()) {
        const [insert, update] = changes.slice(2 * index)
        assert(insert?._tag === "Insert" && update?._tag === "Update", name)
        assert.deepInclude(insert.relation, { schema, name })
        assert.deepStrictEqual(
          insert.relation.columns.map((column) => column.name),
          oddNames
        )
        assert.deepStrictEqual(Object.entries(insert.row), Object.entries(row))
        assert.deepStrictEqual(Object.entries(update.old?.row ?? {}), Object.entries(key))
      }
    })
  )

  scenario("identifiers", "are not joined: a dot may stand in the schema's name or in the table's", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, {
        sql: `CREATE SCHEMA "a.b"; CREATE SCHEMA a;
              CREATE TABLE "a.b".c (x int PRIMARY KEY); CREATE TABLE a."b.c" (y text PRIMARY KEY, z text)`
      })
      yield* recorder.run(
        'INSERT INTO "a.b".c VALUES (1)',
        `INSERT INTO a."b.c" VALUES ('1', 'z')`,
        'UPDATE "a.b".c SET x = 2',
        `DELETE FROM a."b.c"`
      )
      yield* recorder.expect("I a.b.c{x=1}", "I a.b.c{y=1,z=z}", "U a.b.c K{x=1} N{x=2}", "D a.b.c K{y=1}")
      const relations = recorder.stream.changes.flatMap((change) => (change._tag === "Insert" ? [change.relation] : []))
      assert.deepStrictEqual(
        relations.map(({ name, schema }) => [schema, name]),
        [
          ["a.b", "c"],
          ["a", "b.c"]
        ]
      )
    })
  )
})
