/** wal2json, the first Replicant's only plugin, against the real one. */
import { assert, describe } from "@effect/vitest"
import { type Change, nextLsn, Wal2Json } from "@replicant/core"
import { Effect } from "effect"
import { follow, insertedRows } from "./support/Follow.ts"
import { onServer } from "./support/Servers.ts"
import { untilGone } from "./support/Slot.ts"
import { makeWorkspace } from "./support/Workspace.ts"

const schema =
  "CREATE TABLE orders (id int PRIMARY KEY, big bigint, total numeric, note text, raw bytea, at timestamptz, tags text[], doc jsonb)"

const row =
  "(1, 9223372036854775807, 12345678901234567890.123456789, 'it''s \"quoted\"', '\\x00ff', '2024-02-03 04:05:06.789012+00', '{a,NULL,\"b c\"}', '{\"n\": 1}')"

const tags = (changes: ReadonlyArray<Change>) => changes.map((change) => change._tag)

for (const formatVersion of [1, 2] as const) {
  const plugin = formatVersion === 1 ? Wal2Json.make({ formatVersion: 1 }) : Wal2Json.make({ formatVersion: 2 })
  describe(`wal2json, format ${formatVersion}`, () => {
    onServer("wal2json", "streams the same changes and values as pgoutput does", (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: schema })
        const json = yield* follow(workspace, { options: { plugin } })
        const pgoutput = yield* follow(workspace, { options: { slot: `${workspace.slot}_pgoutput` } })
        yield* workspace.sql(`INSERT INTO orders VALUES ${row}`)
        yield* workspace.sql(
          "BEGIN; UPDATE orders SET note = NULL; UPDATE orders SET id = 2; DELETE FROM orders; COMMIT"
        )
        yield* json.saw("Commit", 2)
        yield* pgoutput.saw("Commit", 2)
        assert.deepStrictEqual(tags(json.changes), tags(pgoutput.changes))
        assert.deepStrictEqual(insertedRows(json.changes), insertedRows(pgoutput.changes))
        const olds = (changes: ReadonlyArray<Change>) =>
          changes.flatMap((change) => (change._tag === "Update" || change._tag === "Delete" ? [change.old] : []))
        assert.deepStrictEqual(olds(json.changes), olds(pgoutput.changes))
        const ends = (changes: ReadonlyArray<Change>) =>
          changes.flatMap((change) => (change._tag === "Commit" ? [change.endLsn] : []))
        assert.deepStrictEqual(ends(json.changes), ends(pgoutput.changes))
        yield* json.stop
        yield* pgoutput.stop
      })
    )

    onServer("wal2json", "redelivers what was not acknowledged, and nothing that was", (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: schema })
        let inserts = 0
        const first = yield* follow(workspace, {
          options: { plugin },
          handler: (change) => {
            if (change._tag === "Insert") inserts++
            return Effect.succeed(inserts <= 2 ? nextLsn(change) : undefined)
          }
        })
        yield* workspace.sql(
          "DO $$ BEGIN FOR i IN 1..4 LOOP INSERT INTO orders (id) VALUES (i); COMMIT; END LOOP; END $$"
        )
        yield* first.saw("Commit", 4)
        yield* first.stop
        const again = yield* follow(workspace, { options: { plugin } })
        yield* again.saw("Commit", 2)
        assert.deepStrictEqual(
          insertedRows(again.changes).map((inserted) => inserted.id),
          [3, 4]
        )
      })
    )
  })
}

describe("a plugin that is not there", () => {
  onServer("postgres", "fails with the remedy, and leaves no slot", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: schema })
      const stream = yield* follow(workspace, { options: { plugin: Wal2Json.make() } })
      const error = yield* stream.failure
      assert.deepInclude(error, { _tag: "ServerError", sqlState: "58P01", isRetryable: false })
      assert.include(String((error as { remedy?: string }).remedy), "install the output plugin")
      yield* untilGone(workspace)
    })
  )
})
