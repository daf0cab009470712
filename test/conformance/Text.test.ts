/**
 * Text: that it does not hang on the database's encoding, nor on what a role has been set to. First what the server
 * does with either, then that Replicant gets the usual text.
 */
import { assert, describe } from "@effect/vitest"
import { type Change, nextLsn, Pgoutput, Replication } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { PgSession } from "@replicant/node/testing"
import { Effect, Layer, Redacted, Stream } from "effect"
import { scenario } from "../support/Conformance.ts"
import { eventually } from "../support/eventually.ts"
import { insertedRows } from "../support/Follow.ts"
import { PgoutputPrinter } from "../support/PgoutputText.ts"
import { connectRaw, pluginMessages, startCommand, startRaw } from "../support/RawWalSender.ts"
import type { Server } from "../support/Servers.ts"
import { makeWorkspace } from "../support/Workspace.ts"

/** A role that may replicate, with settings of its own, and the URL of a session of it. Gone with the scope. */
const makeRole = (server: Server, database: string, settings: Readonly<Record<string, string>>) => {
  const role = `${database}_role`
  const alter = Object.entries(settings).map(([name, value]) => `ALTER ROLE ${role} SET ${name} = '${value}'`)
  return Effect.acquireRelease(
    server.query([`CREATE ROLE ${role} LOGIN REPLICATION PASSWORD 'secret'`, ...alter].join(";")),
    () => Effect.ignore(server.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`))
  ).pipe(Effect.as(server.url(database, role, "secret")))
}

/** The first transaction that a slot has, as Replicant tells it. */
const firstTransaction = (
  url: string,
  options: Parameters<typeof Replication.layer>[0]
): Effect.Effect<ReadonlyArray<Change>, unknown> =>
  Effect.flatMap(Replication.Replication, ({ changes }) =>
    Stream.runCollect(Stream.takeUntil(changes, (change) => nextLsn(change) !== undefined))
  ).pipe(Effect.provide(Replication.layer(options).pipe(Layer.provide(PgWalSender.layer({ url: Redacted.make(url) })))))

/** A LATIN1 database with a slot that has one transaction to tell. Gone with the scope, as the slot is. */
const makeLatin1 = Effect.fnUntraced(function* (server: Server) {
  const database = `${(yield* makeWorkspace(server)).database}_latin1`
  const slot = `${database}_slot`
  const drop = `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '${slot}'`
  yield* Effect.acquireRelease(
    server.query(`CREATE DATABASE ${database} ENCODING LATIN1 LOCALE 'C' TEMPLATE template0`),
    () =>
      Effect.ignore(
        Effect.andThen(
          eventually(Effect.as(server.query(drop), true)),
          server.query(`DROP DATABASE ${database} WITH (FORCE)`)
        )
      )
  )
  const statements = [
    'CREATE TABLE "café" ("clé" int PRIMARY KEY, "prénom" text)',
    'CREATE PUBLICATION plain FOR TABLE "café"',
    'CREATE PUBLICATION "publiée" FOR TABLE "café"',
    `SELECT pg_create_logical_replication_slot('${slot}', 'pgoutput')`,
    `BEGIN; INSERT INTO "café" VALUES (1, 'é'); SELECT pg_logical_emit_message(true, 'préfixe', 'é'); COMMIT`
  ]
  for (const statement of statements) yield* server.query(statement, database)
  return { database, slot }
})

describe("Text", () => {
  scenario("encodings", "of a database and a role do not matter, as UTF8 is asked for", (server) =>
    Effect.gen(function* () {
      const { database, slot } = yield* makeLatin1(server)
      const url = yield* makeRole(server, database, { client_encoding: "LATIN1" })
      /** The insert's bytes in a session of that encoding. */
      const insertIn = (encoding: string) =>
        Effect.scoped(
          Effect.gen(function* () {
            const connection = yield* connectRaw(url)
            const [own] = yield* connection.query("SHOW server_encoding")
            assert.strictEqual(own?.server_encoding, "LATIN1")
            yield* connection.query(`SET client_encoding = '${encoding}'`)
            const raw = yield* startRaw(connection, startCommand(slot, "plain"))
            return yield* eventually(
              Effect.sync(() => pluginMessages(raw.heard).find(({ letter }) => letter === "I")?.bytes)
            )
          })
        ).pipe(Effect.retry({ times: 50 }))
      const endsWith = (hex: string) => (bytes: Uint8Array) =>
        assert.isTrue(Buffer.from(bytes).toString("hex").endsWith(hex), `… ${hex}`)
      endsWith("7400000002c3a9")(yield* insertIn("UTF8"))
      endsWith("7400000001e9")(yield* insertIn("LATIN1"))

      const plugin = Pgoutput.make({ publications: ["publiée"] })
      const changes = yield* firstTransaction(url, { slot, plugin })
      assert.deepStrictEqual(
        changes.map((change) => change._tag),
        ["Begin", "Insert", "Message", "Commit"]
      )
      const [, insert, message] = changes
      assert(insert?._tag === "Insert" && message?._tag === "Message")
      assert.deepStrictEqual(insert.row, { clé: 1, prénom: "é" })
      assert.strictEqual(insert.relation.name, "café")
      assert.strictEqual(message.prefix, "préfixe")
      assert.deepStrictEqual(message.content, Uint8Array.of(0xe9), "content is bytes, which nobody converts")
    })
  )

  scenario("session-formats", "of a role change the text of the stream, but not ours", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: "CREATE TABLE t (d date, ts timestamptz, i interval, f float8, r float4, b bytea)"
      })
      const { database, publication, slot } = workspace
      const odd = {
        DateStyle: "German",
        IntervalStyle: "sql_standard",
        extra_float_digits: "-4",
        bytea_output: "escape",
        TimeZone: "Asia/Kathmandu"
      }
      const url = yield* makeRole(server, database, odd)
      yield* workspace.sql(`SELECT pg_create_logical_replication_slot('${slot}', 'pgoutput')`)
      yield* workspace.sql(
        `INSERT INTO t VALUES ('2024-02-03', '2024-02-03 04:05:06.789+00', '1 mon 2 days', 0.1::float8 + 0.2::float8,
          1.1, '\\x00ff41')`
      )
      const insertOf = (lines: ReadonlyArray<string>) => lines.find((line) => line.startsWith("I "))
      const inRolesFormat =
        'I t{d=03.02.2024,ts="03.02.2024 09:50:06.789 +0545",i="+0-1 +2 +0:00:00",f=0.3,r=1.1,b=\\000\\377A}'

      const peeked = yield* PgSession.query(
        url,
        `SELECT data FROM pg_logical_slot_peek_binary_changes('${slot}', NULL, NULL, 'proto_version', '1',
           'publication_names', '${publication}')`
      )
      const printer = new PgoutputPrinter()
      assert.strictEqual(insertOf(peeked.map((row) => printer.print(row.data as Uint8Array))), inRolesFormat)

      const walSenderSays = yield* Effect.scoped(
        Effect.gen(function* () {
          // The driver says better by itself, so the role's settings are said again.
          const connection = yield* connectRaw(url, { settings: odd })
          const raw = yield* startRaw(connection, startCommand(slot, publication))
          yield* eventually(Effect.sync(() => pluginMessages(raw.heard).some(({ letter }) => letter === "C")))
          const walPrinter = new PgoutputPrinter()
          return pluginMessages(raw.heard).map(({ bytes }) => walPrinter.print(bytes))
        })
      )
      assert.strictEqual(insertOf(walSenderSays), inRolesFormat)

      const asText = new Map(
        ["date", "timestamptz", "interval", "float8", "float4", "bytea"].map((name) => [name, (text: string) => text])
      )
      const options = { slot, plugin: Pgoutput.make({ publications: [publication] }) }
      const texts = { slot, plugin: Pgoutput.make({ publications: [publication], types: { byName: asText } }) }
      const usual = {
        d: "2024-02-03",
        ts: "2024-02-03 04:05:06.789+00",
        i: "1 mon 2 days",
        f: "0.30000000000000004",
        r: "1.1",
        b: "\\x00ff41"
      }
      assert.deepStrictEqual(insertedRows(yield* firstTransaction(url, texts)), [usual])
      const values = { ...usual, f: 0.1 + 0.2, r: 1.1, b: Uint8Array.of(0, 255, 0x41) }
      assert.deepStrictEqual(insertedRows(yield* firstTransaction(url, options)), [values])
    })
  )
})
