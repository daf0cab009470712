/** Slots that are not as they were left: busy, lost, or invalidated. How they are made: SlotCreation.test.ts. */
import { assert, describe } from "@effect/vitest"
import {
  type Change,
  type Gap,
  LogicalStream,
  Lsn,
  nextLsn,
  type Replication,
  ReplicationSlot,
  WalSender,
  withLogicalStream
} from "@replicant/core"
import { FaultProxy, PgServer } from "@replicant/node/testing"
import { Deferred, Effect, Fiber, Latch, Layer, Schedule, Stream } from "effect"
import { eventually, patience } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { failureOf, follow, insertedRows, logicalOptions, walSender } from "../support/Follow.ts"
import * as PostgresVersion from "../support/PostgresVersion.ts"
import { makeSlot, untilConfirmed } from "../support/Slot.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"
import { watchState } from "../support/watchState.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY)"

const idsOf = (changes: ReadonlyArray<Change>) => insertedRows(changes).map((row) => row.id)

const gapsOf = (changes: ReadonlyArray<Change>) => changes.filter((change): change is Gap => change._tag === "Gap")

const activePid = (workspace: Workspace) =>
  Effect.map(workspace.findSlot(), (slot) => (slot?.active_pid == null ? undefined : Number(slot.active_pid)))

const terminate = (workspace: Workspace) =>
  workspace.sql(
    `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`
  )

/** Ends whoever streams from the slot, and drops it before they are let in again. */
const dropSlot = (workspace: Workspace, door: Latch.Latch) =>
  Effect.gen(function* () {
    yield* door.close
    yield* terminate(workspace)
    yield* eventually(Effect.as(workspace.sql(`SELECT pg_drop_replication_slot('${workspace.slot}')`), true), {
      what: "the slot is dropped"
    })
    yield* door.open
  })

/** Whose connections wait while a door is closed. */
const behind = (door: Latch.Latch, workspace: Workspace) =>
  Layer.effect(
    WalSender,
    Effect.map(WalSender, (real) => WalSender.of({ ...real, connect: door.whenOpen(real.connect) }))
  ).pipe(Layer.provide(walSender(workspace)))

/** What a stream that begins now fails with, and what it did until then. */
const watchedFailure = Effect.fnUntraced(function* (workspace: Workspace, options: Partial<Replication.Options>) {
  const stream = yield* LogicalStream.make({ ...logicalOptions(workspace), ...options })
  const states = yield* watchState(stream.state)
  const failure = yield* stream
    .run((change) => Effect.succeed(nextLsn(change)))
    .pipe(Effect.provide(walSender(workspace)), Effect.flip, Effect.timeout(patience))
  return { failure, states }
})

const lsnOf = (text: unknown): Lsn.Lsn => Lsn.fromString(String(text))!
describe("a slot in use", () => {
  fault("S2", "is waited for, says so, and fails with the pid once the time is over", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* follow(workspace)
      const pid = yield* activePid(workspace)
      const { failure: waited, states } = yield* watchedFailure(workspace, {
        slotPolicy: { inUseTimeout: "400 millis" }
      })
      assert.deepInclude(waited, { _tag: "SlotInUse", activePid: pid })
      const seen = states.filter((now) => now._tag === "WaitingForSlot")
      assert.isAtLeast(seen.length, 2)
      assert(seen[0]?._tag === "WaitingForSlot")
      assert.strictEqual(seen[0].activePid, pid)
      assert.strictEqual(states.at(-1)?._tag, "Stopped")
      const second = yield* watchedFailure(workspace, { slotPolicy: { inUse: "fail" } })
      assert.deepInclude(second.failure, { activePid: pid })
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
        const takeOver = { slotPolicy: { inUse: "takeOver" }, reconnect: Schedule.spaced("50 millis") } as const
        const first = yield* follow(workspace, { options: takeOver })
        const { states } = first
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        yield* first.saw("Commit", 1)
        yield* untilConfirmed(workspace, first.changes)
        const pid = yield* activePid(workspace)
        const second = yield* follow(workspace, { options: takeOver })
        yield* eventually(
          Effect.sync(() => second.states.some((now) => now._tag === "Streaming")),
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
        yield* second.saw("Commit", 2)
        yield* untilConfirmed(workspace, second.changes)
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
      const options = { slotPolicy: { inUse: "takeOver", inUseTimeout: "500 millis" }, createSlot: undefined } as const
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
      const door = yield* Latch.make(true)
      const stream = yield* follow(workspace, { layer: behind(door, workspace) })
      yield* dropSlot(workspace, door)
      assert.deepInclude(yield* stream.failure, { _tag: "SlotNotFound", slot: workspace.slot })
      const checkpoint = { endLsn: lsnOf("0/1") }
      assert.deepInclude(yield* failureOf(workspace, { checkpoint }), { _tag: "SlotNotFound" })
      assert.isUndefined(yield* workspace.findSlot())
    })
  )

  fault("V8", "together with its database is a failure for good", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const proxy = yield* FaultProxy.make(server)
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
      const door = yield* Latch.make(true)
      const stream = yield* follow(workspace, {
        layer: behind(door, workspace),
        options: { slotPolicy: { missing: "recreate" } },
        handler: (change) => Effect.as(change._tag === "Gap" ? Deferred.await(handled) : Effect.void, nextLsn(change))
      })
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* stream.saw("Commit", 1)
      const done = stream.changes.find((change) => change._tag === "Commit")!.endLsn
      yield* dropSlot(workspace, door)
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
      const tags = stream.states.map((now) => now._tag)
      assert.deepStrictEqual(tags, ["Idle", "Connecting", "Streaming", "Reconnecting", "WaitingForGap", "Streaming"])
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
      const stream = yield* follow(workspace, {
        options: { createSlot: "temporary", slotPolicy: { missing: "recreate" } }
      })
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
      const recreate = { slotPolicy: { invalidated: "recreate" }, createSlot: undefined } as const
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
      // No checkpoint comes by itself, which would lose the slot before it was seen to be near that.
      const server = yield* smallServer({ max_wal_size: "8GB" })
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* makeSlot(workspace)
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
        const second = yield* follow(workspace, { options: { slotPolicy: { invalidated: "recreate" } } })
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
        const stream = yield* follow(workspace, { options: { slotPolicy: { invalidated: "recreate" } } })
        yield* stream.saw("Gap", 1)
        yield* eventually(workspace.isStreaming())
        assert.strictEqual(yield* failover, true)
      }),
    { since: 17 }
  )
})
