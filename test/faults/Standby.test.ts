/** Another server in the place of the first: a standby that is promoted or failed over to, and an old copy. */
import { assert, describe } from "@effect/vitest"
import {
  type Change,
  CheckpointStore,
  LogicalStream,
  Lsn,
  nextLsn,
  type ReplicationError,
  SlotLease,
  type Snapshot,
  withLogicalStream
} from "@replicant/core"
import type { PgServerShape } from "@replicant/node/testing"
import { Deferred, Effect, Fiber, Schedule } from "effect"
import { textStore } from "../../packages/core/test/support/textStore.ts"
import { eventually, patience } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { insertedRows, logicalOptions, walSender } from "../support/Follow.ts"
import { once } from "../support/Servers.ts"
import { makeSlot } from "../support/Slot.ts"
import {
  appendSetting,
  copyOf,
  failOver,
  movingWalSender,
  type Standby,
  standbyOf,
  trustingServer
} from "../support/Standby.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"
import { watchState } from "../support/watchState.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY)"

/** The usual schedule would wait longer each time: what it is, LogicalStream's own tests prove. */
const soon = { reconnect: Schedule.spaced("100 millis") }

const ids = (changes: ReadonlyArray<Change>) => insertedRows(changes).map((row) => row.id as number)

/** In the order of their first arrival: at least once means that duplicates may follow. */
const arrived = (changes: ReadonlyArray<Change>) => [...new Set(ids(changes))]

/** Our stream, from whatever server `layer` leads to, and what its handler saw. */
const followAt = Effect.fnUntraced(function* (
  workspace: Workspace,
  layer: ReturnType<typeof movingWalSender>["layer"],
  createSlot: "permanent" | undefined,
  under: "nothing" | "a lease" = "nothing"
) {
  const changes: Array<Change> = []
  const stream = yield* LogicalStream.make({ ...logicalOptions(workspace), ...soon, createSlot })
  const states = yield* watchState(stream.state)
  const run = stream.run((change) => {
    changes.push(change)
    return Effect.succeed(nextLsn(change))
  })
  const running = under === "nothing" ? run : SlotLease.withLease({ slot: workspace.slot, term: "1500 millis" }, run)
  const fiber = yield* running.pipe(Effect.provide(layer), Effect.forkScoped)
  return {
    changes,
    states,
    fiber,
    /** How the server holds it back, once it does. */
    stalled: Effect.map(
      eventually(
        Effect.sync(() => states.findLast((now) => now._tag === "Stalled")),
        { what: "the stream is stalled" }
      ),
      ({ reason, remedy }) => ({ reason, remedy })
    ),
    isStreaming: Effect.sync(() => states.at(-1)?._tag === "Streaming"),
    /** With the end of its transaction, which is what is done. */
    saw: (id: number) =>
      Effect.raceFirst(
        eventually(
          Effect.sync(() => {
            const commit = changes.findLastIndex((change) => change._tag === "Commit")
            return ids(changes.slice(0, commit + 1)).includes(id)
          }),
          { what: `row ${id} arrived` }
        ),
        Fiber.join(fiber)
      ),
    failure: Effect.flip(Fiber.join(fiber)).pipe(Effect.timeout(patience)) as Effect.Effect<ReplicationError, unknown>
  }
})

const isStreamingAt = (server: PgServerShape) =>
  Effect.map(
    server.query(`SELECT pid FROM pg_stat_replication JOIN pg_replication_slots ON pid = active_pid
      WHERE slot_type = 'logical' AND state = 'streaming'`),
    ([row]) => row?.pid as number | undefined
  )

/** A stream of rows 1 and 2 whose primary was killed, and whose standby has the slot and is the primary now. */
const failedOver = Effect.fnUntraced(function* (
  workspace: Workspace,
  primary: PgServerShape,
  standby: Standby,
  under: "nothing" | "a lease" = "nothing"
) {
  yield* workspace.sql(`SELECT pg_create_logical_replication_slot('${workspace.slot}', 'pgoutput', failover => true)`)
  const moving = movingWalSender(primary.url(workspace.database))
  const stream = yield* followAt(workspace, moving.layer, "permanent", under)
  yield* eventually(isStreamingAt(primary))
  yield* workspace.sql("INSERT INTO t VALUES (1)")
  yield* stream.saw(1)
  yield* eventually(
    Effect.gen(function* () {
      yield* primary.query("SELECT pg_log_standby_snapshot()")
      const [slot] = yield* standby.server.query(
        `SELECT synced AND NOT temporary AS ready FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`
      )
      return slot?.ready === true
    }),
    { what: "the slot is on the standby" }
  )
  yield* workspace.sql("INSERT INTO t VALUES (2)")
  yield* stream.saw(2)
  yield* primary.kill
  yield* standby.promote
  yield* moving.moveTo(standby.server.url(workspace.database))
  return stream
})

describe("a standby", () => {
  fault(
    "V7",
    "that is streamed from is promoted: nothing is missed, and nothing comes twice",
    () =>
      Effect.gen(function* () {
        const primary = yield* trustingServer()
        const workspace = yield* makeWorkspace(primary, { sql: table })
        const standby = yield* standbyOf(primary)
        const moving = movingWalSender(standby.server.url(workspace.database))
        const stream = yield* followAt(workspace, moving.layer, "permanent")
        // A slot of a standby begins where the primary next tells which transactions run.
        yield* eventually(
          Effect.andThen(primary.query("SELECT pg_log_standby_snapshot()"), isStreamingAt(standby.server)),
          { what: "the standby is streamed from" }
        )
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        yield* stream.saw(1)
        yield* workspace.sql("INSERT INTO t VALUES (2)")
        yield* stream.saw(2)
        yield* primary.stop("immediate")
        yield* standby.promote
        yield* standby.server.query("INSERT INTO t VALUES (3)", workspace.database)
        yield* stream.saw(3)
        // Its walsender tells nobody of the new timeline, of which positions are from here on: so the stream asks.
        yield* eventually(
          Effect.sync(() => stream.states.some((state) => state._tag === "Streaming" && state.timeline === 2)),
          { what: "it knows the timeline" }
        )
        const pid = yield* eventually(isStreamingAt(standby.server))
        yield* standby.server.query(`SELECT pg_terminate_backend(${pid})`)
        yield* standby.server.query("INSERT INTO t VALUES (4)", workspace.database)
        yield* stream.saw(4)
        assert.deepStrictEqual(arrived(stream.changes), [1, 2, 3, 4])
      }),
    { since: 16 }
  )

  fault(
    "V13",
    "that is down holds a failover slot's stream back: it is Stalled, and streams again at once when it is back",
    () =>
      Effect.gen(function* () {
        const primary = yield* trustingServer({ synchronized_standby_slots: "standby" })
        const workspace = yield* makeWorkspace(primary, { sql: table })
        const standby = yield* standbyOf(primary)
        yield* workspace.sql(
          `SELECT pg_create_logical_replication_slot('${workspace.slot}', 'pgoutput', failover => true)`
        )
        const stream = yield* followAt(workspace, movingWalSender(primary.url(workspace.database)).layer, undefined)
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        yield* stream.saw(1)
        yield* standby.server.stop("immediate")
        yield* workspace.sql("INSERT INTO t VALUES (2)")
        const stalled = yield* stream.stalled
        assert.include(stalled.reason, '"standby" has no standby connected')
        assert.include(stalled.remedy, "synchronized_standby_slots")
        assert.notInclude(ids(stream.changes), 2)
        // It counts as started once it is a primary, which it never is.
        yield* Effect.forkScoped(standby.server.start)
        yield* stream.saw(2)
        yield* eventually(stream.isStreaming)
        assert.deepStrictEqual(arrived(stream.changes), [1, 2])
      }),
    { since: 17, timeout: 90_000 }
  )

  fault(
    "V13",
    "that is promoted with its primary's synchronized_standby_slots sends nothing: Stalled, until the setting is changed",
    () =>
      Effect.gen(function* () {
        const primary = yield* trustingServer({ synchronized_standby_slots: "standby" })
        const workspace = yield* makeWorkspace(primary, { sql: table })
        const standby = yield* standbyOf(primary, { synchronizedStandbySlots: "standby" })
        const stream = yield* failedOver(workspace, primary, standby)
        yield* standby.server.query("INSERT INTO t VALUES (3)", workspace.database)
        const stalled = yield* stream.stalled
        assert.include(stalled.reason, '"standby" does not exist on this server')
        assert.notInclude(ids(stream.changes), 3)
        yield* standby.server.query("ALTER SYSTEM SET synchronized_standby_slots = ''")
        yield* standby.server.query("SELECT pg_reload_conf()")
        yield* stream.saw(3)
        yield* eventually(stream.isStreaming)
        assert.deepStrictEqual(arrived(stream.changes), [1, 2, 3])
      }),
    { since: 17, timeout: 90_000 }
  )

  for (const under of ["nothing", "a lease"] as const) {
    const how = under === "nothing" ? "" : ", under a lease, which is taken anew there"
    fault(
      "V7",
      `that keeps the slot in step is failed over to, and the stream goes on there${how}`,
      () =>
        Effect.gen(function* () {
          const primary = yield* trustingServer({ synchronized_standby_slots: "standby" })
          const workspace = yield* makeWorkspace(primary, { sql: table })
          const standby = yield* standbyOf(primary)
          const stream = yield* failedOver(workspace, primary, standby, under)
          yield* standby.server.query("INSERT INTO t VALUES (3)", workspace.database)
          yield* stream.saw(3)
          assert.deepStrictEqual(ids(stream.changes), [1, 2, 3], "the history proves the place: nothing comes twice")
        }),
      { since: 17, timeout: 90_000 }
    )

    fault(
      ["V7", "V9"],
      `that is failed over to without what is done already is SystemMismatch, without a checkpoint too${under === "nothing" ? "" : ", and under a lease"}`,
      () =>
        Effect.gen(function* () {
          const primary = yield* trustingServer()
          const workspace = yield* makeWorkspace(primary, { sql: table })
          const standby = yield* standbyOf(primary)
          const moving = movingWalSender(primary.url(workspace.database))
          const stream = yield* followAt(workspace, moving.layer, "permanent", under)
          yield* eventually(isStreamingAt(primary))
          // The standby hears of nothing any more, and the primary goes on.
          yield* standby.server.query("ALTER SYSTEM SET primary_conninfo = ''")
          yield* standby.server.query("SELECT pg_reload_conf()")
          yield* eventually(
            Effect.map(standby.server.query("SELECT FROM pg_stat_wal_receiver"), (rows) => rows.length === 0),
            { what: "the standby follows nobody" }
          )
          yield* workspace.sql("INSERT INTO t VALUES (1)")
          yield* stream.saw(1)
          yield* primary.kill
          yield* standby.promote
          yield* standby.server.query("SELECT pg_logical_emit_message(false, 'x', repeat('y', 1000))")
          yield* moving.moveTo(standby.server.url(workspace.database))
          assert.deepInclude(yield* stream.failure, {
            _tag: "SystemMismatch",
            property: "timeline",
            isRetryable: false
          })
        }),
      under === "nothing" ? { timeout: 90_000 } : { ...once, timeout: 90_000 }
    )
  }

  fault("V8", "that is failed over to without the slot is SlotNotFound, and no slot is made anew", () =>
    Effect.gen(function* () {
      const primary = yield* trustingServer()
      const workspace = yield* makeWorkspace(primary, { sql: table })
      const standby = yield* standbyOf(primary)
      const moving = movingWalSender(primary.url(workspace.database))
      const stream = yield* followAt(workspace, moving.layer, "permanent")
      yield* eventually(isStreamingAt(primary))
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* stream.saw(1)
      yield* eventually(
        Effect.map(standby.server.query("SELECT FROM t", workspace.database), (rows) => rows.length === 1)
      )
      yield* standby.promote
      yield* moving.moveTo(standby.server.url(workspace.database))
      yield* primary.stop("immediate")
      assert.deepInclude(yield* stream.failure, { _tag: "SlotNotFound", slot: workspace.slot, isRetryable: false })
      const slots = yield* standby.server.query("SELECT FROM pg_replication_slots WHERE slot_type = 'logical'")
      assert.lengthOf(slots, 0)
    })
  )
})

describe("a first copy whose source is failed over", () => {
  fault(
    "V7",
    "goes on where the new history has all that was copied, begins anew where it has not, and is no stream's then",
    () =>
      Effect.gen(function* () {
        const primary = yield* trustingServer()
        const workspace = yield* makeWorkspace(primary, {
          sql: `${table}; INSERT INTO t SELECT generate_series(1, 20000)`
        })
        const texts = new Map<string, string>()
        const key = `snapshot/${workspace.slot}`
        const kept = () => JSON.parse(texts.get(key) ?? "{}") as Record<string, unknown>
        /** Runs it until an element comes, and gives what began it. */
        const copyUntil = Effect.fnUntraced(function* (
          tag: Snapshot.ChangeAfterSnapshot["_tag"],
          isFine: () => boolean = () => true
        ) {
          const seen: Array<string> = []
          const reached = yield* Deferred.make<void>()
          const { createSlot, ...options } = logicalOptions(workspace)
          yield* Effect.raceFirst(
            withLogicalStream(
              { ...options, ...soon, snapshot: "initial", copy: { piecePages: 4, connections: 1 } },
              (change) => {
                seen.push(change._tag)
                if (change._tag !== tag || !isFine()) return Effect.succeed(nextLsn(change))
                return Effect.andThen(Deferred.succeed(reached, undefined), Effect.never)
              }
            ),
            Deferred.await(reached)
          ).pipe(
            Effect.provideService(CheckpointStore.CheckpointStore, textStore(texts)),
            Effect.provide(walSender(workspace)),
            Effect.timeout(patience)
          )
          return seen[0]
        })
        const hasPart = () => JSON.stringify(kept()).includes('"ranges"')
        assert.strictEqual(yield* copyUntil("SnapshotRangeCompleted", hasPart), "SnapshotStarted")
        assert.strictEqual(kept().timeline, 1)
        yield* failOver(primary)
        assert.strictEqual(yield* copyUntil("SnapshotRangeCompleted"), "SnapshotResumed")
        assert.strictEqual(kept().timeline, 2)

        // A snapshot of the old history, from behind the place where it was left.
        const beyond = () => texts.set(key, JSON.stringify({ ...kept(), timeline: 1, seam: "FF/0" }))
        beyond()
        assert.strictEqual(yield* copyUntil("SnapshotCompleted"), "SnapshotStarted")
        assert.strictEqual(kept().timeline, 2)

        // Its slot is made, and the stream has something to leave out.
        yield* copyUntil("Begin").pipe(
          Effect.raceFirst(
            Effect.forever(
              Effect.andThen(
                Effect.ignore(workspace.sql("INSERT INTO t SELECT max(id) + 1 FROM t")),
                Effect.sleep("100 millis")
              )
            )
          )
        )
        const [at] = yield* workspace.sql("SELECT pg_current_snapshot() AS snapshot, 't'::regclass::oid::bigint AS oid")
        const [system] = yield* workspace.sql("SELECT system_identifier::text AS id FROM pg_control_system()")
        texts.set(
          key,
          JSON.stringify({
            version: 1,
            phase: "completed",
            slot: workspace.slot,
            systemId: system?.id,
            timeline: 1,
            consistentPoint: "0/1",
            snapshots: ["700:700:", String(at?.snapshot)],
            seam: "FF/0",
            tables: [
              {
                oid: Number(at?.oid),
                schema: "public",
                name: "t",
                description: "",
                parts: [{ oid: Number(at?.oid), fileNode: 1, ranges: [[0, 0xffff_ffff, 1]] }]
              }
            ]
          })
        )
        for (const snapshot of ["initial", "never"] as const) {
          const { createSlot, ...options } = logicalOptions(workspace)
          const error = yield* Effect.flip(
            withLogicalStream({ ...options, snapshot }, (change) => Effect.succeed(nextLsn(change)))
          ).pipe(
            Effect.provideService(CheckpointStore.CheckpointStore, textStore(texts)),
            Effect.provide(walSender(workspace)),
            Effect.timeout(patience)
          )
          assert.deepInclude(error, { _tag: "SystemMismatch", property: "timeline", expected: "1", found: "2" })
        }
      }),
    { timeout: 120_000 }
  )
})

describe("a standby that restarts", () => {
  fault(
    "V12",
    "and lets clients in before it has replayed what is done is waited for, and told of; nothing is missed",
    () =>
      Effect.gen(function* () {
        const primary = yield* trustingServer({ checkpoint_timeout: "1h", max_wal_size: "4GB", autovacuum: "off" })
        const workspace = yield* makeWorkspace(primary, { sql: table })
        const standby = yield* standbyOf(primary)
        const moving = movingWalSender(standby.server.url(workspace.database))
        const stream = yield* followAt(workspace, moving.layer, "permanent")
        yield* eventually(
          Effect.andThen(primary.query("SELECT pg_log_standby_snapshot()"), isStreamingAt(standby.server)),
          { what: "the standby is streamed from" }
        )
        // WAL that dirties no page: the standby counts as consistent before it has replayed it.
        for (let segment = 0; segment < 6; segment++) {
          yield* primary.query("SELECT pg_logical_emit_message(false, 'x', 'y'), pg_switch_wal()")
        }
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        yield* stream.saw(1)
        yield* standby.server.stop("immediate")
        // An archive far away: what is asked of it first takes a while.
        yield* appendSetting(standby.server, "restore_command = 'sleep 0.5; exit 1'")
        yield* Effect.forkScoped(standby.server.start)
        yield* workspace.sql("INSERT INTO t VALUES (2)")
        yield* stream.saw(2)
        assert.deepStrictEqual(arrived(stream.changes), [1, 2])
        const causes = stream.states.flatMap((now) => (now._tag === "Reconnecting" ? [now.cause._tag] : []))
        assert.include(causes, "StandbyBehind")
        assert.notInclude(causes, "SystemMismatch")
      }),
    { since: 16, timeout: 90_000 }
  )
})

describe("another server behind the name", () => {
  fault("V9", "that is an old copy, behind what is done, is SystemMismatch before anything is started", () =>
    Effect.gen(function* () {
      const server = yield* trustingServer()
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* makeSlot(workspace)
      const old = yield* copyOf(server, { slots: "kept" })
      const moving = movingWalSender(server.url(workspace.database))
      const stream = yield* followAt(workspace, moving.layer, undefined)
      yield* eventually(isStreamingAt(server))
      yield* workspace.sql("INSERT INTO t SELECT generate_series(1, 1000)")
      yield* stream.saw(1000)
      const end = stream.changes.flatMap((change) => (change._tag === "Commit" ? [change.endLsn] : []))[0]!
      yield* old.start
      yield* moving.moveTo(old.url(workspace.database))
      yield* server.stop("immediate")
      const error = yield* stream.failure
      assert(error._tag === "SystemMismatch")
      assert.deepInclude(error, { property: "position", isRetryable: false })
      assert.isTrue(Lsn.fromString(error.expected)! >= end)
      const [slot] = yield* old.query("SELECT active, confirmed_flush_lsn FROM pg_replication_slots")
      assert.isTrue(Lsn.fromString(String(slot?.confirmed_flush_lsn))! < end)
      assert.isFalse((yield* old.log).includes("starting logical decoding"), "START_REPLICATION was never sent")
    })
  )
})
