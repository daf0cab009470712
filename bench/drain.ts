/**
 * Drains a backlog with Replicant and its peers, in turn, over the same WAL: how to read the figures is in README.md.
 *
 * node bench/drain.ts [--rounds 3] [--scale 1] [--only narrow,wide] [--clients replicant,postgres] [--json FILE]
 */
import { writeFileSync } from "node:fs"
import { parseArgs } from "node:util"
import { PgServer } from "@replicant/node/testing"
import { Effect } from "effect"
import {
  chosen,
  connectionTask,
  createSlot,
  drainers,
  dropSlot,
  median,
  serverSettings,
  startClient,
  withDatabase
} from "./Clients.ts"
import type { Result } from "./Measure.ts"
import { type Workload, workloads } from "./Workload.ts"

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
const wantedClients = chosen(drainers, flags.clients)
const wantedWorkloads = chosen(workloads(Number(flags.scale)), flags.only)

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

/** Loads the backlog and lets everybody drain it, in as many rounds as asked. */
const drainAll = Effect.fnUntraced(function* (server: PgServer["Service"], database: string, workload: Workload) {
  const slot = (client: number, round: number) => `${database}_${client}_${round}`
  // All slots before the load: every client drains the same WAL, in every round.
  for (let round = 0; round < rounds; round++) {
    for (const client of wantedClients.keys()) yield* createSlot(server, slot(client, round), database)
  }
  for (const statement of workload.load) yield* server.query(statement, database)
  const [end] = yield* server.query("SELECT pg_current_wal_lsn()::text AS lsn", database)
  yield* server.query("CHECKPOINT", database)
  const results = new Map<string, Array<Result | string>>(wantedClients.map((client) => [client.name, []]))
  for (let round = 0; round < rounds; round++) {
    for (const [index, client] of wantedClients.entries()) {
      const task = {
        ...connectionTask(server, database),
        slot: slot(index, round),
        workload: workload.name,
        changes: workload.changes,
        endLsn: String(end?.lsn)
      }
      results.get(client.name)!.push(yield* Effect.promise(() => startClient(client, task).outcome))
      yield* dropSlot(server, task.slot, database)
    }
  }
  return results
})

const drain = Effect.fnUntraced(function* (server: PgServer["Service"], workload: Workload) {
  const database = `bench_${workload.name}`
  const schema = workload.schema.split("; ")
  const results = yield* withDatabase(server, database, schema, drainAll(server, database, workload))
  const rows = summarize(workload, results)
  print(workload, rows)
  return rows
})

const program = Effect.gen(function* () {
  const server = yield* PgServer.make({ settings: serverSettings })
  console.log(`PostgreSQL ${server.version}, Node ${process.version}, ${rounds} rounds`)
  const all: Array<Row> = []
  for (const workload of wantedWorkloads) all.push(...(yield* drain(server, workload)))
  if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(all, null, 2)}\n`)
}).pipe(Effect.scoped)

await Effect.runPromise(program)
