/** What a sink recognises a change by, on a real server: the same each time that it comes, whichever way it comes. */
import { NodeFileSystem } from "@effect/platform-node"
import { assert, describe } from "@effect/vitest"
import { type Change, changeId, Pgoutput, TransactionSpill } from "@replicant/core"
import { Effect, Layer } from "effect"
import { follow, walSender } from "./support/Follow.ts"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace } from "./support/Workspace.ts"

const tables = `
  DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET logical_decoding_work_mem = ''64kB''', current_database());
  END $$;
  CREATE TABLE t (a int PRIMARY KEY, b text);
  CREATE TABLE u (a int PRIMARY KEY)`

const workload = [
  "INSERT INTO t VALUES (1, 'a'); UPDATE t SET a = 2; DELETE FROM t",
  "SELECT pg_logical_emit_message(false, 'alone', 'x')",
  "BEGIN; SELECT pg_logical_emit_message(true, 'within', 'x'); INSERT INTO u VALUES (1); TRUNCATE t, u; COMMIT",
  // So large that it is sent in progress, with a part that is undone.
  `BEGIN; INSERT INTO t SELECT n, repeat('x', 100) FROM generate_series(1, 2000) n; SAVEPOINT s;
   INSERT INTO t SELECT n, repeat('y', 100) FROM generate_series(2001, 4000) n; ROLLBACK TO s;
   ALTER TABLE u ADD b int; INSERT INTO u VALUES (2, 3); COMMIT`,
  "DO $$ BEGIN FOR i IN 10..19 LOOP INSERT INTO u VALUES (i, i); COMMIT; END LOOP; END $$",
  "SELECT pg_logical_emit_message(false, 'alone', 'y')"
]

const spill = TransactionSpill.layer({ maxBytesInMemory: 1024 * 1024 }).pipe(Layer.provide(NodeFileSystem.layer))

/** Everything that has an id, with what it is. */
const named = (changes: ReadonlyArray<Change>) =>
  changes.flatMap((change): ReadonlyArray<readonly [id: string, what: string]> => {
    const id = changeId(change)
    const row = change._tag === "Insert" ? JSON.stringify(change.row) : ""
    return id === undefined ? [] : [[id, `${change._tag} ${row}`]]
  })

describe("changeId", () => {
  onServer("postgres", "names the same changes alike when they come again, and when they came in progress", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: tables })
      const nothing = () => Effect.succeed(undefined)
      const publications = [workspace.publication]
      const inProgress = {
        options: { slot: `${workspace.slot}_2`, plugin: Pgoutput.make({ publications, streaming: "on" }) },
        layer: Layer.merge(walSender(workspace), spill),
        handler: nothing
      }
      const first = yield* follow(workspace, { handler: nothing })
      const streamed = yield* follow(workspace, inProgress)
      for (const sql of workload) yield* workspace.sql(sql)
      const isAll = (stream: typeof first) => Effect.all([stream.saw("Commit", 13), stream.saw("Message", 3)])
      yield* isAll(first)
      yield* isAll(streamed)
      const names = named(first.changes)
      const ids = names.map(([id]) => id)
      assert.strictEqual(new Set(ids).size, ids.length)
      assert.deepStrictEqual(ids, ids.toSorted())
      assert.deepStrictEqual(named(streamed.changes), names)
      yield* first.stop
      const again = yield* follow(workspace, { handler: nothing })
      yield* isAll(again)
      assert.deepStrictEqual(named(again.changes), names)
    })
  )
})
