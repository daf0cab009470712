/**
 * Tables read anew while their stream goes on, on a real server that writes meanwhile. What becomes of every interleaving is
 * a property of `TouchedKeys`, and tested there.
 */
import { assert, describe } from "@effect/vitest"
import { CheckpointStore, type Row, Snapshot } from "@replicant/core"
import { PgServer } from "@replicant/node/testing"
import { Deferred, Effect, Fiber, Latch, Redacted, SubscriptionRef } from "effect"
import { eventually, patience } from "./support/eventually.ts"
import { walSender } from "./support/Follow.ts"
import { rowText, snapshotRows, takeSnapshot } from "./support/FollowSnapshot.ts"
import { followTable, type TableTarget } from "./support/FollowTable.ts"
import * as PostgresVersion from "./support/PostgresVersion.ts"
import { onServer } from "./support/Servers.ts"
import { makeSlot } from "./support/Slot.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

/** The table as it is now, through the same decoders. */
const tableRows = (workspace: Workspace, table: string) =>
  Effect.map(takeSnapshot(workspace), (seen) =>
    snapshotRows(seen)
      .filter(({ relation }) => relation.name === table)
      .map(({ row }) => rowText(row))
      .sort()
  )

const assertSame = Effect.fnUntraced(function* (workspace: Workspace, target: TableTarget, table: string) {
  yield* target.caughtUp
  const expected = yield* tableRows(workspace, table)
  const actual = Array.from(target.rows.values(), rowText).sort()
  assert.strictEqual(actual.length, expected.length)
  for (const [index, text] of actual.entries()) assert.strictEqual(text, expected[index])
})

/** A value that lies out of line, and is not packed. */
const big = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 70))"

const toastTable = (rows: number): string => `
  CREATE TABLE orders (id int PRIMARY KEY, note text NOT NULL, big text);
  ALTER TABLE orders ALTER big SET STORAGE EXTERNAL;
  INSERT INTO orders SELECT i, 'n' || i, b FROM generate_series(1, ${rows}) i,
    LATERAL (SELECT string_agg(md5(i::text || j), '') AS b FROM generate_series(1, 70) j) v`

/** Updates with and without the big value, deletes, inserts again, and moves rows to other keys, until it is interrupted. */
const write = (workspace: Workspace, rows: number) =>
  Effect.scoped(
    Effect.gen(function* () {
      const session = yield* workspace.session
      const one = `(1 + random() * ${rows})::int`
      return yield* Effect.forever(
        session
          .query(`
          UPDATE orders SET note = 'u' || random() WHERE id BETWEEN ${one} AND 5 + ${one} AND random() < 0.1;
          UPDATE orders SET note = 'b' || random(), big = ${big} WHERE id = ${one};
          DELETE FROM orders WHERE id = ${one};
          INSERT INTO orders VALUES (${one}, 'i', ${big}) ON CONFLICT DO NOTHING;
          UPDATE orders o SET id = n.id FROM (SELECT ${one} AS of, ${one} + (random() * 2)::int * ${rows} AS id) n
            WHERE o.id = n.of AND NOT EXISTS (SELECT FROM orders x WHERE x.id = n.id)`)
          .pipe(Effect.ignore)
      )
    })
  )

/** Runs it until a request has ended. */
const during = <A, E, R>(write: Effect.Effect<unknown, E, R>, request: Effect.Effect<A, unknown>) =>
  Effect.raceFirst(Effect.andThen(write, Effect.never), request)

const waitFor = <A>(effect: Effect.Effect<A, unknown>): Effect.Effect<A, unknown> => Effect.timeout(effect, patience)

describe("a table read anew while its stream goes on", () => {
  onServer("postgres", "comes whole, on a stream that is idle otherwise", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: "CREATE TABLE orders (id int PRIMARY KEY, note text); INSERT INTO orders SELECT i, 'n' || i FROM generate_series(1, 3000) i"
      })
      yield* makeSlot(workspace)
      const target = yield* followTable(workspace, {
        table: "orders",
        key: ["id"],
        rows: [{ id: -1, note: "garbage" }]
      })
      const request = yield* target.request({ table: "orders" })
      const completed = yield* Effect.timeout(request.await, patience)
      assert.strictEqual(completed.rows, 3000)
      yield* assertSame(workspace, target, "orders")
    })
  )

  for (const isArray of [false, true]) {
    const by = isArray ? "arrays" : "single changes"
    onServer(
      "postgres",
      `becomes the table by content, from nothing, while others write to it, by ${by}`,
      (server) =>
        Effect.gen(function* () {
          const rows = isArray ? 20_000 : 4000
          const workspace = yield* makeWorkspace(server, { sql: toastTable(rows) })
          yield* makeSlot(workspace)
          const target = yield* followTable(workspace, { table: "orders", key: ["id"], isArray })
          const writers = Effect.all([write(workspace, rows), write(workspace, rows), write(workspace, rows)], {
            concurrency: "unbounded"
          })
          const request = yield* target.request({ table: "orders", chunk: { rows: 1500 } })
          yield* waitFor(during(writers, request.await))
          assert.isAbove(target.count("Update"), 20)
          const { chunks } = yield* SubscriptionRef.get(request.progress)
          assert.isAtLeast(chunks, 3)
          yield* assertSame(workspace, target, "orders")
          for (const row of target.rows.values()) assert.isString(row.big)
        }),
      { timeout: 120_000 }
    )
  }

  onServer(
    "postgres",
    "survives that the stream and the reading are cut off again and again",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: toastTable(3000) })
        yield* makeSlot(workspace)
        const target = yield* followTable(workspace, { table: "orders", key: ["id"], isArray: true })
        const request = yield* target.request({ table: "orders", chunk: { rows: 500 } })
        let cuts = 0
        const cut = Effect.gen(function* () {
          // The stream and the reader by turns, in the middle of whatever they do.
          for (; cuts < 6; cuts++) {
            yield* eventually(Effect.sync(() => target.count("SnapshotRow") >= 400 * cuts))
            yield* eventually(
              Effect.map(
                workspace.sql(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity a WHERE datname = '${workspace.database}'
                  AND backend_type = 'walsender' AND ${cuts % 2 === 0 ? "" : "NOT"} EXISTS
                  (SELECT FROM pg_replication_slots s WHERE s.active_pid = a.pid)`),
                (killed) => killed.length > 0
              )
            )
          }
        })
        yield* waitFor(during(Effect.all([write(workspace, 3000), cut], { concurrency: "unbounded" }), request.await))
        assert.isAtLeast(cuts, 2)
        yield* assertSame(workspace, target, "orders")
      }),
    { timeout: 120_000 }
  )

  onServer(
    "postgres",
    "does not put an old row over one whose commit is streamed and not yet seen, under synchronous replication",
    () =>
      Effect.gen(function* () {
        const server = yield* PgServer.make(PostgresVersion.serverOptions())
        const workspace = yield* makeWorkspace(server, { sql: toastTable(6) })
        yield* makeSlot(workspace)
        const gate = yield* Deferred.make<void>()
        const target = yield* followTable(workspace, {
          table: "orders",
          key: ["id"],
          before: (change) => (change._tag === "SnapshotRow" ? Deferred.await(gate) : Effect.void)
        })
        const request = yield* target.request({ table: "orders", chunk: { rows: 1 } })
        yield* waitFor(eventually(Effect.sync(() => target.count("TableSnapshotStarted") === 1)))
        yield* eventually(Effect.map(SubscriptionRef.get(request.progress), ({ attempt }) => attempt === 1))
        // The first row is being handled by now, or will be; what is committed from here on nobody sees.
        yield* eventually(
          Effect.map(
            workspace.sql(`SELECT FROM pg_stat_activity WHERE query LIKE '%pg_logical_emit_message%COMMIT'
            AND state = 'idle' AND datname = '${workspace.database}'`),
            (rows) => rows.length > 0
          )
        )
        const admin = yield* workspace.session
        yield* admin.query("SET synchronous_commit = local")
        yield* admin.query("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        yield* admin.query("SELECT pg_reload_conf()")
        const waiting = (count: number) =>
          eventually(
            Effect.map(
              admin.query("SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'"),
              (rows) => rows.length === count
            )
          )
        yield* eventually(
          Effect.map(workspace.sql("SHOW synchronous_standby_names"), (rows) => JSON.stringify(rows).includes("nobody"))
        )
        const statements = [
          "UPDATE orders SET note = 'streamed' WHERE id = 4",
          "DELETE FROM orders WHERE id = 5",
          "UPDATE orders SET id = 0, note = 'moved' WHERE id = 6"
        ]
        for (const [index, statement] of statements.entries()) {
          const session = yield* workspace.session
          yield* Effect.forkScoped(session.query(statement))
          yield* waiting(index + 1)
        }
        // However this ends: sessions that wait for a standby could not be closed.
        yield* Effect.addFinalizer(() =>
          Effect.ignore(
            Effect.all([
              admin.query("ALTER SYSTEM RESET synchronous_standby_names"),
              admin.query("SELECT pg_reload_conf()"),
              waiting(0)
            ])
          )
        )
        yield* Deferred.succeed(gate, undefined)
        yield* waitFor(request.await)
        // The readers of all chunks saw this, and the stream had told otherwise.
        const seen = yield* admin.query("SELECT id, note FROM orders WHERE id > 3 ORDER BY id")
        assert.deepStrictEqual(
          seen.map(({ id, note }) => `${id} ${note}`),
          ["4 n4", "5 n5", "6 n6"]
        )
        assert.deepStrictEqual(
          Array.from(target.rows.values(), ({ big, id, note }) => `${id} ${note} ${String(big).length}`).sort(),
          ["0 moved 2240", "1 n1 2240", "2 n2 2240", "3 n3 2240", "4 streamed 2240"]
        )
      }),
    { timeout: 90_000 }
  )

  onServer("postgres", "brings the rows that a condition holds for, whole, to a target that never had them", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: toastTable(400) })
      yield* makeSlot(workspace)
      const target = yield* followTable(workspace, {
        table: "orders",
        key: ["id"],
        rows: [{ id: 1, note: "kept", big: "" }]
      })
      const request = yield* target.request({
        table: "public.orders",
        where: "id % 100 = 0 -- every hundredth"
      })
      const completed = yield* waitFor(request.await)
      assert.strictEqual(completed.rows, 4)
      assert.deepStrictEqual(
        Array.from(target.rows.values(), ({ big, id, note }) => [id, note, String(big).length]),
        [
          [1, "kept", 0],
          [100, "n100", 2240],
          [200, "n200", 2240],
          [300, "n300", 2240],
          [400, "n400", 2240]
        ]
      )
      const wrong = yield* target.request({ table: "orders", where: "no_such_column = 1" })
      const error = yield* Effect.flip(waitFor(wrong.await))
      assert.deepInclude(error, { _tag: "ServerError", sqlState: "42703" })
      const next = yield* target.request({ table: "orders", where: "id = 7" })
      assert.strictEqual((yield* waitFor(next.await)).rows, 1)
    })
  )

  onServer("postgres", "may be one that has just joined the publication", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: `CREATE TABLE first (id int PRIMARY KEY); ${toastTable(50)}`,
        publication: "FOR TABLE first"
      })
      yield* makeSlot(workspace)
      const target = yield* followTable(workspace, { table: "orders", key: ["id"] })
      yield* target.caughtUp
      const early = yield* target.request({ table: "orders" })
      assert.deepInclude(yield* Effect.flip(waitFor(early.await)), { _tag: "PublicationMismatch" })
      yield* workspace.sql(`ALTER PUBLICATION ${workspace.publication} ADD TABLE orders`)
      const request = yield* target.request({ table: "orders" })
      yield* waitFor(during(write(workspace, 50), request.await))
      yield* workspace.sql("UPDATE orders SET note = 'last' WHERE id < 10")
      yield* assertSame(workspace, target, "orders")
    })
  )

  onServer("postgres", "rests while it is paused, and ends when it is cancelled", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: toastTable(300) })
      yield* makeSlot(workspace)
      let paused: Snapshot.Request | undefined
      const target: TableTarget = yield* followTable(workspace, {
        table: "orders",
        key: ["id"],
        before: (change) =>
          change._tag === "SnapshotRow" && target.count("SnapshotRow") === 100 && paused !== undefined
            ? paused.pause
            : Effect.void
      })
      paused = yield* target.request({ table: "orders", chunk: { rows: 100 }, id: "mine" })
      assert.strictEqual(yield* target.request({ table: "orders", id: "mine" }), paused)
      yield* eventually(Effect.map(SubscriptionRef.get(paused.progress), ({ isPaused }) => isPaused))
      // Others are read meanwhile, and the stream goes on.
      const other = yield* target.request({ table: "orders", where: "id = 300" })
      yield* waitFor(other.await)
      yield* workspace.sql("UPDATE orders SET note = 'while it rests', id = id + 1000 WHERE id > 150")
      yield* workspace.sql("UPDATE orders SET note = 'moved before', id = 0 WHERE id = 1299")
      yield* target.caughtUp
      assert.isBelow(target.count("SnapshotRow"), 202)
      yield* paused.resume
      yield* waitFor(paused.await)
      yield* assertSame(workspace, target, "orders")
      const cancelled = yield* target.request({ table: "orders", chunk: { rows: 1 } })
      yield* eventually(Effect.map(SubscriptionRef.get(cancelled.progress), ({ chunks }) => chunks > 2))
      yield* cancelled.cancel
      assert.deepInclude(yield* Effect.flip(cancelled.await), { _tag: "SnapshotCancelled" })
      assert.lengthOf(yield* target.requests, 0)
      yield* target.caughtUp
    })
  )

  const keys: ReadonlyArray<readonly [title: string, columns: string, key: ReadonlyArray<string>, values: string]> = [
    ["several columns", "a int, b text, PRIMARY KEY (b, a)", ["b", "a"], "i % 7, chr(97 + i % 13) || i / 91"],
    ["text in every script", 'k text COLLATE "C" PRIMARY KEY', ["k"], "chr(128512 + i % 50) || 'it''s \\ \" ü ' || i"],
    ["text in the database's order", "k text PRIMARY KEY", ["k"], "chr(65 + i % 60) || ' ' || i"],
    ["uuid", "k uuid PRIMARY KEY", ["k"], "md5(i::text)::uuid"],
    ["numeric", "k numeric PRIMARY KEY", ["k"], "i * 1.10 - 500"],
    ["bytea", "k bytea PRIMARY KEY", ["k"], "decode(md5(i::text), 'hex')"],
    ["bigint, named with quotes", '"k ""of"" it" bigint PRIMARY KEY', ['k "of" it'], "i::bigint << 40"],
    [
      "timestamp and boolean",
      "k timestamptz, b boolean, PRIMARY KEY (k, b)",
      ["k", "b"],
      "'2026-01-01'::timestamptz + (i / 2) * interval '1 us', i % 2 = 0"
    ],
    ["double precision", "k float8 PRIMARY KEY", ["k"], "i / 7.0::float8"],
    [
      "a domain over an enum",
      "k rated, n int, PRIMARY KEY (k, n)",
      ["k", "n"],
      "(ARRAY['low', 'mid', 'high'])[1 + i % 3]::mood::rated, i"
    ]
  ]
  onServer(
    "postgres",
    "may have a key of any plain type",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: `CREATE TYPE mood AS ENUM ('high', 'mid', 'low'); CREATE DOMAIN rated AS mood NOT NULL;
            ${keys
              .map(
                (
                  [, columns, , values],
                  index
                ) => `CREATE TABLE "t${index}" (${columns}); ALTER TABLE "t${index}" ADD note text;
                  INSERT INTO "t${index}" SELECT ${values} FROM generate_series(1, 500) i`
              )
              .join(";")}`
        })
        yield* makeSlot(workspace)
        for (const [index, [title, , key]] of keys.entries()) {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const target = yield* followTable(workspace, { table: `t${index}`, key, isArray: true })
              const request = yield* target.request({ table: `t${index}`, chunk: { rows: 60 } })
              const update = Effect.forever(
                Effect.ignore(workspace.sql(`UPDATE "t${index}" SET note = random() WHERE random() < 0.05`))
              )
              const completed = yield* waitFor(during(update, request.await))
              assert.strictEqual(completed.rows, 500, title)
              yield* assertSame(workspace, target, `t${index}`)
            })
          )
          yield* eventually(Effect.map(workspace.isStreaming(), (isStreaming) => !isStreaming))
        }
      }),
    { timeout: 120_000 }
  )

  onServer("postgres", "may be partitioned and published as its root", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: `CREATE TABLE orders (id int PRIMARY KEY, note text) PARTITION BY RANGE (id);
          CREATE TABLE low PARTITION OF orders FOR VALUES FROM (0) TO (500);
          CREATE TABLE high PARTITION OF orders FOR VALUES FROM (500) TO (5000);
          INSERT INTO orders SELECT i, 'n' FROM generate_series(1, 1000) i`,
        publication: "FOR ALL TABLES WITH (publish_via_partition_root)"
      })
      yield* makeSlot(workspace)
      const target = yield* followTable(workspace, { table: "orders", key: ["id"], isArray: true })
      const request = yield* target.request({ table: "orders", chunk: { rows: 90 } })
      const update = workspace.sql(
        "UPDATE orders SET id = 1001 + (random() * 3000)::int, note = 'moved' WHERE id = (random() * 1000)::int"
      )
      yield* waitFor(during(Effect.forever(Effect.ignore(update)), request.await))
      yield* assertSame(workspace, target, "orders")
      const part = yield* target.request({ table: "low" })
      assert.deepInclude(yield* Effect.flip(waitFor(part.await)), { _tag: "PublicationMismatch" })
    })
  )

  onServer("postgres", "is refused without a key or the right to read it; the right to write is not needed", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: `CREATE TABLE keyless (id int); CREATE TABLE whole (id int, n int PRIMARY KEY); ALTER TABLE whole REPLICA IDENTITY FULL;
          INSERT INTO whole VALUES (1, 1), (2, 2); CREATE TABLE secret (id int PRIMARY KEY)`
      })
      yield* makeSlot(workspace)
      const role = `${workspace.database}_reader`
      yield* Effect.acquireRelease(
        workspace.sql(
          `CREATE ROLE ${role} LOGIN REPLICATION PASSWORD 'secret'; GRANT SELECT ON keyless, whole TO ${role}`
        ),
        () => Effect.ignore(workspace.sql(`DROP OWNED BY ${role}; DROP ROLE ${role}`))
      )
      const layer = walSender(workspace, { url: Redacted.make(workspace.url(role, "secret")) })
      const target = yield* followTable(workspace, { table: "whole", key: ["n"], layer })
      const failure = (table: string) =>
        Effect.flatMap(target.request({ table }), (request) => Effect.flip(waitFor(request.await)))
      assert.deepInclude(yield* failure("keyless"), { _tag: "SnapshotRefused", reason: "NoKey" })
      const denied = yield* failure("secret")
      assert.deepInclude(denied, { _tag: "PermissionDenied" })
      assert.include(
        String((denied as { readonly remedy?: string }).remedy),
        `GRANT SELECT ON "public"."secret" TO "${role}"`
      )
      const request = yield* target.request({ table: "whole" })
      yield* waitFor(request.await)
      assert.strictEqual(target.rows.size, 2)
    })
  )

  onServer("postgres", "begins anew when it is altered, and is empty where it was truncated", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: toastTable(300) })
      yield* makeSlot(workspace)
      let at = 0
      const alter = (count: number, sql: string) =>
        Effect.suspend(() => {
          if (at !== count) return Effect.void
          at += 1
          return Effect.orDie(workspace.sql(sql))
        })
      const target: TableTarget = yield* followTable(workspace, {
        table: "orders",
        key: ["id"],
        before: (change) =>
          change._tag !== "SnapshotRow"
            ? Effect.void
            : target.count("SnapshotRow") < 100
              ? alter(0, "ALTER TABLE orders ADD more int DEFAULT 7")
              : target.count("SnapshotRow") > 200
                ? alter(1, "TRUNCATE orders; INSERT INTO orders VALUES (1, 'after', 'x', 8)")
                : Effect.void
      })
      const request = yield* target.request({ table: "orders", chunk: { rows: 50 } })
      yield* waitFor(request.await)
      assert.strictEqual(at, 2)
      assert.strictEqual(target.count("TableSnapshotStarted"), 2)
      yield* assertSame(workspace, target, "orders")
      assert.deepStrictEqual(Array.from(target.rows.values()), [{ id: 1, note: "after", big: "x", more: 8 }])
    })
  )

  onServer("postgres", "waits for transactions that were running, and says who keeps it waiting", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: toastTable(3) })
      yield* makeSlot(workspace)
      const target = yield* followTable(workspace, {
        table: "orders",
        key: ["id"],
        options: { copy: { lockTimeout: "300 millis" } }
      })
      const session = yield* workspace.session
      yield* session.query("BEGIN; UPDATE orders SET note = 'open' WHERE id = 1")
      const [self] = yield* session.query("SELECT pg_backend_pid() AS pid")
      const blocked = yield* target.request({ table: "orders" })
      const error = yield* Effect.flip(waitFor(blocked.await))
      assert(error instanceof Snapshot.Blocked)
      assert.include(error.pids, Number(self?.pid))
      yield* session.query("COMMIT")
      const request = yield* target.request({ table: "orders" })
      yield* waitFor(request.await)
      yield* assertSame(workspace, target, "orders")
    })
  )

  onServer("postgres", "goes on in the next run from what was acknowledged, where checkpoints are kept", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: toastTable(600) })
      yield* makeSlot(workspace)
      const store = yield* CheckpointStore.CheckpointStore
      const rows: Array<Row> = []
      const enough = yield* Deferred.make<void>()
      const first: TableTarget = yield* followTable(workspace, {
        table: "orders",
        key: ["id"],
        checkpoints: store,
        options: { timing: { shutdownTimeout: "50 millis" } },
        before: (change) =>
          change._tag === "SnapshotRow" && first.count("SnapshotRow") === 250
            ? Effect.andThen(Deferred.succeed(enough, undefined), Effect.never)
            : Effect.void
      })
      yield* first.request({ table: "orders", chunk: { rows: 100 }, id: "all" })
      yield* waitFor(Deferred.await(enough))
      yield* Fiber.interrupt(first.fiber)
      rows.push(...first.rows.values())
      yield* workspace.sql(
        "UPDATE orders SET note = 'between' WHERE id % 3 = 0; UPDATE orders SET id = 0 WHERE id = 555"
      )
      // It is not done before it was looked at.
      const gate = yield* Latch.make()
      const second = yield* followTable(workspace, {
        table: "orders",
        key: ["id"],
        checkpoints: store,
        rows,
        before: (change) => (change._tag === "SnapshotRow" ? gate.await : Effect.void)
      })
      yield* eventually(Effect.map(second.requests, (requests) => requests.length === 1))
      const [request] = yield* second.requests
      assert.strictEqual(request?.id, "all")
      yield* gate.open
      yield* waitFor(request!.await)
      assert.strictEqual(second.count("TableSnapshotStarted"), 0)
      assert.strictEqual(second.count("TableSnapshotResumed"), 1)
      assert.isBelow(second.count("SnapshotRow"), 450)
      yield* assertSame(workspace, second, "orders")
      yield* workspace.sql("INSERT INTO orders VALUES (10000, 'behind it', '')")
      yield* second.caughtUp
      yield* eventually(Effect.map(store.load(`tables/${workspace.slot}`), (kept) => kept._tag === "None"))
    }).pipe(Effect.provide(CheckpointStore.memory))
  )

  onServer("postgres", "is refused on streams that cannot mark a place", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int PRIMARY KEY)" })
      for (const pgoutput of [{ messages: false }, { twoPhase: true }]) {
        const target = yield* followTable(workspace, { table: "t", key: ["id"], pgoutput })
        assert.deepInclude(yield* Effect.flip(target.request({ table: "t" })), { _tag: "InvalidOption" })
      }
    })
  )
})
