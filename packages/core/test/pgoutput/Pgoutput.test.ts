import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import type { Change, OldRow, Row } from "../../src/change/Change.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import type { TypeDecoders } from "../../src/values/TypeDecoder.ts"
import { goldens, hostileNames, matrixTypes } from "../fixtures/goldens.ts"
import { decodeAll } from "../support/PgoutputBytes.ts"

const optionsOf = (options: Partial<Pgoutput.Options>, serverVersion: number) =>
  Result.match(Pgoutput.make({ publications: ["p"], ...options }).options(serverVersion), {
    onSuccess: (pairs) => pairs.map(([name, value]) => `${name} ${value}`).join("; "),
    onFailure: (error) => `${error._tag}: ${error.message}`
  })

describe("the options of pgoutput", () => {
  it("are text, protocol 1 and messages, where the server knows messages", () => {
    assert.strictEqual(optionsOf({}, 180_004), 'proto_version 1; publication_names "p"; messages true')
    assert.strictEqual(optionsOf({}, 140_000), 'proto_version 1; publication_names "p"; messages true')
    assert.strictEqual(optionsOf({}, 130_014), 'proto_version 1; publication_names "p"')
    assert.strictEqual(optionsOf({ messages: false }, 180_004), 'proto_version 1; publication_names "p"')
  })

  it("hold publications as identifiers, each in quotes", () => {
    const publications = ["MyPub", 'p ub,""x\'y']
    assert.strictEqual(
      optionsOf({ publications, messages: false }, 180_004),
      'proto_version 1; publication_names "MyPub","p ub,""""x\'y"'
    )
    assert.include(optionsOf({ publications: [] }, 180_004), "InvalidOption")
  })

  it("ask for an origin only when told to", () => {
    assert.include(optionsOf({ origin: "none" }, 160_000), "; origin none")
    assert.include(optionsOf({ origin: "any" }, 180_004), "; origin any")
  })

  it("ask for binary format only when told to", () => {
    assert.include(optionsOf({ format: "binary" }, 140_000), "; binary true")
    assert.notInclude(optionsOf({ format: "text" }, 180_004), "binary")
  })

  it("name what the server is too old for, and do not try it", () => {
    assert.include(
      optionsOf({ origin: "none" }, 150_010),
      "UnsupportedByServer: pgoutput's option origin needs PostgreSQL 16"
    )
    assert.include(
      optionsOf({ messages: true }, 130_014),
      "UnsupportedByServer: pgoutput's option messages needs PostgreSQL 14"
    )
    assert.include(
      optionsOf({ format: "binary", messages: false }, 130_014),
      "UnsupportedByServer: pgoutput's option binary needs PostgreSQL 14"
    )
    assert.include(optionsOf({}, 90_600), "UnsupportedByServer: the plugin pgoutput needs PostgreSQL 10")
  })
})

const text = (value: unknown): string => {
  if (typeof value === "bigint") return `${value}n`
  if (typeof value === "string") return value.length > 100 ? `${value[0]}*${value.length}` : value
  return JSON.stringify(value)
}
const rowText = (row: Row): string =>
  `{${Object.entries(row)
    .map(([name, value]) => `${name}: ${text(value)}`)
    .join(", ")}}`
const oldText = (old: OldRow | undefined): string => (old === undefined ? "" : ` ${old._tag}${rowText(old.row)}`)

/** One line a change, with its place in the transaction; Begin and Commit are `(` and `)`. */
const line = (change: Change): string => {
  switch (change._tag) {
    case "Begin":
      return "("
    case "Commit":
      return ")"
    case "Prepare":
      return `) Prepare ${change.gid}`
    case "CommitPrepared":
    case "RollbackPrepared":
      return `${change._tag} ${change.gid}`
    case "Gap":
      return `Gap ${change.reason}`
    case "Insert":
      return `${change.ordinal} Insert ${change.relation.name}${rowText(change.row)}`
    case "Update": {
      const unchanged = change.unchanged.map((name) => ` ~${name}`).join("")
      return `${change.ordinal} Update ${change.relation.name}${oldText(change.old)} ${rowText(change.row)}${unchanged}`
    }
    case "Delete":
      return `${change.ordinal} Delete ${change.relation.name}${oldText(change.old)}`
    case "Truncate": {
      const options = `${change.restartIdentity ? " restart" : ""}${change.cascade ? " cascade" : ""}`
      return `${change.ordinal} Truncate ${change.relations.map((relation) => relation.name)}${options}`
    }
    case "Message":
      return `${change.ordinal} Message ${change.transactional ? "inside" : "alone"} ${change.prefix}: ${Buffer.from(change.content).toString("hex")}`
    case "Origin":
      return `${change.ordinal} Origin ${change.name} ${change.originLsn.toString(16)}`
    case "RelationChanged":
      return `${change.ordinal} RelationChanged ${change.relation.name} ${change.relation.columns.map((column) => column.name)}`
  }
}

const bytesOf = (name: keyof typeof goldens) =>
  goldens[name].map((message) => Uint8Array.from(Buffer.from(message, "base64")))
const changesOf = (name: keyof typeof goldens, types?: TypeDecoders) => decodeAll(bytesOf(name), types)
const linesOf = (name: keyof typeof goldens, types?: TypeDecoders) =>
  changesOf(name, types).map(line).join("\n").replaceAll("(\n", "( ")
const rowsOf = (name: keyof typeof goldens, types?: TypeDecoders): ReadonlyArray<Row> =>
  changesOf(name, types).flatMap((change) => (change._tag === "Insert" ? [change.row] : []))

describe("what PostgreSQL 18 said", () => {
  const expected: Partial<Record<keyof typeof goldens, ReadonlyArray<string>>> = {
    replicaIdentityDefault: [
      "( 0 Insert t{a: 1, b: x}",
      ")",
      "( 0 Update t {a: 1, b: y}",
      ")",
      "( 0 Update t {a: 1, b: y}",
      ")",
      "( 0 Update t Key{a: 1} {a: 2, b: y}",
      ")",
      "( 0 Delete t Key{a: 2}",
      ")"
    ],
    replicaIdentityFull: [
      "( 0 Insert t{a: 1, b: x}",
      "1 Insert t{a: 1, b: null}",
      ")",
      "( 0 Update t Full{a: 1, b: x} {a: 1, b: y}",
      ")",
      "( 0 Delete t Full{a: 1, b: null}",
      "1 Delete t Full{a: 1, b: y}",
      ")"
    ],
    replicaIdentityIndex: [
      "( 0 Insert t{a: 1, b: x, c: 3}",
      ")",
      "( 0 Update t {a: 2, b: x, c: 3}",
      ")",
      "( 0 Update t Key{b: x, c: 3} {a: 2, b: y, c: 3}",
      ")",
      "( 0 Delete t Key{b: y, c: 3}",
      ")"
    ],
    replicaIdentityNothing: ["( 0 Insert t{a: 1}", "1 Insert t{a: 2}", ")"],
    toastUnchanged: [
      "( 0 Insert t{a: 1, big: x*3000, small: s, big2: y*3000}",
      ")",
      "( 0 Update t {a: 1, small: other} ~big ~big2",
      ")",
      "( 0 Update t {a: 1, big: z*2500, small: other} ~big2",
      ")",
      "( 0 Update t Key{a: 1} {a: 2, small: other, big2: null} ~big",
      ")"
    ],
    toastUnchangedUnderFull: [
      "( 0 Insert t{a: 1, big: x*3000, small: s}",
      ")",
      "( 0 Update t Full{a: 1, big: x*3000, small: s} {a: 1, big: x*3000, small: other}",
      ")",
      "( 0 Delete t Full{a: 1, big: x*3000, small: other}",
      ")"
    ],
    toastUnchangedInKey: [
      "( 0 Insert t{a: x*2500, b: 1}",
      ")",
      "( 0 Update t Key{a: x*2500} {a: x*2500, b: 2}",
      ")",
      "( 0 Delete t Key{a: x*2500}",
      ")"
    ],
    toastUnchangedIntoRowFilter: ["( 0 Insert t{a: 30}", ")"],
    truncate: [
      "( 0 Truncate t2",
      ")",
      "( 0 Truncate t2 restart",
      ")",
      "( 0 Truncate t1,t3",
      ")",
      "( 0 Truncate t1,t3 restart cascade",
      ")",
      "( 0 Insert t2{a: 1}",
      "1 Truncate t2",
      "2 Insert t2{a: 2}",
      ")"
    ],
    messages: [
      "( 0 Message inside prefix: 636f6e74656e74",
      ")",
      "0 Message alone alone: 00ff80",
      "( 0 Message inside : ",
      ")",
      "( 0 Insert t{a: 1}",
      "1 Message inside é: e29895",
      "2 Insert t{a: 2}",
      ")"
    ],
    origin: ["( 0 Origin elsewhere abcdef0123", "1 Insert t{a: 1}", ")"],
    alteredInTransaction: [
      "( 0 Insert t{a: 1, gone: x}",
      ")",
      "( 0 Insert t{a: 2, gone: y}",
      "1 RelationChanged t a,gone,c",
      "1 Insert t{a: 3, gone: z, c: 6n}",
      "2 RelationChanged t a,c",
      "2 Insert t{a: 4, c: 7n}",
      ")",
      "( 0 RelationChanged renamed a,c",
      "0 Insert renamed{a: 5, c: 8n}",
      ")",
      "( 0 Insert renamed{a: 6, c: 9n}",
      ")"
    ],
    severalRelations: ["( 0 Insert t1{a: 1}", "1 Insert t2{b: x}", "2 Insert t1{a: 2}", ")"],
    noColumns: ["( 0 Insert t{}", ")"]
  }
  for (const [name, lines] of Object.entries(expected)) {
    it(`comes out as it happened: ${name}`, () => {
      assert.strictEqual(linesOf(name as keyof typeof goldens), lines.join("\n"))
    })
  }

  it("describes relations with their identity, types and keys", () => {
    const [, insert] = changesOf("replicaIdentityIndex")
    assert.deepInclude(insert?._tag === "Insert" && { ...insert.relation, oid: 0 }, {
      schema: "golden",
      name: "t",
      replicaIdentity: "index",
      columns: [
        { name: "a", isKey: false, typeOid: 23, typeName: "integer", typeModifier: -1 },
        { name: "b", isKey: true, typeOid: 25, typeName: "text", typeModifier: -1 },
        { name: "c", isKey: true, typeOid: 23, typeName: "integer", typeModifier: -1 }
      ]
    })
  })

  it("holds users' types under their names, and domains under their base type's", () => {
    const [, insert] = changesOf("userTypes")
    assert.strictEqual(insert?._tag, "Insert")
    assert.deepStrictEqual(insert?._tag === "Insert" && insert.relation.columns.map((column) => column.typeName), [
      "integer",
      "mood",
      "_mood",
      "pair",
      "mood",
      "_positive"
    ])
    assert.deepStrictEqual(rowsOf("userTypes"), [
      { a: 7, m: "ok", ms: '{sad,"so, happy",NULL}', p: '(1,"x""y")', l: "sad", d: "{1,2}" }
    ])
    const types: TypeDecoders = {
      byName: new Map<string, (value: string) => unknown>([
        ["mood", (value) => `:${value}`],
        ["golden.positive", Number]
      ])
    }
    assert.deepStrictEqual(rowsOf("userTypes", types), [
      { a: 7, m: ":ok", ms: [":sad", ":so, happy", null], p: '(1,"x""y")', l: ":sad", d: [1, 2] }
    ])
  })

  it("keeps hostile names as they are, each a column of its own", () => {
    const [row] = rowsOf("hostileNames")
    assert.isDefined(row)
    assert.strictEqual(Object.getPrototypeOf(row), Object.prototype)
    assert.sameMembers(Object.keys(row!), [...hostileNames])
    for (const [index, name] of hostileNames.entries()) {
      assert.strictEqual(Object.getOwnPropertyDescriptor(row, name)?.value, `value ${index}`)
    }
  })

  const bytes = (...values: ReadonlyArray<number>) => Uint8Array.from(values)
  const matrix: Readonly<Record<string, readonly [first: unknown, second: unknown]>> = {
    boolean: [true, false],
    smallint: [-32768, 32767],
    integer: [-2147483648, 2147483647],
    bigint: [-9223372036854775808n, 9223372036854775807n],
    oid: [0, 4294967295],
    xid: [3, 4294967295],
    real: [Number.NaN, -0],
    "double precision": [Number.NEGATIVE_INFINITY, 0.30000000000000004],
    numeric: ["NaN", "-123456789012345678901234567890.000000001000"],
    money: ["-$1,234.56", "$0.01"],
    text: ["", "naïve ☕ 🐘 \ttab"],
    "varchar(20)": ["NULL", "a'b\"c\\d"],
    "char(5)": ["ab   ", "é    "],
    '"char"': ["x", ""],
    name: ["pg_catalog", ""],
    bytea: [bytes(), bytes(0, 0xff, 0x5c, 0x27)],
    json: [{ a: 2 }, 12345678901234567000],
    jsonb: [JSON.parse('{"b": 1.1, "__proto__": {"x": 1}}'), null],
    uuid: ["00000000-0000-0000-0000-000000000000", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    date: ["infinity", "0044-03-15 BC"],
    time: ["24:00:00", "00:00:00.000001"],
    timetz: ["04:05:06.789+05:30", "00:00:00-15:59:59"],
    timestamp: ["-infinity", "294276-12-31 23:59:59.999999"],
    timestamptz: ["4713-11-24 00:00:00+00 BC", "2024-02-29 12:34:56.789012+00"],
    interval: ["-10 mons -3 days +04:05:06.789", "00:00:00"],
    inet: ["192.168.0.1/24", "::1"],
    macaddr: ["08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"],
    "bit(3)": ["101", "000"],
    varbit: ["", "1"],
    point: ["(1,-2.5)", "(0,0)"],
    box: ["(1,1),(0,0)", "(2,2),(2,2)"],
    int4range: ["empty", "[1,10)"],
    tstzrange: ['["2024-01-01 00:00:00+00",infinity]', "(,)"],
    int4multirange: ["{}", "{[1,3),[5,9)}"],
    tsvector: ["'a' 'cat' 'fat'", ""],
    pg_lsn: ["16/B374D848", "0/0"],
    xml: ["<a>1</a>", "<b/>"],
    "integer[]": [[], [1, null]],
    "text[]": [
      ["NULL", null, "a,b", '"', "\\", " ", "", "{}"],
      [
        ["a", "b"],
        ["c", "d"]
      ]
    ],
    "boolean[]": [[true, false, null], [[[true]]]],
    "bigint[]": [
      [9223372036854775807n],
      [
        [1n, 2n],
        [3n, 4n]
      ]
    ],
    "numeric(10,2)[]": [["1.10", "NaN"], []],
    "timestamptz[]": [["2024-02-29 12:34:56.789012+00", "infinity"], []],
    "jsonb[]": [[{ a: 'b"c' }, null], []],
    "bytea[]": [[bytes(0, 0xff)], []],
    "box[]": [["(1,1),(0,0)", "(2,2),(0,0)"], []],
    int2vector: ["1 2 3", ""]
  }

  const rows = rowsOf("typeMatrix")
  for (const [index, type] of matrixTypes.entries()) {
    it(`holds ${type} without loss`, () => {
      assert.deepStrictEqual([rows[0]![`c${index}`], rows[1]![`c${index}`]], [...matrix[type]!])
      assert.isNull(rows[2]![`c${index}`])
    })
  }

  it("loses nothing as text where the policy asks for text", () => {
    const [first, second] = rowsOf("typeMatrix", { json: "text", arrays: "text" })
    const column = (type: string) => `c${matrixTypes.indexOf(type)}`
    assert.strictEqual(second![column("json")], "12345678901234567890.5")
    assert.strictEqual(first![column("json")], '{"a": [1, null, "x"], "a": 2}')
    assert.strictEqual(second![column("integer[]")], "[0:1]={1,NULL}")
  })
})
