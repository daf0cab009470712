/** A transaction larger than the memory of the process that takes it. */
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace } from "./support/Workspace.ts"

const program = fileURLToPath(new URL("support/countRows.ts", import.meta.url))

interface Counted {
  readonly rows: number
  readonly sum: number
  readonly blocks: number
  readonly peakMegabytes: number
}

/** Runs a process that may use so much memory for its objects. */
const runLimited = (megabytes: number, ...args: ReadonlyArray<string>) =>
  Effect.callback<Counted, Error>((resume) => {
    const child = execFile(process.execPath, [`--max-old-space-size=${megabytes}`, program, ...args], (error, stdout) =>
      resume(error === null ? Effect.succeed(JSON.parse(stdout) as Counted) : Effect.fail(error))
    )
    return Effect.sync(() => child.kill("SIGKILL"))
  })

const rows = 5_000_000

describe("a transaction of 5 million rows", () => {
  onServer(
    "postgres",
    "passes through a process of 256 MB, gathered until it commits and as it comes",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: "CREATE UNLOGGED TABLE counted (id int, note text)" })
        yield* workspace.sql("ALTER TABLE counted SET LOGGED")
        const modes = ["gathered", "as it comes"] as const
        for (const [index] of modes.entries()) {
          yield* workspace.sql(`SELECT pg_create_logical_replication_slot('${workspace.slot}_${index}', 'pgoutput')`)
        }
        yield* workspace.sql(`INSERT INTO counted SELECT i, 'a note of some length' FROM generate_series(1, ${rows}) i`)
        for (const [index, mode] of modes.entries()) {
          const args = [workspace.url(), `${workspace.slot}_${index}`, workspace.publication, mode]
          const counted = yield* runLimited(256, ...args)
          assert.deepInclude(counted, { rows, sum: (rows * (rows + 1)) / 2 })
          assert.strictEqual(counted.blocks > 1, mode === "as it comes")
        }
      }),
    { since: 18, timeout: 300_000 }
  )
})
