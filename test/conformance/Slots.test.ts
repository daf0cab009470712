/**
 * Slots and the walsender, second part: what a slot may be called, what is refused, who may stream, and what a snapshot
 * that comes with a slot holds. First what the server does, by hand; then that Replicant lives with it.
 */
import { assert, describe } from "@effect/vitest"
import { type LogicalStream, ReplicationSlot, withLogicalStream } from "@replicant/core"
import { refineServerError, type ServerMessage, serverError } from "@replicant/core/driver"
import type { PgServerFailed } from "@replicant/node/testing"
import { Effect, Fiber, Logger, Redacted, type Scope } from "effect"
import { scenario } from "../support/Conformance.ts"
import { eventually, patience } from "../support/eventually.ts"
import { follow, insertedRows, logicalOptions, walSender } from "../support/Follow.ts"
import { connectRaw, isA, startCommand, startRaw } from "../support/RawWalSender.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY)"

/** What Replicant fails with that would stream the workspace's publication, from its slot unless told otherwise. */
const streamFailure = (workspace: Workspace, options: Partial<LogicalStream.Options> = {}) =>
  withLogicalStream({ ...logicalOptions(workspace), createSlot: undefined, ...options }, () =>
    Effect.succeed(undefined)
  ).pipe(Effect.provide(walSender(workspace)), Effect.flip, Effect.timeout(patience))

/** The notices that the driver logs. */
const withLog = <A, E, R>(effect: Effect.Effect<A, E, R>) => {
  const lines: Array<string> = []
  const logger = Logger.make<unknown, void>(({ message }) => void lines.push([message].flat().join(" ")))
  return Effect.map(Effect.provide(effect, Logger.layer([logger])), (result) => ({ result, lines }))
}

describe("slot names", () => {
  scenario("slot-names", "are refused by the server, or cut short with a notice; a taken one is told", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const connection = yield* connectRaw(workspace.url())
      const create = (name: string) =>
        connection.query(`CREATE_REPLICATION_SLOT "${name.replaceAll('"', '""')}" LOGICAL pgoutput`)
      for (const name of ["Bad Name", "o'clock"]) {
        assert.deepInclude(yield* Effect.flip(create(name)), { _tag: "ServerError", sqlState: "42602" }, name)
      }
      const unspeakable = yield* Effect.flip(create('a"b'))
      assert.deepInclude(unspeakable, { sqlState: "42601" }, "the scanner of commands knows no doubled quote")
      const long = workspace.slot.padEnd(64, "x")
      const { lines, result } = yield* withLog(create(long))
      assert.strictEqual(result[0]?.slot_name, long.slice(0, 63))
      assert.match(lines.join(), /^NOTICE 42622: /)
      assert.isDefined(yield* workspace.findSlot(long.slice(0, 63)))
      assert.deepInclude(yield* Effect.flip(create(long.slice(0, 63))), { sqlState: "42710" })
    })
  )

  scenario(
    "slot-names",
    "are checked before anything is sent, and one that is taken is no error of the server's",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        const connection = yield* connectRaw(workspace.url())
        const create = (slot: string) =>
          ReplicationSlot.createReplicationSlot(connection, { slot, plugin: "pgoutput", snapshot: "nothing" })
        for (const slot of ["Bad Name", "o'clock", 'a"b', workspace.slot.padEnd(64, "x"), ""]) {
          for (const error of [
            yield* Effect.flip(create(slot)),
            yield* streamFailure(workspace, { slot, createSlot: "permanent" })
          ]) {
            assert.deepInclude(error, { _tag: "InvalidOption", option: "slot", isRetryable: false }, slot)
          }
        }
        const slots = yield* workspace.sql(`SELECT FROM pg_replication_slots WHERE database = current_database()`)
        assert.lengthOf(slots, 0, "nothing was made of them")
        const longest = workspace.slot.padEnd(63, "x")
        assert.strictEqual((yield* create(longest)).name, longest)
        const taken = yield* Effect.flip(create(longest))
        assert.deepInclude(taken, { _tag: "SlotAlreadyExists", slot: longest, isRetryable: false })
      })
  )
})

/** The slots that cannot be streamed from, by what is wrong with them; the workspace's own is in use. */
const unusableSlots = Effect.fnUntraced(function* (workspace: Workspace, other: Workspace) {
  const { slot } = workspace
  yield* workspace.sql(`SELECT pg_create_logical_replication_slot('${slot}', 'pgoutput')`)
  yield* workspace.sql(`SELECT pg_create_logical_replication_slot('${slot}_test', 'test_decoding')`)
  yield* other.sql(`SELECT pg_create_logical_replication_slot('${other.slot}', 'pgoutput')`)
  // No database owns a physical slot, so the workspace does not know it.
  yield* Effect.acquireRelease(workspace.sql(`SELECT pg_create_physical_replication_slot('${slot}_phys')`), () =>
    Effect.ignore(workspace.sql(`SELECT pg_drop_replication_slot('${slot}_phys')`))
  )
  return {
    missing: `${slot}_missing`,
    inUse: slot,
    otherDatabase: other.slot,
    physical: `${slot}_phys`,
    otherPlugin: `${slot}_test`
  }
})

/** What the server answers to START_REPLICATION. */
const refusal = (workspace: Workspace, slot: string): Effect.Effect<ServerMessage, unknown> =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* connectRaw(workspace.url())
      const raw = yield* startRaw(connection, startCommand(slot, workspace.publication))
      return (yield* raw.hears("an error", isA("ErrorResponse"))).message
    })
  )

describe("slots that cannot be streamed from", () => {
  scenario("slot-errors", "are refused, each with its SQLSTATE, and all but one in use for good", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const slots = yield* unusableSlots(workspace, yield* makeWorkspace(server))
      yield* follow(workspace)
      const expected = [
        [slots.missing, "42704", "SlotNotFound", false],
        [slots.inUse, "55006", "SlotInUse", true],
        [slots.otherDatabase, "55000", "ServerError", false],
        [slots.physical, "55000", "ServerError", false],
        [slots.otherPlugin, "22023", "ServerError", false]
      ] as const
      for (const [slot, sqlState, tag, isRetryable] of expected) {
        const message = yield* refusal(workspace, slot)
        assert.strictEqual(message.sqlState, sqlState, slot)
        const error = refineServerError(serverError(message, "StartReplication"), { stage: "StartReplication", slot })
        assert.deepInclude(error, { _tag: tag, isRetryable }, slot)
      }
    })
  )

  scenario("slot-errors", "are told apart before streaming, and one in use is waited for", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const other = yield* makeWorkspace(server)
      const slots = yield* unusableSlots(workspace, other)
      const owner = yield* follow(workspace)
      const mismatch = { _tag: "SlotMismatch", isRetryable: false }
      const lasting: ReadonlyArray<readonly [slot: string, expected: object]> = [
        [slots.missing, { _tag: "SlotNotFound", isRetryable: false }],
        [slots.otherDatabase, { ...mismatch, property: "database", found: other.database }],
        [slots.physical, { ...mismatch, property: "type", found: "physical" }],
        [slots.otherPlugin, { ...mismatch, property: "plugin", found: "test_decoding" }]
      ]
      for (const [slot, expected] of lasting) {
        for (const createSlot of slot === slots.missing ? [undefined] : [undefined, "permanent" as const]) {
          const error: object = yield* streamFailure(workspace, { slot, createSlot })
          assert.deepInclude(error, { slot, ...expected })
        }
      }
      const pid = (yield* workspace.findSlot())?.active_pid
      const inUse: object = yield* streamFailure(workspace, { slotPolicy: { inUseTimeout: 0 } })
      assert.deepInclude(inUse, { _tag: "SlotInUse", activePid: pid, isRetryable: true })
      const waiting = yield* Effect.forkScoped(follow(workspace, { options: { createSlot: undefined } }))
      yield* eventually(
        Effect.map(
          workspace.sql(
            `SELECT FROM pg_stat_replication r JOIN pg_stat_activity a USING (pid)
             WHERE a.datname = current_database() AND r.state = 'startup'`
          ),
          (rows) => rows.length > 0
        ),
        { what: "a second consumer waits" }
      )
      yield* owner.stop
      const second = yield* Fiber.join(waiting)
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* second.saw("Commit", 1)
      assert.deepStrictEqual(insertedRows(second.changes), [{ id: 1 }])
      assert.deepStrictEqual(owner.changes, [])
    })
  )
})

/** A role of the test's own, gone with the scope. Roles are the cluster's, so the name is the workspace's. */
const makeRole = (workspace: Workspace, name: string, attributes: string) =>
  Effect.acquireRelease(workspace.sql(`CREATE ROLE ${name} LOGIN PASSWORD 'secret' ${attributes}`), () =>
    Effect.ignore(workspace.sql(`DROP OWNED BY ${name}; DROP ROLE ${name}`))
  )

describe("permissions", () => {
  scenario("permissions", "ask for REPLICATION, at each connection and never later", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const role = `${workspace.database}_role`
      yield* makeRole(workspace, role, "NOREPLICATION")
      const layer = walSender(workspace, { user: role, password: Redacted.make("secret") })
      const denied = { _tag: "PermissionDenied", stage: "Connect", isRetryable: false } as const
      const refused = yield* Effect.flip(connectRaw(workspace.url(), { user: role, password: Redacted.make("secret") }))
      assert.deepInclude(refused, denied)
      const streamed = withLogicalStream(logicalOptions(workspace), () => Effect.succeed(undefined))
      assert.deepInclude(yield* Effect.flip(Effect.provide(streamed, layer)), denied)
      assert.isUndefined(yield* workspace.findSlot())

      yield* workspace.sql(`ALTER ROLE ${role} REPLICATION`)
      const stream = yield* follow(workspace, { layer })
      const pid = (yield* workspace.findSlot())?.active_pid
      yield* workspace.sql(`ALTER ROLE ${role} NOREPLICATION`)
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* stream.saw("Commit", 1)
      assert.strictEqual((yield* workspace.findSlot())?.active_pid, pid, "on the same connection")
      yield* workspace.sql(`SELECT pg_terminate_backend(${pid})`)
      assert.deepInclude(yield* stream.failure, denied)
    })
  )

  scenario("permissions", "ask for SELECT where a snapshot is read, and nowhere in the stream", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: `CREATE TABLE closed (id int PRIMARY KEY); CREATE TABLE hidden (id int PRIMARY KEY);
              ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; ALTER TABLE hidden FORCE ROW LEVEL SECURITY;
              CREATE POLICY none ON hidden USING (false)`
      })
      const role = `${workspace.database}_role`
      yield* makeRole(workspace, role, "REPLICATION")
      yield* workspace.sql(`GRANT SELECT ON hidden TO ${role}`)
      const credentials = { user: role, password: Redacted.make("secret") }
      const stream = yield* follow(workspace, { layer: walSender(workspace, credentials) })
      yield* workspace.sql(
        "BEGIN; INSERT INTO closed VALUES (1); INSERT INTO hidden VALUES (2); UPDATE hidden SET id = 3; COMMIT"
      )
      yield* stream.saw("Commit", 1)
      assert.deepStrictEqual(
        stream.changes.map((change) => change._tag),
        ["Begin", "Insert", "Insert", "Update", "Commit"]
      )
      assert.deepStrictEqual(insertedRows(stream.changes), [{ id: 1 }, { id: 2 }])

      const connection = yield* connectRaw(workspace.url(), credentials)
      const slot = `${workspace.slot}_snapshot`
      const create = { slot, plugin: "pgoutput", snapshot: "export" } as const
      const { snapshotName } = yield* ReplicationSlot.createReplicationSlot(connection, create)
      const reader = yield* connectRaw(workspace.url(), credentials)
      yield* reader.query(`BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '${snapshotName}'`)
      assert.deepStrictEqual(yield* reader.query("SELECT id FROM hidden"), [], "row security applies to it")
      assert.deepInclude(yield* Effect.flip(reader.query("SELECT id FROM closed")), { sqlState: "42501" })
    })
  )
})

/** Ids in a session that reads by that snapshot. */
const readSnapshot = (
  workspace: Workspace,
  snapshot: string | undefined
): Effect.Effect<
  { readonly ids: Effect.Effect<ReadonlyArray<unknown>, PgServerFailed> },
  PgServerFailed,
  Scope.Scope
> =>
  Effect.gen(function* () {
    const session = yield* workspace.session
    yield* session.query(`BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '${snapshot}'`)
    return { ids: Effect.map(session.query("SELECT id FROM t ORDER BY id"), (rows) => rows.map((row) => row.id)) }
  })

describe("snapshots of slots", () => {
  scenario("snapshot-export", "hold every row that the stream does not, and none that it does", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      let written = 0
      const write = Effect.suspend(() => workspace.sql(`INSERT INTO t VALUES (${++written})`))
      const busy = yield* workspace.session
      yield* write
      const writing = yield* Effect.forkScoped(
        Effect.forever(
          Effect.andThen(
            // None is cut off: it would be in doubt whether it is there.
            Effect.uninterruptible(Effect.suspend(() => busy.query(`INSERT INTO t VALUES (${++written})`))),
            Effect.yieldNow
          )
        )
      )
      yield* eventually(Effect.sync(() => written > 20))
      const connection = yield* connectRaw(workspace.url())
      const { snapshotName } = yield* ReplicationSlot.createReplicationSlot(connection, {
        slot: workspace.slot,
        plugin: "pgoutput",
        snapshot: "export"
      })
      const after = written
      yield* eventually(Effect.sync(() => written > after + 20))
      const copied = yield* readSnapshot(workspace, snapshotName)
      const copiedToo = yield* readSnapshot(workspace, snapshotName)
      const ids = yield* copied.ids
      assert.deepStrictEqual(yield* copiedToo.ids, ids)
      yield* Fiber.interrupt(writing)
      yield* eventually(Effect.as(busy.query("SELECT 1"), true))
      const total = (yield* workspace.sql("SELECT id FROM t")).length

      yield* connection.query("SELECT 1")
      const gone = yield* Effect.flip(Effect.scoped(readSnapshot(workspace, snapshotName)))
      assert.oneOf(gone.sqlState, ["22023", "42704"])
      assert.deepStrictEqual(yield* copied.ids, ids, "who has it keeps it")

      const stream = yield* follow(workspace, { options: { createSlot: undefined } })
      yield* stream.saw("Commit", total - ids.length)
      yield* write
      yield* stream.saw("Commit", total - ids.length + 1)
      const streamed = insertedRows(stream.changes).map((row) => row.id)
      const everything = [...ids, ...streamed]
      assert.isAbove(ids.length, 0)
      assert.isAbove(streamed.length, 20)
      assert.deepStrictEqual(
        everything,
        Array.from({ length: total + 1 }, (_, index) => (index < total ? index + 1 : written))
      )
      yield* stream.stop
      yield* ReplicationSlot.dropReplicationSlot(connection, workspace.slot)
      assert.isUndefined(yield* workspace.findSlot())
    })
  )

  scenario("snapshot-export", "go with their connection, as a temporary slot does", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const { slot } = workspace
      const create = { slot, plugin: "pgoutput", snapshot: "export", temporary: true } as const
      const snapshotName = yield* Effect.scoped(
        Effect.gen(function* () {
          const connection = yield* connectRaw(workspace.url())
          const made = yield* ReplicationSlot.createReplicationSlot(connection, create)
          const found = yield* ReplicationSlot.getReplicationSlot(yield* connectRaw(workspace.url()), slot)
          assert.deepInclude(found, { isTemporary: true })
          yield* Effect.scoped(readSnapshot(workspace, made.snapshotName))
          return made.snapshotName
        })
      )
      yield* eventually(Effect.map(workspace.findSlot(), (found) => found === undefined))
      assert.oneOf((yield* Effect.flip(Effect.scoped(readSnapshot(workspace, snapshotName)))).sqlState, [
        "22023",
        "42704"
      ])
    })
  )
})
