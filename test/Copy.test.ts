/**
 * A copy into another PostgreSQL, by its result: both hold the same rows, whatever their types, whatever came between; and
 * what it refuses before the first row. What it does when it is killed is in faults/Copy.test.ts.
 */
import { randomInt } from "node:crypto"
import { assert, describe } from "@effect/vitest"
import { quoteIdentifier } from "@replicant/core/driver"
import { Copy } from "@replicant/node"
import { PgServer } from "@replicant/node/testing"
import { Effect, Redacted } from "effect"
import { caughtUp, copyOptions, endMark, markTable, positionOf, startCopy } from "./support/Copying.ts"
import { eventually } from "./support/eventually.ts"
import * as PostgresVersion from "./support/PostgresVersion.ts"
import { runWorkload, workloadTables } from "./support/RandomWorkload.ts"
import { replicant, startReplicant } from "./support/Replicant.ts"
import { once, onServer } from "./support/Servers.ts"
import { checksums } from "./support/TableChecksum.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

const seed = process.env.COPY_SEED === undefined ? randomInt(2 ** 31) : Number(process.env.COPY_SEED)

const orders = `CREATE TABLE orders (id int PRIMARY KEY, note text); ${markTable}`

const slotsOf = (workspace: Workspace) =>
  Effect.map(
    workspace.sql(`SELECT slot_name FROM pg_replication_slots WHERE database = '${workspace.database}'`),
    (rows) => rows.length
  )

/** A temporary one goes with its session, a moment after the client is gone. */
const untilNoSlots = (workspace: Workspace) =>
  eventually(
    Effect.map(slotsOf(workspace), (count) => count === 0),
    { what: "no slot is left" }
  )

/** What a copy of these options fails with. */
const refusal = (options: Copy.Options) =>
  Effect.scoped(Effect.flatMap(startCopy(options), (copying) => copying.failure))

/** Nothing of ours is in the target, and no slot at the source. */
const assertNothingMade = Effect.fnUntraced(function* (source: Workspace, target: Workspace) {
  assert.deepStrictEqual(yield* target.sql("SELECT FROM pg_namespace WHERE nspname = 'replicant'"), [])
  yield* untilNoSlots(source)
})

describe("a copy into another database", () => {
  onServer(
    "postgres",
    "equals its source after the first copy and a random workload, value for value of every type",
    (server) =>
      Effect.gen(function* () {
        const tables = `${workloadTables({})}; ${markTable}`
        const source = yield* makeWorkspace(server, { sql: tables })
        const target = yield* makeWorkspace(server, { sql: tables })
        yield* runWorkload(source.session, { seed, statements: 600 })
        const copying = yield* startCopy(copyOptions(source, target))
        // During the first copy, wherever that stands, and then certainly in the stream.
        yield* copying.during(runWorkload(source.session, { seed: seed + 1, statements: 500 }))
        yield* copying.during(caughtUp(source, target))
        const report = yield* copying.during(runWorkload(source.session, { seed: seed + 2, statements: 800 }))
        yield* copying.during(caughtUp(source, target))
        const label = `COPY_SEED=${seed} ${JSON.stringify({ report, ...copying.totals })}`
        assert.deepStrictEqual(yield* checksums(target), yield* checksums(source), label)
        assert.isAbove(copying.totals.rows, 20, label)
        assert.isAbove(copying.totals.changes, 100, label)
        assert.strictEqual(copying.totals.missing, 0, label)
      }),
    { timeout: 90_000 }
  )

  onServer("postgres", "[P13] brings tables of which no column is written, in the first copy and after it", (server) =>
    Effect.gen(function* () {
      const none = `CREATE TABLE none (); ${markTable}`
      const source = yield* makeWorkspace(server, {
        sql: `${none}; CREATE TABLE made (a int); INSERT INTO none SELECT FROM generate_series(1, 3); INSERT INTO made VALUES (1), (2)`
      })
      const target = yield* makeWorkspace(server, {
        sql: `${none}; CREATE TABLE made (x int DEFAULT 7, a int GENERATED ALWAYS AS (x * 2) STORED)`
      })
      const copying = yield* startCopy(copyOptions(source, target))
      yield* copying.during(caughtUp(source, target))
      yield* source.sql("INSERT INTO none SELECT FROM generate_series(1, 100); INSERT INTO made VALUES (3)")
      yield* copying.during(caughtUp(source, target))
      const counts = "SELECT (SELECT count(*)::int FROM none) AS none, (SELECT count(*)::int FROM made) AS made"
      assert.deepStrictEqual(yield* target.sql(counts), [{ none: 103, made: 3 }])
      assert.deepStrictEqual(yield* target.sql("SELECT DISTINCT x, a FROM made"), [{ x: 7, a: 14 }])
    })
  )

  onServer(
    "postgres",
    "[P13] has what is NULL in an array NULL, whatever the target's database has its sessions set to",
    (server) =>
      Effect.gen(function* () {
        const sql = `CREATE TABLE t (id int PRIMARY KEY, words text[], numbers int[]); ${markTable}`
        const source = yield* makeWorkspace(server, { sql })
        const target = yield* makeWorkspace(server, { sql })
        const odd = ["array_nulls = off", "default_transaction_deferrable = on", "default_transaction_read_only = on"]
        for (const setting of odd) yield* target.sql(`ALTER DATABASE "${target.database}" SET ${setting}`)
        const row = "ARRAY['a', NULL, 'NULL'], ARRAY[1, NULL]"
        yield* source.sql(`INSERT INTO t VALUES (1, ${row})`)
        const copying = yield* startCopy(copyOptions(source, target))
        yield* copying.during(caughtUp(source, target))
        yield* source.sql(`INSERT INTO t VALUES (2, ${row})`)
        yield* copying.during(caughtUp(source, target))
        const rows = "SELECT id, words, numbers FROM t ORDER BY id"
        assert.deepStrictEqual(yield* target.sql(rows), yield* source.sql(rows))
        assert.deepStrictEqual(yield* target.sql("SELECT words[2] IS NULL AS is_null FROM t WHERE id = 2"), [
          { is_null: true }
        ])
      })
  )

  onServer("postgres", "[P13] finds rows by a key of a composite type", (server) =>
    Effect.gen(function* () {
      const sql = `CREATE TYPE pair AS (a int, b text); CREATE TABLE t (k pair, n int, v text, PRIMARY KEY (k, n)); ${markTable}`
      const source = yield* makeWorkspace(server, { sql })
      const target = yield* makeWorkspace(server, { sql })
      const copying = yield* startCopy(copyOptions(source, target))
      yield* source.sql("INSERT INTO t VALUES ('(1,a)', 1, 'x'), ('(2,b)', 1, 'y'), ('(3,)', 1, 'z')")
      yield* source.sql(
        "UPDATE t SET v = 'u' WHERE n = 1; UPDATE t SET k = '(9,z)' WHERE v = 'u' AND k = '(1,a)'::pair"
      )
      yield* source.sql("DELETE FROM t WHERE k = '(2,b)'::pair")
      yield* copying.during(caughtUp(source, target))
      const rows = "SELECT k::text, n, v FROM t ORDER BY 1"
      assert.deepStrictEqual(yield* target.sql(rows), yield* source.sql(rows))
      assert.strictEqual(copying.totals.missing, 0)
    })
  )

  for (const triggers of ["quiet", "fire"] as const) {
    const title = triggers === "fire" ? "where triggers fire" : "where they do not"
    onServer(
      "postgres",
      `updates a row with an identity column, also one that moves, and its children stay: ${title}`,
      (server) =>
        Effect.gen(function* () {
          const sql = `CREATE TABLE parent (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            n int GENERATED ALWAYS AS IDENTITY, v text, twice int GENERATED ALWAYS AS (id * 2) STORED);
          CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE); ${markTable}`
          const source = yield* makeWorkspace(server, { sql })
          const target = yield* makeWorkspace(server, { sql })
          const copying = yield* startCopy(copyOptions(source, target, { triggers }))
          yield* copying.during(caughtUp(source, target))
          yield* source.sql("INSERT INTO parent (v) VALUES ('a'), ('b'); INSERT INTO child VALUES (10, 1), (11, 2)")
          yield* source.sql("UPDATE parent SET v = 'c' WHERE id = 1")
          yield* source.sql(
            "UPDATE parent SET n = DEFAULT WHERE id = 1; UPDATE parent SET n = DEFAULT, v = 'd' WHERE id = 2"
          )
          yield* source.sql("UPDATE parent SET id = DEFAULT WHERE id = 2")
          yield* copying.during(caughtUp(source, target))
          for (const table of ["parent", "child"]) {
            const rows = `SELECT * FROM ${table} ORDER BY id`
            assert.deepStrictEqual(yield* target.sql(rows), yield* source.sql(rows), table)
          }
          assert.strictEqual(copying.totals.missing, 0)
        })
    )
  }

  onServer(
    "postgres",
    "of the newest version equals its source of the oldest",
    (oldest) =>
      Effect.gen(function* () {
        const newest = yield* PgServer.make(PostgresVersion.serverOptions(18))
        const tables = `${workloadTables({})}; ${markTable}`
        const source = yield* makeWorkspace(oldest, { sql: tables })
        const target = yield* makeWorkspace(newest, { sql: tables })
        yield* runWorkload(source.session, { seed, statements: 600 })
        const copying = yield* startCopy(copyOptions(source, target))
        yield* copying.during(runWorkload(source.session, { seed: seed + 1, statements: 600 }))
        yield* copying.during(caughtUp(source, target))
        assert.deepStrictEqual(yield* checksums(target), yield* checksums(source), `COPY_SEED=${seed}`)
      }),
    { until: 14, timeout: 90_000 }
  )

  onServer(
    "postgres",
    "finds rows by the target's own index, writes what is identity there, and leaves out what is generated there",
    (server) =>
      Effect.gen(function* () {
        const common = `${markTable}; CREATE TABLE loose (a int, b json); ALTER TABLE loose REPLICA IDENTITY FULL`
        const source = yield* makeWorkspace(server, {
          sql: `${common}; CREATE TABLE t (id int PRIMARY KEY, seq int, total int, note varchar(10))`
        })
        const target = yield* makeWorkspace(server, {
          sql: `${common}; CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            seq int GENERATED ALWAYS AS IDENTITY, total bigint GENERATED ALWAYS AS (seq * 2) STORED,
            note text, extra text DEFAULT 'ours')`
        })
        yield* source.sql(
          "INSERT INTO t VALUES (1, 10, 20, 'a'), (2, 11, 22, 'b'); INSERT INTO loose VALUES (1, '{}'), (1, '{}')"
        )
        const copying = yield* startCopy(copyOptions(source, target))
        yield* copying.during(caughtUp(source, target))
        yield* source.sql(`UPDATE t SET seq = 30, note = 'c' WHERE id = 1; UPDATE t SET id = 5 WHERE id = 2;
          INSERT INTO t VALUES (7, 70, 140, NULL); DELETE FROM loose WHERE ctid = (SELECT min(ctid) FROM loose)`)
        yield* copying.during(caughtUp(source, target))
        const rows = yield* target.sql("SELECT id, seq, total, note, extra FROM t ORDER BY id")
        assert.deepStrictEqual(rows, [
          { id: 1, seq: 30, total: "60", note: "c", extra: "ours" },
          { id: 5, seq: 11, total: "22", note: "b", extra: "ours" },
          { id: 7, seq: 70, total: "140", note: null, extra: "ours" }
        ])
        assert.deepStrictEqual(yield* target.sql("SELECT a FROM loose"), [{ a: 1 }])
      })
  )

  onServer("postgres", "keeps two in step in both directions, and sends nothing back", (server) =>
    Effect.gen(function* () {
      const one = yield* makeWorkspace(server, { sql: orders })
      const other = yield* makeWorkspace(server, { sql: "CREATE TABLE orders (id int PRIMARY KEY, note text)" })
      yield* other.sql(markTable)
      yield* one.sql("INSERT INTO orders VALUES (1, 'one')")
      const there = yield* startCopy(copyOptions(one, other, { replicated: "skip" }))
      yield* there.during(caughtUp(one, other))
      const back = yield* startCopy(copyOptions(other, one, { replicated: "skip", rows: "leave" }))
      yield* back.during(eventually(other.isStreaming(), { what: "the way back streams" }))
      yield* one.sql("INSERT INTO orders VALUES (2, 'one'); UPDATE orders SET note = 'changed' WHERE id = 1")
      yield* other.sql("INSERT INTO orders VALUES (3, 'other')")
      yield* there.during(endMark(one, other, -1))
      yield* back.during(endMark(other, one, -2))
      // What came back would be here by now, behind the marks of both.
      yield* there.during(endMark(one, other, -3))
      const rows = yield* one.sql("SELECT id, note FROM orders ORDER BY id")
      assert.deepStrictEqual(rows, [
        { id: 1, note: "changed" },
        { id: 2, note: "one" },
        { id: 3, note: "other" }
      ])
      assert.deepStrictEqual(yield* other.sql("SELECT id, note FROM orders ORDER BY id"), rows)
      assert.strictEqual(back.totals.changes, 2, "the row and the mark that were written there")
      assert.strictEqual(there.totals.missing + back.totals.missing, 0)
    })
  )

  onServer("postgres", "goes on where it stood, also from an idle slot, and passes over what was applied", (server) =>
    Effect.gen(function* () {
      const source = yield* makeWorkspace(server, { sql: orders })
      const target = yield* makeWorkspace(server, { sql: orders })
      yield* source.sql("INSERT INTO orders SELECT n, 'first' FROM generate_series(1, 1000) n")
      const options = copyOptions(source, target)
      const first = yield* startCopy(options)
      yield* first.during(caughtUp(source, target))
      yield* first.stop
      yield* source.sql(
        "SELECT pg_logical_emit_message(false, 'idle', 'x'); INSERT INTO orders VALUES (2000, 'while it was away')"
      )
      const second = yield* startCopy({ ...options, whenMissing: "fail" })
      yield* second.during(caughtUp(source, target))
      assert.strictEqual(second.totals.rows, 0)
      assert.strictEqual(second.totals.changes, 2)
      assert.deepStrictEqual(yield* target.sql("SELECT count(*)::int AS n FROM orders"), [{ n: 1001 }])
    })
  )

  onServer(
    "postgres",
    "refuses before the first row what would go wrong, and makes nothing unless it is told to",
    (server) =>
      Effect.gen(function* () {
        const source = yield* makeWorkspace(server, { sql: orders })
        const target = yield* makeWorkspace(server, { sql: "SELECT" })
        const options = copyOptions(source, target)
        const without = yield* refusal(options)
        assert.strictEqual(without._tag, "CopyMismatch")
        assert.include(without.message, '"public"."orders" is missing')
        yield* target.sql(`CREATE TABLE orders (id smallint PRIMARY KEY, extra int NOT NULL); ${markTable}`)
        const misfit = yield* refusal(options)
        assert.include(misfit.message, 'column "id" is smallint, and integer at the source')
        assert.include(misfit.message, 'column "note" is missing')
        assert.include(misfit.message, 'column "extra" is NOT NULL')
        yield* target.sql("DROP TABLE orders; CREATE TABLE orders (id int, note text)")
        assert.include((yield* refusal(options)).message, "has no unique index over (id)")
        yield* target.sql("ALTER TABLE orders ADD PRIMARY KEY (id); INSERT INTO orders VALUES (9)")

        const notSetUp = yield* refusal({ ...options, whenMissing: "fail" })
        assert.strictEqual(notSetUp._tag, "CopyNotSetUp")
        assert.include(notSetUp.message, `slot "${source.slot}" at the source`)
        assert.include(String(notSetUp.remedy), "CREATE TABLE IF NOT EXISTS replicant.copy_position")
        const filled = yield* refusal(options)
        assert.strictEqual(filled._tag, "TargetNotEmpty")
        assert.include(filled.message, '"public"."orders"')
        assert.strictEqual((yield* refusal(copyOptions(source, source)))._tag, "TargetIsSource")
        yield* assertNothingMade(source, target)

        const copying = yield* startCopy({ ...options, whenFilled: "truncate" })
        yield* copying.during(caughtUp(source, target))
        assert.deepStrictEqual(yield* target.sql("SELECT FROM orders"), [])
        yield* copying.stop
        yield* source.sql("DROP PUBLICATION IF EXISTS nobody")
        yield* target.sql("DELETE FROM replicant.copy_position")
        assert.strictEqual((yield* refusal({ ...options, whenFilled: "truncate" }))._tag, "CopyPositionLost")
      }),
    { timeout: 60_000 }
  )

  onServer(
    "postgres",
    "tells a role what it lacks, statement by statement, until it may",
    (server) =>
      Effect.gen(function* () {
        const source = yield* makeWorkspace(server, { sql: orders })
        const target = yield* makeWorkspace(server, { sql: orders })
        const role = `${target.database}_writer`
        yield* Effect.acquireRelease(target.sql(`CREATE ROLE ${role} LOGIN PASSWORD 'secret'`), () =>
          Effect.ignore(target.sql(`DROP OWNED BY ${role}; DROP ROLE ${role}`))
        )
        const to = { url: Redacted.make(target.url(role, "secret")) }
        const options: Copy.Options = { ...copyOptions(source, target), to }
        const triggers = yield* refusal(options)
        assert.strictEqual(triggers._tag, "TargetDenied")
        assert.include(triggers.message, "session_replication_role")
        const fire: Copy.Options = { ...options, triggers: "fire" }
        const tables = yield* refusal(fire)
        assert.include(String(tables.remedy), 'GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON "public"."orders"')
        yield* target.sql(`GRANT ALL ON ALL TABLES IN SCHEMA public TO ${role}`)
        const origin = yield* refusal(fire)
        assert.include(String(origin.remedy), "GRANT EXECUTE ON FUNCTION pg_catalog.pg_replication_origin_oid(text)")
        const schema = yield* refusal({ ...fire, origin: "unmarked" })
        assert.strictEqual(schema._tag, "TargetDenied")
        assert.include(String(schema.remedy), "GRANT CREATE ON DATABASE")
        yield* assertNothingMade(source, target)
        yield* target.sql(`GRANT CREATE ON DATABASE ${quoteIdentifier(target.database)} TO ${role}`)
        yield* source.sql("INSERT INTO orders VALUES (1, 'copied')")
        const copying = yield* startCopy({ ...fire, origin: "unmarked" })
        yield* copying.during(caughtUp(source, target))
        assert.deepStrictEqual(yield* target.sql("SELECT note FROM orders"), [{ note: "copied" }])
        yield* copying.stop
      }),
    { timeout: 60_000 }
  )

  onServer(
    "postgres",
    "takes wider types, an extension's in another schema, and where asked whatever can be read",
    (server) =>
      Effect.gen(function* () {
        const source = yield* makeWorkspace(server, {
          sql: `CREATE EXTENSION citext; CREATE TABLE t (id int PRIMARY KEY, a citext, b numeric(4,2), c json, d int[]); ${markTable};
          INSERT INTO t VALUES (1, 'A', 1.25, '{"a": 1}', '{1}')`
        })
        const columns = "id bigint PRIMARY KEY, a extensions.citext, b numeric(6,3), c jsonb"
        const target = yield* makeWorkspace(server, {
          sql: `CREATE SCHEMA extensions; CREATE EXTENSION citext SCHEMA extensions; CREATE TABLE t (${columns}, d text[]); ${markTable}`
        })
        const refused = yield* refusal(copyOptions(source, target))
        assert.strictEqual(
          refused.message,
          [
            "the target does not fit what is published:",
            '"public"."t", column "d" is text[], and integer[] at the source'
          ].join(" ")
        )
        const copying = yield* startCopy(copyOptions(source, target, { types: "any" }))
        yield* copying.during(caughtUp(source, target))
        yield* source.sql("UPDATE t SET d = '{2}' WHERE id = 1; INSERT INTO t VALUES (2, 'B', 2, NULL, '{}')")
        yield* copying.during(caughtUp(source, target))
        assert.deepStrictEqual(yield* target.sql("SELECT id, a::text, b::text, c::text, d::text FROM t ORDER BY id"), [
          { id: "1", a: "A", b: "1.250", c: '{"a": 1}', d: "{2}" },
          { id: "2", a: "B", b: "2.000", c: null, d: "{}" }
        ])
      })
  )

  onServer(
    "postgres",
    "names table and column of a value that the target cannot read, wherever it comes, and not the value",
    (server) =>
      Effect.gen(function* () {
        for (const rows of [0, 1, 100]) {
          const source = yield* makeWorkspace(server, {
            sql: `CREATE TABLE t (id int PRIMARY KEY, note text); ${markTable}`
          })
          const target = yield* makeWorkspace(server, {
            sql: `CREATE TABLE t (id int PRIMARY KEY, note int); ${markTable}`
          })
          const write = (count: number) =>
            source.sql(`INSERT INTO t SELECT n, 'top secret' FROM generate_series(1, ${count}) n`)
          // In the first copy; as one INSERT; as many, which go by COPY.
          if (rows === 0) yield* write(5)
          const copying = yield* startCopy(copyOptions(source, target, { types: "any" }))
          if (rows > 0) {
            yield* copying.during(caughtUp(source, target))
            yield* write(rows)
          }
          const failure = yield* copying.failure
          assert.deepInclude(failure, {
            _tag: "TargetFailed",
            sqlState: "22P02",
            table: '"public"."t"',
            column: "note"
          })
          assert.notInclude(JSON.stringify(failure) + failure.message, "secret")
        }
      })
  )

  onServer("postgres", "names table and constraint of what the target refuses, and no value", (server) =>
    Effect.gen(function* () {
      const source = yield* makeWorkspace(server, { sql: orders })
      const target = yield* makeWorkspace(server, { sql: orders })
      const copying = yield* startCopy(copyOptions(source, target))
      yield* copying.during(caughtUp(source, target))
      yield* target.sql("ALTER TABLE orders ADD CONSTRAINT short CHECK (length(note) < 5)")
      yield* source.sql("INSERT INTO orders VALUES (1, 'top secret')")
      const failure = yield* copying.failure
      assert.strictEqual(failure._tag, "TargetFailed")
      assert.include(failure.message, '"public"."orders"')
      assert.include(failure.message, '"short"')
      assert.notInclude(JSON.stringify(failure) + failure.message, "top secret")
      assert.notStrictEqual((yield* positionOf(target, source.slot))?.state, "copying")
    })
  )

  onServer(
    "postgres",
    "of changes alone never makes its slot twice: one that is gone is told, as are its changes",
    (server) =>
      Effect.gen(function* () {
        const source = yield* makeWorkspace(server, { sql: orders })
        const target = yield* makeWorkspace(server, { sql: orders })
        const options = copyOptions(source, target, { rows: "leave" })
        const first = yield* startCopy(options)
        yield* first.during(eventually(source.isStreaming(), { what: "it streams" }))
        yield* first.stop
        yield* source.sql("INSERT INTO orders VALUES (1, 'kept by the slot')")
        yield* source.sql(`SELECT pg_drop_replication_slot('${source.slot}')`)
        for (const rows of ["leave", "copy"] as const) {
          const failure = yield* refusal({ ...options, rows })
          assert.strictEqual(failure._tag, "CopyPositionLost", rows)
          assert.include(failure.message, "gone from the source")
        }
        yield* untilNoSlots(source)
      })
  )

  onServer("postgres", "of changes alone that was killed before its slot stood makes it then", (server) =>
    Effect.gen(function* () {
      const source = yield* makeWorkspace(server, { sql: orders })
      const target = yield* makeWorkspace(server, { sql: orders })
      const options = copyOptions(source, target, { rows: "leave" })
      const first = yield* startCopy(options)
      yield* first.during(eventually(source.isStreaming(), { what: "it streams" }))
      yield* first.stop
      yield* source.sql(`SELECT pg_drop_replication_slot('${source.slot}')`)
      yield* target.sql("UPDATE replicant.copy_position SET state = 'copied', end_lsn = '0/0', idle_flush = NULL")
      assert.strictEqual((yield* refusal({ ...options, whenMissing: "fail" }))._tag, "CopyNotSetUp")
      const second = yield* startCopy(options)
      yield* second.during(eventually(source.isStreaming(), { what: "it streams" }))
      yield* source.sql("INSERT INTO orders VALUES (1, 'one')")
      yield* second.during(caughtUp(source, target))
      assert.deepStrictEqual(yield* target.sql("SELECT id FROM orders"), [{ id: 1 }])
    })
  )

  onServer(
    "postgres",
    "[P12] leaves another database's slot alone, also one that is kept while rows are copied",
    (server) =>
      Effect.gen(function* () {
        const other = yield* makeWorkspace(server)
        const source = yield* makeWorkspace(server, { sql: orders })
        const target = yield* makeWorkspace(server, { sql: orders })
        yield* other.sql(`SELECT pg_create_logical_replication_slot('${source.slot}', 'pgoutput')`)
        const taken = yield* refusal(copyOptions(source, target))
        assert.strictEqual(taken._tag, "CopyPositionLost")
        assert.include(taken.message, `another database's at the source: of "${other.database}"`)
        assert.notInclude(String(taken.remedy), "drop")
        yield* other.sql(`SELECT pg_drop_replication_slot('${source.slot}')`)
        const working = `${source.slot}_copying`
        yield* other.sql(`SELECT pg_create_logical_replication_slot('${working}', 'pgoutput')`)
        const kept = yield* refusal(copyOptions(source, target))
        assert.strictEqual(kept._tag, "SlotMismatch")
        assert.notInclude(String(kept.remedy), "drop")
        assert.isDefined(yield* other.findSlot(working))
      })
  )

  onServer(
    "postgres",
    "[P12] that is given up is forgotten: slots, origin and position go, rows and others' slots stay",
    (server) =>
      Effect.gen(function* () {
        const source = yield* makeWorkspace(server, { sql: orders })
        const target = yield* makeWorkspace(server, { sql: orders })
        yield* source.sql("INSERT INTO orders VALUES (1, 'one')")
        const options = copyOptions(source, target)
        const copying = yield* startCopy(options)
        yield* copying.during(caughtUp(source, target))
        assert.include(["TargetInUse", "SlotInUse"], (yield* Effect.flip(Copy.forget(options)))._tag)
        yield* copying.stop
        const working = `${source.slot}_copying`
        yield* source.sql(`SELECT pg_create_logical_replication_slot('${working}', 'pgoutput')`)
        const left = [
          `slot "${working}" at the source`,
          `slot "${source.slot}" at the source`,
          `replication origin "replicant.${target.database}.${source.slot}" at the target`,
          `the position of "${source.slot}" in replicant.copy_position at the target`
        ]
        const args = ["copy", "--from", source.url(), "--slot", source.slot, "--forget", "--json"]
        const told = yield* replicant([...args, "--dry-run"], { TARGET_URL: target.url() })
        assert.deepStrictEqual(JSON.parse(told.stdout), { slot: source.slot, forgotten: left, dryRun: true })
        assert.strictEqual(yield* slotsOf(source), 2)
        assert.deepStrictEqual(yield* Copy.forget(options), left)
        assert.strictEqual(yield* slotsOf(source), 0)
        assert.isUndefined(yield* positionOf(target, source.slot))
        assert.deepStrictEqual(yield* target.sql("SELECT note FROM orders"), [{ note: "one" }])
        // A slot of that name is somebody else's by now.
        yield* source.sql(`SELECT pg_create_logical_replication_slot('${source.slot}', 'pgoutput')`)
        assert.strictEqual((yield* Effect.flip(Copy.forget(options)))._tag, "CopyPositionLost")
        assert.strictEqual(yield* slotsOf(source), 1)
      }),
    { timeout: 60_000 }
  )

  onServer(
    "postgres",
    "is a command that says what is missing, makes it when told to, and ends well by a signal",
    (server) =>
      Effect.gen(function* () {
        const source = yield* makeWorkspace(server, { sql: orders })
        const target = yield* makeWorkspace(server, { sql: orders })
        yield* source.sql("INSERT INTO orders VALUES (1, 'copied')")
        const args = ["copy", "--from", source.url(), "--publication", source.publication, "--slot", source.slot]
        const env = { TARGET_URL: target.url() }
        const refused = yield* replicant(args, env)
        assert.strictEqual(refused.code, 1)
        assert.include(refused.stderr, "error: missing: table replicant.copy_position at the target")
        assert.include(refused.stderr, "cure: add --create")
        assert.strictEqual((yield* replicant(args)).code, 2, "without a target")
        const running = yield* startReplicant([...args, "--create", "--json"], env)
        yield* caughtUp(source, target)
        yield* running.kill("SIGTERM")
        const ended = yield* running.ended
        assert.strictEqual(ended.code, 0, ended.stderr)
        assert.deepInclude(JSON.parse(ended.stdout), { slot: source.slot, missing: 0 })
        assert.include(ended.stderr, "made table replicant.copy_position")
      }),
    { ...once, timeout: 60_000 }
  )
})
