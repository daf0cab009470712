/** What a doctor finds in publications, tables and slots: on each version, since their catalogs differ. */
import { assert, describe } from "@effect/vitest"
import { type SqlSession, WalSender } from "@replicant/core/driver"
import { Doctor } from "@replicant/core/operations"
import { Effect, Logger } from "effect"
import { cures, examine, findingsOf, silent, subjectsOf } from "./support/Doctoring.ts"
import { eventually } from "./support/eventually.ts"
import { follow, walSender } from "./support/Follow.ts"
import { once, onServer } from "./support/Servers.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

const tables = `
  CREATE TABLE keyed (id int PRIMARY KEY, v text);
  CREATE TABLE bare (id int);
  CREATE TABLE uniquely (id int NOT NULL, v text); CREATE UNIQUE INDEX uniquely_id ON uniquely (id);
  CREATE TABLE later (id int PRIMARY KEY DEFERRABLE);
  CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
  CREATE TABLE whole (id int PRIMARY KEY, v text); ALTER TABLE whole REPLICA IDENTITY FULL;
  CREATE TABLE large (id int PRIMARY KEY, v text); ALTER TABLE large ALTER v SET STORAGE EXTERNAL;
  INSERT INTO large VALUES (1, repeat('x', 10000));
  CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
  CREATE VIEW seen AS SELECT 1 AS id;
  CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
  CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (10);
  CREATE TABLE "od.d ""x" (id int)`

/** How many questions a doctor asks. */
const questions = (workspace: Workspace) =>
  Effect.gen(function* () {
    let count = 0
    const { connect, openSession } = yield* WalSender
    const counting = <S extends SqlSession>(session: S): S => ({
      ...session,
      query: (text: string) => {
        count++
        return session.query(text)
      }
    })
    const counted = WalSender.of({
      connect: Effect.map(connect, counting),
      openSession: Effect.map(openSession, counting)
    })
    yield* Effect.provideService(Doctor.run({}), WalSender, counted)
    return count
  }).pipe(Effect.provide(walSender(workspace)))

const publicationChecks = [
  "publication.missing",
  "publication.empty",
  "publication.operations",
  "publication.tables",
  "publication.via-root"
]

/** Of the slot itself: what slots of others keep is others' here. */
const slotChecks = [
  "slot.missing",
  "slot.type",
  "slot.database",
  "slot.plugin",
  "slot.lost",
  "slot.near-loss",
  "slot.active",
  "slot.behind",
  "slot.catalog-xmin",
  "slot.temporary",
  "slot.two-phase",
  "slot.idle-timeout",
  "slot.spills"
]

describe("a doctor", () => {
  onServer("postgres", "finds tables whose changes fail, or come short, and its cures mend them", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: tables,
        publication: 'FOR TABLE keyed, bare, uniquely, later, nothing, whole, large, parted, "od.d ""x"'
      })
      const plan: Doctor.Plan = {
        publications: [workspace.publication],
        tables: ["keyed", "unlogged", "seen", "gone"],
        thresholds: { wideColumns: 2 }
      }
      // Statistics of the insert may come a moment later than its session's end; what vacuum writes is there at once.
      yield* workspace.sql("VACUUM large")
      const report = yield* examine(workspace.url(), plan)
      assert.deepStrictEqual(subjectsOf(report, "table.identity"), [
        '"public"."bare"',
        '"public"."later"',
        '"public"."nothing"',
        '"public"."od.d ""x"',
        '"public"."uniquely"'
      ])
      assert.deepStrictEqual(subjectsOf(report, "table.identity-full"), ['"public"."whole"'])
      assert.deepStrictEqual(subjectsOf(report, "table.toast"), ['"public"."large"'])
      assert.deepStrictEqual(subjectsOf(report, "table.kind"), ['"public"."seen"', '"public"."unlogged"'])
      assert.deepStrictEqual(subjectsOf(report, "table.missing"), ['"public"."gone"'])
      silent(report, "publication.tables")

      assert.include(cures(report, "table.identity").join(), 'REPLICA IDENTITY USING INDEX "uniquely_id"')
      for (const sql of [...cures(report, "table.identity"), ...cures(report, "table.toast")]) yield* workspace.sql(sql)
      for (const sql of cures(report, "table.kind")) yield* workspace.sql(sql)
      yield* workspace.sql("ALTER TABLE whole REPLICA IDENTITY DEFAULT")
      const mended = yield* examine(workspace.url(), { publications: [workspace.publication], tables: ["keyed"] })
      for (const id of ["table.identity", "table.identity-full", "table.toast", "table.kind", "table.missing"]) {
        silent(mended, id)
      }
      yield* workspace.sql("UPDATE bare SET id = 1; UPDATE later SET id = 2; UPDATE nothing SET id = 3")
    })
  )

  onServer(
    "postgres",
    "finds publications that are missing, empty, short, or of partitions, and its cures mend them",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: tables,
          publication: "FOR TABLE keyed, parted WITH (publish = 'insert, update')"
        })
        const { publication } = workspace
        yield* workspace.sql("CREATE PUBLICATION nothing_yet")
        const plan: Doctor.Plan = { publications: [publication, "not there", "nothing_yet"], tables: ["whole"] }
        const report = yield* examine(workspace.url(), plan)
        assert.deepStrictEqual(subjectsOf(report, "publication.missing"), ['"not there"'])
        assert.deepStrictEqual(subjectsOf(report, "publication.empty"), ['"nothing_yet"'])
        assert.deepStrictEqual(subjectsOf(report, "publication.operations"), [`"${publication}"`])
        assert.deepStrictEqual(subjectsOf(report, "publication.tables"), ['"public"."whole"'])
        assert.deepStrictEqual(subjectsOf(report, "publication.via-root"), [`"${publication}"`])
        for (const id of publicationChecks) {
          for (const sql of cures(report, id)) yield* workspace.sql(sql)
        }
        const mended = yield* examine(workspace.url(), plan)
        for (const id of publicationChecks) {
          silent(mended, id)
        }
      })
  )

  onServer(
    "postgres",
    "finds column lists and row filters by which PostgreSQL refuses an update, or ends a stream",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: tables,
          publication: "FOR TABLE keyed (v), whole (id), large WHERE (v = 'secret')"
        })
        yield* workspace.sql("CREATE PUBLICATION other FOR TABLE keyed (id, v)")
        const plan = { publications: [workspace.publication, "other"] }
        const report = yield* examine(workspace.url(), plan)
        assert.deepStrictEqual(subjectsOf(report, "publication.columns-identity"), [
          '"public"."keyed"',
          '"public"."whole"'
        ])
        assert.deepStrictEqual(subjectsOf(report, "publication.filter-identity"), ['"public"."large"'])
        assert.deepStrictEqual(subjectsOf(report, "publication.columns-differ"), ['"public"."keyed"'])
        assert.notInclude(JSON.stringify(report), "secret")
        for (const id of ["publication.columns-identity", "publication.filter-identity"]) {
          for (const sql of cures(report, id)) yield* workspace.sql(sql)
        }
        yield* workspace.sql("UPDATE keyed SET v = 'a'; UPDATE whole SET v = 'a'; UPDATE large SET v = 'b'")
        const mended = yield* examine(workspace.url(), plan)
        for (const id of [
          "publication.columns-identity",
          "publication.filter-identity",
          "publication.columns-differ"
        ]) {
          silent(mended, id)
        }
      }),
    { since: 15 }
  )

  onServer(
    "postgres",
    "finds a slot that is missing, another's, in use, behind, or tells of what was not asked for",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int PRIMARY KEY)" })
        const other = yield* makeWorkspace(server)
        const { publication, slot } = workspace
        const of = (name: string, plan: Doctor.Plan = {}) =>
          examine(workspace.url(), { publications: [publication], slot: name, ...plan })

        const missing = yield* of(slot)
        assert.deepStrictEqual(subjectsOf(missing, "slot.missing"), [slot])
        silent(yield* of(slot, { createSlot: true }), "slot.missing")
        for (const sql of cures(missing, "slot.missing")) yield* workspace.sql(sql)
        const free = yield* of(slot)
        silent(free, ...slotChecks)

        yield* workspace.sql("SELECT pg_logical_emit_message(false, '', ''); SELECT txid_current()")
        const strict = yield* of(slot, { thresholds: { behindBytes: 1, oldXids: 1 } })
        assert.deepStrictEqual(subjectsOf(strict, "slot.behind"), [slot])
        assert.deepStrictEqual(subjectsOf(strict, "slot.catalog-xmin"), [slot])

        assert.deepStrictEqual(subjectsOf(yield* of(slot, { plugin: "wal2json" }), "slot.plugin"), [slot])
        yield* other.sql(`SELECT pg_create_logical_replication_slot('${other.slot}', 'pgoutput', false, true)`)
        assert.deepStrictEqual(subjectsOf(yield* of(other.slot), "slot.database"), [other.slot])
        const twoPhase = (plan: Doctor.Plan) => examine(other.url(), { slot: other.slot, ...plan })
        assert.deepStrictEqual(subjectsOf(yield* twoPhase({}), "slot.two-phase"), [other.slot])
        silent(yield* twoPhase({ twoPhase: true }), "slot.two-phase")

        const physical = `${slot}_p`
        yield* Effect.acquireRelease(
          workspace.sql(`SELECT pg_create_physical_replication_slot('${physical}', true)`),
          () => Effect.ignore(workspace.sql(`SELECT pg_drop_replication_slot('${physical}')`))
        )
        assert.deepStrictEqual(subjectsOf(yield* of(physical), "slot.type"), [physical])
        const aside = yield* of(slot, { thresholds: { behindBytes: 1 } })
        assert.include(subjectsOf(aside, "slot.others-behind"), physical)
        silent(yield* of(slot, { thresholds: { behindBytes: 2 ** 50 } }), "slot.others-behind")

        const session = yield* workspace.session
        const temporary = `${slot}_t`
        yield* session.query(`SELECT pg_create_logical_replication_slot('${temporary}', 'pgoutput', true)`)
        const held = yield* of(temporary)
        assert.deepStrictEqual(subjectsOf(held, "slot.temporary"), [temporary])
        assert.match(findingsOf(held, "slot.active")[0]?.seen ?? "", /in use by pid \d+/)
      })
  )

  onServer("postgres", "finds that decoding goes through files", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int PRIMARY KEY, v text)" })
      const { database, publication, slot } = workspace
      yield* workspace.sql(`ALTER DATABASE ${database} SET logical_decoding_work_mem = '64kB'`)
      yield* workspace.sql(`SELECT pg_create_logical_replication_slot('${slot}', 'pgoutput')`)
      yield* workspace.sql("INSERT INTO t SELECT n, repeat('x', 100) FROM generate_series(1, 5000) n")
      yield* workspace.sql(
        `SELECT count(*) FROM pg_logical_slot_get_binary_changes('${slot}', NULL, NULL, 'proto_version', '1', 'publication_names', '${publication}')`
      )
      // What a backend has counted is told a moment later.
      const spilling = yield* eventually(
        Effect.map(examine(workspace.url(), { slot }), (report) => {
          const found = subjectsOf(report, "slot.spills")
          return found.length > 0 && found
        }),
        { what: "spills are counted" }
      )
      assert.deepStrictEqual(spilling, [slot])
    })
  )

  onServer("postgres", "finds a table that two publications send under two names", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: tables,
        publication: "FOR TABLE parted WITH (publish_via_partition_root)"
      })
      yield* workspace.sql("CREATE PUBLICATION leaves FOR TABLE part")
      const plan = { publications: [workspace.publication, "leaves"] }
      assert.include(subjectsOf(yield* examine(workspace.url(), plan), "publication.via-root"), '"public"."part"')
      silent(yield* examine(workspace.url(), { publications: [workspace.publication] }), "publication.via-root")
    })
  )

  onServer(
    "postgres",
    "finds an encoding that checks no text, and asks as many questions of few tables as of many",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: tables })
        silent(yield* examine(workspace.url(), {}), "server.encoding")
        const ascii = yield* makeWorkspace(server, { encoding: "SQL_ASCII" })
        assert.deepStrictEqual(subjectsOf(yield* examine(ascii.url(), {}), "server.encoding"), [ascii.database])
        const few = yield* questions(workspace)
        yield* workspace.sql(
          "DO $$ BEGIN FOR i IN 1..100 LOOP EXECUTE format('CREATE TABLE more%s (id int)', i); END LOOP; END $$"
        )
        assert.strictEqual(yield* questions(workspace), few)
        assert.isBelow(few, 25)
      }),
    once
  )

  onServer("wal2json", "finds a plugin that the server does not load, where it has a list of them", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: tables })
      const hasList =
        (yield* workspace.sql("SELECT FROM pg_settings WHERE name = 'output_plugin_libraries'")).length > 0
      silent(yield* examine(workspace.url(), { plugin: "wal2json" }), "server.plugin-libraries")
      const other = yield* examine(workspace.url(), { plugin: "decoderbufs" })
      assert.strictEqual(subjectsOf(other, "server.plugin-libraries").length, hasList ? 1 : 0)
    })
  )

  onServer(
    "postgres",
    "is asked by a stream as it starts, which warns once",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int PRIMARY KEY)" })
        const logged: Array<string> = []
        const logger = Logger.layer([Logger.make(({ message }) => void logged.push(String(message)))])
        const layer = walSender(workspace, { settings: { wal_sender_timeout: "5s" } })
        const timing = { acknowledgeDelay: "20 millis", statusInterval: "3 seconds" } as const
        const stream = yield* follow(workspace, { layer, options: { timing } }).pipe(Effect.provide(logger))
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        yield* stream.saw("Commit", 1)
        yield* workspace.sql(
          `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`
        )
        yield* workspace.sql("INSERT INTO t VALUES (2)")
        yield* stream.saw("Commit", 2)
        yield* stream.stop
        assert.strictEqual(logged.filter((text) => text.includes("server.status-interval")).length, 1)
      }),
    once
  )
})
