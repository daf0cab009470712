/** `replicant stream --snapshot`, as its user has it: the rows that are there, then what changes. */
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { eventually } from "./support/eventually.ts"
import { replicant, startReplicant } from "./support/Replicant.ts"
import { once, onServer } from "./support/Servers.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

const orders = "CREATE TABLE orders (id bigint PRIMARY KEY, note text); INSERT INTO orders VALUES (1, 'a'), (2, NULL)"
const many = `CREATE TABLE orders (id bigint PRIMARY KEY, note text);
  INSERT INTO orders SELECT n, repeat('x', 200) FROM generate_series(1, 20000) n`

const environment = (workspace: Workspace) => ({ DATABASE_URL: workspace.url() })
const args = (workspace: Workspace, ...more: ReadonlyArray<string>) => [
  ...["stream", "--slot", workspace.slot, "--publication", workspace.publication],
  ...more
]

const kinds = (stdout: string): ReadonlyArray<string> =>
  stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line).kind)

const noSlotIsLeft = (workspace: Workspace) =>
  eventually(
    Effect.map(
      workspace.sql(`SELECT FROM pg_replication_slots WHERE database = '${workspace.database}'`),
      (slots) => slots.length === 0
    ),
    { what: "no slot is left" }
  )

describe("replicant stream --snapshot", () => {
  onServer("postgres", "initial: makes publication and slot, prints rows and then changes, and resumes", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      const stream = ["stream", "--slot", workspace.slot, "--create", "--table", "orders", "--snapshot", "initial"]
      const running = yield* startReplicant([...stream, "--limit", "3"], environment(workspace))
      yield* eventually(workspace.isStreaming(workspace.slot))
      yield* workspace.sql("UPDATE orders SET note = 'b' WHERE id = 1")
      const first = yield* running.ended
      assert.strictEqual(first.code, 0, first.stderr)
      const [started, one, two, tableCompleted, completed, updated] = running.lines()
      assert.deepInclude(started, { kind: "snapshotStarted", attempt: 1 })
      assert.deepStrictEqual(one, {
        kind: "snapshotRow",
        schema: "public",
        table: "orders",
        lsn: started?.lsn,
        row: { id: "1", note: "a" }
      })
      assert.deepStrictEqual(two?.row, { id: "2", note: null })
      assert.deepInclude(tableCompleted, { kind: "snapshotTableCompleted", table: "orders", rows: 2 })
      assert.deepInclude(completed, { kind: "snapshotCompleted", lsn: started?.lsn, rows: 2 })
      assert.deepInclude(updated, { kind: "update", row: { id: "1", note: "b" } })
      yield* workspace.sql("DELETE FROM orders WHERE id = 2")
      const second = yield* replicant([...stream, "--limit", "1"], environment(workspace))
      assert.deepStrictEqual(kinds(second.stdout), ["delete"])
    })
  )

  onServer(
    "postgres",
    "initial: a limit that is reached within the snapshot ends after it, and its slot is there",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: orders })
        const ended = yield* replicant(args(workspace, "--snapshot", "initial", "--limit", "1"), environment(workspace))
        assert.strictEqual(ended.code, 0, ended.stderr)
        assert.strictEqual(kinds(ended.stdout).at(-1), "snapshotCompleted")
        assert.isFalse((yield* workspace.findSlot())?.active)
      }),
    once
  )

  onServer(
    "postgres",
    "only: ends with its rows, or at the limit, over as many connections as asked for, and leaves no slot",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: many })
        const only = ["stream", "--publication", workspace.publication, "--snapshot", "only"]
        const all = yield* replicant([...only, "--connections", "3"], environment(workspace))
        assert.strictEqual(all.code, 0, all.stderr)
        assert.lengthOf(kinds(all.stdout), 20_003)
        const some = yield* replicant([...only, "--limit", "2", "--pretty"], environment(workspace))
        assert.match(
          some.stdout,
          /^-- snapshot of 1 table as of \S+\n {2}= row public.orders id=1 .*\n {2}= row public.orders id=2 .*\n$/
        )
        yield* noSlotIsLeft(workspace)
      }),
    once
  )

  onServer(
    "postgres",
    "leaves no slot behind with --temporary",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: orders })
        const temporary = ["stream", "--temporary", "--publication", workspace.publication, "--snapshot", "initial"]
        const running = yield* startReplicant([...temporary, "--limit", "3"], environment(workspace))
        yield* eventually(workspace.isStreaming())
        yield* workspace.sql("DELETE FROM orders WHERE id = 1")
        const ended = yield* running.ended
        assert.strictEqual(ended.code, 0, ended.stderr)
        assert.strictEqual(kinds(ended.stdout).at(-1), "delete")
        yield* noSlotIsLeft(workspace)
      }),
    once
  )

  for (const [title, leave] of [
    ["a reader that leaves", (running) => Effect.sync(() => void running.process.stdout.destroy())],
    ["SIGINT", (running) => running.kill("SIGINT")],
    ["SIGKILL", (running) => running.kill("SIGKILL")]
  ] as ReadonlyArray<
    readonly [string, (running: Effect.Success<ReturnType<typeof startReplicant>>) => Effect.Effect<void>]
  >) {
    onServer(
      "postgres",
      `counts for nothing until its last line is taken: after ${title} no slot is left, and it begins anew`,
      (server) =>
        Effect.gen(function* () {
          const workspace = yield* makeWorkspace(server, { sql: many })
          const running = yield* startReplicant(args(workspace, "--snapshot", "initial"), environment(workspace))
          running.process.stdout.once("data", () => running.process.stdout.pause())
          yield* eventually(Effect.sync(() => running.stdout().length > 0))
          yield* leave(running)
          running.process.stdout.resume()
          assert.notMatch((yield* running.ended).stdout, /snapshotCompleted/)
          yield* noSlotIsLeft(workspace)
          const again = yield* replicant(
            args(workspace, "--snapshot", "initial", "--limit", "1"),
            environment(workspace)
          )
          assert.lengthOf(kinds(again.stdout), 20_003)
        }),
      once
    )
  }

  onServer(
    "postgres",
    "goes on with --checkpoint where it was killed: both outputs together have every row",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: `CREATE TABLE orders (id int PRIMARY KEY, pad text); ALTER TABLE orders ALTER pad SET STORAGE PLAIN;
            INSERT INTO orders SELECT i, repeat('x', 3900) FROM generate_series(1, 12000) i`
        })
        const directory = yield* Effect.acquireRelease(
          Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "replicant-checkpoint-"))),
          (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
        )
        const resumable = args(workspace, "--snapshot", "initial", "--checkpoint", directory, "--boundaries")
        const running = yield* startReplicant([...resumable, "--connections", "1"], environment(workspace))
        // What follows the end of a range comes when that is recorded.
        let isRangeDone = false
        running.process.stdout.on("data", (text: string) => {
          if (isRangeDone) running.process.kill("SIGKILL")
          isRangeDone ||= text.includes("snapshotRangeCompleted")
        })
        const first = yield* running.ended
        assert.notInclude(first.stdout, '"snapshotCompleted"')
        const second = yield* replicant([...resumable, "--limit", "1"], environment(workspace))
        assert.strictEqual(second.code, 0, second.stderr)
        assert.strictEqual(kinds(second.stdout)[0], "snapshotResumed")
        const rows = (stdout: string) =>
          Array.from(stdout.matchAll(/"kind":"snapshotRow".*?"id":(\d+)/g), ([, id]) => Number(id))
        assert.isBelow(rows(second.stdout).length, 12_000, "what was recorded does not come again")
        assert.strictEqual(new Set([...rows(first.stdout), ...rows(second.stdout)]).size, 12_000)
      }),
    { ...once, timeout: 60_000 }
  )
})
