/** What is observed of a stream, held against what the server says of it: `pg_replication_slots` and `pg_stat_replication`. */
import { assert, describe } from "@effect/vitest"
import { type Change, LogicalStream, Lsn, nextLsn } from "@replicant/core"
import type { Health, Observation } from "@replicant/core/operations"
import { FaultProxy, PgServer } from "@replicant/node/testing"
import { Effect, Exit, Fiber, Latch, Scope } from "effect"
import { eventually } from "./support/eventually.ts"
import { logicalOptions, walSender } from "./support/Follow.ts"
import * as PostgresVersion from "./support/PostgresVersion.ts"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

const tables = "CREATE TABLE items (id int PRIMARY KEY); CREATE TABLE others (id int)"
const onlyItems = "FOR TABLE items"

const health = { handlerStuck: { degraded: 1, failing: 3 } } satisfies Health.Thresholds

/** On which nobody else writes: what is not published moves the server's WAL, too. */
const quietServer = PgServer.make({ ...PostgresVersion.serverOptions(), settings: { autovacuum: "off" } })

interface Told {
  readonly confirmed: Lsn.Lsn
  readonly written: Lsn.Lsn
  readonly flushed: Lsn.Lsn
  readonly server: Lsn.Lsn
  /** Seconds. */
  readonly age: number
}

interface Watched {
  readonly observe: Effect.Effect<Observation>
  readonly health: Effect.Effect<Health.Health>
}

/** The server's word on the slot and who streams from it, as text; and how long ago that time was. */
const told = (workspace: Workspace, since = "now()") =>
  Effect.map(
    workspace.sql(`SELECT s.confirmed_flush_lsn::text, r.sent_lsn::text, r.write_lsn::text, r.flush_lsn::text,
      pg_current_wal_lsn()::text AS server, extract(epoch FROM clock_timestamp() - ${since})::float8 AS age
      FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
      WHERE slot_name = '${workspace.slot}'`),
    ([row]): Told => {
      const at = (column: string) => Lsn.fromString((row?.[column] as string | null) ?? "0/0")!
      return {
        confirmed: at("confirmed_flush_lsn"),
        written: at("write_lsn"),
        flushed: at("flush_lsn"),
        server: at("server"),
        age: row?.age as number
      }
    }
  )

/** Seen and told, where the server has not moved in between: whatever writes WAL by itself has to pause for that. */
const compared = <A>(
  workspace: Workspace,
  observe: Effect.Effect<Observation>,
  what: string,
  holds: (seen: Observation, slot: Told) => A | false
) =>
  eventually(
    Effect.gen(function* () {
      const before = yield* told(workspace)
      const seen = yield* observe
      const after = yield* told(workspace)
      return before.server === after.server && before.confirmed === after.confirmed ? holds(seen, after) : false
    }),
    { what }
  )

describe("what is observed of a stream", () => {
  onServer(
    "postgres",
    "is what the server says of its slot, while it moves, is idle, and has a handler that is stuck",
    () =>
      Effect.gen(function* () {
        const server = yield* quietServer
        const workspace = yield* makeWorkspace(server, { sql: tables, publication: onlyItems })
        const gate = yield* Latch.make(true)
        const stream = yield* LogicalStream.make({ ...logicalOptions(workspace), health })
        yield* stream
          .run((change) => gate.whenOpen(Effect.sync(() => nextLsn(change))))
          .pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
        const agrees = (what: string) =>
          compared(workspace, stream.observe, what, (seen, slot) =>
            seen.state === "Streaming" &&
            seen.confirmed === slot.confirmed &&
            seen.flushed === slot.flushed &&
            seen.received === slot.written &&
            seen.server === slot.server &&
            seen.lagBytes === Number(slot.server - slot.confirmed)
              ? seen
              : false
          )
        yield* agrees("it agrees before anything was written")
        yield* workspace.sql("INSERT INTO items SELECT generate_series(1, 1000)")
        yield* workspace.sql("INSERT INTO others SELECT generate_series(1, 1000)")
        const idle = yield* compared(
          workspace,
          stream.observe,
          "nothing is behind",
          (seen) => seen.lagBytes === 0 && seen
        )
        assert.strictEqual(idle.pending, 0)
        assert.strictEqual(idle.lagSeconds, 0)
        assert.strictEqual((yield* stream.health).status, "ok")

        yield* gate.close
        const [row] = yield* workspace.sql("INSERT INTO items VALUES (1001) RETURNING clock_timestamp()::text AS at")
        const since = `'${row?.at}'::timestamptz`
        yield* eventually(
          Effect.map(stream.health, ({ status }) => status !== "ok"),
          { what: "it is not well" }
        )
        yield* workspace.sql("INSERT INTO items SELECT generate_series(1002, 11000)")
        // Of these the stream cannot know: the socket is held back, and nobody publishes them.
        yield* workspace.sql("INSERT INTO others SELECT generate_series(1, 100000)")
        const stuck = yield* compared(workspace, stream.observe, "what is behind is the server's", (seen, slot) =>
          seen.server === slot.server && seen.confirmed === slot.confirmed ? seen : false
        )
        assert.isAbove(stuck.lagBytes!, 1_000_000)
        const before = yield* told(workspace, since)
        const seen = yield* stream.observe
        const after = yield* told(workspace, since)
        // Between the two by the server's own clock, but for how long its messages were under way.
        assert.isAtLeast(seen.lagSeconds, before.age - 2)
        assert.isAtMost(seen.lagSeconds, after.age + 2)
        assert.strictEqual(seen.oldestUnacknowledgedSeconds, seen.lagSeconds)
        assert.isAtLeast(seen.pending, 1)
        yield* eventually(
          Effect.map(
            stream.health,
            ({ reasons, status }) => status === "failing" && reasons[0]?.code === "HandlerStuck"
          ),
          { what: "it is failing, of the handler" }
        )

        yield* gate.open
        yield* agrees("it agrees once the handler has ended")
        yield* eventually(
          Effect.map(stream.health, ({ status }) => status === "ok"),
          { what: "it is well" }
        )
      })
  )

  onServer("postgres", "is never well while the server is lost, and tells since when it knows nothing of it", () =>
    Effect.gen(function* () {
      const server = yield* quietServer
      const workspace = yield* makeWorkspace(server, { sql: tables, publication: onlyItems })
      const proxy = yield* FaultProxy.make(server)
      const stream = yield* LogicalStream.make(logicalOptions(workspace))
      yield* stream
        .run((change) => Effect.succeed(nextLsn(change)))
        .pipe(Effect.provide(walSender(workspace, { host: proxy.host, port: proxy.port })), Effect.forkScoped)
      const isOk = Effect.map(stream.health, ({ status }) => status === "ok")
      yield* eventually(isOk, { what: "it is well" })
      yield* proxy.refuse
      yield* proxy.cut("rst")
      yield* eventually(
        Effect.map(isOk, (ok) => !ok),
        { what: "it is not well" }
      )
      yield* workspace.sql("INSERT INTO items VALUES (1)")
      const lost = yield* eventually(
        Effect.gen(function* () {
          assert.isFalse(yield* isOk)
          const seen = yield* stream.observe
          return seen.lagBytes === undefined && seen.attempts >= 3 ? seen : false
        }),
        { what: "it knows that it knows nothing" }
      )
      assert.isAbove(lost.lagSeconds, 0)
      assert.isAbove(lost.serverUnknownSeconds, 0)
      assert.strictEqual(lost.lastFailure?.tag, "ConnectionError")
      yield* proxy.pass
      yield* eventually(isOk, { what: "it is well again" })
      yield* compared(workspace, stream.observe, "nothing is behind", (seen) => seen.lagBytes === 0)
    })
  )

  onServer(
    "postgres",
    "is the server's own number or none, in whichever state, and never well in one that brings nothing",
    () =>
      Effect.gen(function* () {
        const server = yield* quietServer
        const sql = `${tables}; INSERT INTO items SELECT generate_series(1, 10)`
        const workspace = yield* makeWorkspace(server, { sql, publication: onlyItems })
        const acknowledge = (change: Change) => Effect.succeed(nextLsn(change))
        const holder = yield* Scope.make()
        const first = yield* LogicalStream.make(logicalOptions(workspace))
        yield* first
          .run(acknowledge)
          .pipe(Effect.provide(walSender(workspace)), Effect.forkScoped, Scope.provide(holder))
        yield* eventually(workspace.isStreaming(workspace.slot), { what: "another one has the slot" })

        /** In that state it says of the slot what the server says, or that it does not know, and since when. */
        const isTrue = (stream: Watched, state: Observation["state"]) =>
          compared(workspace, stream.observe, `it is ${state}, and tells no lie`, (seen, slot) => {
            if (seen.state !== state) return false
            assert.isTrue(seen.confirmed <= slot.confirmed)
            if (state === "Streaming") return seen.lagBytes === Number(slot.server - slot.confirmed) ? seen : false
            assert.isUndefined(seen.lagBytes)
            return seen.serverUnknownSeconds > 0 ? seen : false
          })
        const isNotWell = (stream: Watched, code: Health.Code) =>
          Effect.map(stream.health, ({ reasons, status }) => {
            assert.notStrictEqual(status, "ok")
            assert.include(
              reasons.map((reason) => reason.code),
              code
            )
          })

        const second = yield* LogicalStream.make(logicalOptions(workspace))
        yield* isTrue(second, "Idle")
        yield* isNotWell(second, "NotRun")
        const running = yield* second.run(acknowledge).pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
        yield* workspace.sql("INSERT INTO others SELECT generate_series(1, 1000)")
        yield* isTrue(second, "WaitingForSlot")
        yield* isNotWell(second, "NotStreaming")
        yield* Scope.close(holder, Exit.void)
        yield* isTrue(first, "Stopped")
        yield* isNotWell(first, "Stopped")
        yield* isTrue(second, "Streaming")
        yield* Fiber.interrupt(running)
        yield* workspace.sql("INSERT INTO items VALUES (11)")
        const stopped = yield* isTrue(second, "Stopped")
        assert.isAbove(stopped.lagSeconds, 0)
        yield* isNotWell(second, "Stopped")

        const copying = yield* LogicalStream.make({
          slot: `${workspace.slot}_rows`,
          plugin: logicalOptions(workspace).plugin,
          snapshot: "initial"
        })
        yield* copying
          .run((change) => (change._tag === "SnapshotRow" ? Effect.never : Effect.succeed(undefined)))
          .pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
        const copied = yield* isTrue(copying, "Copying")
        assert.strictEqual(copied.confirmed, Lsn.zero)
      })
  )
})
