/** Slots and publications that are not as they were left: busy, lost, behind, ahead, or in the making. */
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import { assert, describe } from "@effect/vitest"
import {
  type Change,
  type Gap,
  type LogicalStreamOptions,
  Lsn,
  makeStreamState,
  nextLsn,
  ReplicationSlot,
  type StreamState,
  Table,
  withLogicalStream
} from "@replicant/core"
import { PgServer, type PgServerShape } from "@replicant/node/testing"
import { Deferred, Effect, Fiber, Schedule, Schema, Stream, SubscriptionRef } from "effect"
import { eventually } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { failureOf, follow, insertedRows, logicalOptions, onConnection, walSender } from "../support/Follow.ts"
import * as PostgresVersion from "../support/PostgresVersion.ts"
import { Proxy } from "../support/Proxy.ts"
import type { Server } from "../support/Servers.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY)"

const idsOf = (changes: ReadonlyArray<Change>) => insertedRows(changes).map((row) => row.id)

const gapsOf = (changes: ReadonlyArray<Change>) => changes.filter((change): change is Gap => change._tag === "Gap")

const activePid = (workspace: Workspace) =>
  Effect.map(workspace.findSlot(), (slot) => (slot?.active_pid == null ? undefined : Number(slot.active_pid)))

const terminate = (workspace: Workspace) =>
  workspace.sql(
    `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`
  )

const dropSlot = (workspace: Workspace) =>
  eventually(Effect.as(workspace.sql(`SELECT pg_drop_replication_slot('${workspace.slot}')`), true), {
    what: "the slot is dropped"
  })

const lsnOf = (text: unknown): Lsn.Lsn => Lsn.fromString(String(text))!

/** The states a stream goes through, in order. */
const watch = Effect.gen(function* () {
  const state = yield* makeStreamState
  const states: Array<StreamState> = []
  yield* Effect.forkScoped(
    Stream.runForEach(SubscriptionRef.changes(state), (now) => Effect.sync(() => states.push(now))),
    { startImmediately: true }
  )
  return { state, states }
})

describe("a slot in use", () => {
  fault("S2", "is waited for, says so, and fails with the pid once the time is over", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* follow(workspace)
      const pid = yield* activePid(workspace)
      const { state, states } = yield* watch
      const waited = yield* failureOf(workspace, { slotInUseTimeout: "400 millis", state })
      assert.deepInclude(waited, { _tag: "SlotInUse", activePid: pid })
      const seen = states.filter((now) => now._tag === "WaitingForSlot")
      assert.isAtLeast(seen.length, 2)
      assert(seen[0]?._tag === "WaitingForSlot")
      assert.strictEqual(seen[0].activePid, pid)
      assert.strictEqual(states.at(-1)?._tag, "Stopped")
      const second = yield* watch
      assert.deepInclude(yield* failureOf(workspace, { slotInUse: "fail", state: second.state }), { activePid: pid })
      assert.strictEqual(second.states.filter((now) => now._tag === "WaitingForSlot").length, 1, "asked once")
      assert.strictEqual(yield* activePid(workspace), pid, "the other one is left alone")
    })
  )

  fault(
    "S2",
    "is taken over where that is asked for, and the one that was ended waits instead of striking back",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        const takeOver = { slotInUse: "takeOver", reconnect: Schedule.spaced("50 millis") } as const
        const { state, states } = yield* watch
        const first = yield* follow(workspace, { options: { ...takeOver, state } })
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        yield* first.saw("Commit", 1)
        const pid = yield* activePid(workspace)
        const taking = yield* watch
        const second = yield* follow(workspace, { options: { ...takeOver, state: taking.state } })
        yield* eventually(
          Effect.sync(() => taking.states.some((now) => now._tag === "Streaming")),
          { what: "the second one has the slot" }
        )
        yield* workspace.sql("INSERT INTO t VALUES (2)")
        yield* second.saw("Insert", 1)
        const newPid = yield* activePid(workspace)
        assert.notStrictEqual(newPid, pid)
        yield* eventually(
          Effect.sync(() => states.some((now) => now._tag === "WaitingForSlot" && now.activePid === newPid)),
          { what: "the first one waits" }
        )
        yield* workspace.sql("INSERT INTO t VALUES (3)")
        yield* second.saw("Insert", 2)
        assert.strictEqual(yield* activePid(workspace), newPid)
        yield* second.stop
        yield* workspace.sql("INSERT INTO t VALUES (4)")
        yield* first.saw("Insert", 2)
        assert.deepStrictEqual(idsOf(first.changes), [1, 4])
        assert.deepStrictEqual(idsOf(second.changes), [2, 3])
      })
  )

  fault("S2", "is not taken from a session that is no walsender", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const old = yield* workspace.session
      yield* old.query("BEGIN; SELECT txid_current()")
      // It waits for the old transaction, and holds the slot meanwhile.
      const session = yield* workspace.session
      const making = yield* Effect.forkScoped(
        session.query(`SELECT pg_create_logical_replication_slot('${workspace.slot}', 'pgoutput')`)
      )
      const pid = yield* eventually(activePid(workspace), { what: "the slot is being made" })
      const options = { slotInUse: "takeOver", slotInUseTimeout: "500 millis", createSlot: undefined } as const
      assert.deepInclude(yield* failureOf(workspace, options), { _tag: "SlotInUse", activePid: pid })
      assert.strictEqual(yield* activePid(workspace), pid)
      yield* old.query("COMMIT")
      yield* Fiber.join(making)
    })
  )
})

describe("a slot that is missing", () => {
  fault(["S1", "V8"], "is a failure for who has streamed from it, and never made anew", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const stream = yield* follow(workspace, { options: { reconnect: Schedule.spaced("300 millis") } })
      yield* terminate(workspace)
      yield* dropSlot(workspace)
      assert.deepInclude(yield* stream.failure, { _tag: "SlotNotFound", slot: workspace.slot })
      const checkpoint = { endLsn: lsnOf("0/1") }
      assert.deepInclude(yield* failureOf(workspace, { checkpoint }), { _tag: "SlotNotFound" })
      assert.isUndefined(yield* workspace.findSlot())
    })
  )

  fault("V8", "together with its database is a failure for good", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const proxy = yield* Proxy.make(server)
      const layer = walSender(workspace, { host: proxy.host, port: proxy.port })
      const stream = yield* follow(workspace, { layer, options: { reconnect: Schedule.spaced("50 millis") } })
      yield* proxy.refuse
      yield* proxy.cut("rst")
      yield* eventually(Effect.map(activePid(workspace), (pid) => pid === undefined))
      yield* server.query(`DROP DATABASE ${workspace.database} WITH (FORCE)`)
      yield* proxy.pass
      assert.deepInclude(yield* stream.failure, { _tag: "ServerError", sqlState: "3D000", isRetryable: false })
    })
  )

  fault(["S1", "V8"], "is made anew where that is asked for, behind a gap that tells what is known", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const handled = yield* Deferred.make<void>()
      const { state, states } = yield* watch
      const stream = yield* follow(workspace, {
        options: { slotMissing: "recreate", reconnect: Schedule.spaced("300 millis"), state },
        handler: (change) => Effect.as(change._tag === "Gap" ? Deferred.await(handled) : Effect.void, nextLsn(change))
      })
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* stream.saw("Commit", 1)
      const done = stream.changes.find((change) => change._tag === "Commit")!.endLsn
      yield* terminate(workspace)
      yield* dropSlot(workspace)
      yield* workspace.sql("INSERT INTO t VALUES (2)")
      yield* stream.saw("Gap", 1)
      yield* workspace.sql("INSERT INTO t VALUES (3)")
      assert.isUndefined(yield* workspace.findSlot(), "not before the gap is handled")
      yield* Deferred.succeed(handled, undefined)
      yield* stream.saw("Insert", 2)
      assert.deepStrictEqual(idsOf(stream.changes), [1, 3])
      const [gap] = gapsOf(stream.changes)
      assert.deepInclude(gap, { slot: workspace.slot, reason: "missing" })
      assert.isTrue(gap!.lastLsn! >= done && gap!.consistentPoint > gap!.lastLsn!)
      const tags = states.map((now) => now._tag)
      assert.deepStrictEqual(tags, ["Connecting", "Streaming", "Reconnecting", "WaitingForGap", "Streaming"])
      // Nothing is left of what stood in for the slot.
      const left = yield* workspace.sql(
        `SELECT slot_name, temporary FROM pg_replication_slots WHERE database = '${workspace.database}'`
      )
      assert.deepStrictEqual(left, [{ slot_name: workspace.slot, temporary: false }])
    })
  )

  fault("S1", "and was temporary is made anew as one", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const stream = yield* follow(workspace, { options: { createSlot: "temporary", slotMissing: "recreate" } })
      yield* terminate(workspace)
      yield* stream.saw("Gap", 1)
      yield* eventually(workspace.isStreaming())
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* stream.saw("Insert", 1)
      yield* stream.stop
      yield* eventually(Effect.map(workspace.findSlot(), (slot) => slot === undefined))
    })
  )
})

/** A server whose slots are given up as soon as they hold a segment too many. */
const smallServer = (settings: Record<string, string | number> = {}) =>
  PgServer.make({
    ...PostgresVersion.serverOptions(),
    settings: { max_slot_wal_keep_size: "1MB", min_wal_size: "32MB", max_wal_size: "32MB", ...settings }
  })

/** Writes WAL until the workspace's slot is lost. */
const loseSlot = (workspace: Workspace) =>
  eventually(
    Effect.andThen(
      workspace.sql("CREATE TABLE IF NOT EXISTS filler (t text); INSERT INTO filler VALUES ('x')"),
      Effect.andThen(
        Effect.andThen(workspace.sql("SELECT pg_switch_wal()"), workspace.sql("CHECKPOINT")),
        Effect.map(workspace.findSlot(), (slot) => slot?.wal_status === "lost")
      )
    ),
    { what: "the slot is lost" }
  )

describe("a slot that is invalidated", () => {
  fault("S3", "fails and says where the loss begins; or is replaced behind a gap that comes until it is handled", () =>
    Effect.gen(function* () {
      const server = yield* smallServer()
      const workspace = yield* makeWorkspace(server, { sql: table })
      const first = yield* follow(workspace)
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* first.saw("Commit", 1)
      yield* first.stop
      const confirmed = lsnOf((yield* workspace.findSlot())?.confirmed_flush_lsn)
      yield* workspace.sql("INSERT INTO t VALUES (2)")
      yield* loseSlot(workspace)

      const failed = yield* failureOf(workspace)
      const reason = PostgresVersion.current() >= 17 ? "wal_removed" : "unknown"
      assert.deepInclude(failed, { _tag: "SlotInvalidated", slot: workspace.slot, reason, lastLsn: confirmed })

      // A consumer that dies before it has handled the gap sees it again.
      const recreate = { slotInvalidated: "recreate", createSlot: undefined } as const
      const dying = yield* Effect.flip(
        withLogicalStream({ ...logicalOptions(workspace), ...recreate }, (change) =>
          Effect.fail({ _tag: "Died" as const, change })
        ).pipe(Effect.provide(walSender(workspace)))
      )
      assert(dying._tag === "Died")
      assert.deepInclude(dying.change, { _tag: "Gap", reason })
      assert.strictEqual(
        (yield* workspace.findSlot())?.wal_status,
        "lost",
        "as long as nobody has seen what is missing"
      )

      const second = yield* follow(workspace, { options: recreate })
      yield* second.saw("Gap", 1)
      yield* eventually(workspace.isStreaming())
      yield* workspace.sql("INSERT INTO t VALUES (3)")
      yield* second.saw("Insert", 1)
      assert.deepStrictEqual(idsOf(second.changes), [3])
      assert.strictEqual(second.changes[0]?._tag, "Gap", "before anything else")
      assert.strictEqual(gapsOf(second.changes)[0]?.lastLsn, confirmed)
      yield* second.stop

      const third = yield* follow(workspace, { options: recreate })
      yield* workspace.sql("INSERT INTO t VALUES (4)")
      yield* third.saw("Insert", 1)
      assert.deepStrictEqual(gapsOf(third.changes), [], "handled once, it does not come again")
    })
  )

  fault("S10", "has warned before, where somebody watches", () =>
    Effect.gen(function* () {
      const server = yield* smallServer()
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* workspace.sql(`SELECT pg_create_logical_replication_slot('${workspace.slot}', 'pgoutput')`)
      const seen: Array<string | undefined> = []
      const watching = ReplicationSlot.walStatusChanges(workspace.slot, { interval: "10 millis" }).pipe(
        Stream.runForEach((slot) => Effect.sync(() => seen.push(slot.walStatus))),
        Effect.provide(walSender(workspace))
      )
      yield* Effect.forkScoped(watching)
      yield* eventually(Effect.sync(() => seen.length === 1))
      // WAL beyond the limit, and no checkpoint yet that would remove any.
      yield* eventually(
        Effect.andThen(
          workspace.sql("CREATE TABLE IF NOT EXISTS filler (t text); SELECT pg_switch_wal()"),
          Effect.sync(() => seen.includes("unreserved"))
        )
      )
      yield* loseSlot(workspace)
      yield* eventually(Effect.sync(() => seen.at(-1) === "lost"))
      assert.deepStrictEqual(
        [...new Set(seen)].filter((status) => status !== "extended"),
        ["reserved", "unreserved", "lost"]
      )
      assert.strictEqual(new Set(seen).size, seen.length, "each once")
    })
  )

  fault(
    ["S3", "S10"],
    "for having been idle says so",
    () =>
      Effect.gen(function* () {
        const server = yield* smallServer({ max_slot_wal_keep_size: -1, idle_replication_slot_timeout: "1s" })
        const workspace = yield* makeWorkspace(server, { sql: table })
        const stream = yield* follow(workspace)
        yield* stream.stop
        yield* loseSlot(workspace)
        assert.deepInclude(yield* failureOf(workspace), { _tag: "SlotInvalidated", reason: "idle_timeout" })
        const second = yield* follow(workspace, { options: { slotInvalidated: "recreate" } })
        yield* second.saw("Gap", 1)
        assert.strictEqual(gapsOf(second.changes)[0]?.reason, "idle_timeout")
      }),
    { since: 18 }
  )

  fault(
    "S3",
    "is kept on standbys again where it was",
    () =>
      Effect.gen(function* () {
        const server = yield* smallServer()
        const workspace = yield* makeWorkspace(server, { sql: table })
        const failover = Effect.map(
          workspace.sql(`SELECT failover FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`),
          ([row]) => row?.failover
        )
        yield* workspace.sql(
          `SELECT pg_create_logical_replication_slot('${workspace.slot}', 'pgoutput', false, false, true)`
        )
        yield* loseSlot(workspace)
        const stream = yield* follow(workspace, { options: { slotInvalidated: "recreate" } })
        yield* stream.saw("Gap", 1)
        yield* eventually(workspace.isStreaming())
        assert.strictEqual(yield* failover, true)
      }),
    { since: 17 }
  )
})

/** WAL that no stream of a workspace hears of, not even as an empty transaction, which is what PostgreSQL 14 sends. */
const elsewhere = (server: Server) => server.query("SELECT pg_logical_emit_message(true, 'elsewhere', 'text')")

describe("a checkpoint of the consumer's own", () => {
  fault("V2", "is where the stream starts, however far back the slot is", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* workspace.sql(`SELECT pg_create_logical_replication_slot('${workspace.slot}', 'pgoutput')`)
      for (const id of [1, 2, 3]) yield* workspace.sql(`INSERT INTO t VALUES (${id})`)
      const reader = yield* follow(workspace, { handler: () => Effect.succeed(undefined) })
      yield* reader.saw("Commit", 3)
      yield* reader.stop
      const ends = reader.changes.flatMap((change) => (change._tag === "Commit" ? [change.endLsn] : []))
      const stream = yield* follow(workspace, { options: { checkpoint: { endLsn: ends[1]! } } })
      yield* stream.saw("Commit", 1)
      assert.deepStrictEqual(idsOf(stream.changes), [3])
    })
  )

  fault("V9", "of another cluster, or beyond the server's WAL, fails before anything is started", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* workspace.sql(`SELECT pg_create_logical_replication_slot('${workspace.slot}', 'pgoutput')`)
      const endLsn = lsnOf("0/1")
      const other = yield* failureOf(workspace, { checkpoint: { endLsn, systemId: "1" } })
      assert.deepInclude(other, { _tag: "SystemMismatch", property: "systemId", expected: "1" })
      const ahead = yield* failureOf(workspace, { checkpoint: { endLsn: lsnOf("FF/0") } })
      assert.deepInclude(ahead, { _tag: "SystemMismatch", property: "position", expected: "FF/0" })
      const history = yield* failureOf(workspace, { checkpoint: { endLsn, timeline: 7 } })
      assert.deepInclude(history, { _tag: "SystemMismatch", property: "timeline", expected: "7", found: "1" })
      assert.isFalse((yield* workspace.findSlot())?.active)
    })
  )

  fault(
    "V9",
    "that the slot has left behind fails, unless it was stored that this was idle, or it is accepted",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        const stored: Array<Lsn.Lsn> = []
        const storeIdleFlush = (lsn: Lsn.Lsn) => Effect.sync(() => stored.push(lsn))
        const first = yield* follow(workspace, { options: { storeIdleFlush } })
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        yield* first.saw("Commit", 1)
        const endLsn = first.changes.find((change) => change._tag === "Commit")!.endLsn
        yield* elsewhere(server)
        const end = lsnOf(yield* workspace.currentWalLsn)
        const confirmed = Effect.map(workspace.findSlot(), (slot) => lsnOf(slot?.confirmed_flush_lsn))
        yield* eventually(
          Effect.map(confirmed, (lsn) => lsn >= end),
          { what: "the idle position is confirmed" }
        )
        yield* first.stop
        const idleFlush = stored.at(-1)!
        assert.isTrue((yield* confirmed) <= idleFlush, "never before it is stored")

        const ahead = yield* failureOf(workspace, { checkpoint: { endLsn } })
        assert.deepInclude(ahead, {
          _tag: "SlotAheadOfCheckpoint",
          checkpoint: endLsn,
          confirmedFlushLsn: yield* confirmed
        })
        for (const options of [
          { checkpoint: { endLsn, idleFlush } },
          { checkpoint: { endLsn }, slotAheadOfCheckpoint: "accept" } as const
        ]) {
          const again = yield* follow(workspace, { options: { ...options, storeIdleFlush } })
          yield* workspace.sql("INSERT INTO t VALUES ((SELECT max(id) + 1 FROM t))")
          yield* again.saw("Commit", 1)
          yield* again.stop
          assert.strictEqual(idsOf(again.changes).length, 1)
        }
      })
  )

  fault("V3", "whose idle positions cannot be stored holds the slot back, and no acknowledgement", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      let tried = 0
      const storeIdleFlush = () =>
        Effect.suspend(() => {
          tried++
          return Effect.fail("no disk")
        })
      const stream = yield* follow(workspace, { options: { storeIdleFlush } })
      const before = lsnOf((yield* workspace.findSlot())?.confirmed_flush_lsn)
      yield* elsewhere(server)
      yield* eventually(Effect.sync(() => tried >= 3))
      assert.strictEqual(lsnOf((yield* workspace.findSlot())?.confirmed_flush_lsn), before)
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* stream.saw("Commit", 1)
      const { endLsn } = stream.changes.find((change) => change._tag === "Commit")!
      yield* eventually(
        Effect.map(workspace.findSlot(), (slot) => lsnOf(slot?.confirmed_flush_lsn) === endLsn),
        { what: "the commit is confirmed, and nothing beyond it" }
      )
    })
  )
})

/** Another timeline of the same cluster: it comes back as a standby, and is promoted. */
const promote = Effect.fnUntraced(function* (server: PgServerShape) {
  yield* server.stop()
  yield* Effect.promise(() => writeFile(join(server.dataDirectory, "standby.signal"), ""))
  yield* server.start
  yield* server.query("SELECT pg_promote()")
})

describe("a checkpoint from before a promotion", () => {
  fault(["V7", "V9"], "holds where the server's history proves it, and is refused where it does not", () =>
    Effect.gen(function* () {
      const server = yield* PgServer.make(PostgresVersion.serverOptions())
      const workspace = yield* makeWorkspace(server, { sql: table })
      const first = yield* follow(workspace)
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* first.saw("Commit", 1)
      const endLsn = first.changes.find((change) => change._tag === "Commit")!.endLsn
      yield* first.stop
      yield* workspace.sql("INSERT INTO t VALUES (2)")
      yield* promote(server)
      yield* workspace.sql("INSERT INTO t VALUES (3)")
      const options = { checkpoint: { endLsn, timeline: 1 }, slotAheadOfCheckpoint: "accept" } as const
      const second = yield* follow(workspace, { options })
      yield* second.saw("Commit", 2)
      assert.deepStrictEqual(idsOf(second.changes), [2, 3])
      const later = second.changes.filter((change) => change._tag === "Commit").at(-1)!.endLsn
      yield* second.stop
      // As if timeline 1 had gone on there: what it wrote is not what this server has.
      const diverged = yield* failureOf(workspace, { checkpoint: { endLsn: later, timeline: 1 } })
      assert.deepInclude(diverged, { _tag: "SystemMismatch", property: "timeline", expected: "1", found: "2" })
    })
  )
})

describe("the making of a slot", () => {
  const blocked = Effect.fnUntraced(function* (workspace: Workspace) {
    const old = yield* workspace.session
    yield* old.query("SET application_name = 'forgotten'; BEGIN; SELECT txid_current() AS id")
    const [row] = yield* old.query("SELECT pg_backend_pid() AS pid")
    return { end: old.query("COMMIT"), pid: Number(row?.pid) }
  })

  fault("S9", "names the transactions that hold it up, tries again, and goes on once they have ended", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const old = yield* blocked(workspace)
      const { state, states } = yield* watch
      const options = { ...logicalOptions(workspace), slotCreationTimeout: "300 millis", state } as const
      const changes: Array<Change> = []
      yield* withLogicalStream(options, (change) =>
        Effect.succeed(nextLsn(change)).pipe(Effect.tap(() => Effect.sync(() => changes.push(change))))
      ).pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
      const causes = () => states.flatMap((now) => (now._tag === "Reconnecting" ? [now.cause] : []))
      yield* eventually(
        Effect.sync(() => causes().length >= 2),
        { what: "it has tried twice" }
      )
      const [cause] = causes()
      assert(cause?._tag === "SlotCreationBlocked")
      const named = cause.transactions.find((transaction) => transaction.pid === old.pid)
      assert.deepInclude(named, { state: "idle in transaction", applicationName: "forgotten" })
      assert.match(cause.message, new RegExp(`pid ${old.pid} .*idle in transaction.*"forgotten"`))
      assert.include(cause.remedy, "pg_terminate_backend")
      assert.notInclude(cause.message, "txid_current", "no text of queries")
      yield* old.end
      yield* eventually(workspace.isStreaming())
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* eventually(Effect.sync(() => idsOf(changes).length === 1))
    })
  )

  fault("S9", "names a prepared transaction by its gid, and nothing that a role may not see", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const gid = `${workspace.database}'s`
      const quoted = gid.replaceAll("'", "''")
      yield* Effect.acquireRelease(
        workspace.sql(`BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION '${quoted}'`),
        () => Effect.ignore(workspace.sql(`ROLLBACK PREPARED '${quoted}'`))
      )
      const blockedBy = yield* onConnection(workspace, (connection) =>
        Effect.flip(
          ReplicationSlot.createReplicationSlot(connection, {
            slot: workspace.slot,
            plugin: "pgoutput",
            timeout: "200 millis"
          })
        )
      )
      assert(blockedBy._tag === "SlotCreationBlocked")
      assert.deepInclude(
        blockedBy.transactions.find((transaction) => transaction.gid === gid),
        { state: "prepared", pid: undefined }
      )
      assert.isUndefined(yield* workspace.findSlot())
    })
  )

  fault(
    "S9",
    "ends within a second when given up, and leaves nothing behind though the old transaction goes on",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        const old = yield* blocked(workspace)
        for (let round = 0; round < 3; round++) {
          const fiber = yield* withLogicalStream(logicalOptions(workspace), () => Effect.succeed(undefined)).pipe(
            Effect.provide(walSender(workspace)),
            Effect.forkScoped
          )
          yield* eventually(
            Effect.map(workspace.findSlot(), (slot) => slot?.active === true),
            { what: "the slot is being made" }
          )
          yield* Effect.timeout(Fiber.interrupt(fiber), "1 second")
          yield* eventually(
            Effect.map(workspace.findSlot(), (slot) => slot === undefined),
            { deadline: "3 seconds", what: "the slot is gone" }
          )
        }
        yield* old.end
        const stream = yield* follow(workspace)
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        yield* stream.saw("Insert", 1)
      })
  )
})

describe("a publication", () => {
  fault(
    "S6",
    "that does not fit the declared tables is refused before the slot is made, where the program has it checked",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        const Declared = Table.make("public.t", Schema.Struct({ id: Schema.Number, name: Schema.String }))
        const publications = [workspace.publication]
        const check: LogicalStreamOptions["check"] = (connection) =>
          Table.checkPublication(connection, [Declared], { publications })
        const error = yield* failureOf(workspace, { check })
        assert(error._tag === "PublicationMismatch")
        assert.match(error.message, /declared tables.*name/)
        assert.isDefined(error.remedy)
        assert.isUndefined(yield* workspace.findSlot())
        yield* workspace.sql("ALTER TABLE t ADD COLUMN name text NOT NULL")
        const stream = yield* follow(workspace, { options: { check } })
        yield* workspace.sql("INSERT INTO t VALUES (1, 'one')")
        yield* stream.saw("Commit", 1)
      })
  )
})

describe("what the server cannot send", () => {
  fault(
    "D4",
    "is tried three times at its place, then fails telling which",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: "CREATE TABLE t (id int PRIMARY KEY, divisor int NOT NULL); ALTER TABLE t REPLICA IDENTITY FULL",
          publication: "FOR TABLE t WHERE (1 / divisor > -1)"
        })
        const { state, states } = yield* watch
        const stream = yield* follow(workspace, { options: { state, reconnect: Schedule.spaced("20 millis") } })
        yield* workspace.sql("INSERT INTO t VALUES (1, 1)")
        yield* stream.saw("Commit", 1)
        const done = stream.changes.find((change) => change._tag === "Commit")!.endLsn
        yield* workspace.sql("INSERT INTO t VALUES (2, 0)")
        const error = yield* stream.failure
        assert(error._tag === "ServerError")
        assert.deepInclude(error, { sqlState: "22012", stage: "Streaming", isRetryable: false })
        assert.isTrue(error.lsn !== undefined && error.lsn >= done)
        assert.include(error.message, "behind LSN")
        const again = states.filter((now) => now._tag === "Reconnecting")
        assert.strictEqual(again.length, 2, "three attempts in all")
        assert.deepStrictEqual(idsOf(stream.changes), [1])
      }),
    { since: 15 }
  )

  fault("D4", "because its bytes are no text of the client's encoding fails likewise", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: "CREATE TABLE t (id int PRIMARY KEY, name text)",
        encoding: "SQL_ASCII"
      })
      const { state, states } = yield* watch
      const stream = yield* follow(workspace, { options: { state, reconnect: Schedule.spaced("20 millis") } })
      yield* workspace.sql("INSERT INTO t VALUES (1, convert_from('\\xff'::bytea, 'SQL_ASCII'))")
      assert.deepInclude(yield* stream.failure, { _tag: "ServerError", sqlState: "22021" })
      assert.strictEqual(states.filter((now) => now._tag === "Reconnecting").length, 2)
    })
  )

  fault("V4", "for being cancelled is sent on the next connection", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const { state, states } = yield* watch
      const stream = yield* follow(workspace, { options: { state, reconnect: Schedule.spaced("50 millis") } })
      for (let id = 1; id <= 5; id++) {
        yield* workspace.sql(
          `SELECT pg_cancel_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`
        )
        yield* eventually(
          Effect.sync(() => states.filter((now) => now._tag === "Streaming").length === id + 1),
          { what: "it streams again" }
        )
        yield* workspace.sql(`INSERT INTO t VALUES (${id})`)
        yield* stream.saw("Insert", id)
      }
      const causes = states.flatMap((now) => (now._tag === "Reconnecting" ? [now.cause] : []))
      assert.isTrue(causes.every((cause) => cause._tag === "ServerError" && cause.sqlState === "57014"))
    })
  )
})
