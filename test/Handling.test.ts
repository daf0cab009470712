/** Handlers that compose, on a real server whose connections are cut: order by row, and nothing lost. */
import { assert, describe } from "@effect/vitest"
import { type Change, Handler, type Snapshot, withLogicalStream } from "@replicant/core"
import { Effect, Fiber } from "effect"
import { eventually } from "./support/eventually.ts"
import { logicalOptions, walSender } from "./support/Follow.ts"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

const items = `CREATE TABLE items (id int PRIMARY KEY, at int NOT NULL, body text);
  ALTER TABLE items ALTER body SET STORAGE EXTERNAL;
  INSERT INTO items SELECT id, 0, repeat('x', 3000) FROM generate_series(1, 20) id`

/** Each row a hundred times over, in transactions of five rows, with the connection cut in between. */
const write = Effect.fnUntraced(function* (workspace: Workspace) {
  for (let at = 1; at <= 100; at++) {
    const from = (at * 5) % 20
    yield* workspace.sql(`UPDATE items SET at = at + 1 WHERE id > ${from} AND id <= ${from + 5}`)
    if (at % 40 !== 0) continue
    yield* workspace.sql(
      `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`
    )
  }
})

const caughtUp = (workspace: Workspace) =>
  Effect.flatMap(workspace.currentWalLsn, (end) =>
    eventually(
      Effect.map(
        workspace.sql(`SELECT 1 FROM pg_replication_slots
          WHERE slot_name = '${workspace.slot}' AND confirmed_flush_lsn >= '${end}'`),
        (rows) => rows.length === 1
      ),
      { what: "all is confirmed" }
    )
  )

describe("handlers that compose", () => {
  onServer("postgres", "byKey brings every row in order, at least once, with the connection cut", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: items })
      const seen = new Map<unknown, Array<number>>()
      let [running, most] = [0, 0]
      const handle = Effect.fnUntraced(function* (change: { readonly _tag: string }) {
        if (change._tag !== "Update") return
        const { row } = change as Extract<Change, { readonly _tag: "Update" }>
        running++
        most = Math.max(most, running)
        yield* Effect.yieldNow
        seen.set(row.id, [...(seen.get(row.id) ?? []), row.at as number])
        running--
      })
      const fiber = yield* withLogicalStream(logicalOptions(workspace), Handler.byKey({ concurrency: 8 }, handle)).pipe(
        Effect.provide(walSender(workspace)),
        Effect.forkChild
      )
      yield* eventually(workspace.isStreaming(), { what: "it streams" })
      yield* write(workspace)
      yield* caughtUp(workspace)
      yield* Fiber.interrupt(fiber)
      assert.isAbove(most, 1)
      for (let id = 1; id <= 20; id++) {
        const came = seen.get(id)!
        assert.deepStrictEqual(
          [...new Set(came)],
          Array.from({ length: 25 }, (_, at) => at + 1),
          `row ${id}`
        )
        // What comes again comes again in order, from where it had been acknowledged.
        const isInOrder = came.every((at, index) => index === 0 || at <= came[index - 1]! + 1)
        assert.isTrue(isInOrder, `row ${id}: ${came}`)
      }
    })
  )

  onServer("postgres", "batch keeps a store in step from the first copy on, each row once in a batch", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: items })
      const stored = new Map<unknown, Record<string, unknown>>()
      const options = { ...logicalOptions(workspace), createSlot: undefined, snapshot: "initial" } as const
      const handler = Handler.batch<Change | Snapshot.Change | Snapshot.OneTableChange>(
        { rows: 50, within: "50 millis", compact: true },
        (changes) =>
          Effect.sync(() => {
            const rows = changes.flatMap((change) =>
              change._tag === "SnapshotRow" || change._tag === "Insert" || change._tag === "Update" ? [change.row] : []
            )
            assert.lengthOf(new Set(rows.map(({ id }) => id)), rows.length, "a row twice")
            for (const row of rows) stored.set(row.id, { ...stored.get(row.id), ...row })
          })
      )
      const fiber = yield* withLogicalStream(options, handler).pipe(
        Effect.provide(walSender(workspace)),
        Effect.forkChild
      )
      yield* eventually(workspace.isStreaming(), { what: "it streams" })
      yield* write(workspace)
      yield* caughtUp(workspace)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(stored.size, 20)
      for (const row of stored.values()) assert.deepStrictEqual([row.at, (row.body as string).length], [25, 3000])
    })
  )
})
