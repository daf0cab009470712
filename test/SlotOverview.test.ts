/** All slots of a server as one value, and a slot's WAL budget, as servers of each version tell of them. */
import { assert, describe } from "@effect/vitest"
import { nextLsn } from "@replicant/core"
import { SlotOverview, WalBudget } from "@replicant/core/operations"
import { PgWalSender } from "@replicant/node"
import { PgServer } from "@replicant/node/testing"
import { Deferred, Effect, Metric, Redacted, Result, Schema, Stream } from "effect"
import { eventually } from "./support/eventually.ts"
import { follow, walSender } from "./support/Follow.ts"
import * as PostgresVersion from "./support/PostgresVersion.ts"
import { once, onServer } from "./support/Servers.ts"
import { makeSlot } from "./support/Slot.ts"
import { standbyOf, trustingServer } from "./support/Standby.ts"
import { makeWorkspace } from "./support/Workspace.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY, note text)"

/** So many kilobytes of WAL, which nobody is sent. */
const write = (kilobytes: number): string =>
  `SELECT pg_logical_emit_message(false, 'none', repeat('x', 1000)) FROM generate_series(1, ${kilobytes})`

const named = (overview: SlotOverview.SlotOverview, name: string) => overview.slots.find((slot) => slot.name === name)

describe("the overview of a server's slots", () => {
  onServer("postgres", "tells who streams from each, how far behind, what is kept for it and what decoding cost", () =>
    Effect.gen(function* () {
      // On which nobody else writes: else the stream may be behind at each look.
      const server = yield* PgServer.make({ ...PostgresVersion.serverOptions(), settings: { autovacuum: "off" } })
      const workspace = yield* makeWorkspace(server, { sql: table })
      const other = `${workspace.slot}_other`
      yield* workspace.sql(`SELECT pg_create_logical_replication_slot('${other}', 'pgoutput')`)
      const held = yield* Deferred.make<void>()
      const stream = yield* follow(workspace, {
        handler: (change) => Effect.as(Deferred.await(held), nextLsn(change))
      })
      yield* eventually(workspace.isStreaming())
      yield* workspace.sql("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 1000) AS i")
      const look = SlotOverview.look().pipe(Effect.provide(walSender(workspace)))
      const overview = yield* eventually(
        Effect.map(look, (found) => ((named(found, workspace.slot)?.lagBytes ?? 0) > 500_000 ? found : undefined)),
        { what: "the held stream is behind" }
      )
      assert.strictEqual(Math.floor(overview.serverVersion / 10_000), PostgresVersion.current())
      assert.isFalse(overview.isInRecovery)
      assert.deepStrictEqual(overview.lackedRights, [])
      assert.isAbove(overview.walDirectoryBytes ?? 0, 1024)
      const mine = named(overview, workspace.slot)!
      assert.deepInclude(mine, {
        type: "logical",
        plugin: "pgoutput",
        database: workspace.database,
        temporary: false,
        invalidationReason: undefined,
        failover: PostgresVersion.current() >= 17 ? false : undefined,
        synced: PostgresVersion.current() >= 17 ? false : undefined
      })
      assert.strictEqual(mine.walSender?.pid, mine.activePid)
      assert.strictEqual(mine.walSender?.user, server.user)
      assert.include(["catchup", "streaming"], mine.walSender?.state)
      assert.isAtLeast(mine.budget.retainedBytes ?? 0, mine.lagBytes!)
      assert.strictEqual(mine.budget.level, "ok")
      const others = named(overview, other)!
      assert.isUndefined(others.walSender)
      assert.strictEqual(others.decoding?.spillBytes, 0)
      assert.strictEqual(others.inactiveSince === undefined, PostgresVersion.current() < 17)
      // What an endpoint sends and a page reads.
      const json = JSON.stringify(Schema.encodeSync(SlotOverview.SlotOverview)(overview))
      assert.deepStrictEqual(Schema.decodeUnknownSync(SlotOverview.SlotOverview)(JSON.parse(json)), overview)
      yield* Deferred.succeed(held, undefined)
      yield* eventually(Effect.map(look, (found) => named(found, workspace.slot)?.lagBytes === 0))
      yield* stream.stop
    })
  )

  onServer("postgres", "says which rights it lacks, and knows the rest without them", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const role = `${workspace.database}_role`
      yield* workspace.sql(`CREATE ROLE ${role} LOGIN PASSWORD 'secret'`)
      yield* Effect.addFinalizer(() => Effect.ignore(server.query(`DROP ROLE ${role}`)))
      const stream = yield* follow(workspace)
      yield* eventually(workspace.isStreaming())
      const layer = PgWalSender.layer({ url: Redacted.make(workspace.url(role, "secret")) })
      const overview = yield* SlotOverview.look().pipe(Effect.provide(layer))
      assert.deepStrictEqual(overview.lackedRights, ["pg_read_all_stats", "pg_ls_waldir"])
      assert.isUndefined(overview.walDirectoryBytes)
      const slot = named(overview, workspace.slot)!
      assert.isDefined(slot.budget.retainedBytes)
      assert.isDefined(slot.lagBytes)
      assert.strictEqual(slot.walSender?.pid, slot.activePid)
      assert.deepInclude(slot.walSender, { user: server.user, state: undefined, sentLsn: undefined })
      yield* stream.stop
    })
  )

  onServer("postgres", "tells what outgrew the server's memory, and which COPY is under way", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* workspace.sql(`ALTER DATABASE ${workspace.database} SET logical_decoding_work_mem = '64kB'`)
      const stream = yield* follow(workspace)
      yield* eventually(workspace.isStreaming())
      yield* workspace.sql("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 1000) AS i")
      const look = SlotOverview.look().pipe(Effect.provide(walSender(workspace)))
      const spilled = yield* eventually(
        Effect.map(look, (found) => {
          const decoding = named(found, workspace.slot)?.decoding
          return (decoding?.totalTransactions ?? 0) > 0 ? decoding : undefined
        }),
        { what: "what was spilled is counted" }
      )
      assert.deepInclude(spilled, { spillTransactions: 1, streamBytes: 0 })
      assert.isAbove(spilled.spillBytes, 100_000)
      yield* stream.stop
      const copying = yield* workspace.session
      yield* Effect.forkScoped(copying.query("COPY (SELECT id, pg_sleep(0.1) FROM t) TO PROGRAM 'cat > /dev/null'"))
      const copy = yield* eventually(
        Effect.map(look, ({ copies }) =>
          copies.find(({ database, rows }) => database === workspace.database && (rows ?? 0) > 0)
        ),
        { what: "the COPY is seen" }
      )
      assert.deepInclude(copy, { command: "COPY TO", relation: undefined })
    })
  )

  onServer(
    "postgres",
    "of a standby counts from where WAL has been received",
    () =>
      Effect.gen(function* () {
        const primary = yield* trustingServer()
        const { server } = yield* standbyOf(primary)
        yield* server.query("SELECT pg_wal_replay_pause()")
        yield* server.query("SELECT pg_create_physical_replication_slot('cascade', true)")
        yield* primary.query(write(1000))
        const look = SlotOverview.look().pipe(Effect.provide(PgWalSender.layer({ url: Redacted.make(server.url()) })))
        const overview = yield* eventually(
          Effect.map(look, (found) => ((named(found, "cascade")?.lagBytes ?? 0) > 1_000_000 ? found : undefined)),
          { what: "WAL is received that is not replayed" }
        )
        assert.isTrue(overview.isInRecovery)
        assert.deepInclude(named(overview, "cascade"), { type: "physical", plugin: undefined, decoding: undefined })
      }),
    once
  )
})

/** The gauges of one slot, as an exporter has them. */
const gaugesOf = (slot: string) =>
  Effect.map(
    Metric.snapshot,
    (all) =>
      new Map(
        all.flatMap((metric) =>
          metric.type === "Gauge" && metric.attributes?.slot === slot
            ? [[metric.id, Number(metric.state.value)] as const]
            : []
        )
      )
  )

describe("the budget of a slot", () => {
  onServer(
    "postgres",
    "shrinks as WAL is written, is critical before the slot is lost, and then lost",
    () =>
      Effect.gen(function* () {
        const server = yield* PgServer.make({
          ...PostgresVersion.serverOptions(),
          settings: { max_slot_wal_keep_size: "64MB", min_wal_size: "32MB", max_wal_size: "32MB" }
        })
        const workspace = yield* makeWorkspace(server, { sql: table })
        yield* makeSlot(workspace)
        const seen: Array<WalBudget.WalBudget> = []
        const freeBytes = Effect.succeed(10 * 1024 ** 3)
        yield* WalBudget.watch(workspace.slot, { interval: "20 millis", forecastAfter: "100 millis", freeBytes }).pipe(
          Stream.runForEach((budget) => Effect.sync(() => seen.push(budget))),
          Effect.provide(walSender(workspace)),
          Effect.forkScoped
        )
        yield* eventually(Effect.sync(() => seen.length > 0))
        assert.deepInclude(seen[0], { level: "ok", walStatus: "reserved", limitBytes: 64 * 1024 ** 2 })
        yield* workspace.sql("SELECT pg_create_physical_replication_slot('unused')")
        const { slots } = yield* SlotOverview.look().pipe(Effect.provide(walSender(workspace)))
        const unused = slots.find(({ name }) => name === "unused")?.budget
        assert.deepInclude(unused, { level: "ok", retainedBytes: undefined, safeBytes: undefined })
        yield* eventually(
          Effect.andThen(
            workspace.sql(write(1000)),
            Effect.sync(() =>
              seen.some(({ level, reasons }) => level === "critical" && reasons.includes("TimeUntilLost"))
            )
          ),
          { what: "an end is foreseen" }
        )
        // Somebody may write WAL between the two: then they agree a moment later.
        yield* eventually(
          Effect.gen(function* () {
            const [row] = yield* workspace.sql(
              `SELECT safe_wal_size::float8 AS safe, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::float8 AS kept
              FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`
            )
            const told = yield* gaugesOf(workspace.slot)
            return (
              told.get("replicant_wal_safe_bytes") === row?.safe &&
              told.get("replicant_wal_retained_bytes") === row?.kept
            )
          }),
          { what: "the metrics are the server's own numbers" }
        )
        const told = yield* gaugesOf(workspace.slot)
        assert.strictEqual(told.get("replicant_wal_level"), 2)
        assert.isAbove(told.get("replicant_wal_left_seconds") ?? 0, 0)
        assert.isBelow(told.get("replicant_wal_unseen_seconds") ?? 60, 60)
        assert.isTrue(seen.some(({ millisUntilDiskFull }) => millisUntilDiskFull !== undefined))
        assert.isBelow(seen.at(-1)?.safeBytes ?? 0, seen[0]?.safeBytes ?? 0)
        yield* eventually(
          Effect.andThen(
            workspace.sql(`${write(1)}; SELECT pg_switch_wal()`),
            Effect.andThen(
              workspace.sql("CHECKPOINT"),
              Effect.sync(() => seen.at(-1)?.level === "lost")
            )
          ),
          { what: "the slot is lost" }
        )
        assert.strictEqual(seen.at(-1)?.retainedBytes, undefined)
        const lost = yield* gaugesOf(workspace.slot)
        assert.strictEqual(lost.get("replicant_wal_level"), 3)
        assert.isFalse(lost.has("replicant_wal_retained_bytes"))
      }),
    once
  )

  onServer(
    "postgres",
    "outlasts a restart of the server, and begins its rates anew",
    () =>
      Effect.gen(function* () {
        const server = yield* PgServer.make(PostgresVersion.serverOptions())
        const workspace = yield* makeWorkspace(server, { sql: table })
        yield* makeSlot(workspace)
        const seen: Array<Result.Result<SlotOverview.SlotOverview, unknown>> = []
        yield* SlotOverview.watch({ interval: "50 millis" }).pipe(
          Stream.runForEach((looked) => Effect.sync(() => seen.push(looked))),
          Effect.provide(walSender(workspace)),
          Effect.forkScoped
        )
        const rateOf = (looked: Result.Result<SlotOverview.SlotOverview, unknown> | undefined) =>
          looked !== undefined && Result.isSuccess(looked) ? looked.success.writtenPerSecond : "unseen"
        yield* eventually(Effect.sync(() => seen.length > 2 && typeof rateOf(seen.at(-1)) === "number"))
        yield* server.stop("fast")
        yield* eventually(
          Effect.sync(() => Result.isFailure(seen.at(-1)!)),
          { what: "the server is gone" }
        )
        const gone = seen.length
        yield* server.start
        yield* eventually(
          Effect.sync(() => typeof rateOf(seen.at(-1)) === "number"),
          { what: "it is seen again" }
        )
        const first = seen.slice(gone).find((looked) => rateOf(looked) !== "unseen")
        assert.isUndefined(rateOf(first))
      }),
    once
  )
})
