/**
 * How much memory a client takes: with a handler that is slower than the server, in one long transaction, and for one
 * large value. Each client runs in a process of its own, whose resident memory is read from outside; what is reported is
 * the most it had over the same process streaming from a slot with nothing in it. How to read it is in README.md.
 *
 * node bench/memory.ts [--scale 1] [--seconds 60] [--only slow,large,value] [--clients replicant] [--json FILE]
 */
import { writeFileSync } from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"
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
  libraries,
  line,
  median,
  patientLibraries,
  type Run,
  residentBytes,
  serverSettings,
  startClient,
  withDatabase
} from "./Clients.ts"
import type { Task } from "./Measure.ts"

const { values: flags } = parseArgs({
  options: {
    scale: { type: "string", default: "1" },
    seconds: { type: "string", default: "60" },
    only: { type: "string" },
    clients: { type: "string" },
    json: { type: "string" }
  }
})

const scale = Number(flags.scale)
const seconds = Number(flags.seconds)
const megabytes = (bytes: number): number => Math.round(bytes / 1e6)

interface Row {
  readonly scene: string
  readonly client: string
  /** What it streamed: 2000 MB waiting, 5,000,000 rows, a value of 200 MB. */
  readonly size: number
  readonly idleMegabytes: number
  /** Over the idle process. */
  readonly peakMegabytes: number
  readonly seconds: number
  readonly changes: number
  /** Over the idle process, every tenth of the time. */
  readonly overTime: ReadonlyArray<number>
  readonly failed: string | undefined
}

interface Watched {
  readonly samples: ReadonlyArray<number>
  readonly seconds: number
  readonly changes: number
  readonly failed: string | undefined
}

/** Reads a client's resident memory every 50 ms until it ends, or for some seconds and then ends it. */
const watch = async (run: Run, forSeconds?: number): Promise<Watched> => {
  const samples: Array<number> = []
  const timer = setInterval(() => {
    const bytes = residentBytes(run.pid)
    if (bytes > 0) samples.push(bytes)
  }, 50)
  if (forSeconds !== undefined) {
    await Promise.race([sleep(forSeconds * 1000), run.outcome])
    run.stop()
  }
  const outcome = await run.outcome
  clearInterval(timer)
  return typeof outcome === "string"
    ? { samples, seconds: 0, changes: 0, failed: outcome }
    : { samples, seconds: outcome.seconds, changes: outcome.changes, failed: undefined }
}

/** A client over a slot with nothing in it: its memory once it has settled. */
const idleBytes = Effect.fnUntraced(function* (server: PgServer["Service"], client: Client, task: Task) {
  const slot = `${task.slot}_idle`
  yield* createSlot(server, slot, task.database)
  const run = startClient(client, { ...task, slot, handler: "slow" })
  yield* awaitActive(server, slot, task.database)
  const { samples } = yield* Effect.promise(() => watch(run, 3))
  yield* dropSlot(server, slot, task.database)
  return median(samples.slice(-20))
})

const observe = Effect.fnUntraced(function* (
  server: PgServer["Service"],
  scene: { readonly name: string; readonly size: number; readonly forSeconds?: number },
  client: Client,
  task: Task
) {
  const idle = yield* idleBytes(server, client, task)
  const watched = yield* Effect.promise(() => watch(startClient(client, task, 600_000), scene.forSeconds))
  yield* dropSlot(server, task.slot, task.database)
  const { samples } = watched
  const over = (bytes: number): number => megabytes(Math.max(0, bytes - idle))
  const tenths = Array.from({ length: 10 }, (_, tenth) => samples[Math.floor(((tenth + 1) * samples.length) / 10) - 1])
  const row: Row = {
    scene: scene.name,
    client: client.name,
    size: scene.size,
    idleMegabytes: megabytes(idle),
    peakMegabytes: over(Math.max(0, ...samples)),
    seconds: watched.seconds,
    changes: watched.changes,
    overTime: tenths.map((bytes) => over(bytes ?? 0)),
    failed: watched.failed
  }
  const { failed, changes, idleMegabytes, peakMegabytes, overTime } = row
  console.log(
    line(client.name, idleMegabytes, `+${peakMegabytes}`, row.seconds.toFixed(1), changes) +
      (failed === undefined ? `   ${overTime.join(" ")}` : `  ${failed}`)
  )
  return row
})

const heading = (title: string): void =>
  console.log(`\n${line(title, "idle MB", "peak MB", "seconds", "changes")}   MB over idle, every tenth of the time`)

const slotOf = (database: string, index: number): string => `${database}_${index}`

/** A database whose backlog `load` makes, streamed by every client from a slot of its own. */
const scene = (
  server: PgServer["Service"],
  options: {
    readonly name: string
    readonly title: string
    readonly size: number
    readonly changes: number
    readonly columns: string
    readonly load: string
    readonly clients: ReadonlyArray<Client>
    readonly forSeconds?: number
  }
) => {
  const database = `bench_memory_${options.name}`
  const clients = chosen(options.clients, flags.clients)
  const use = Effect.gen(function* () {
    for (const index of clients.keys()) yield* createSlot(server, slotOf(database, index), database)
    yield* server.query(options.load, database)
    yield* server.query("CHECKPOINT", database)
    heading(options.title)
    const handler: Task["handler"] = options.forSeconds === undefined ? "count" : "slow"
    return yield* Effect.forEach(clients, (client, index) =>
      observe(server, options, client, {
        ...connectionTask(server, database),
        slot: slotOf(database, index),
        changes: options.changes,
        handler
      })
    )
  })
  return withDatabase(
    server,
    database,
    [`CREATE TABLE t (${options.columns})`, "ALTER TABLE t ALTER body SET STORAGE EXTERNAL"],
    use
  )
}

/** Rows of 1 kB, a thousand a transaction. */
const slow = (server: PgServer["Service"]) => {
  const transactions = Math.ceil(2000 * scale)
  return scene(server, {
    name: "slow",
    title: `1 ms a change, ${transactions} MB waiting`,
    size: transactions,
    changes: transactions * 1000,
    columns: "id int, body text",
    load: `DO $$ BEGIN FOR b IN 1..${transactions} LOOP
             INSERT INTO t SELECT i, repeat(md5(i::text), 31) FROM generate_series(1, 1000) i; COMMIT; END LOOP; END $$`,
    clients: patientLibraries,
    forSeconds: seconds
  })
}

const large = (server: PgServer["Service"]) => {
  const rows = Math.ceil(5_000_000 * scale)
  return scene(server, {
    name: "large",
    title: `one transaction of ${rows.toLocaleString("en")} rows`,
    size: rows,
    changes: rows,
    columns: "id int, body text, customer int, paid boolean",
    load: `INSERT INTO t SELECT i, 'order number ' || i, i % 1000, i % 2 = 0 FROM generate_series(1, ${rows}) i`,
    clients: libraries
  })
}

const value = (server: PgServer["Service"]) =>
  Effect.forEach([50, 100, 200], (size) =>
    scene(server, {
      name: `value${size}`,
      title: `one value of ${Math.ceil(size * scale)} MB`,
      size: Math.ceil(size * scale),
      changes: 1,
      columns: "id int, body text",
      load: `INSERT INTO t VALUES (1, repeat('0123456789', ${Math.ceil(size * scale * 100_000)}))`,
      clients: libraries
    })
  ).pipe(Effect.map((rows) => rows.flat()))

const scenes = [
  { name: "slow", run: slow },
  { name: "large", run: large },
  { name: "value", run: value }
]

const program = Effect.gen(function* () {
  const server = yield* PgServer.make({ settings: serverSettings })
  console.log(`PostgreSQL ${server.version}, Node ${process.version}`)
  const rows = yield* Effect.forEach(chosen(scenes, flags.only), ({ run }) => run(server))
  if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(rows.flat(), null, 2)}\n`)
}).pipe(Effect.scoped)

await Effect.runPromise(program)
