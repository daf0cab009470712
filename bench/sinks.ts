/**
 * What a sink costs: CPU of the process that follows, and changes a second, from a backlog of narrow rows into each engine, a message
 * a change, beside a handler that only counts. Each run is a process of its own. Needs `redis-server` and `nats-server`; what is not
 * there is left out.
 *
 * node bench/sinks.ts [--rows 200000] [--rounds 3] [--json FILE]
 */
import { spawnSync } from "node:child_process"
import { writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { runMain } from "@effect/platform-node/NodeRuntime"
import { Handler, Pgoutput, withLogicalStream } from "@replicant/core"
import { Route, Sink, ValueJson } from "@replicant/core/sink"
import { NatsSink } from "@replicant/nats"
import { NatsServer } from "@replicant/nats/testing"
import { PgWalSender } from "@replicant/node"
import { PgServer } from "@replicant/node/testing"
import { RedisSink } from "@replicant/redis"
import { RedisServer } from "@replicant/redis/testing"
import { Effect, Layer, Metric, Redacted, type Scope } from "effect"
import { line, median } from "./Clients.ts"

const { values: flags } = parseArgs({
  options: {
    rows: { type: "string", default: "200000" },
    rounds: { type: "string", default: "3" },
    json: { type: "string" },
    // Of a run: how this program calls itself.
    into: { type: "string" },
    from: { type: "string" },
    slot: { type: "string", default: "" },
    engine: { type: "string", default: "" }
  }
})
const rows = Number(flags.rows)

interface Figures {
  readonly cpuSeconds: number
  readonly seconds: number
}

const plugin = Pgoutput.make({ publications: ["items"], types: ValueJson.types })
const stream = "items"
const sink = Sink.run({ slot: flags.slot, plugin, sink: { route: Route.one(stream) } })

/** Ends once so many have been told of. */
const until = (count: Effect.Effect<number>): Effect.Effect<void> =>
  Effect.flatMap(count, (now) => (now >= rows ? Effect.void : Effect.andThen(Effect.sleep("20 millis"), until(count))))
const told = Metric.value(Metric.withAttributes(Sink.appended, { slot: flags.slot }))
const appended = until(Effect.map(told, ({ count }) => Number(count)))

const runs = {
  counting: () => {
    let seen = 0
    const count = Handler.arrays((changes: ReadonlyArray<{ readonly _tag: string }>) =>
      Effect.sync(() => {
        for (const { _tag } of changes) if (_tag === "Insert") seen++
        return undefined
      })
    )
    return Effect.raceFirst(withLogicalStream({ slot: flags.slot, plugin }, count), until(Effect.sync(() => seen)))
  },
  redis: () => {
    const client = NodeRedis.layer({ url: flags.engine, disableOfflineQueue: true })
    return Effect.raceFirst(sink, appended).pipe(
      Effect.provide(Layer.provide(RedisSink.layer({ mark: `${stream}:mark` }), client))
    )
  },
  nats: () => {
    const createStream = { subjects: [stream, `${stream}.mark`] }
    const options = { connection: { servers: flags.engine }, stream, mark: `${stream}.mark`, createStream }
    return Effect.raceFirst(sink, appended).pipe(Effect.provide(NatsSink.layer(options)))
  }
}
type Into = keyof typeof runs
const names = Object.keys(runs) as ReadonlyArray<Into>

/** One run, in this process. */
const run = (into: Into) =>
  Effect.gen(function* () {
    const [cpu, start] = [process.cpuUsage(), performance.now()]
    yield* runs[into]()
    const { system, user } = process.cpuUsage(cpu)
    const figures: Figures = { cpuSeconds: (system + user) / 1e6, seconds: (performance.now() - start) / 1000 }
    console.log(JSON.stringify(figures))
  }).pipe(Effect.provide(PgWalSender.layer({ url: Redacted.make(flags.from ?? "") })))

/** An engine of its own for each run. */
const engine = (into: Into): Effect.Effect<string, Error, Scope.Scope> => {
  if (into === "redis") return Effect.map(RedisServer.make(), ({ url }) => url)
  return into === "nats" ? Effect.map(NatsServer.make(), ({ url }) => url) : Effect.succeed("")
}

const isThere = { counting: () => true, redis: () => RedisServer.isInstalled(), nats: () => NatsServer.isInstalled() }

const program = Effect.gen(function* () {
  const server = yield* PgServer.make()
  const rounds = Number(flags.rounds)
  const chosen = names.filter((name) => isThere[name]())
  yield* server.query(
    "CREATE TABLE items (id int8 PRIMARY KEY, customer int4, placed timestamptz, state text, open bool)"
  )
  yield* server.query("CREATE PUBLICATION items FOR TABLE items")
  const turns = Array.from({ length: rounds }, (_, round) => chosen.map((into) => ({ into, slot: `${into}_${round}` })))
  for (const { slot } of turns.flat())
    yield* server.query(`SELECT pg_create_logical_replication_slot('${slot}', 'pgoutput')`)
  yield* server.query(`DO $$ BEGIN FOR i IN 0..${rows / 100 - 1} LOOP
    INSERT INTO items SELECT i * 100 + n, n, now(), 'state ' || n % 7, n % 3 = 0 FROM generate_series(1, 100) n;
    COMMIT; END LOOP; END $$`)
  const found = new Map<Into, Array<Figures>>(chosen.map((into) => [into, []]))
  for (const { into, slot } of turns.flat()) {
    const figures = yield* Effect.scoped(
      Effect.map(engine(into), (url) => {
        const own = [fileURLToPath(import.meta.url), "--into", into, "--slot", slot, "--rows", String(rows)]
        const told = spawnSync(process.execPath, [...own, "--from", server.url(), "--engine", url], {
          stdio: ["ignore", "pipe", "inherit"],
          encoding: "utf8"
        })
        return JSON.parse(told.stdout) as Figures
      })
    )
    found.get(into)!.push(figures)
  }
  console.log(line("", "CPU s/M", "k/s"))
  const medians = [...found].map(([into, all]) => {
    const cpu = (median(all.map(({ cpuSeconds }) => cpuSeconds)) / rows) * 1e6
    const rate = rows / 1000 / median(all.map(({ seconds }) => seconds))
    console.log(line(into, cpu.toFixed(1), rate.toFixed(0)))
    return { into, cpuSecondsPerMillion: cpu, thousandPerSecond: rate }
  })
  if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(medians, null, 2)}\n`)
})

const main: Effect.Effect<void, unknown> = flags.into === undefined ? Effect.scoped(program) : run(flags.into as Into)
runMain(main)
