/** Binary format, whose one promise is that nobody can tell: the same rows as text, on a real server. */
import { assert, describe } from "@effect/vitest"
import { type Change, Pgoutput, type TypeDecoder } from "@replicant/core"
import { Effect } from "effect"
import { follow } from "./support/Follow.ts"
import { onServer } from "./support/Servers.ts"
import { typeEdges, userTypes, withoutArrays } from "./support/TypeEdges.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

const types = Object.keys(typeEdges)
const literal = (text: string) => `'${text.replaceAll("'", "''")}'`
const valueOf = (type: string, text: string) => `${literal(text)}::${type}`

const tables = [
  ...userTypes,
  `CREATE TABLE scalars (id int, ${types.map((type, index) => `c${index} ${type}`).join(", ")})`,
  `CREATE TABLE arrays (id int, ${types.map((type, index) => `c${index} ${withoutArrays.includes(type) ? "int" : type}[]`).join(", ")})`,
  "ALTER TABLE scalars REPLICA IDENTITY FULL",
  "ALTER TABLE arrays REPLICA IDENTITY FULL"
].join("; ")

const depth = Math.max(...Object.values(typeEdges).map((values) => values.length))
const inserts = Array.from(
  { length: depth + 1 },
  (_, row) =>
    `INSERT INTO scalars VALUES (${row}, ${types.map((type) => (typeEdges[type]![row] === undefined ? "NULL" : valueOf(type, typeEdges[type]![row]!))).join(", ")})`
)

/** One dimension with a NULL, two of them, three, bounds of their own, none, and NULL itself. */
const arrayShapes: ReadonlyArray<(type: string) => string> = [
  (type) => `ARRAY[${[...typeEdges[type]!.map((text) => valueOf(type, text)), "NULL"].join(", ")}]::${type}[]`,
  (type) =>
    `ARRAY[ARRAY[${valueOf(type, typeEdges[type]![0]!)}, NULL], ARRAY[NULL, ${valueOf(type, typeEdges[type]!.at(-1)!)}]]::${type}[]`,
  (type) => `ARRAY[ARRAY[ARRAY[${valueOf(type, typeEdges[type]!.at(-1)!)}]]]::${type}[]`,
  (type) => `array_fill(${valueOf(type, typeEdges[type]![0]!)}, ARRAY[2, 1], ARRAY[0, -3])::${type}[]`,
  (type) => `'{}'::${type}[]`,
  () => "NULL"
]
const arrayInserts = arrayShapes.map(
  (shape, row) =>
    `INSERT INTO arrays VALUES (${row}, ${types.map((type) => (withoutArrays.includes(type) ? "NULL" : shape(type))).join(", ")})`
)

const marked: TypeDecoder.TypeDecoder = (text) => ({ marked: text })

const settings: Readonly<Record<string, TypeDecoder.TypeDecoders>> = {
  "the built-in decoders": {},
  "text for json and arrays": { json: "text", arrays: "text" },
  "decoders of one's own": {
    byName: new Map(
      types.filter((type) => !withoutArrays.includes(type)).map((type) => [type.replace(/\(.*|"/g, ""), marked])
    )
  },
  "decoders that refuse, and text instead": {
    byName: new Map(["int4", "text", "numeric", "mood"].map((type) => [type, (text: string) => assert.fail(text)])),
    onUndecodable: "text"
  }
}

const enums = ["mood"]

/** Two streams of one publication, which differ in their format alone. */
const bothFormats = (workspace: Workspace, types: TypeDecoder.TypeDecoders, suffix = "") =>
  Effect.all(
    (["text", "binary"] as const).map((format) =>
      follow(workspace, {
        options: {
          slot: `${workspace.slot}_${format}${suffix}`,
          plugin: Pgoutput.make({ publications: [workspace.publication], types, format, enums })
        }
      })
    )
  )

type RowChange = Extract<Change, { readonly _tag: "Insert" | "Update" | "Delete" }>
const rowChanges = (changes: ReadonlyArray<Change>) =>
  changes.filter(
    (change): change is RowChange => change._tag === "Insert" || change._tag === "Update" || change._tag === "Delete"
  )

/** What a change says of its rows; by column, so that a difference names it. */
const contents = (change: RowChange) => ({
  tag: change._tag,
  table: change.relation.name,
  row: change._tag === "Delete" ? undefined : change.row,
  unchanged: change._tag === "Delete" ? undefined : change.unchanged,
  old: change._tag === "Insert" ? undefined : change.old
})

const assertSame = (text: ReadonlyArray<Change>, binary: ReadonlyArray<Change>) => {
  const [expected, actual] = [rowChanges(text), rowChanges(binary)]
  assert.strictEqual(actual.length, expected.length)
  for (const [index, change] of expected.entries()) {
    const row = change._tag === "Delete" ? change.old.row : change.row
    const other = actual[index]!
    const otherRow = other._tag === "Delete" ? other.old.row : other.row
    for (const [name, value] of Object.entries(row)) {
      const type = types[Number(name.slice(1))]
      assert.deepStrictEqual(otherRow[name], value, `${change._tag} of ${change.relation.name}, ${name} (${type})`)
    }
    assert.deepStrictEqual(contents(other), contents(change))
  }
}

describe("binary format", () => {
  for (const [what, decoders] of Object.entries(settings)) {
    onServer("postgres", `gives the same rows as text, of all types and arrays of them, with ${what}`, (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: tables })
        const [text, binary] = yield* bothFormats(workspace, decoders)
        for (const insert of [...inserts, ...arrayInserts]) yield* workspace.sql(insert)
        yield* workspace.sql("UPDATE scalars SET id = id + 100; UPDATE arrays SET id = id + 100")
        yield* workspace.sql("DELETE FROM scalars; DELETE FROM arrays")
        for (const stream of [text!, binary!]) {
          yield* stream.saw("Delete", inserts.length + arrayInserts.length)
          yield* stream.saw("Commit", inserts.length + arrayInserts.length + 2)
        }
        assertSame(text!.changes, binary!.changes)
        assert.strictEqual(rowChanges(binary!.changes).length, 3 * (inserts.length + arrayInserts.length))
      })
    )
  }

  onServer("postgres", "gives the same rows as text, of values by the thousand", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: `CREATE TABLE many (n int, single float4, around float4, singles text[], doubles point, huge point, tiny point,
          amount numeric, at timestamptz, day date, span interval, address inet, clock timetz)`
      })
      const [text, binary] = yield* bothFormats(workspace, { arrays: "text" })
      yield* workspace.sql(`
        SELECT setseed(0.5);
        INSERT INTO many SELECT n,
          (random() - 0.5) * (10::float8 ^ (random() * 76 - 38)),
          CASE WHEN n <= 277 THEN (2::float8 ^ (n - 150))::float4 ELSE (floor(random() * 16777216) * 2::float8 ^ floor(random() * 60 - 30))::float4 END,
          ARRAY[n::text],
          point(random() * 10::float8 ^ (random() * 40 - 20), (random() * 1000)::int / 10.0::float8),
          point(floor(random() * 9007199254740992) * 2::float8 ^ floor(random() * 12), 10::float8 ^ (n % 60)),
          point(2::float8 ^ (n % 1000), 2::float8 ^ -(n % 1000)),
          ((random() - 0.5) * 10::float8 ^ (random() * 60 - 30))::numeric * (random()::numeric ^ (n % 5)),
          timestamptz '2000-01-01 00:00:00+00' + random() * 10::float8 ^ (n % 14) * interval '1 microsecond' * sign(random() - 0.5) + (n % 9000 - 4000) * interval '1 year',
          date '2000-01-01' + ((random() - 0.3) * 1000000)::int,
          make_interval(months => ((random() - 0.5) * 100)::int, days => ((random() - 0.5) * 10)::int, secs => ((random() - 0.5) * 10::float8 ^ (n % 10))),
          (SELECT string_agg(CASE WHEN random() < 0.6 THEN '0' ELSE to_hex((random() * 65535)::int) END, ':') FROM generate_series(1, 8) WHERE n > 0)::inet,
          timetz '00:00:00+00' + random() * interval '1 day'
        FROM generate_series(1, 5000) n`)
      for (const stream of [text!, binary!]) yield* stream.saw("Commit", 1)
      assertSame(text!.changes, binary!.changes)
      assert.strictEqual(rowChanges(binary!.changes).length, 5000)
    })
  )

  onServer("postgres", "knows what is unchanged, what is null, and what is of the key", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: `CREATE TABLE docs (id int PRIMARY KEY, n int, body text, doc jsonb);
          ALTER TABLE docs ALTER body SET STORAGE EXTERNAL, ALTER doc SET STORAGE EXTERNAL`
      })
      const [text, binary] = yield* bothFormats(workspace, {})
      yield* workspace.sql(
        "INSERT INTO docs VALUES (1, 1, repeat('x', 9000), jsonb_build_object('a', repeat('y', 9000)))"
      )
      yield* workspace.sql("UPDATE docs SET n = NULL")
      yield* workspace.sql("UPDATE docs SET id = 2")
      yield* workspace.sql("ALTER TABLE docs REPLICA IDENTITY FULL")
      yield* workspace.sql("UPDATE docs SET n = 3")
      for (const stream of [text!, binary!]) yield* stream.saw("Update", 3)
      assertSame(text!.changes, binary!.changes)
      const [toasted, rekeyed] = binary!.changes.filter((change) => change._tag === "Update")
      assert.deepInclude(toasted, { row: { id: 1, n: null }, unchanged: ["body", "doc"] })
      assert.deepInclude(rekeyed, { old: { _tag: "Key", row: { id: 1 } } })
    })
  )

  const refused: Readonly<Record<string, string>> = {
    money: "'1'",
    tsquery: "'a & b'",
    regclass: "'pg_class'",
    "regtype[]": "'{int4}'",
    "aclitem[]": "NULL",
    pair: "(1, 'x')",
    temperament: "'calm'",
    "temperament[]": "'{calm}'",
    floats: "'[1,2)'"
  }
  for (const [type, value] of Object.entries(refused)) {
    onServer("postgres", `refuses ${type}, by its column and before any row`, (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: `CREATE TYPE pair AS (a int, b text); CREATE TYPE temperament AS ENUM ('calm');
            CREATE TYPE floats AS RANGE (subtype = float8); CREATE TABLE refused (id int PRIMARY KEY, c ${type})`
        })
        const stream = yield* follow(workspace, {
          options: { plugin: Pgoutput.make({ publications: [workspace.publication], format: "binary" }) }
        })
        yield* workspace.sql(`INSERT INTO refused VALUES (1, NULL); INSERT INTO refused VALUES (2, ${value})`)
        const error = yield* stream.failure
        assert.strictEqual(error._tag, "DecodeError")
        assert.include(String(error), 'column "c" of "public"."refused" is of a type')
        assert.include(String(error), 'use format "text"')
        assert.isFalse(stream.changes.some((change) => change._tag === "Insert"))
      })
    )
  }
})
