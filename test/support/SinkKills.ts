/**
 * A sink under load, whose runner, engine and PostgreSQL are killed by turns; and what the engine holds in the end, read back
 * from it. Used by a test with small counts, and by scripts/sinkKills.ts.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { PgServer } from "@replicant/node/testing"
import { Effect, Fiber, Ref } from "effect"
import { eventually } from "./eventually.ts"
import type { SinkOptions } from "./runSink.ts"
import { type EngineName, startEngine } from "./SinkEngines.ts"

/** Who is killed, how often. */
export interface Kills {
  readonly runner: number
  readonly engine: number
  readonly postgres: number
}

/** What is in the engine, against what was committed. */
export interface Outcome {
  readonly committed: number
  readonly stored: number
  readonly lost: number
  readonly twice: number
  readonly outOfOrder: number
}

const program = fileURLToPath(new URL("runSink.ts", import.meta.url))

/** Runs the program, and again whenever it has ended, until the scope ends. */
const runner = Effect.fnUntraced(function* (options: SinkOptions) {
  let child: ChildProcess | undefined
  let said = ""
  let isOver = false
  const start = () => {
    child = spawn(process.execPath, [program, JSON.stringify(options)], { stdio: ["ignore", "pipe", "pipe"] })
    for (const stream of [child.stdout!, child.stderr!]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        said = (said + text).slice(-4000)
      })
    }
    child.once("exit", () => {
      if (!isOver) start()
    })
  }
  yield* Effect.acquireRelease(Effect.sync(start), () =>
    Effect.sync(() => {
      isOver = true
      child?.kill("SIGKILL")
    })
  )
  return { kill: Effect.sync(() => void child?.kill("SIGKILL")), said: () => said }
})

const judge = (committed: number, ids: ReadonlyArray<number>): Outcome => {
  const distinct = new Set(ids)
  const lost = Array.from({ length: committed }, (_, index) => index + 1).filter((id) => !distinct.has(id)).length
  const outOfOrder = ids.filter((id, index) => index > 0 && id < ids[index - 1]!).length
  return { committed, stored: ids.length, lost, twice: ids.length - distinct.size, outOfOrder }
}

/** Kills under load, one after the other, each once something has got on since the last; then waits for the rest. */
export const killSink = Effect.fnUntraced(function* (
  name: EngineName,
  kills: Kills,
  tell: (line: string) => void = () => undefined
) {
  const server = yield* PgServer.make()
  const stream = "items"
  const engine = yield* startEngine(name, stream)
  yield* server.query(`CREATE TABLE items (id int PRIMARY KEY); CREATE PUBLICATION items FOR TABLE items`)
  yield* server.query("SELECT pg_create_logical_replication_slot('items', 'pgoutput')")
  const { kind, replicas, stored, url } = engine
  const sink = yield* runner({
    ...{ url: server.url(), slot: "items", publication: "items" },
    ...{ engine: kind, engineUrl: url, stream, replicas }
  })
  const isWriting = yield* Ref.make(true)
  // One after the other, so that ids are in commit order; where the answer was lost, the table says how far it is.
  const write = Effect.gen(function* () {
    while (yield* Ref.get(isWriting)) {
      yield* Effect.ignore(
        server.query(
          "INSERT INTO items SELECT (SELECT coalesce(max(id), 0) FROM items) + n FROM generate_series(1, 1 + (random() * 60)::int) n"
        )
      )
      yield* Effect.sleep("5 millis")
    }
  })
  const writer = yield* Effect.forkChild(write)
  const getsOn = Effect.gen(function* () {
    const before = yield* eventually(stored, { what: "the engine answers" })
    yield* eventually(
      Effect.map(stored, (now) => now > before),
      { what: `the sink gets on; it said ${sink.said()}` }
    )
  })
  const victims: ReadonlyArray<readonly [keyof Kills, Effect.Effect<unknown, unknown>]> = [
    ["runner", sink.kill],
    ["engine", Effect.andThen(engine.kill, engine.start)],
    ["postgres", Effect.andThen(server.kill, server.start)]
  ]
  for (let round = 0; round < Math.max(...Object.values(kills)); round++) {
    for (const [victim, kill] of victims) {
      if (round >= kills[victim]) continue
      yield* getsOn
      yield* Effect.sleep(Math.random() * 100)
      yield* kill
      tell(`${victim} killed, ${round + 1} of ${kills[victim]}`)
    }
  }
  yield* getsOn
  yield* Ref.set(isWriting, false)
  yield* Fiber.join(writer)
  const [row] = yield* server.query("SELECT count(*)::int AS n, max(id) AS last FROM items")
  const committed = Number(row?.n)
  yield* eventually(
    Effect.map(stored, (now) => now >= committed),
    { what: `all is stored; the sink said ${sink.said()}` }
  )
  return judge(committed, yield* engine.ids)
})
