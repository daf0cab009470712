import { assert, describe } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { eventually, NeverHappened } from "./support/eventually.ts"
import { onServer, serverNames } from "./support/Servers.ts"
import { makeWorkspace } from "./support/Workspace.ts"

describe("Workspace", () => {
  for (const name of serverNames) {
    onServer(name, "is a database with a publication, and takes its slots with it when it goes", (server) =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const workspace = yield* Scope.provide(
          makeWorkspace(server, { sql: "CREATE TABLE orders (id int); INSERT INTO orders VALUES (1)" }),
          scope
        )
        assert.deepStrictEqual(yield* workspace.sql("SELECT id FROM orders"), [{ id: 1 }])
        assert.lengthOf(
          yield* workspace.sql(`SELECT FROM pg_publication WHERE pubname = '${workspace.publication}'`),
          1
        )
        assert.isUndefined(yield* workspace.findSlot())
        const plugin = name === "wal2json" ? "wal2json" : "pgoutput"
        yield* workspace.sql(`SELECT pg_create_logical_replication_slot('${workspace.slot}', '${plugin}')`)
        assert.strictEqual((yield* workspace.findSlot())?.plugin, plugin)
        yield* Scope.close(scope, Exit.void)
        const left = `SELECT slot_name AS name FROM pg_replication_slots WHERE database = '${workspace.database}'
          UNION ALL SELECT datname FROM pg_database WHERE datname = '${workspace.database}'`
        assert.deepStrictEqual(yield* server.query(left), [])
      })
    )
  }

  onServer("postgres", "keeps a transaction open in a session", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE orders (id int)" })
      const session = yield* workspace.session
      yield* session.query("BEGIN; INSERT INTO orders VALUES (1)")
      assert.deepStrictEqual(yield* workspace.sql("SELECT id FROM orders"), [])
      yield* session.query("COMMIT")
      assert.deepStrictEqual(yield* workspace.sql("SELECT id FROM orders"), [{ id: 1 }])
    })
  )

  onServer("postgres", "waits for a condition, and says what never happened", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE orders (id int)" })
      const count = Effect.map(workspace.sql("SELECT id FROM orders"), (rows) => rows.length > 0)
      // Nobody is asked: a server at work may take longer than this deadline to answer even once.
      const error = yield* Effect.flip(eventually(Effect.succeed(false), { deadline: 100, what: "an order arrives" }))
      assert.instanceOf(error, NeverHappened)
      assert.strictEqual(error.message, "an order arrives; last seen: false")
      yield* workspace.sql("INSERT INTO orders VALUES (1)")
      assert.isTrue(yield* eventually(count))
    })
  )
})
