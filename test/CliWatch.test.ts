/** `replicant lag` and `replicant watch` on a real server, as their user and their users' scripts run them. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { replicant } from "./support/Replicant.ts"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

const environment = (workspace: Workspace) => ({ DATABASE_URL: workspace.url() })

/** A workspace with a slot that nobody reads, and a megabyte of WAL behind it. */
const neglected = Effect.fnUntraced(function* (server: Parameters<typeof makeWorkspace>[0]) {
  const workspace = yield* makeWorkspace(server)
  yield* workspace.sql(
    `SELECT pg_create_logical_replication_slot('${workspace.slot}', 'pgoutput');
     SELECT pg_logical_emit_message(false, 'none', repeat('x', 1000)) FROM generate_series(1, 1000)`
  )
  return workspace
})

describe("replicant lag", () => {
  onServer("postgres", "is one number on standard output, with the exit code of a monitoring plugin", (server) =>
    Effect.gen(function* () {
      const workspace = yield* neglected(server)
      const lag = (...args: ReadonlyArray<string>) =>
        replicant(["lag", "--slot", workspace.slot, ...args], environment(workspace))
      const well = yield* lag("--warn", "1GB")
      assert.strictEqual(well.code, 0, well.stderr)
      assert.match(well.stdout, /^\d+\n$/)
      assert.isAbove(Number(well.stdout), 1_000_000)
      assert.strictEqual(well.stderr, "")
      const warning = yield* lag("--warn", "500kB", "--critical", "1TB")
      assert.strictEqual(warning.code, 1)
      assert.match(warning.stderr, /^warning: slot \w+ is [\d.]+ MB.* behind: warning from 500 kB on\n$/)
      // Nobody streams from it: that it is longer than the looks took is known, and reason enough.
      const seconds = yield* lag("--time", "--critical", "100ms")
      assert.strictEqual(seconds.code, 2)
      assert.match(seconds.stdout, /^\d+(\.\d+)?\n$/)
      const missing = yield* replicant(["lag", "--slot", "nobodys", "--json"], environment(workspace))
      assert.strictEqual(missing.code, 3)
      assert.strictEqual(missing.stdout, "")
      assert.strictEqual(JSON.parse(missing.stderr).error, "SlotNotFound")
    })
  )
})
