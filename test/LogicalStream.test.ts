/** What a consumer sees and may rely on, on a real server. */
import { assert, describe } from "@effect/vitest"
import {
  type Change,
  Handler,
  nextLsn,
  Pgoutput,
  Replication,
  type Transaction,
  withLogicalStream
} from "@replicant/core"
import { Effect, Fiber, Layer, Stream } from "effect"
import { eventually } from "./support/eventually.ts"
import { follow, insertedRows, logicalOptions, walSender } from "./support/Follow.ts"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace } from "./support/Workspace.ts"

const orders = "CREATE TABLE orders (id int PRIMARY KEY, note text, total numeric(12,2), big bigint, payload jsonb)"

const tags = (changes: ReadonlyArray<Change>) => changes.map((change) => change._tag)

describe("withLogicalStream", () => {
  onServer("postgres", "hands over typed changes in commit order, each transaction whole", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      const stream = yield* follow(workspace)
      yield* workspace.sql(`INSERT INTO orders VALUES (1, 'first', 12.50, 9007199254740993, '{"a":[1]}')`)
      yield* workspace.sql("BEGIN; UPDATE orders SET note = NULL; UPDATE orders SET id = 2; DELETE FROM orders; COMMIT")
      yield* workspace.sql("TRUNCATE orders RESTART IDENTITY")
      yield* stream.saw("Commit", 3)
      assert.deepStrictEqual(tags(stream.changes), [
        ...["Begin", "Insert", "Commit"],
        ...["Begin", "Update", "Update", "Delete", "Commit"],
        ...["Begin", "Truncate", "Commit"]
      ])
      const [, insert, , , update, rekeyed, deleted, , , truncate] = stream.changes
      assert.deepInclude(insert, {
        row: { id: 1, note: "first", total: "12.50", big: 9_007_199_254_740_993n, payload: { a: [1] } }
      })
      assert.deepInclude(update, { old: undefined, unchanged: [], ordinal: 0 })
      assert.deepInclude(rekeyed, { old: { _tag: "Key", row: { id: 1 } }, ordinal: 1 })
      assert.deepInclude(deleted, { old: { _tag: "Key", row: { id: 2 } } })
      assert.deepInclude(truncate, { cascade: false, restartIdentity: true })
    })
  )

  onServer("postgres", "lists an unchanged TOAST column, and never hands it over as null", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: "CREATE TABLE docs (id int PRIMARY KEY, n int, body text); ALTER TABLE docs ALTER body SET STORAGE EXTERNAL"
      })
      const stream = yield* follow(workspace)
      yield* workspace.sql("INSERT INTO docs VALUES (1, 1, repeat('x', 9000))")
      yield* workspace.sql("UPDATE docs SET n = 2")
      yield* workspace.sql("ALTER TABLE docs REPLICA IDENTITY FULL")
      yield* workspace.sql("UPDATE docs SET n = 3")
      yield* stream.saw("Update", 2)
      const [toasted, full] = stream.changes.filter((change) => change._tag === "Update")
      assert.deepStrictEqual(toasted?.row, { id: 1, n: 2 })
      assert.deepStrictEqual(toasted?.unchanged, ["body"])
      assert.isFalse("body" in toasted!.row)
      assert.strictEqual(String(full?.row.body).length, 9000, "filled from the whole old row")
      assert.include(tags(stream.changes), "RelationChanged")
    })
  )

  onServer("postgres", "hands over logical messages, transactional or not, and acknowledges both", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      const stream = yield* follow(workspace)
      yield* workspace.sql("SELECT pg_logical_emit_message(false, 'outside', 'now')")
      yield* workspace.sql("SELECT pg_logical_emit_message(true, 'inside', 'then')")
      yield* stream.saw("Message", 2)
      const messages = stream.changes.filter((change) => change._tag === "Message")
      assert.deepStrictEqual(
        messages.map((message) => [message.prefix, new TextDecoder().decode(message.content), message.transactional]),
        [
          ["outside", "now", false],
          ["inside", "then", true]
        ]
      )
      yield* stream.stop
      const again = yield* follow(workspace)
      yield* workspace.sql("INSERT INTO orders (id) VALUES (1)")
      yield* again.saw("Commit", 1)
      assert.deepStrictEqual(tags(again.changes), ["Begin", "Insert", "Commit"])
    })
  )

  onServer("postgres", "passes 100,000 changes through with counts and sums equal", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE numbers (id int PRIMARY KEY, n bigint)" })
      let count = 0
      let sum = 0n
      const fiber = yield* withLogicalStream(
        logicalOptions(workspace),
        Handler.arrays((changes) =>
          Effect.sync(() => {
            let last: ReturnType<typeof nextLsn>
            for (const change of changes) {
              if (change._tag === "Insert") {
                count++
                sum += change.row.n as bigint
              }
              last = nextLsn(change) ?? last
            }
            return last
          })
        )
      ).pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
      yield* eventually(workspace.isStreaming())
      yield* workspace.sql("INSERT INTO numbers SELECT i, i * 10000000000 FROM generate_series(1, 40000) i")
      yield* workspace.sql(
        "DO $$ BEGIN FOR i IN 40001..60000 LOOP INSERT INTO numbers VALUES (i, i * 10000000000); IF i % 10 = 0 THEN COMMIT; END IF; END LOOP; END $$"
      )
      yield* workspace.sql("INSERT INTO numbers SELECT i, i * 10000000000 FROM generate_series(60001, 100000) i")
      yield* eventually(Effect.sync(() => count >= 100_000))
      const [row] = yield* workspace.sql("SELECT count(*)::int AS count, sum(n)::text AS sum FROM numbers")
      assert.deepStrictEqual({ count, sum: String(sum) }, { count: Number(row?.count), sum: String(row?.sum) })
      const end = yield* workspace.currentWalLsn
      yield* eventually(
        Effect.map(
          workspace.sql(
            `SELECT confirmed_flush_lsn >= '${end}' AS done FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`
          ),
          ([slot]) => slot?.done === true
        ),
        { what: "the slot confirmed all of it" }
      )
      yield* Fiber.interrupt(fiber)
    })
  )

  onServer("postgres", "fails with the handler's error on the n-th change, and a second run sees it again", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      const broken = { _tag: "Broken" as const }
      const stream = yield* follow(workspace, {
        handler: (change) =>
          change._tag === "Insert" && change.row.id === 5 ? Effect.fail(broken) : Effect.succeed(nextLsn(change))
      })
      yield* workspace.sql(
        "DO $$ BEGIN FOR i IN 1..9 LOOP INSERT INTO orders (id) VALUES (i); COMMIT; END LOOP; END $$"
      )
      assert.strictEqual(yield* stream.failure, broken)
      const again = yield* follow(workspace)
      yield* again.saw("Commit", 5)
      assert.deepStrictEqual(
        insertedRows(again.changes).map((row) => row.id),
        [5, 6, 7, 8, 9]
      )
    })
  )

  onServer("postgres", "redelivers nothing after a clean stop, and frees the slot at once", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      for (let round = 1; round <= 5; round++) {
        const stream = yield* follow(workspace)
        yield* workspace.sql(`INSERT INTO orders (id) VALUES (${round})`)
        yield* stream.saw("Commit", 1)
        yield* stream.stop
        assert.isFalse((yield* workspace.findSlot())?.active)
        assert.deepStrictEqual(
          insertedRows(stream.changes).map((row) => row.id),
          [round]
        )
      }
    })
  )
})

describe("withLogicalStream", () => {
  onServer("postgres", "hands over whole transactions", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      const transactions: Array<Transaction> = []
      yield* withLogicalStream(
        logicalOptions(workspace),
        Handler.transactions((transaction) => Effect.sync(() => transactions.push(transaction)))
      ).pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
      yield* eventually(workspace.isStreaming())
      yield* workspace.sql("INSERT INTO orders (id) SELECT generate_series(1, 5000)")
      yield* workspace.sql("INSERT INTO orders (id) VALUES (0)")
      yield* eventually(Effect.sync(() => transactions.length === 2))
      assert.deepStrictEqual(
        transactions.map((transaction) => transaction.changes.length),
        [5000, 1]
      )
    })
  )
})

describe("Replication", () => {
  onServer("postgres", "streams changes under a Layer, and acknowledges what it is given", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      const layer = Replication.layer(logicalOptions(workspace)).pipe(Layer.provide(walSender(workspace)))
      const seen = yield* Effect.gen(function* () {
        const replication = yield* Replication.Replication
        yield* workspace.sql("INSERT INTO orders (id) VALUES (1), (2)")
        return yield* replication.changes.pipe(
          Stream.tap((change) => {
            const next = nextLsn(change)
            return next === undefined ? Effect.void : replication.acknowledge(next)
          }),
          Stream.take(4),
          Stream.runCollect
        )
      }).pipe(Effect.provide(layer))
      assert.deepStrictEqual(tags(seen), ["Begin", "Insert", "Insert", "Commit"])
      const again = yield* follow(workspace, { options: { createSlot: undefined } })
      yield* workspace.sql("INSERT INTO orders (id) VALUES (3)")
      yield* again.saw("Commit", 1)
      assert.deepStrictEqual(
        insertedRows(again.changes).map((row) => row.id),
        [3]
      )
    })
  )

  onServer("postgres", "refuses to be consumed twice, as the second would miss what the first took", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      const layer = Replication.layer(logicalOptions(workspace)).pipe(Layer.provide(walSender(workspace)))
      const error = yield* Effect.gen(function* () {
        const replication = yield* Replication.Replication
        yield* workspace.sql("INSERT INTO orders (id) VALUES (1)")
        yield* Stream.runDrain(Stream.take(replication.changes, 1))
        return yield* Effect.flip(Stream.runDrain(replication.changes))
      }).pipe(Effect.provide(layer))
      assert.strictEqual(error._tag, "InvalidOption")
    })
  )

  onServer("postgres", "keeps a Stream's arrays whole from the socket to the consumer", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: orders })
      const plugin = Pgoutput.make({ publications: [workspace.publication] })
      const layer = Replication.layer({ ...logicalOptions(workspace), plugin }).pipe(
        Layer.provide(walSender(workspace))
      )
      const sizes: Array<number> = []
      yield* Effect.gen(function* () {
        const replication = yield* Replication.Replication
        yield* workspace.sql("INSERT INTO orders (id) SELECT generate_series(1, 20000)")
        yield* replication.changes.pipe(
          Stream.take(20_002),
          Stream.runForEachArray((changes) => Effect.sync(() => sizes.push(changes.length)))
        )
      }).pipe(Effect.provide(layer))
      assert.isBelow(sizes.length, 5000)
      assert.isAbove(Math.max(...sizes), 20)
    })
  )
})
