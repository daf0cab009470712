/**
 * Drains a backlog with Replicant and its peers, in turn, over the same WAL: how to read the figures is in README.md.
 *
 * node bench/drain.ts [--rounds 3] [--scale 1] [--only narrow,wide] [--clients replicant,postgres] [--json FILE]
 */
import { spawn } from "node:child_process"
import { writeFileSync } from "node:fs"
import { parseArgs } from "node:util"
import { PgServer } from "@replicant/node/testing"
import { Effect } from "effect"
import type { Result, Task } from "./Measure.ts"
import { type Workload, workloads } from "./Workload.ts"

interface Client {
  readonly name: string
  readonly file: string
  readonly mode?: string
}

/** The yardstick comes first: every ratio is against it. */
const clients: ReadonlyArray<Client> = [
  { name: "pg_recvlogical", file: "pg_recvlogical.ts" },
  { name: "replicant", file: "replicant.ts", mode: "changes" },
  { name: "replicant each", file: "replicant.ts", mode: "each" },
  { name: "replicant transactions", file: "replicant.ts", mode: "transactions" },
  { name: "replicant withLogicalStream", file: "replicant.ts", mode: "withLogicalStream" },
  { name: "postgres.js", file: "postgres.ts" },
  { name: "pgwire", file: "pgwire.ts" },
  { name: "pg-logical-replication", file: "pg-logical-replication.ts" }
]

const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    scale: { type: "string", default: "1" },
    only: { type: "string" },
    clients: { type: "string" },
    json: { type: "string" }
  }
})

const rounds = Number(flags.rounds)
const wantedClients = clients.filter((client) => flags.clients?.split(",").includes(client.name) ?? true)
const wantedWorkloads = workloads(Number(flags.scale)).filter(
  (workload) => flags.only?.split(",").includes(workload.name) ?? true
)

/** One client process, from start to its one line of result. */
const runClient = (client: Client, task: Task): Promise<Result | string> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [new URL(`clients/${client.file}`, import.meta.url).pathname], {
      env: { ...process.env, BENCH_TASK: JSON.stringify(task), BENCH_MODE: client.mode ?? "", NODE_NO_WARNINGS: "1" },
      stdio: ["ignore", "pipe", "pipe"]
    })
    let out = ""
    let err = ""
    const timer = setTimeout(() => child.kill("SIGKILL"), 300_000)
    child.stdout.on("data", (text) => (out += text))
    child.stderr.on("data", (text) => (err += text))
    child.on("exit", (code, signal) => {
      clearTimeout(timer)
      resolve(
        code === 0 && out !== ""
          ? (JSON.parse(out) as Result)
          : `failed (${signal ?? code}): ${err.trim().split("\n").slice(0, 8).join(" ")}`
      )
    })
  })

const median = (values: ReadonlyArray<number>): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

interface Row {
  readonly workload: string
  readonly client: string
  readonly changesPerSecond: number
  /** Slowest and fastest round. */
  readonly spread: readonly [number, number]
  /** User and system seconds of the client per million changes. */
  readonly cpuPerMillion: number
  readonly maxRssMegabytes: number
  /** Rate against the first client's. */
  readonly ratio: number
  readonly lost: number
  readonly failed: string | undefined
}

const summarize = (
  workload: Workload,
  results: ReadonlyMap<string, ReadonlyArray<Result | string>>
): ReadonlyArray<Row> => {
  const rate = (result: Result) => workload.changes / result.seconds
  let yardstick: number | undefined
  return [...results].map(([client, all]) => {
    const good = all.filter((result) => typeof result !== "string")
    const rates = good.map(rate)
    const changesPerSecond = good.length === 0 ? 0 : median(rates)
    yardstick ??= changesPerSecond
    return {
      workload: workload.name,
      client,
      changesPerSecond,
      spread: [Math.min(...rates), Math.max(...rates)],
      cpuPerMillion: good.length === 0 ? 0 : (median(good.map((result) => result.cpuSeconds)) / workload.changes) * 1e6,
      maxRssMegabytes: good.length === 0 ? 0 : median(good.map((result) => result.maxRssBytes)) / 1e6,
      ratio: changesPerSecond / yardstick,
      lost: Math.max(0, ...good.map((result) => workload.changes - result.changes)),
      failed: all.find((result) => typeof result === "string")
    }
  })
}

const print = (workload: Workload, rows: ReadonlyArray<Row>): void => {
  console.log(`\n${workload.title}: ${workload.changes.toLocaleString("en")} changes`)
  console.log(
    `${"client".padEnd(28)} ${"changes/s".padStart(11)} ${"slowest-fastest".padStart(21)} ${"ratio".padStart(6)} ${"cpu s/M".padStart(8)} ${"MB".padStart(6)}`
  )
  for (const row of rows) {
    const number = (value: number) => Math.round(value).toLocaleString("en")
    const spread = `${number(row.spread[0])}-${number(row.spread[1])}`
    const note = row.failed !== undefined ? `  ${row.failed}` : row.lost > 0 ? `  LOST ${row.lost}` : ""
    console.log(
      `${row.client.padEnd(28)} ${number(row.changesPerSecond).padStart(11)} ${spread.padStart(21)} ${row.ratio.toFixed(2).padStart(6)} ${row.cpuPerMillion.toFixed(2).padStart(8)} ${number(row.maxRssMegabytes).padStart(6)}${note}`
    )
  }
}

const drain = Effect.fnUntraced(function* (server: PgServer["Service"], workload: Workload) {
  const database = `bench_${workload.name}`
  yield* server.query(`CREATE DATABASE ${database}`)
  for (const statement of workload.schema.split("; ")) yield* server.query(statement, database)
  yield* server.query("CREATE PUBLICATION pub FOR TABLE t", database)
  const slot = (client: number, round: number) => `${database}_${client}_${round}`
  // All slots before the load: every client drains the same WAL, in every round.
  for (let round = 0; round < rounds; round++) {
    for (const client of wantedClients.keys()) {
      yield* server.query(`SELECT pg_create_logical_replication_slot('${slot(client, round)}', 'pgoutput')`, database)
    }
  }
  for (const statement of workload.load) yield* server.query(statement, database)
  const [end] = yield* server.query("SELECT pg_current_wal_lsn()::text AS lsn", database)
  yield* server.query("CHECKPOINT", database)
  const results = new Map<string, Array<Result | string>>(wantedClients.map((client) => [client.name, []]))
  for (let round = 0; round < rounds; round++) {
    for (const [index, client] of wantedClients.entries()) {
      const { host, password, port, user } = server
      const name = slot(index, round)
      const task = {
        host,
        port,
        user,
        password,
        database,
        slot: name,
        publication: "pub",
        changes: workload.changes,
        endLsn: String(end?.lsn)
      }
      const result = yield* Effect.promise(() => runClient(client, task))
      results.get(client.name)!.push(result)
      yield* server.query(
        `DO $$ BEGIN FOR i IN 1..200 LOOP
           PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '${name}' AND active;
           PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '${name}' AND NOT active;
           EXIT WHEN NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '${name}');
           PERFORM pg_sleep(0.02); END LOOP; END $$`,
        database
      )
    }
  }
  yield* server.query(`DROP DATABASE ${database} WITH (FORCE)`)
  const rows = summarize(workload, results)
  print(workload, rows)
  return rows
})

const program = Effect.gen(function* () {
  const server = yield* PgServer.make({
    settings: {
      max_replication_slots: 200,
      max_wal_senders: 20,
      wal_sender_timeout: 0,
      max_wal_size: "8GB",
      shared_buffers: "512MB",
      logical_decoding_work_mem: "256MB"
    }
  })
  console.log(`PostgreSQL ${server.version}, Node ${process.version}, ${rounds} rounds`)
  const all: Array<Row> = []
  for (const workload of wantedWorkloads) all.push(...(yield* drain(server, workload)))
  if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(all, null, 2)}\n`)
}).pipe(Effect.scoped)

await Effect.runPromise(program)
