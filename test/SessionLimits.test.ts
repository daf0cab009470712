/**
 * Limits of a role that would end a session while it waits (`statement_timeout` and its kin): none of ours is ended by them.
 * Each has every limit that its server knows, and waits for longer than that.
 */
import { assert, describe } from "@effect/vitest"
import { type Handler, nextLsn, WalSender } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { PgSession } from "@replicant/node/testing"
import { Deferred, Effect, Logger, Random, Redacted, References } from "effect"
import { caughtUp, copyOptions, markTable, startCopy } from "./support/Copying.ts"
import { eventually, patience } from "./support/eventually.ts"
import { follow } from "./support/Follow.ts"
import { followSnapshot, snapshotRows } from "./support/FollowSnapshot.ts"
import { followTable } from "./support/FollowTable.ts"
import { once, onServer, type Server } from "./support/Servers.ts"
import { makeSlot } from "./support/Slot.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

const limit = 200

const settingsOf = ({ majorVersion }: Server): ReadonlyArray<string> => [
  "statement_timeout",
  "lock_timeout",
  "idle_in_transaction_session_timeout",
  "idle_session_timeout",
  ...(majorVersion < 17 ? [] : ["transaction_timeout"])
]

/** A role with every limit, that may do everything else. */
const limitedRole = Effect.fnUntraced(function* (server: Server) {
  const role = `limited_${(yield* Random.nextIntBetween(0, 2 ** 31)).toString(36)}`
  const settings = settingsOf(server).map((name) => `ALTER ROLE ${role} SET ${name} = ${limit}`)
  yield* Effect.acquireRelease(
    PgSession.query(server.url(), `CREATE ROLE ${role} SUPERUSER LOGIN PASSWORD 'limited'; ${settings.join("; ")}`),
    () => Effect.ignore(PgSession.query(server.url(), `DROP ROLE ${role}`))
  )
  const url = (workspace: Workspace) => Redacted.make(workspace.url(role, "limited"))
  return {
    url,
    layer: (workspace: Workspace) => PgWalSender.layer({ url: url(workspace) }),
    /** Its sessions in that database; or those that have been at what they are at for longer than any limit. */
    sessions: (workspace: Workspace, which: "all" | "waiting") =>
      Effect.map(
        workspace.sql(`SELECT pid FROM pg_stat_activity WHERE usename = '${role}' AND datname = '${workspace.database}'
          ${which === "all" ? "" : `AND state_change < clock_timestamp() - interval '${3 * limit} ms'`} ORDER BY pid`),
        (rows) => rows.map(({ pid }) => Number(pid))
      )
  }
})

type Role = Effect.Success<ReturnType<typeof limitedRole>>

/** Waits until so many sessions have outlasted every limit. */
const outlast = (role: Role, workspace: Workspace, count: number) =>
  eventually(
    Effect.map(role.sessions(workspace, "waiting"), (pids) => pids.length >= count),
    { what: `${count} sessions outlasted every limit` }
  )

const wide = (count: number) => `SELECT i AS id, repeat('x', 300) AS pad FROM generate_series(1, ${count}) i`

describe("sessions of a role with limits", () => {
  onServer("postgres", "[V14] stream on behind a slow handler, amid a transaction and when idle", (server) =>
    Effect.gen(function* () {
      const role = yield* limitedRole(server)
      const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int, pad text)" })
      const gate = yield* Deferred.make<void>()
      const stream = yield* follow(workspace, {
        layer: role.layer(workspace),
        handler: (change): Effect.Effect<Handler.Handled> =>
          change._tag === "Begin" ? Effect.as(Deferred.await(gate), undefined) : Effect.succeed(nextLsn(change))
      })
      // More than socket and reader hold: the walsender stands in it.
      yield* workspace.sql(`INSERT INTO t ${wide(100_000)}`)
      yield* stream.saw("Begin", 1)
      yield* outlast(role, workspace, 1)
      const held = yield* role.sessions(workspace, "all")
      yield* Deferred.succeed(gate, undefined)
      yield* stream.saw("Insert", 100_000)
      yield* outlast(role, workspace, 1)
      yield* workspace.sql("INSERT INTO t VALUES (0)")
      yield* stream.saw("Insert", 100_001)
      assert.deepStrictEqual(yield* role.sessions(workspace, "all"), held)
      assert.lengthOf(
        stream.changes.filter((change) => change._tag === "Begin"),
        2
      )
    })
  )

  onServer("postgres", "copy a snapshot for a slow handler, in one attempt", (server) =>
    Effect.gen(function* () {
      const role = yield* limitedRole(server)
      const workspace = yield* makeWorkspace(server, { sql: `CREATE TABLE t AS ${wide(100_000)}` })
      const gate = yield* Deferred.make<void>()
      const stream = yield* followSnapshot(workspace, {
        layer: role.layer(workspace),
        handler: (change): Effect.Effect<Handler.Handled> =>
          change._tag === "SnapshotRow" ? Effect.as(Deferred.await(gate), undefined) : Effect.succeed(nextLsn(change))
      })
      yield* stream.saw("SnapshotRow", 1)
      yield* outlast(role, workspace, 3)
      yield* Deferred.succeed(gate, undefined)
      yield* stream.saw("SnapshotCompleted", 1)
      assert.lengthOf(snapshotRows(stream.seen), 100_000)
      assert.lengthOf(
        stream.seen.filter((change) => change._tag === "SnapshotStarted"),
        1
      )
    })
  )

  onServer("postgres", "read a table anew for a slow handler", (server) =>
    Effect.gen(function* () {
      const role = yield* limitedRole(server)
      const workspace = yield* makeWorkspace(server, {
        sql: `CREATE TABLE t (id int PRIMARY KEY, pad text); INSERT INTO t ${wide(3000)}`
      })
      yield* makeSlot(workspace)
      const gate = yield* Deferred.make<void>()
      const target = yield* followTable(workspace, {
        table: "t",
        key: ["id"],
        layer: role.layer(workspace),
        before: (change) => (change._tag === "SnapshotRow" ? Deferred.await(gate) : Effect.void)
      })
      const request = yield* target.request({ table: "public.t", chunk: { rows: 100 } })
      yield* eventually(
        Effect.sync(() => target.count("TableSnapshotStarted") > 0),
        { what: "the reading has begun" }
      )
      yield* outlast(role, workspace, 2)
      const held = yield* role.sessions(workspace, "all")
      yield* Deferred.succeed(gate, undefined)
      yield* Effect.timeout(request.await, patience)
      yield* target.caughtUp
      assert.strictEqual(target.rows.size, 3000)
      yield* outlast(role, workspace, 1)
      assert.includeMembers([...held], [...(yield* role.sessions(workspace, "all"))], "no session was opened anew")
    })
  )

  onServer("postgres", "wait for a slot to be made", (server) =>
    Effect.gen(function* () {
      const role = yield* limitedRole(server)
      const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int)" })
      const session = yield* workspace.session
      yield* session.query("BEGIN; INSERT INTO t VALUES (0)")
      const release = Effect.andThen(outlast(role, workspace, 1), session.query("COMMIT"))
      const [stream] = yield* Effect.all([follow(workspace, { layer: role.layer(workspace) }), release], {
        concurrency: "unbounded"
      })
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* stream.saw("Insert", 1)
    })
  )

  onServer("postgres", "write at a copy's target, behind a lock and when idle", (server) =>
    Effect.gen(function* () {
      const role = yield* limitedRole(server)
      const sql = `CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); ${markTable}`
      const source = yield* makeWorkspace(server, { sql })
      const target = yield* makeWorkspace(server, { sql: `${sql}; TRUNCATE t` })
      const options = copyOptions(source, target, { from: { url: role.url(source) }, to: { url: role.url(target) } })
      const copying = yield* startCopy(options)
      yield* copying.during(caughtUp(source, target))
      yield* outlast(role, target, 1)
      const held = yield* role.sessions(target, "all")
      const session = yield* target.session
      yield* session.query("BEGIN; LOCK TABLE t")
      yield* source.sql("INSERT INTO t VALUES (2)")
      yield* eventually(
        Effect.map(
          target.sql(`SELECT FROM pg_stat_activity WHERE pid = ${held[0]} AND wait_event_type = 'Lock'
            AND state_change < clock_timestamp() - interval '${3 * limit} ms'`),
          (rows) => rows.length === 1
        ),
        { what: "the copy outlasted every limit behind a lock" }
      )
      yield* session.query("COMMIT")
      yield* copying.during(caughtUp(source, target))
      assert.deepStrictEqual(yield* target.sql("SELECT id FROM t ORDER BY id"), [{ id: 1 }, { id: 2 }])
      yield* outlast(role, target, 1)
      assert.deepStrictEqual(yield* role.sessions(target, "all"), held)
    })
  )

  onServer("postgres", "have none of them, whatever they are used for", (server) =>
    Effect.gen(function* () {
      const role = yield* limitedRole(server)
      const workspace = yield* makeWorkspace(server)
      const connection = yield* Effect.provide(
        Effect.flatMap(WalSender, ({ connect }) => connect),
        role.layer(workspace)
      )
      for (const name of settingsOf(server)) {
        const [row] = yield* connection.query(`SELECT current_setting('${name}') AS value`)
        assert.strictEqual(row?.value, "0", name)
      }
    })
  )

  onServer(
    "postgres",
    "[X7] are not told the server's log, where the role is: it has statements, and values in them",
    (server) =>
      Effect.gen(function* () {
        const logged: Array<string> = []
        const logger = Logger.make(({ message }) => void logged.push([message].flat().join(" ")))
        const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int PRIMARY KEY, v text)" })
        yield* workspace.sql(`ALTER DATABASE "${workspace.database}" SET client_min_messages = debug5;
          ALTER DATABASE "${workspace.database}" SET log_statement = 'all'`)
        yield* Effect.gen(function* () {
          const stream = yield* follow(workspace)
          yield* workspace.sql("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
          yield* stream.saw("Commit", 1)
          yield* stream.stop
        }).pipe(Effect.provide(Logger.layer([logger])), Effect.provideService(References.MinimumLogLevel, "All"))
        assert.deepStrictEqual(
          logged.filter((text) => /^(?:LOG|DEBUG)/.test(text)),
          []
        )
      }),
    once
  )
})
