/** Every way to fail, provoked on a real server: the tag, whether it is retried, the cure, and nothing left behind. */
import { assert, describe } from "@effect/vitest"
import { Handler, Pgoutput, Publication, ReplicationSlot, WalSender, withLogicalStream } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { FaultProxy, PgServer } from "@replicant/node/testing"
import { Effect, Layer, Redacted, Schedule } from "effect"
import { eventually } from "./support/eventually.ts"
import { failureOf, follow, logicalOptions, onConnection, walSender } from "./support/Follow.ts"
import * as PostgresVersion from "./support/PostgresVersion.ts"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace } from "./support/Workspace.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY)"

describe("errors", () => {
  onServer("postgres", "[S1] SlotNotFound where no slot was asked to be made", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const error = yield* failureOf(workspace, { createSlot: undefined })
      assert.deepInclude(error, { _tag: "SlotNotFound", slot: workspace.slot, isRetryable: false })
    })
  )

  onServer(
    "postgres",
    "[S2] SlotInUse names the pid, once the slot stayed in use for as long as one would wait",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        yield* follow(workspace)
        const pid = (yield* workspace.findSlot())!.active_pid
        const error = yield* failureOf(workspace, { slotPolicy: { inUseTimeout: "300 millis" } })
        assert.deepInclude(error, { _tag: "SlotInUse", activePid: Number(pid), isRetryable: true })
        assert.include((error as { remedy: string }).remedy, `pg_terminate_backend(${pid})`)
      })
  )

  onServer("postgres", "SlotInUse is waited out until the other consumer leaves", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const first = yield* follow(workspace)
      const second = yield* follow(workspace)
      yield* first.stop
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* second.saw("Commit", 1)
    })
  )

  onServer("postgres", "[S4] SlotAlreadyExists, SlotMismatch for a physical slot and another plugin's", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const make = ReplicationSlot.createReplicationSlot
      const twice = yield* onConnection(workspace, (connection) =>
        Effect.andThen(
          make(connection, { slot: workspace.slot, plugin: "test_decoding" }),
          Effect.flip(make(connection, { slot: workspace.slot, plugin: "test_decoding" }))
        )
      )
      assert.deepInclude(twice, { _tag: "SlotAlreadyExists", isRetryable: false })
      const plugin = yield* failureOf(workspace)
      assert.deepInclude(plugin, { _tag: "SlotMismatch", property: "plugin", found: "test_decoding" })
      const physical = `${workspace.slot}_p`
      yield* workspace.sql(`SELECT pg_create_physical_replication_slot('${physical}')`)
      const type = yield* failureOf(workspace, { slot: physical })
      yield* workspace.sql(`SELECT pg_drop_replication_slot('${physical}')`)
      assert.deepInclude(type, { _tag: "SlotMismatch", property: "type", found: "physical" })
    })
  )

  onServer("postgres", "[S4] SlotMismatch for a slot of another database", (server) =>
    Effect.gen(function* () {
      const here = yield* makeWorkspace(server, { sql: table })
      const there = yield* makeWorkspace(server, { sql: table })
      yield* there.sql(`SELECT pg_create_logical_replication_slot('${there.slot}', 'pgoutput')`)
      const error = yield* failureOf(here, { slot: there.slot })
      assert.deepInclude(error, { _tag: "SlotMismatch", property: "database", found: there.database })
    })
  )

  onServer("postgres", "[S6] PublicationNotFound before streaming, and when it is dropped meanwhile", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const missing = yield* failureOf(workspace, { plugin: Pgoutput.make({ publications: ["MyPub"] }) })
      assert.deepInclude(missing, { _tag: "PublicationNotFound", publications: ["MyPub"], isRetryable: false })
      assert.include((missing as { remedy: string }).remedy, 'CREATE PUBLICATION "MyPub"')
      const stream = yield* follow(workspace)
      yield* workspace.sql(`DROP PUBLICATION ${workspace.publication}`)
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      assert.strictEqual((yield* stream.failure)._tag, "PublicationNotFound")
    })
  )

  onServer("postgres", "[S6] PublicationNotFound names the missing one of two publications alone", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* workspace.sql("CREATE PUBLICATION gone FOR TABLE t")
      const plugin = Pgoutput.make({ publications: [workspace.publication, "gone"] })
      const stream = yield* follow(workspace, { options: { plugin } })
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* stream.saw("Commit", 1)
      yield* workspace.sql("DROP PUBLICATION gone")
      yield* workspace.sql("INSERT INTO t VALUES (2)")
      assert.deepInclude(yield* stream.failure, { _tag: "PublicationNotFound", publications: ["gone"] })
    })
  )

  onServer("postgres", "PublicationMismatch with the statement that adds what is missing", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: `${table}; CREATE TABLE u (id int)`,
        publication: "FOR TABLE t"
      })
      const { publication: name } = workspace
      const error = yield* onConnection(workspace, (connection) =>
        Effect.flip(Publication.setupPublication(connection, { name, target: Publication.tables("t", "public.u") }))
      )
      assert(error._tag === "PublicationMismatch")
      yield* workspace.sql(error.remedy ?? "")
      yield* onConnection(workspace, (connection) =>
        Publication.setupPublication(connection, { name, target: Publication.tables("t", "u") })
      )
      // Schemas can be published from PostgreSQL 15.
      const anew = server.majorVersion < 15 ? Publication.allTables : Publication.schemas("public")
      yield* onConnection(workspace, (connection) =>
        Publication.setupPublication(connection, { name: 'The "new" one', target: anew })
      )
    })
  )

  onServer("postgres", "AuthenticationFailed for a wrong password, without quoting it", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const url = Redacted.make(workspace.url("postgres", "planted-secret"))
      const error = yield* failureOf(workspace, {}, PgWalSender.layer({ url }))
      if (error._tag === "SlotNotFound") return assert.fail("the server trusts everybody")
      assert.deepInclude(error, { _tag: "AuthenticationFailed", isRetryable: false })
      assert.notInclude(JSON.stringify(error) + String(error), "planted-secret")
    })
  )

  onServer("postgres", "PermissionDenied with ALTER ROLE for a role without REPLICATION", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const role = `${workspace.database}_role`
      yield* workspace.sql(`CREATE ROLE ${role} LOGIN PASSWORD 'secret'`)
      const error = yield* failureOf(
        workspace,
        {},
        walSender(workspace, { url: Redacted.make(workspace.url(role, "secret")) })
      )
      yield* workspace.sql(`DROP ROLE ${role}`)
      assert.deepInclude(error, { _tag: "PermissionDenied", isRetryable: false })
      assert.include((error as { remedy: string }).remedy, `ALTER ROLE "${role}" REPLICATION`)
    })
  )

  onServer("postgres", "ServerError 3D000 for a database that is not there, not retried", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const error = yield* failureOf(workspace, {}, walSender(workspace, { url: Redacted.make(server.url("nowhere")) }))
      assert.deepInclude(error, { _tag: "ServerError", sqlState: "3D000", isRetryable: false })
    })
  )

  onServer(
    "postgres",
    "[S5] InvalidOption for a slot name PostgreSQL would refuse, before anything is sent",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        for (const slot of ["Bad Name", "a'b", "x".repeat(64), ""]) {
          assert.deepInclude(yield* failureOf(workspace, { slot }), { _tag: "InvalidOption", option: "slot" })
        }
      })
  )

  onServer(
    "postgres",
    "TransactionTooLarge before a transaction fills memory, and nothing of it is confirmed",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE big (id int, t text)" })
        const options = { ...logicalOptions(workspace), memory: { maxTransactionBytes: 1_000_000 } }
        const run = withLogicalStream(
          options,
          Handler.transactions(() => Effect.void)
        ).pipe(Effect.provide(walSender(workspace)), Effect.flip)
        const fiber = yield* Effect.forkScoped(run)
        yield* eventually(workspace.isStreaming())
        yield* workspace.sql("INSERT INTO big SELECT i, repeat('x', 1000) FROM generate_series(1, 5000) i")
        const error = yield* eventually(Effect.sync(() => fiber.pollUnsafe()))
        assert.include(
          JSON.stringify(error, (_, value) => (typeof value === "bigint" ? "" : value)),
          "TransactionTooLarge"
        )
        const again = yield* follow(workspace)
        yield* again.saw("Insert", 5000)
      })
  )

  onServer(
    "postgres",
    "WalReceiverTimeout when the network swallows everything, and the stream goes on after",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        const proxy = yield* FaultProxy.make(server)
        const layer = walSender(workspace, { url: Redacted.make(workspace.url()), host: proxy.host, port: proxy.port })
        const stream = yield* follow(workspace, { options: { timing: { receiverTimeout: "1 second" } }, layer })
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        yield* stream.saw("Commit", 1)
        yield* proxy.stall()
        yield* workspace.sql("INSERT INTO t VALUES (2)")
        const before = yield* proxy.accepted
        yield* eventually(
          Effect.map(proxy.accepted, (count) => count > before),
          { what: "a new connection was tried" }
        )
        yield* proxy.pass
        yield* stream.saw("Commit", 2)
      })
  )
})

describe("errors of a server of its own", () => {
  onServer(
    "postgres",
    "[V10] LogicalDecodingDisabled with the setting to change; ServerError 53400 when slots are used up",
    () =>
      Effect.gen(function* () {
        const server = yield* PgServer.make({
          ...PostgresVersion.serverOptions(),
          settings: { wal_level: "replica", max_replication_slots: 1 }
        })
        const workspace = yield* makeWorkspace(server, { sql: table })
        const error = yield* failureOf(workspace)
        assert.deepInclude(error, { _tag: "LogicalDecodingDisabled", walLevel: "replica", isRetryable: false })
        yield* workspace.sql("SELECT pg_create_physical_replication_slot('only')")
        yield* server.query("ALTER SYSTEM SET wal_level = 'logical'")
        yield* server.restart()
        // Somebody may drop one: so it is retried.
        const full = yield* failureOf(workspace, { reconnect: Schedule.recurs(1) })
        assert.deepInclude(full, { _tag: "ServerError", sqlState: "53400", isRetryable: true })
      })
  )

  onServer("postgres", "[S3] SlotInvalidated when the server gave the slot up for want of room", () =>
    Effect.gen(function* () {
      const server = yield* PgServer.make({
        ...PostgresVersion.serverOptions(),
        settings: { max_slot_wal_keep_size: "1MB", min_wal_size: "32MB", max_wal_size: "32MB" }
      })
      const workspace = yield* makeWorkspace(server, { sql: `${table}; CREATE TABLE filler (t text)` })
      const stream = yield* follow(workspace)
      yield* stream.stop
      yield* eventually(
        Effect.gen(function* () {
          yield* workspace.sql("INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
          yield* workspace.sql("SELECT pg_switch_wal()")
          yield* workspace.sql("CHECKPOINT")
          return (yield* workspace.findSlot())?.wal_status === "lost"
        }),
        { what: "the slot was invalidated" }
      )
      const error = yield* failureOf(workspace)
      // PostgreSQL up to 16 has no column that says why: `wal_status` is `lost`, and no more.
      const reason = PostgresVersion.current() < 17 ? "unknown" : "wal_removed"
      assert.deepInclude(error, { _tag: "SlotInvalidated", reason, isRetryable: false })
    })
  )

  onServer("postgres", "[V9] SystemMismatch when another cluster answers at the same address", (server) =>
    Effect.gen(function* () {
      const other = yield* PgServer.make(PostgresVersion.serverOptions())
      const here = yield* makeWorkspace(server, { sql: table })
      const layer = movingWalSender(here.url(), other.url())
      const stream = yield* follow(here, { layer: layer.layer })
      layer.move()
      yield* here.sql(
        `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '${here.slot}'`
      )
      assert.deepInclude(yield* stream.failure, { _tag: "SystemMismatch", property: "systemId", isRetryable: false })
    })
  )
})

/** A name that leads elsewhere from some moment on. */
const movingWalSender = (from: string, to: string) => {
  let url = from
  const connect = Effect.suspend(() =>
    Effect.flatMap(WalSender, (walSender) => walSender.connect).pipe(
      Effect.provide(PgWalSender.layer({ url: Redacted.make(url) }), { local: true })
    )
  ) as never
  const layer = Layer.succeed(WalSender, WalSender.of({ connect, openSession: connect }))
  return {
    layer,
    move: () => {
      url = to
    }
  }
}
