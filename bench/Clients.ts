/** Who takes part, and how one of them is run: in a process of its own, over a slot of its own. */
import { spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import type { PgServer } from "@replicant/node/testing"
import { Effect } from "effect"
import type { Result, Task } from "./Measure.ts"

export interface Client {
  readonly name: string
  readonly file: string
  readonly mode?: string
  /** A module to load before it. */
  readonly import?: string
}

const replicant = { name: "replicant", file: "replicant.ts", mode: "changes" }
const postgres = { name: "postgres.js", file: "postgres.ts" }
const pgwire = { name: "pgwire", file: "pgwire.ts" }
const pgLogicalReplication = { name: "pg-logical-replication", file: "pg-logical-replication.ts" }

/** For draining. The yardstick comes first: every ratio is against it. */
export const drainers: ReadonlyArray<Client> = [
  { name: "pg_recvlogical", file: "pg_recvlogical.ts" },
  replicant,
  { ...replicant, name: "replicant each", mode: "each" },
  { ...replicant, name: "replicant binary", mode: "binary" },
  { ...replicant, name: "replicant typed", mode: "typed" },
  {
    ...replicant,
    name: "replicant typed with JIT",
    mode: "typed",
    import: "effect/schema/SchemaJITCompiler/enable"
  },
  { ...replicant, name: "replicant transactions", mode: "transactions" },
  { ...replicant, name: "replicant withLogicalStream", mode: "withLogicalStream" },
  postgres,
  pgwire,
  pgLogicalReplication
]

/** One way of each library that shows its changes to JavaScript. */
export const libraries: ReadonlyArray<Client> = [replicant, postgres, pgwire, pgLogicalReplication]

/** Those, and what Replicant's waiting for more costs. */
export const punctualLibraries: ReadonlyArray<Client> = [
  ...libraries,
  { ...replicant, name: "replicant maxReadWait 0", mode: "neverWaiting" }
]

/** Those, waiting for a slow handler where they can. */
export const patientLibraries: ReadonlyArray<Client> = [
  { ...replicant, mode: "each" },
  postgres,
  pgwire,
  pgLogicalReplication,
  { ...pgLogicalReplication, name: "pg-logical-replication flow control", mode: "flowControl" }
]

/** What a flag with names in it leaves of a list. */
export const chosen = <A extends { readonly name: string }>(
  all: ReadonlyArray<A>,
  names: string | undefined
): ReadonlyArray<A> => all.filter(({ name }) => names?.split(",").includes(name) ?? true)

export interface Run {
  /** What it printed, or how it failed. */
  readonly outcome: Promise<Result | string>
  readonly pid: number
  /** Asks it to print what it has and end. */
  readonly stop: () => void
}

/** Starts one client process. It is killed after `timeoutMillis`, 5 minutes. */
export const startClient = (client: Client, task: Task, timeoutMillis = 300_000): Run => {
  const script = new URL(`clients/${client.file}`, import.meta.url).pathname
  const preload = client.import === undefined ? [] : ["--import", client.import]
  const child = spawn(process.execPath, [...preload, script], {
    env: { ...process.env, BENCH_TASK: JSON.stringify(task), BENCH_MODE: client.mode ?? "", NODE_NO_WARNINGS: "1" },
    stdio: ["ignore", "pipe", "pipe"]
  })
  let out = ""
  let err = ""
  const timer = setTimeout(() => child.kill("SIGKILL"), timeoutMillis)
  child.stdout.on("data", (text) => (out += text))
  child.stderr.on("data", (text) => (err += text))
  const outcome = new Promise<Result | string>((resolve) => {
    child.on("close", (code, signal) => {
      clearTimeout(timer)
      resolve(
        // Behind what it may have logged.
        code === 0 && out !== ""
          ? (JSON.parse(out.trimEnd().split("\n").at(-1) ?? "") as Result)
          : `failed (${signal ?? code}): ${err.trim().split("\n").slice(0, 8).join(" ")}`
      )
    })
  })
  return { outcome, pid: child.pid ?? -1, stop: () => void child.kill("SIGTERM") }
}

/** Bytes of memory a process holds, where the system tells: 0 elsewhere, or when it has gone. */
export const residentBytes = (pid: number): number => {
  try {
    return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) * 1024
  } catch {
    return 0
  }
}

/** Settings under which a backlog stays, and its transactions are not spilled before they need be. */
export const serverSettings = {
  max_replication_slots: 200,
  max_wal_senders: 20,
  wal_sender_timeout: 0,
  max_wal_size: "8GB",
  shared_buffers: "512MB",
  logical_decoding_work_mem: "256MB"
} as const

/** Where to stream from: all of a task but its slot and how much there is. */
export const connectionTask = (server: PgServer["Service"], database: string) => {
  const { host, password, port, user } = server
  return { host, password, port, user, database, publication: "pub", endLsn: "0/0" }
}

export const createSlot = (server: PgServer["Service"], slot: string, database: string) =>
  server.query(`SELECT pg_create_logical_replication_slot('${slot}', 'pgoutput')`, database)

/** Drops a slot that a client may still be leaving. */
export const dropSlot = (server: PgServer["Service"], slot: string, database: string) =>
  server.query(
    `DO $$ BEGIN FOR i IN 1..500 LOOP
       PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '${slot}' AND active;
       PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '${slot}' AND NOT active;
       EXIT WHEN NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '${slot}');
       PERFORM pg_sleep(0.02); END LOOP; END $$`,
    database
  )

/** Waits until somebody streams from a slot. */
export const awaitActive = (server: PgServer["Service"], slot: string, database: string) =>
  server.query(
    `DO $$ BEGIN FOR i IN 1..500 LOOP
       EXIT WHEN EXISTS (SELECT FROM pg_stat_replication JOIN pg_replication_slots ON active_pid = pid
                         WHERE slot_name = '${slot}' AND state = 'streaming');
       PERFORM pg_stat_clear_snapshot(); PERFORM pg_sleep(0.02); END LOOP; END $$`,
    database
  )

/** A database with the publication `pub` of table `t`, dropped when `use` is done. */
export const withDatabase = <A, E>(
  server: PgServer["Service"],
  database: string,
  schema: ReadonlyArray<string>,
  use: Effect.Effect<A, E>
) =>
  Effect.gen(function* () {
    yield* server.query(`CREATE DATABASE ${database}`)
    for (const statement of schema) yield* server.query(statement, database)
    yield* server.query("CREATE PUBLICATION pub FOR TABLE t", database)
    const result = yield* use
    yield* server.query(`DROP DATABASE ${database} WITH (FORCE)`)
    return result
  })

export const median = (values: ReadonlyArray<number>): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** A line of a table: the first cell to the left, the others to the right under headings of ten. */
export const line = (first: string, ...cells: ReadonlyArray<string | number>): string =>
  first.padEnd(38) + cells.map((cell) => String(cell).padStart(11)).join("")
