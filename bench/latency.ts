/**
 * From a writer's clock reading, just before it inserts and commits one row, to the handler's: how to read the figures
 * is in README.md.
 *
 * node bench/latency.ts [--rounds 3] [--seconds 8] [--only quiet,busy,noisy] [--clients replicant] [--json FILE]
 */
import { spawn } from "node:child_process"
import { writeFileSync } from "node:fs"
import { parseArgs } from "node:util"
import { PgServer } from "@replicant/node/testing"
import { Effect } from "effect"
import {
  awaitActive,
  type Client,
  chosen,
  connectionTask,
  createSlot,
  dropSlot,
  line,
  median,
  punctualLibraries,
  serverSettings,
  startClient,
  withDatabase
} from "./Clients.ts"
import type { Latency, Result } from "./Measure.ts"

interface Scene {
  readonly name: string
  readonly title: string
  readonly rate: number
  /** Another table, not published, is written hard meanwhile. */
  readonly isNoisy: boolean
}

const scenes: ReadonlyArray<Scene> = [
  { name: "quiet", title: "200 commits a second", rate: 200, isNoisy: false },
  { name: "busy", title: "2,000 commits a second", rate: 2000, isNoisy: false },
  { name: "noisy", title: "200 commits a second, another table written hard", rate: 200, isNoisy: true }
]

const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "8" },
    only: { type: "string" },
    clients: { type: "string" },
    json: { type: "string" }
  }
})

const rounds = Number(flags.rounds)
const seconds = Number(flags.seconds)
const clients = chosen(punctualLibraries, flags.clients)
const database = "bench_latency"

/** A writer, and the rate it reached. */
const startWriter = (url: string, rate: number | undefined, rows: number) => {
  const child = spawn(process.execPath, [new URL("Writer.ts", import.meta.url).pathname], {
    env: { ...process.env, BENCH_WRITER: JSON.stringify({ url, rate, rows }), NODE_NO_WARNINGS: "1" },
    stdio: ["ignore", "pipe", "inherit"]
  })
  let out = ""
  child.stdout.on("data", (text) => (out += text))
  const done = new Promise<number>((resolve) => child.on("close", () => resolve(Number(out))))
  return { done, stop: () => void child.kill("SIGKILL") }
}

interface Turn {
  readonly latency: Latency | undefined
  readonly written: number
  readonly failed: string | undefined
}

/** One client, one round of one scene. */
const turn = Effect.fnUntraced(function* (server: PgServer["Service"], scene: Scene, client: Client) {
  const slot = "bench_latency"
  const rows = scene.rate * seconds
  yield* server.query("TRUNCATE t, other", database)
  yield* createSlot(server, slot, database)
  const task = { ...connectionTask(server, database), slot, changes: rows, handler: "latency" as const }
  const run = startClient(client, task, (seconds * 2 + 30) * 1000)
  yield* awaitActive(server, slot, database)
  const noise = scene.isNoisy ? startWriter(server.url(database), undefined, 0) : undefined
  const written = yield* Effect.promise(() => startWriter(server.url(database), scene.rate, rows).done)
  const outcome: Result | string = yield* Effect.promise(() => run.outcome)
  noise?.stop()
  if (noise !== undefined) yield* Effect.promise(() => noise.done)
  yield* dropSlot(server, slot, database)
  const turn: Turn =
    typeof outcome === "string"
      ? { latency: undefined, written, failed: outcome }
      : { latency: outcome.latency, written, failed: undefined }
  return turn
})

interface Row extends Latency {
  readonly scene: string
  readonly client: string
  /** Commits a second that the writer reached. */
  readonly written: number
  readonly failed: string | undefined
}

const measure = Effect.fnUntraced(function* (server: PgServer["Service"], scene: Scene) {
  const turns = new Map<string, Array<Turn>>(clients.map(({ name }) => [name, []]))
  for (let round = 0; round < rounds; round++) {
    // Each round begins with another client: whoever comes first finds the machine at rest.
    for (const index of clients.keys()) {
      const client = clients[(index + round) % clients.length]!
      turns.get(client.name)!.push(yield* turn(server, scene, client))
    }
  }
  console.log(`\n${line(scene.title, "p50 ms", "p99 ms", "p99.9 ms", "cpu µs", "commits/s")}`)
  return [...turns].map(([client, all]): Row => {
    const of = (quantile: keyof Latency) => median(all.flatMap(({ latency }) => latency?.[quantile] ?? []))
    const failed = all.find((turn) => turn.failed !== undefined)?.failed
    const written = median(all.map((turn) => turn.written))
    const cpuMicros = of("cpuMicros")
    const row = {
      scene: scene.name,
      client,
      p50: of("p50"),
      p99: of("p99"),
      p999: of("p999"),
      written,
      cpuMicros,
      failed
    }
    console.log(
      line(client, row.p50.toFixed(2), row.p99.toFixed(2), row.p999.toFixed(2), cpuMicros.toFixed(0), written) +
        (failed === undefined ? "" : `  ${failed}`)
    )
    return row
  })
})

const program = Effect.gen(function* () {
  const server = yield* PgServer.make({ settings: serverSettings })
  console.log(`PostgreSQL ${server.version}, Node ${process.version}, ${rounds} rounds of ${seconds} s`)
  const schema = ["CREATE TABLE t (id int, sent bigint)", "CREATE TABLE other (id int, filler text)"]
  const rows = yield* withDatabase(
    server,
    database,
    schema,
    Effect.forEach(chosen(scenes, flags.only), (scene) => measure(server, scene))
  )
  if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(rows.flat(), null, 2)}\n`)
}).pipe(Effect.scoped)

await Effect.runPromise(program)
