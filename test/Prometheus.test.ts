/**
 * A real Prometheus over real streams: each query of the dashboard has something to show, and alerts fire for what is provoked and for
 * nothing else.
 */
import * as Fs from "node:fs"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { type Change, DeadLetters, Handler, LogicalStream, nextLsn } from "@replicant/core"
import { Operations } from "@replicant/core/operations"
import { Sink } from "@replicant/core/sink"
import { FaultProxy } from "@replicant/node/testing"
import { Data, Effect, Latch, Logger, Schedule } from "effect"
import { dashboard } from "../scripts/dashboard.ts"
import { eventually } from "./support/eventually.ts"
import { logicalOptions, walSender } from "./support/Follow.ts"
import { listensOn, served } from "./support/Listening.ts"
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
        const prometheus = yield* startPrometheus({ rules: rules() })
        const since = Date.now() / 1000
        const fires = (wanted: ReadonlyArray<string>, what: string) =>
          eventually(
            Effect.map(prometheus.firing, (found) => {
              // Whatever else there is, is of others.
              assert.deepStrictEqual(
                found.filter((alert) => alert.includes(" ") && !alert.endsWith(` ${slot}`)),
                []
              )
              return wanted.every((alert) => found.includes(`${alert} ${slot}`))
            }),
            { what }
          )
        const silent = (but: ReadonlyArray<string>, what: string) =>
          eventually(
            Effect.map(prometheus.firing, (found) => found.every((alert) => but.includes(alert))),
            { what }
          )
        yield* eventually(
          Effect.map(prometheus.firing, (found) => found.join() === "ReplicantAbsent"),
          { what: "nobody tells anything" }
        )

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

        // All four are well, for some evaluations: nothing fires meanwhile.
        yield* eventually(
          Effect.suspend(() =>
            Effect.map(prometheus.numbers(allWell, Date.now() / 1000 - 2), ({ length }) => length > 0)
          ),
          { what: "all are well" }
        )
        yield* silent([], "nothing fires")
        const quiet = yield* eventually(
          Effect.suspend(() => {
            const now = Date.now() / 1000
            return Effect.map(prometheus.numbers(fired, now), ({ length }) => (length === 0 ? now : undefined))
          }),
          { what: "it is written down that nothing fires" }
        )
        let next = 1
        const insert = (note: string) =>
          Effect.suspend(() => workspace.sql(`INSERT INTO items VALUES (${next++}, '${note}')`))
        yield* eventually(
          Effect.andThen(
            insert("well"),
            Effect.map(prometheus.numbers(allWell, quiet), ({ length }) => length >= 4)
          ),
          { what: "they go on being well" }
        )
        assert.deepStrictEqual(yield* prometheus.numbers(fired, quiet), [])
        yield* engine.restart
        yield* insert("after a restart")

        yield* gate.close
        yield* insert("not handled")
        yield* fires(["ReplicantFailing", "ReplicantBehind"], "the handler is stuck")
        yield* gate.open
        yield* silent([], "the handler has ended")

        yield* proxy.refuse
        yield* proxy.cut("rst")
        yield* fires(["ReplicantFailing"], "the server is lost")
        yield* insert("meanwhile")
        yield* proxy.pass
        yield* silent([], "the server is back")

        freeBytes = 0
        yield* fires(["ReplicantSlotNearLoss"], "the disk is full")
        freeBytes = 10 ** 15
        yield* silent([], "there is room again")

        yield* insert("poison")
        const parked = `ReplicantParked ${slot}`
        yield* fires(["ReplicantParked"], "the very first change is parked")
        yield* silent([parked], "what is parked holds nothing up")
        yield* insert("poison")
        yield* insert("poison")
        yield* fires(["ReplicantParkingStopped"], "too many are parked")
        isPoison = false
        yield* silent([parked], "it is handled, and parking goes on")

        for (const query of queries.filter(hasData)) {
          yield* eventually(
            Effect.map(prometheus.numbers(query, since), ({ length }) => length > 0),
            { what: `Prometheus has something for ${query}` }
          )
        }
        assert.isAbove(queries.length, 30)
      }).pipe(Effect.provide([Sink.memory, Logger.layer([])]))
  )
})
