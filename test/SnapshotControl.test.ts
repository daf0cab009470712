/**
 * Tables read anew while their stream goes on, on a real server that writes meanwhile. What becomes of every interleaving is
 * a property of `TouchedKeys`, and tested there.
 */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { rowText, snapshotRows, takeSnapshot } from "./support/FollowSnapshot.ts"
import { followTable, makeSlot, type TableTarget } from "./support/FollowTable.ts"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

/** The table as it is now, through the same decoders. */
const tableRows = (workspace: Workspace, table: string) =>
  Effect.map(takeSnapshot(workspace), (seen) =>
    snapshotRows(seen)
      .filter(({ relation }) => relation.name === table)
      .map(({ row }) => rowText(row))
      .sort()
  )

const assertSame = Effect.fnUntraced(function* (workspace: Workspace, target: TableTarget, table: string) {
  yield* target.caughtUp
  const expected = yield* tableRows(workspace, table)
  const actual = Array.from(target.rows.values(), rowText).sort()
  assert.strictEqual(actual.length, expected.length)
  for (const [index, text] of actual.entries()) assert.strictEqual(text, expected[index])
})

describe("a table read anew while its stream goes on", () => {
  onServer("postgres", "comes whole, on a stream that is idle otherwise", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: "CREATE TABLE orders (id int PRIMARY KEY, note text); INSERT INTO orders SELECT i, 'n' || i FROM generate_series(1, 3000) i"
      })
      yield* makeSlot(workspace)
      const target = yield* followTable(workspace, {
        table: "orders",
        key: ["id"],
        rows: [{ id: -1, note: "garbage" }]
      })
      const request = yield* target.control.request({ table: "orders" })
      const completed = yield* Effect.timeout(request.await, "10 seconds")
      assert.strictEqual(completed.rows, 3000)
      yield* assertSame(workspace, target, "orders")
    })
  )
})
