/** `replicant lag` and `replicant watch` on a real server, as their user and their users' scripts run them. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { eventually } from "./support/eventually.ts"
import { replicant, startReplicant } from "./support/Replicant.ts"
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

describe("replicant watch", () => {
  onServer("postgres", "is a table a look where there is no terminal, and one object a line with --json", (server) =>
    Effect.gen(function* () {
      const workspace = yield* neglected(server)
      const once = yield* replicant(["watch", "--once"], environment(workspace))
      assert.strictEqual(once.code, 0, once.stderr)
      const [head = "", headings = "", ...rows] = once.stdout.trimEnd().split("\n")
      assert.match(head, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \| PostgreSQL [\d.]+ \| WAL \w+\/\w+/)
      assert.match(headings, /^SLOT +LAG +TIME +RATE +KEEPS +FORECAST +STATE/)
      const row = rows.find((line) => line.startsWith(`${workspace.slot} `)) ?? ""
      assert.match(row, / [\d.]+ MB .* inactive .*pgoutput$/)
      assert.notInclude(once.stdout, "\u001b")

      const args = ["watch", "--json", "--interval", "100ms", "--slot", workspace.slot]
      const lines = yield* startReplicant(args, environment(workspace))
      yield* eventually(
        Effect.sync(() => lines.lines().length >= 3),
        { what: "three looks" }
      )
      for (const line of lines.lines()) {
        assert.deepInclude(line, { isInRecovery: false })
        // Of whatever tests beside us copy.
        assert.isArray(line.copies)
        const [slot, ...others] = line.slots as ReadonlyArray<Record<string, unknown>>
        assert.deepStrictEqual(others, [])
        assert.deepInclude(slot, { name: workspace.slot, plugin: "pgoutput", walSender: null })
        assert.isAbove(Number(slot?.lagBytes), 1_000_000)
      }
      yield* lines.kill("SIGINT")
      assert.strictEqual((yield* lines.ended).code, 130)

      const listed = yield* startReplicant(["slot", "list", "--watch"], environment(workspace))
      yield* eventually(
        Effect.sync(() => listed.stdout().split("SLOT ").length > 2),
        { what: "two tables" }
      )
      yield* listed.kill("SIGTERM")
      assert.strictEqual((yield* listed.ended).code, 143)
    })
  )
})
