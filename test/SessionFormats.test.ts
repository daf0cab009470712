/**
 * What a role's or a database's own settings do to the text of values: nothing, for Replicant sets its session to what
 * PostgreSQL prints by default. And databases that are not UTF8.
 */
import { assert, describe } from "@effect/vitest"
import { Pgoutput, Wal2Json } from "@replicant/core"
import type { OutputPlugin } from "@replicant/core/driver"
import { PgSession } from "@replicant/node/testing"
import { Effect, Redacted } from "effect"
import { type Follower, follow, insertedRows, walSender } from "./support/Follow.ts"
import { onServer, type Server } from "./support/Servers.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

/** Each of these changes how values are printed, or how names in them are, if it comes to bear. */
const oddSettings = {
  DateStyle: "German, DMY",
  IntervalStyle: "sql_standard",
  extra_float_digits: "-4",
  bytea_output: "escape",
  TimeZone: "Asia/Kathmandu",
  client_encoding: "LATIN1",
  quote_all_identifiers: "on",
  search_path: "public, pg_catalog",
  xmlbinary: "hex",
  standard_conforming_strings: "off"
} as const

/** Columns of types that both formats know: the type, its SQL, and what PostgreSQL prints by default. */
const columns: Readonly<Record<string, readonly [type: string, sql: string, value: unknown]>> = {
  day: ["date", "'2024-02-03'", "2024-02-03"],
  at: ["timestamp", "'2024-02-03 04:05:06.789'", "2024-02-03 04:05:06.789"],
  moment: ["timestamptz", "'2024-02-03 04:05:06+00'", "2024-02-03 04:05:06+00"],
  long_ago: ["timestamptz", "'0044-03-15 00:00:00+00 BC'", "0044-03-15 00:00:00+00 BC"],
  clock: ["timetz", "'04:05:06+02'", "04:05:06+02"],
  span: ["interval", "make_interval(1, 2, 0, 3, 4, 5, 6)", "1 year 2 mons 3 days 04:05:06"],
  back: ["interval", "make_interval(days => 1, secs => -1)", "1 day -00:00:01"],
  single: ["float4", "1.1", 1.1],
  double: ["float8", "0.1::float8 + 0.2::float8", 0.30000000000000004],
  tenth: ["float8", "1e23", 1e23],
  spot: ["point", "point(0.1::float8 + 0.2::float8, 1)", "(0.30000000000000004,1)"],
  raw: ["bytea", "decode('00ff415c', 'hex')", Uint8Array.of(0x00, 0xff, 0x41, 0x5c)],
  words: ["text", "'naïve ☕ 🐘'", "naïve ☕ 🐘"],
  raws: ["bytea[]", "ARRAY[decode('ff5c', 'hex'), NULL]", [Uint8Array.of(0xff, 0x5c), null]],
  moments: ["timestamptz[]", "ARRAY['2024-02-03 00:00:00+00'::timestamptz]", ["2024-02-03 00:00:00+00"]],
  spans: ["interval[]", "ARRAY[make_interval(days => -1, hours => 2)]", ["-1 days +02:00:00"]],
  doubles: ["float8[]", "ARRAY[0.1::float8 + 0.2::float8]", [0.30000000000000004]],
  period: ["tstzrange", "tstzrange('2024-02-03 00:00:00+00', NULL)", '["2024-02-03 00:00:00+00",)'],
  doc: ["jsonb", `'{"at": "2024-02-03", "n": 1.10}'`, { at: "2024-02-03", n: 1.1 }]
}

/** Columns whose type comes as text alone. */
const textColumns: typeof columns = {
  pair: ["pair", "ROW('2024-02-03', decode('ff', 'hex'), 'ß')", '(2024-02-03,"\\\\xff",ß)'],
  relation: ["regclass", "'public.plain'", "public.plain"],
  own_type: ["regtype", "'public.pair'", "public.pair"],
  builtin: ["regtype", "'timestamptz'", "timestamp with time zone"],
  amount: ["money", "1234.5", "$1,234.50"],
  page: ["xml", `xmlelement(name a, decode('ff', 'hex'))`, "<a>/w==</a>"]
}

const expected = (table: typeof columns) =>
  Object.fromEntries(Object.entries(table).map(([name, [, , value]]) => [name, value]))

const createTable = (name: string, table: typeof columns) =>
  `CREATE TABLE ${name} (${Object.entries(table)
    .map(([column, [type]]) => `${column} ${type}`)
    .join(", ")})`

const insertRow = (name: string, table: typeof columns) =>
  `INSERT INTO ${name} VALUES (${Object.values(table)
    .map(([type, sql]) => `(${sql})::${type}`)
    .join(", ")})`

const schema = [
  "CREATE TYPE pair AS (day date, raw bytea, name text)",
  createTable("plain", columns),
  createTable("printed", textColumns),
  "CREATE PUBLICATION everything FOR TABLE plain, printed"
].join("; ")

/** The odd settings, said of `whom`: `ROLE r`, `DATABASE d`. */
const alter = (whom: string) =>
  Object.entries(oddSettings)
    .map(([name, value]) => `ALTER ${whom} SET ${name} = ${name === "search_path" ? value : `'${value}'`}`)
    .join("; ")

/** Where the settings stand. The last beats the others. */
const places: Readonly<Record<string, (role: string, database: string) => ReadonlyArray<string>>> = {
  "the database": (_, database) => [`DATABASE ${database}`],
  "the role": (role) => [`ROLE ${role}`],
  "the role, in the database": (role, database) => [`ROLE ${role} IN DATABASE ${database}`]
}

/** A role of the workspace's own that may replicate, and the URL of a session of it. */
const makeRole = Effect.fnUntraced(function* (server: Server, workspace: Workspace) {
  const name = `${workspace.database}_role`
  yield* Effect.acquireRelease(server.query(`CREATE ROLE ${name} LOGIN REPLICATION PASSWORD 'secret'`), () =>
    Effect.ignore(server.query(`DROP ROLE ${name}`))
  )
  return { name, url: workspace.url(name, "secret") }
})

/**
 * Streams of these plugins, of a role that the odd settings bear on, and a session to write with, which they do not.
 */
const followOddly = Effect.fnUntraced(function* (
  server: Server,
  workspace: Workspace,
  options: {
    readonly place: (typeof places)[string]
    readonly plugins: Readonly<Record<string, OutputPlugin.OutputPlugin>>
  }
) {
  const role = yield* makeRole(server, workspace)
  // A session keeps the settings that it began with.
  const writer = yield* workspace.session
  for (const whom of options.place(role.name, workspace.database)) yield* writer.query(alter(whom))
  const [other] = yield* PgSession.query(
    role.url,
    "SELECT current_setting('datestyle') AS style, '1.1'::float8 AS float"
  )
  assert.deepStrictEqual({ ...other }, { style: "German, DMY", float: 1.1 }, "the settings stand")
  const layer = walSender(workspace, { url: Redacted.make(role.url) })
  const streams = yield* Effect.all(
    Object.entries(options.plugins).map(([name, plugin]) =>
      Effect.map(
        follow(workspace, { layer, options: { slot: `${workspace.slot}_${name}`, plugin } }),
        (stream) => [name, stream] as const
      )
    )
  )
  return { writer, streams: new Map(streams) }
})

const rowsOf = (stream: Follower<never> | undefined, table: string) =>
  insertedRows(stream!.changes.filter((change) => change._tag === "Insert" && change.relation.name === table))

const inserts = `${insertRow("plain", columns)}; ${insertRow("printed", textColumns)}`

describe("settings of the session", () => {
  for (const [where, place] of Object.entries(places)) {
    onServer("postgres", `that are odd for ${where} do not change what a value is, in text or in binary`, (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: schema, publication: "FOR TABLE plain" })
        const { streams, writer } = yield* followOddly(server, workspace, {
          place,
          plugins: {
            text: Pgoutput.make({ publications: ["everything"] }),
            binary: Pgoutput.make({ publications: [workspace.publication], format: "binary" })
          }
        })
        yield* writer.query(inserts)
        for (const stream of streams.values()) yield* stream.saw("Commit", 1)
        assert.deepStrictEqual(rowsOf(streams.get("text"), "plain"), [expected(columns)], "text")
        assert.deepStrictEqual(rowsOf(streams.get("binary"), "plain"), [expected(columns)], "binary")
        assert.deepStrictEqual(rowsOf(streams.get("text"), "printed"), [expected(textColumns)])
      })
    )
  }

  for (const formatVersion of [1, 2] as const) {
    onServer("wal2json", `that are odd do not change what a value is in wal2json, format ${formatVersion}`, (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: schema })
        const { streams, writer } = yield* followOddly(server, workspace, {
          place: places["the role"]!,
          plugins: { json: Wal2Json.make({ formatVersion }) }
        })
        yield* writer.query(inserts)
        yield* streams.get("json")!.saw("Commit", 1)
        assert.deepStrictEqual(rowsOf(streams.get("json"), "plain"), [expected(columns)])
        assert.deepStrictEqual(rowsOf(streams.get("json"), "printed"), [expected(textColumns)])
      })
    )
  }
})

describe("a database that is not UTF8", () => {
  onServer("postgres", "gives the same text, of names, values and messages' prefixes", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        encoding: "LATIN1",
        sql: `CREATE TYPE größe AS ENUM ('klein', 'größer');
          CREATE TABLE "straße" (id int PRIMARY KEY, "größe" größe, note text, tags text[], doc jsonb, "raw" bytea);
          CREATE PUBLICATION "préféré\\"`
      })
      const options = { publications: [workspace.publication, "préféré\\"], enums: ["größe"] }
      const streams = yield* Effect.all(
        (["text", "binary"] as const).map((format) =>
          follow(workspace, {
            options: { slot: `${workspace.slot}_${format}`, plugin: Pgoutput.make({ ...options, format }) }
          })
        )
      )
      yield* workspace.sql(`INSERT INTO "straße" VALUES (1, 'größer', 'é ÿ £', '{Ä,"ö ü"}', '{"à": "ñ"}', '\\xe9')`)
      yield* workspace.sql("SELECT pg_logical_emit_message(true, 'é', 'é')")
      for (const stream of streams) {
        yield* stream.saw("Commit", 2)
        assert.deepStrictEqual(rowsOf(stream, "straße"), [
          { id: 1, größe: "größer", note: "é ÿ £", tags: ["Ä", "ö ü"], doc: { à: "ñ" }, raw: Uint8Array.of(0xe9) }
        ])
        const message = stream.changes.find((change) => change._tag === "Message")
        // Its content is bytes, and they are the database's own.
        assert.deepInclude(message, { prefix: "é", content: Uint8Array.of(0xe9) })
      }
    })
  )
})
