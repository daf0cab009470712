/** What a doctor finds at the target of a copy: the oldest and the newest, since rights differ. */
import { assert, describe, it } from "@effect/vitest"
import type { Doctor } from "@replicant/core/operations"
import { Copy, PgWalSender } from "@replicant/node"
import { Effect, Redacted } from "effect"
import { copyOptions, startCopy } from "./support/Copying.ts"
import { cures, examine, findingsOf, silent, subjectsOf } from "./support/Doctoring.ts"
import { eventually } from "./support/eventually.ts"
import { makeIntruder } from "./support/Intruder.ts"
import * as PostgresVersion from "./support/PostgresVersion.ts"
import { once, onServer } from "./support/Servers.ts"
import { standbyOf, trustingServer } from "./support/Standby.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY, v text)"

const to = (url: string) => PgWalSender.session({ url: Redacted.make(url) })

/** A doctor of a copy from one workspace to another. */
const ofCopy = (source: Workspace, target: string, plan: Doctor.Plan = {}) =>
  examine(
    source.url(),
    { publications: [source.publication], slot: source.slot, snapshot: true, target: to(target), ...plan },
    Copy.checks
  )

const all = Copy.checks.map(({ id }) => id)

describe("a doctor of a copy", () => {
  onServer("postgres", "is silent where all is well, before a copy and while it runs", (server) =>
    Effect.gen(function* () {
      const source = yield* makeWorkspace(server, { sql: `${table}; INSERT INTO t VALUES (1, 'a')` })
      const target = yield* makeWorkspace(server, { sql: table })
      silent(yield* ofCopy(source, target.url()), ...all)
      const options = copyOptions(source, target)
      const copying = yield* startCopy(options)
      yield* copying.during(
        eventually(
          Effect.map(target.sql("SELECT FROM t"), (rows) => rows.length === 1),
          { what: "the row is copied" }
        )
      )
      yield* copying.during(eventually(source.isStreaming(options.slot), { what: "changes are streamed" }))
      silent(yield* ofCopy(source, target.url(), { slot: options.slot }), ...all)
    })
  )

  onServer(
    "postgres",
    "finds tables, columns, keys and rows that a copy refuses, triggers and sequences that act",
    (server) =>
      Effect.gen(function* () {
        const source = yield* makeWorkspace(server, {
          sql: `${table}; CREATE TABLE gone (id int PRIMARY KEY); CREATE TABLE keyless (id int PRIMARY KEY);
          CREATE TABLE narrow (id int PRIMARY KEY, v bigint); CREATE TABLE filled (id int PRIMARY KEY)`
        })
        const target = yield* makeWorkspace(server, {
          sql: `CREATE TABLE t (id serial PRIMARY KEY, v text); CREATE TABLE keyless (id int);
          CREATE TABLE narrow (id int PRIMARY KEY, v int); CREATE TABLE filled (id int PRIMARY KEY);
          INSERT INTO filled VALUES (1);
          CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
          CREATE TRIGGER acts BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION act();
          ALTER TABLE t ENABLE ALWAYS TRIGGER acts`
        })
        const report = yield* ofCopy(source, target.url())
        assert.deepStrictEqual(subjectsOf(report, "target.tables"), ['"public"."gone"', '"public"."narrow"'])
        // All publications are looked at where none is named.
        const unnamed = yield* ofCopy(source, target.url(), { publications: [] })
        assert.deepStrictEqual(subjectsOf(unnamed, "target.tables"), subjectsOf(report, "target.tables"))
        assert.deepStrictEqual(subjectsOf(report, "target.keys"), ['"public"."keyless"'])
        assert.deepStrictEqual(subjectsOf(report, "target.filled"), ['"public"."filled"'])
        assert.deepStrictEqual(subjectsOf(report, "target.triggers"), ['"public"."t"'])
        assert.deepStrictEqual(subjectsOf(report, "target.sequences"), ['"public"."t_id_seq"'])
        for (const id of ["target.keys", "target.filled", "target.triggers", "target.sequences"]) {
          for (const sql of cures(report, id)) yield* target.sql(sql)
        }
        yield* target.sql("CREATE TABLE gone (id int PRIMARY KEY); ALTER TABLE narrow ALTER v TYPE bigint")
        const mended = yield* ofCopy(source, target.url())
        silent(mended, "target.tables", "target.keys", "target.filled", "target.triggers")
      })
  )

  onServer("postgres", "finds each right that the target's role lacks, and its cures give them", (server) =>
    Effect.gen(function* () {
      const source = yield* makeWorkspace(server, { sql: table })
      const target = yield* makeWorkspace(server, { sql: `${table}; ALTER TABLE t ENABLE ROW LEVEL SECURITY` })
      const role = `${target.database}_writer`
      yield* Effect.acquireRelease(target.sql(`CREATE ROLE ${role} LOGIN PASSWORD 'secret'`), () =>
        Effect.ignore(
          target.sql(`DROP OWNED BY ${role}; DO $$ BEGIN IF current_setting('server_version_num')::int >= 150000 THEN
            REVOKE ALL ON PARAMETER session_replication_role FROM ${role}; END IF; END $$; DROP ROLE ${role}`)
        )
      )
      const url = target.url(role, "secret")
      const report = yield* ofCopy(source, url)
      const ids = [
        "target.rights",
        "target.row-security",
        "target.position-rights",
        "target.trigger-rights",
        "target.origin-rights"
      ]
      for (const id of ids) {
        assert.isNotEmpty(findingsOf(report, id), id)
        for (const sql of cures(report, id)) yield* target.sql(sql)
      }
      silent(yield* ofCopy(source, url), ...ids)
    })
  )

  onServer(
    "postgres",
    "finds that source and target are one, that a slot has no position, another encoding, and a pooler",
    (server) =>
      Effect.gen(function* () {
        const source = yield* makeWorkspace(server, { sql: table })
        assert.isNotEmpty(findingsOf(yield* ofCopy(source, source.url()), "target.same"))
        const target = yield* makeWorkspace(server, { sql: table, encoding: "LATIN1" })
        yield* source.sql(`SELECT pg_create_logical_replication_slot('${source.slot}', 'pgoutput')`)
        // A pooler answers with a key of its own, and hands the session to a backend of another pid.
        const { port } = yield* makeIntruder(server, {
          toClient: (bytes) => {
            const at = bytes.indexOf(Buffer.from([0x4b, 0, 0, 0, 12]))
            if (at >= 0) bytes.writeInt32BE(1, at + 5)
            return bytes
          }
        })
        const report = yield* ofCopy(source, target.url().replace(`:${server.port}/`, `:${port}/`))
        for (const id of ["target.position", "target.encoding", "target.pooler"])
          assert.isNotEmpty(findingsOf(report, id), id)
      }),
    once
  )

  it.live("finds that the target has no room for an origin, or is a standby", () =>
    Effect.gen(function* () {
      const source = yield* trustingServer({ max_replication_slots: 4 })
      yield* source.query(`${table}; CREATE PUBLICATION p FOR TABLE t`)
      const plan = { publications: ["p"], slot: "slot", snapshot: true }
      const { server: standby } = yield* standbyOf(source)
      const onStandby = yield* examine(source.url(), { ...plan, target: to(standby.url()) }, Copy.checks)
      assert.isNotEmpty(findingsOf(onStandby, "target.read-only"))
      const room = PostgresVersion.current() >= 18 ? "max_active_replication_origins" : "max_replication_slots"
      const target = yield* trustingServer({ [room]: 1 })
      yield* target.query(`${table}; SELECT pg_replication_origin_create('replicant.postgres.old')`)
      const full = yield* examine(source.url(), { ...plan, target: to(target.url()) }, Copy.checks)
      assert.deepStrictEqual(subjectsOf(full, "target.origins-left"), ["replication origin"])
      for (const sql of cures(full, "target.origins-left")) yield* target.query(sql)
      silent(yield* examine(source.url(), { ...plan, target: to(target.url()) }, Copy.checks), ...all)
    })
  )
})
