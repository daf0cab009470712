/**
 * What becomes of a snapshot when somebody works on its tables, or just runs: statements on the very table that is being
 * copied, transactions that do not end, views that grow too old. How tables of every shape are copied is in
 * `Snapshot.test.ts`.
 */
import { assert, describe } from "@effect/vitest"
import { Relation, withLogicalStream } from "@replicant/core"
import { PgServer } from "@replicant/node/testing"
import { Deferred, Effect, Exit, Fiber } from "effect"
import { eventually } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { walSender } from "../support/Follow.ts"
import { followSnapshot, snapshotOptions, snapshotRows } from "../support/FollowSnapshot.ts"
import * as PostgresVersion from "../support/PostgresVersion.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"

const slotsOf = (workspace: Workspace) =>
  workspace.sql(`SELECT slot_name FROM pg_replication_slots WHERE database = '${workspace.database}'`)

/** No slot, no connection, and so no lock. */
const nothingIsLeft = (workspace: Workspace) =>
  eventually(
    Effect.map(
      Effect.all([
        slotsOf(workspace),
        workspace.sql(`SELECT FROM pg_stat_activity WHERE datname = '${workspace.database}'
          AND backend_type = 'walsender'`)
      ]),
      (found) => found.every((rows) => rows.length === 0)
    ),
    { what: "slots and connections were gone" }
  )

const waiting = (workspace: Workspace) =>
  Effect.map(
    workspace.sql(`SELECT FROM pg_stat_activity WHERE datname = '${workspace.database}' AND wait_event = 'relation'`),
    (rows) => rows.length
  )

/** Follows from a snapshot that waits at its first row until it is let go on. */
const gated = Effect.fnUntraced(function* (workspace: Workspace) {
  const opened = yield* Deferred.make<void>()
  const stream = yield* followSnapshot(workspace, {
    options: { copy: { connections: 1 } },
    handler: (change) =>
      change._tag === "SnapshotRow" ? Effect.as(Deferred.await(opened), undefined) : Effect.undefined
  })
  yield* stream.saw("SnapshotRow", 1)
  return { stream, open: Deferred.succeed(opened, undefined) }
})

describe("P2: work on the tables during a snapshot", () => {
  fault(
    "P2",
    "each statement waits until its own table is copied, whole and as it was, and then the stream has it",
    (server) =>
      Effect.gen(function* () {
        const tables = ["dropped", "truncated", "altered", "rekeyed"]
        const workspace = yield* makeWorkspace(server, {
          sql: tables
            .map(
              (table) => `CREATE TABLE ${table} (a int PRIMARY KEY, b int NOT NULL, c text);
              INSERT INTO ${table} SELECT i, -i, repeat('x', 200) FROM generate_series(1, 10000) i`
            )
            .join(";")
        })
        const { open, stream } = yield* gated(workspace)
        const statements = yield* Effect.forEach(
          [
            "DROP TABLE dropped",
            "TRUNCATE truncated",
            "ALTER TABLE altered DROP c, ALTER b TYPE bigint, ADD d text DEFAULT 'new'",
            "ALTER TABLE rekeyed DROP CONSTRAINT rekeyed_pkey, ADD PRIMARY KEY (b)"
          ],
          (statement) => Effect.forkScoped(workspace.sql(statement))
        )
        yield* eventually(Effect.map(waiting(workspace), (count) => count === statements.length))
        yield* open
        yield* stream.saw("SnapshotCompleted", 1)
        yield* Effect.forEach(statements, Fiber.join, { discard: true })
        const rows = snapshotRows(stream.seen)
        for (const table of tables) {
          const copied = rows.filter(({ relation }) => relation.name === table)
          assert.strictEqual(new Set(copied.map(({ row }) => row.a)).size, 10_000, table)
          for (const { relation, row } of copied) {
            assert.deepStrictEqual(Object.keys(row), ["a", "b", "c"])
            assert.deepStrictEqual(Relation.keyColumns(relation), ["a"])
          }
        }
        yield* stream.saw("Truncate", 1)
        yield* workspace.sql("UPDATE rekeyed SET b = 1 WHERE a = 1; DELETE FROM altered WHERE a = 2")
        yield* stream.saw("Delete", 1)
        const updated = stream.seen.find((change) => change._tag === "Update")
        assert(updated?._tag === "Update")
        assert.deepStrictEqual(Relation.keyColumns(updated.relation), ["b"])
        assert.deepStrictEqual(updated.old, { _tag: "Key", row: { b: -1 } })
      })
  )
})

describe("P7: a transaction that does not end", () => {
  fault("P7", "is named with its pid and its age, once the locks were let go in vain; nothing is left", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int); CREATE TABLE other (id int)" })
      const session = yield* workspace.session
      yield* session.query("SET application_name = 'nightly'; BEGIN; INSERT INTO other VALUES (1)")
      for (const [mode, options] of [
        ["initial", { ...snapshotOptions(workspace, "initial"), copy: { lockTimeout: "300 millis" } }],
        ["only", { ...snapshotOptions(workspace, "only"), copy: { lockTimeout: "300 millis" } }]
      ] as const) {
        const error = yield* withLogicalStream(options, () => Effect.undefined).pipe(
          Effect.provide(walSender(workspace)),
          Effect.flip
        )
        assert(error._tag === "SlotCreationBlocked", error._tag)
        assert.strictEqual(error.slot, workspace.slot, mode)
        // Beside whatever others of this server have open.
        const blocking = error.transactions.find(({ pid }) => pid === session.backendPid)
        assert.deepInclude({ ...blocking }, { applicationName: "nightly" })
        assert.isDefined(blocking?.since)
        assert.include(error.message, `pid ${session.backendPid} (since 20`)
        yield* nothingIsLeft(workspace)
      }
      yield* session.query("COMMIT")
      const stream = yield* followSnapshot(workspace)
      yield* stream.saw("SnapshotCompleted", 1)
      assert.lengthOf(snapshotRows(stream.seen), 1)
    })
  )
})

describe("P8: a view of the tables that grows too old", () => {
  // From PostgreSQL 17 on there is no such setting, and no such failure.
  fault(
    "P8",
    "fails with the server's error, what to set, and no slot left",
    () =>
      Effect.gen(function* () {
        const server = yield* PgServer.make({
          ...PostgresVersion.serverOptions(),
          settings: { old_snapshot_threshold: 0, autovacuum: "off" }
        })
        const workspace = yield* makeWorkspace(server, {
          sql: `CREATE TABLE t (id int PRIMARY KEY, pad text); ALTER TABLE t ALTER pad SET STORAGE PLAIN;
            INSERT INTO t SELECT i, repeat('x', 1900) FROM generate_series(1, 20000) i`
        })
        const { open, stream } = yield* gated(workspace)
        // As old as the snapshot, and asks whether it is too old. That takes the server five seconds, whatever the setting.
        const witness = yield* workspace.session
        yield* witness.query("BEGIN ISOLATION LEVEL REPEATABLE READ")
        yield* witness.query("SELECT count(*) FROM t")
        yield* eventually(
          workspace
            .sql("UPDATE t SET pad = pad WHERE id > 10000")
            .pipe(
              Effect.andThen(workspace.sql("VACUUM t")),
              Effect.andThen(Effect.exit(witness.query("SELECT count(*) FROM t"))),
              Effect.map(Exit.isFailure)
            ),
          { what: "a view is too old" }
        )
        yield* open
        const error = yield* stream.failure
        assert(error._tag === "ServerError", error._tag)
        assert.strictEqual(error.sqlState, "72000")
        assert.include(error.remedy ?? "", "old_snapshot_threshold")
        yield* nothingIsLeft(workspace)
      }),
    { until: 16, timeout: 60_000 }
  )
})
