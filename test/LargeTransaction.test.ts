/** A transaction larger than the memory of the process that takes it. */
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { faultTitle } from "./support/Faults.ts"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace } from "./support/Workspace.ts"

const program = fileURLToPath(new URL("support/countRows.ts", import.meta.url))

interface Counted {
  readonly rows: number
  readonly sum: number
  readonly blocks: number
  /** Resident memory at its most, over what the process had before it was connected. */
  readonly overIdleMegabytes: number
  /** How often it was looked at what is held, and how much more that was at the last looks than at the first. */
  readonly looks: number
  readonly grownMegabytes: number
}

/** Runs a process that may use so much memory for its objects. */
const runLimited = (megabytes: number, ...args: ReadonlyArray<string>) =>
  Effect.callback<Counted, Error>((resume) => {
    const child = execFile(process.execPath, [`--max-old-space-size=${megabytes}`, program, ...args], (error, stdout) =>
      resume(error === null ? Effect.succeed(JSON.parse(stdout) as Counted) : Effect.fail(error))
    )
    return Effect.sync(() => child.kill("SIGKILL"))
  })

/** Five million take a minute. */
const rows = Number(process.env.REPLICANT_LARGE_ROWS ?? 1_000_000)

/** A fraction of what the rows would take, were they held. */
const heapMegabytes = 64

describe(`a transaction of ${rows} rows`, () => {
  onServer(
    "postgres",
    faultTitle(
      "D1",
      `passes through ${heapMegabytes} MB of heap: sent after its commit, gathered until then, and as it comes`
    ),
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: "CREATE UNLOGGED TABLE counted (id int, note text)" })
        yield* workspace.sql("ALTER TABLE counted SET LOGGED")
        const modes = ["after its commit", "gathered", "as it comes"] as const
        for (const [index] of modes.entries()) {
          yield* workspace.sql(`SELECT pg_create_logical_replication_slot('${workspace.slot}_${index}', 'pgoutput')`)
        }
        yield* workspace.sql(`INSERT INTO counted SELECT i, 'a note of some length' FROM generate_series(1, ${rows}) i`)
        for (const [index, mode] of modes.entries()) {
          const args = [workspace.url(), `${workspace.slot}_${index}`, workspace.publication, mode]
          const counted = yield* runLimited(heapMegabytes, ...args)
          assert.deepInclude(counted, { rows, sum: (rows * (rows + 1)) / 2 })
          assert.strictEqual(counted.blocks > 1, mode === "as it comes")
          const { grownMegabytes, looks, overIdleMegabytes } = counted
          yield* Effect.logInfo(
            `${rows} rows, ${mode}: +${overIdleMegabytes} MB at most, ${grownMegabytes} MB of growth`
          )
          assert.isAtLeast(looks, 10)
          // As objects they are a hundred bytes each, and more.
          assert.isBelow(grownMegabytes, (rows * 100) / 1e6 / 4, "what is held does not grow with the transaction")
        }
      }),
    { since: 18, timeout: 300_000 }
  )
})
