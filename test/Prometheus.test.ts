/**
 * A real Prometheus over real streams: each query of the dashboard has something to show, and each alert fires for what is provoked and
 * for nothing else.
 */
import * as Fs from "node:fs"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { type Change, DeadLetters, Handler, LogicalStream, nextLsn, SlotLease } from "@replicant/core"
import { Operations } from "@replicant/core/operations"
import { Sink } from "@replicant/core/sink"
import { FaultProxy, PgServer } from "@replicant/node/testing"
import { Data, Effect, Latch, Logger, Metric, Schedule, SubscriptionRef } from "effect"
import { dashboard } from "../scripts/dashboard.ts"
import { eventually } from "./support/eventually.ts"
import { logicalOptions, walSender } from "./support/Follow.ts"
import { listensOn, served } from "./support/Listening.ts"
import * as PostgresVersion from "./support/PostgresVersion.ts"
import { hasPrometheus, startPrometheus } from "./support/Prometheus.ts"
import { startReplicant } from "./support/Replicant.ts"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace } from "./support/Workspace.ts"

/** Our rules in a hurry: nothing is waited for that long, and three seconds are far behind. */
const rules = () => {
  const text = Fs.readFileSync(fileURLToPath(new URL("../ops/alerts.yml", import.meta.url)), "utf8")
  const hurried = text
    .replaceAll(/\bfor: \w+/g, "for: 1s")
    .replace("(replicant_lag_seconds) > 600", "(replicant_lag_seconds) > 3")
  assert.lengthOf(hurried.match(/for: 1s/g) ?? [], 9)
  assert.include(hurried, "(replicant_lag_seconds) > 3")
  return hurried
}

const queries = dashboard().panels.flatMap((panel) =>
  "targets" in panel
    ? panel.targets.map(({ expr }) => expr.replaceAll("$slot", ".*").replaceAll("$__rate_interval", "10s"))
    : []
)

/** The server has no limit to what it keeps: then there is no such number. */
const hasData = (query: string) => !query.includes("replicant_wal_safe_bytes")

/** All four, and no first copy is under way. */
const allWell = 'count(replicant_health == 0) == 4 and sum(replicant_state{state="Streaming"}) == 4'
const fired = 'ALERTS{alertstate="firing"}'

/** A Prometheus with our rules, and what is asked of its alerts for one slot. Nobody tells it anything yet: that is an alert. */
const watchingPrometheus = Effect.fnUntraced(function* (slot: string) {
  const prometheus = yield* startPrometheus({ rules: rules() })
  const { firing, numbers } = prometheus
  yield* eventually(
    Effect.map(firing, (found) => found.join() === "ReplicantAbsent"),
    { what: "nobody tells anything" }
  )
  const silent = (what: string) =>
    eventually(
      Effect.map(firing, ({ length }) => length === 0),
      { what }
    )
  return {
    ...prometheus,
    silent,
    /** These of that slot and no other, but for what a slow machine may come to besides. */
    fires: (wanted: ReadonlyArray<string>, what: string, besides = "") =>
      eventually(
        Effect.flatMap(firing, (found) => {
          const counted = found.filter((alert) => alert !== `${besides} ${slot}`)
          const isIt = counted.join() === wanted.map((alert) => `${alert} ${slot}`).join()
          // Whoever waits in vain is told of these.
          return isIt ? Effect.succeed(true) : Effect.fail(found)
        }),
        { what: `${what}: ${wanted.join(", ")}` }
      ),
    /** Nothing fires for some evaluations in which all are well by that query, and `meanwhile` is done. */
    quiet: Effect.fnUntraced(function* <E, R>(allWell: string, meanwhile: Effect.Effect<unknown, E, R>) {
      const isWell = (since: number, count: number) =>
        Effect.map(numbers(allWell, since), ({ length }) => length >= count)
      yield* eventually(
        Effect.suspend(() => isWell(Date.now() / 1000 - 2, 1)),
        { what: "all are well" }
      )
      yield* silent("nothing fires")
      const since = yield* eventually(
        Effect.suspend(() => {
          const now = Date.now() / 1000
          return Effect.map(numbers(fired, now), ({ length }) => (length === 0 ? now : undefined))
        }),
        { what: "it is written down that nothing fires" }
      )
      yield* eventually(Effect.andThen(meanwhile, isWell(since, 4)), { what: "they go on being well" })
      assert.deepStrictEqual(yield* numbers(fired, since), [])
    })
  }
})

/** Of what streams of this process are left behind by another test nothing is told. */
const alone = <A, E, R>(test: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => Effect.provideService(test, Metric.MetricRegistry, new Map()))

class Poison extends Data.TaggedError("Poison") {}

const test: typeof onServer = (name, title, body, options) => {
  if (hasPrometheus || process.env.CI !== undefined) onServer(name, title, body, options)
  else it.skip(`${title} (no Prometheus on this machine: Debian's prometheus)`, () => undefined)
}

describe("Prometheus", () => {
  test(
    "postgres",
    "shows all of the dashboard, and fires its alerts for what is provoked and for nothing else",
    (server) =>
      Effect.gen(function* () {
        const sql = `CREATE TABLE items (id int PRIMARY KEY, note text);
        INSERT INTO items SELECT -n, 'old' FROM generate_series(1, 2000) n; ANALYZE items`
        const workspace = yield* makeWorkspace(server, { sql })
        const target = yield* makeWorkspace(server, { sql: "CREATE TABLE items (id int PRIMARY KEY, note text)" })
        const { publication, slot } = workspace
        const prometheus = yield* watchingPrometheus(slot)
        const { fires, silent } = prometheus
        const since = Date.now() / 1000

        const proxy = yield* FaultProxy.make(server)
        const throughProxy = walSender(workspace, { host: proxy.host, port: proxy.port })
        const gate = yield* Latch.make(true)
        let isPoison = true
        const handle = Handler.park(
          { isPoison: () => true, breaker: { letters: 2, within: "1 hour" } },
          (change: Change) =>
            isPoison && change._tag === "Insert" && change.row.note === "poison"
              ? Effect.fail(new Poison())
              : gate.whenOpen(Effect.sync(() => nextLsn(change)))
        )
        const stream = yield* LogicalStream.make({
          ...logicalOptions(workspace),
          reconnect: Schedule.spaced("200 millis"),
          health: { handlerStuck: { degraded: 1, failing: 2 }, notStreaming: { degraded: 0, failing: 2 } }
        })
        yield* stream.run(handle).pipe(Effect.provide([throughProxy, DeadLetters.memory]), Effect.forkScoped)
        const intoSink = yield* LogicalStream.make({ ...logicalOptions(workspace), slot: `${slot}_sink` })
        yield* intoSink.run(Sink.handler()).pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
        const engine = yield* Sink.Memory
        const named = ["--publication", publication, "--create", "--listen", "0"]
        const commands = [
          yield* startReplicant(["copy", "--slot", `${slot}_copy`, ...named], {
            DATABASE_URL: workspace.url(),
            TARGET_URL: target.url()
          }),
          yield* startReplicant(
            ["stream", "--slot", `${slot}_rows`, ...named, "--lease", "--snapshot", "initial", "--rate-limit", "400"],
            { DATABASE_URL: workspace.url() }
          )
        ]
        let freeBytes = 10 ** 15
        const budget = {
          interval: "500 millis",
          forecastAfter: "1 second",
          calm: 0,
          freeBytes: Effect.sync(() => freeBytes)
        } as const
        const examined = yield* Effect.provide(Operations.examined(stream, {}, budget), walSender(workspace))
        const urls = [yield* served(examined, intoSink), ...(yield* Effect.forEach(commands, listensOn))]
        yield* prometheus.scrape(urls.map((url) => url.replace("http://", "")))

        let next = 1
        const insert = (note: string) =>
          Effect.suspend(() => workspace.sql(`INSERT INTO items VALUES (${next++}, '${note}')`))
        yield* prometheus.quiet(allWell, insert("well"))
        yield* engine.restart
        yield* insert("after a restart")

        yield* gate.close
        yield* insert("not handled")
        yield* fires(["ReplicantBehind", "ReplicantFailing"], "the handler is stuck")
        yield* gate.open
        yield* silent("the handler has ended")

        yield* proxy.refuse
        yield* proxy.cut("rst")
        yield* fires(["ReplicantBehind", "ReplicantFailing"], "the server is lost")
        yield* insert("meanwhile")
        yield* proxy.pass
        yield* silent("the server is back")

        freeBytes = 0
        yield* fires(["ReplicantSlotNearLoss"], "the disk is full")
        freeBytes = 10 ** 15
        yield* silent("there is room again")

        yield* insert("poison")
        yield* fires(["ReplicantDegraded", "ReplicantParked"], "the very first change is parked, and holds nothing up")
        yield* insert("poison")
        yield* insert("poison")
        yield* fires(
          ["ReplicantBehind", "ReplicantFailing", "ReplicantParked", "ReplicantParkingStopped"],
          "too many are parked"
        )
        isPoison = false
        yield* fires(["ReplicantDegraded", "ReplicantParked"], "it is handled, and parking goes on")

        for (const query of queries.filter(hasData)) {
          yield* eventually(
            Effect.map(prometheus.numbers(query, since), ({ length }) => length > 0),
            { what: `Prometheus has something for ${query}` }
          )
        }
        assert.isAbove(queries.length, 30)
      }).pipe(alone, Effect.provide([Sink.memory, Logger.layer([])]))
  )

  test(
    "postgres",
    "fires the alerts of a lease that nobody can hold, of a server that holds back, and of the WAL that this takes",
    () =>
      Effect.gen(function* () {
        const server = yield* PgServer.make({
          ...PostgresVersion.serverOptions(),
          settings: { autovacuum: "off", max_slot_wal_keep_size: "128MB" }
        })
        const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE items (id int PRIMARY KEY)" })
        const { publication, slot } = workspace
        yield* workspace.sql(`SELECT pg_create_logical_replication_slot('${slot}', 'pgoutput', failover => true)`)
        yield* workspace.sql("SELECT pg_create_physical_replication_slot('standby')")
        const prometheus = yield* watchingPrometheus(slot)
        const { fires, silent } = prometheus

        const proxy = yield* FaultProxy.make(server)
        const throughProxy = walSender(workspace, { host: proxy.host, port: proxy.port })
        const lease = yield* SlotLease.make({ slot })
        const holds = eventually(
          Effect.map(SubscriptionRef.get(lease.state), ({ _tag }) => _tag === "Held"),
          { what: "the lease is held" }
        )
        const stream = yield* LogicalStream.make(logicalOptions(workspace))
        yield* lease
          .run(stream.run((change) => Effect.succeed(nextLsn(change))))
          .pipe(Effect.provide(throughProxy), Effect.forkScoped)
        yield* holds
        // Too little is seen to foresee anything: what the server says is left counts alone.
        const budget = { interval: "500 millis", forecastAfter: "1 hour", calm: 0 } as const
        const examined = yield* Effect.provide(
          Operations.examined(stream, {}, { ...budget, warning: { safeBytes: 96 * 2 ** 20 } }),
          walSender(workspace)
        )
        const url = new URL(workspace.url())
        url.host = `${proxy.host}:${proxy.port}`
        const standby = yield* startReplicant(
          ["stream", "--slot", slot, "--publication", publication, "--lease", "--listen", "0"],
          { DATABASE_URL: url.href }
        )
        const urls = [yield* served(Operations.leased(examined, lease)), yield* listensOn(standby)]
        yield* prometheus.scrape(urls.map((each) => each.replace("http://", "")))
        let next = 1
        const insert = Effect.suspend(() => workspace.sql(`INSERT INTO items VALUES (${next++})`))
        const oneHolds = "count(replicant_lease_held) == 2 and sum(replicant_lease_held) == 1"
        yield* prometheus.quiet(`min(replicant_health) == 0 and ${oneHolds}`, insert)

        yield* proxy.refuse
        yield* proxy.cut("rst")
        yield* fires(
          ["ReplicantBehind", "ReplicantFailing", "ReplicantLeaseFree"],
          "neither can reach the server",
          // Once nobody could look at the server for a minute.
          "ReplicantWalBudget"
        )
        yield* proxy.pass
        yield* silent("one of them holds it again")
        yield* standby.kill("SIGKILL")
        yield* holds
        yield* silent("the one that is left holds it")

        yield* server.query("ALTER SYSTEM SET synchronized_standby_slots = 'standby'")
        yield* server.query("SELECT pg_reload_conf()")
        // What is written before the walsender knows is sent.
        yield* eventually(
          Effect.andThen(
            insert,
            Effect.map(SubscriptionRef.get(stream.state), ({ _tag }) => _tag === "Stalled")
          ),
          { what: "the stream is stalled" }
        )
        yield* fires(["ReplicantBehind", "ReplicantDegraded", "ReplicantStalled"], "the server waits for a standby")
        for (let segment = 0; segment < 4; segment++) {
          yield* workspace.sql("SELECT pg_logical_emit_message(false, 'x', 'y'), pg_switch_wal()")
        }
        yield* fires(
          ["ReplicantBehind", "ReplicantDegraded", "ReplicantStalled", "ReplicantWalBudget"],
          "half of what may be kept is kept"
        )
        yield* server.query("ALTER SYSTEM RESET synchronized_standby_slots")
        yield* server.query("SELECT pg_reload_conf()")
        yield* eventually(
          Effect.andThen(
            server.query("SELECT pg_log_standby_snapshot()"),
            Effect.map(prometheus.firing, ({ length }) => length === 0)
          ),
          { what: "it streams again, and what was kept is let go" }
        )
      }).pipe(alone, Effect.provide(Logger.layer([]))),
    { since: 17 }
  )
})
