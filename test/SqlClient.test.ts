/** What core writes through effect's `SqlClient`, over the real one: messages, contexts and checkpoints. */
import { assert, describe } from "@effect/vitest"
import {
  type Change,
  CheckpointStore,
  Handler,
  Lsn,
  Outbox,
  TransactionContext,
  withLogicalStream
} from "@replicant/core"
import { Effect, Fiber, Layer, Option, Result, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { eventually } from "./support/eventually.ts"
import { follow, logicalOptions, walSender } from "./support/Follow.ts"
import { once, onServer } from "./support/Servers.ts"
import { sqlClient } from "./support/sqlClient.ts"
import { makeWorkspace } from "./support/Workspace.ts"

const tables = "CREATE TABLE orders (id int PRIMARY KEY)"

const numbers = (count: number) => Array.from({ length: count }, (_, index) => index)

const OrderPlaced = Outbox.make("orders.placed", Schema.Struct({ id: Schema.BigInt }))

const insertOrder = (id: number) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO orders VALUES (${id})`)

const inTransaction = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(effect))

/** What messages of this declaration carried, in order. */
const valuesOf = (message: Outbox.OutboxMessage<string, Outbox.MessageSchema>, changes: ReadonlyArray<Change>) =>
  Result.getOrThrow(Outbox.decoder([message])(changes)).flatMap((change) =>
    change._tag === "Message" && "value" in change ? [change.value] : []
  )

describe("the outbox over effect's own client", () => {
  onServer(
    "postgres",
    "[C17] writes 200 of 200 messages, each beside its row, and none that is rolled back",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: tables })
        const { changes, saw } = yield* follow(workspace)
        const place = (id: number) =>
          inTransaction(Effect.andThen(insertOrder(id), Outbox.emit(OrderPlaced)({ id: BigInt(id) })))
        const isUndone = (id: number) => id % 4 === 3
        const write = Effect.forEach(
          numbers(400).filter((id) => id < 200 || isUndone(id)),
          (id) =>
            id < 200
              ? place(id)
              : Effect.flip(inTransaction(Effect.andThen(place(id), Effect.fail("undone" as const)))),
          { concurrency: "unbounded" }
        )
        yield* Effect.provide(write, sqlClient(workspace.url()))
        yield* saw("Commit", 200)
        const pairs: Array<readonly [row: unknown, message: bigint]> = []
        let row: unknown
        for (const change of Result.getOrThrow(Outbox.decoder([OrderPlaced])(changes))) {
          if (change._tag === "Insert") row = change.row.id
          if (change._tag === "Message" && change.message !== undefined) pairs.push([row, change.value.id])
        }
        pairs.sort(([, a], [, b]) => Number(a - b))
        assert.deepStrictEqual(
          pairs,
          numbers(200).map((id) => [id, BigInt(id)])
        )
      })
  )

  const contents: ReadonlyArray<readonly [what: string, schema: Outbox.MessageSchema, value: unknown]> = [
    ["an empty text", Schema.String, ""],
    ["an empty object", Schema.Struct({}), {}],
    ["null", Schema.Null, null],
    ["every character, NUL and lone halves too", Schema.String, "\0 \u0001 ' \\ \" é 寿司 🍣 \ud83c \u2028"],
    ["no bytes", Schema.Uint8Array, new Uint8Array(0)],
    ["every byte", Schema.Uint8Array, Uint8Array.from(numbers(256))],
    ["a megabyte of bytes", Schema.Uint8Array, new Uint8Array(1_000_000).map((_, index) => (index * 31) % 256)],
    ["a megabyte of text", Schema.String, "é寿".repeat(100_000)]
  ]

  onServer(
    "postgres",
    "writes any content, in a transaction, a savepoint, by itself or outside of its transaction",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: tables })
        const { changes, saw } = yield* follow(workspace)
        const write = Effect.gen(function* () {
          for (const [what, schema, value] of contents) {
            const message = Outbox.make(what, schema)
            yield* inTransaction(Outbox.emit(message)(value))
            yield* inTransaction(inTransaction(Outbox.emit(message)(value)))
            yield* Outbox.emit(message)(value)
            const outside = Outbox.emit(message, { transactional: false })(value)
            yield* Effect.flip(inTransaction(Effect.andThen(outside, Effect.fail("undone" as const))))
            yield* Effect.flip(
              inTransaction(Effect.andThen(Outbox.emit(message)(value), Effect.fail("undone" as const)))
            )
          }
          yield* insertOrder(1)
        })
        yield* Effect.provide(write, sqlClient(workspace.url(), { maxConnections: 1 }))
        yield* saw("Insert", 1)
        for (const [what, schema, value] of contents) {
          const values = valuesOf(Outbox.make(what, schema), changes)
          assert.lengthOf(values, 4, what)
          for (const found of values) assert.deepStrictEqual(found, value as never, what)
        }
      })
  )

  const clients: ReadonlyArray<readonly [what: string, options: Parameters<typeof sqlClient>[1]]> = [
    ["nothing is prepared", { prepare: false }],
    ["statements share connections", { multiplex: true, maxConnections: 2 }],
    ["few statements stay prepared", { preparedStatementCacheSize: 1, maxConnections: 1 }],
    ["names are changed", { transformQueryNames: (name) => name, transformResultNames: (name) => name.toUpperCase() }]
  ]

  for (const [what, options] of clients) {
    onServer(
      "postgres",
      `writes messages and keeps checkpoints where ${what}`,
      (server) =>
        Effect.gen(function* () {
          const workspace = yield* makeWorkspace(server, { sql: tables })
          const { changes, saw } = yield* follow(workspace)
          const write = Effect.gen(function* () {
            const emit = (id: number) => Outbox.emit(OrderPlaced)({ id: BigInt(id) })
            yield* Effect.forEach(numbers(50), (id) => (id % 2 === 0 ? emit(id) : inTransaction(emit(id))), {
              concurrency: "unbounded"
            })
            const store = yield* CheckpointStore.CheckpointStore
            yield* store.save("slot", "first")
            yield* store.save("slot", "second")
            assert.deepStrictEqual(yield* store.load("slot"), Option.some("second"))
          })
          const store = CheckpointStore.sql({ table: "checkpoints", createTable: "ifMissing" })
          yield* Effect.provide(write, Layer.provideMerge(store, sqlClient(workspace.url(), options)))
          yield* saw("Message", 50)
          const found = valuesOf(OrderPlaced, changes) as ReadonlyArray<typeof OrderPlaced.schema.Type>
          assert.deepStrictEqual(
            found.map(({ id }) => Number(id)).sort((a, b) => a - b),
            numbers(50)
          )
        }),
      once
    )
  }

  onServer("postgres", "tells an LSN to who runs the statement, as text", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: tables })
      const { changes, saw } = yield* follow(workspace)
      const { params, sql } = Result.getOrThrow(Outbox.statement(OrderPlaced)({ id: 1n }))
      const run = Effect.flatMap(SqlClient.SqlClient, (client) => client.unsafe(sql, params).values)
      const [row] = yield* Effect.provide(run, sqlClient(workspace.url()))
      yield* saw("Message", 1)
      const message = changes.find((change) => change._tag === "Message")
      assert.deepStrictEqual(row, [Lsn.format(message!.lsn)])
    })
  )
})

describe("the context of a transaction over effect's own client", () => {
  onServer("postgres", "is its own, however many are open at once", (server) =>
    Effect.gen(function* () {
      const { Request } = TransactionContext
      const workspace = yield* makeWorkspace(server, { sql: tables })
      const seen: Array<readonly [actor: string | undefined, ids: ReadonlyArray<unknown>]> = []
      yield* withLogicalStream(
        logicalOptions(workspace),
        Handler.transactions((transaction) =>
          Effect.gen(function* () {
            const context = yield* Effect.fromResult(TransactionContext.of(Request, transaction))
            const ids = transaction.changes.flatMap((change) => (change._tag === "Insert" ? [change.row.id] : []))
            seen.push([context?.actor, ids])
          })
        )
      ).pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
      yield* eventually(workspace.isStreaming())
      const place = (id: number) => Effect.andThen(insertOrder(id), insertOrder(id + 1000))
      const write = Effect.forEach(
        numbers(200),
        (id) =>
          id % 5 === 4
            ? inTransaction(place(id))
            : TransactionContext.withTransaction(Request, { actor: `actor ${id}` })(place(id)),
        { concurrency: "unbounded" }
      )
      yield* Effect.provide(write, sqlClient(workspace.url()))
      yield* eventually(Effect.sync(() => seen.length === 200))
      seen.sort(([, [a]], [, [b]]) => Number(a) - Number(b))
      assert.deepStrictEqual(
        seen,
        numbers(200).map((id) => [id % 5 === 4 ? undefined : `actor ${id}`, [id, id + 1000]])
      )
    })
  )
})

describe("CheckpointStore.sql over effect's own client", () => {
  const table = "kept.checkpoints"
  const storeOver = (url: string, name = table) =>
    Layer.provideMerge(CheckpointStore.sql({ table: name, createTable: "ifMissing" }), sqlClient(url))
  const load = (key: string) => Effect.flatMap(CheckpointStore.CheckpointStore, (store) => store.load(key))
  const save = (key: string, text: string) =>
    Effect.flatMap(CheckpointStore.CheckpointStore, (store) => store.save(key, text))

  onServer("postgres", "is opened by many processes at once, and saved to by all of them", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: "CREATE SCHEMA kept" })
      const long = "寿司".repeat(200_000)
      // Each with a client of its own, and a table that none of them has.
      yield* Effect.forEach(
        numbers(12),
        (index) =>
          Effect.forEach(
            numbers(20),
            (round) => Effect.all([save("shared", `${index}`), save(`${index}`, `${round}`)]),
            {
              concurrency: 4
            }
          ).pipe(Effect.andThen(save(`${index}`, `${index} ${long}`)), Effect.provide(storeOver(workspace.url()))),
        { concurrency: "unbounded" }
      )
      const found = yield* Effect.forEach([...numbers(12).map(String), "shared"], load).pipe(
        Effect.provide(storeOver(workspace.url()))
      )
      for (const index of numbers(12)) assert.deepStrictEqual(found[index], Option.some(`${index} ${long}`))
      assert.include(numbers(12).map(String), Option.getOrThrow(found[12]!))
    })
  )

  onServer(
    "postgres",
    "opens the table that another process was making at the same moment",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: "CREATE SCHEMA kept" })
        const other = yield* workspace.session
        yield* other.query("BEGIN")
        yield* other.query("CREATE TABLE kept.checkpoints (key varchar(255) PRIMARY KEY, checkpoint text NOT NULL)")
        const opening = yield* Effect.forkScoped(
          Effect.provide(Effect.andThen(save("slot", "text"), load("slot")), storeOver(workspace.url()))
        )
        const waiting = `SELECT FROM pg_stat_activity
          WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'CREATE TABLE%'`
        yield* eventually(
          Effect.map(workspace.sql(waiting), (rows) => rows.length > 0),
          { what: "the store waits for the other's table" }
        )
        yield* other.query("COMMIT")
        assert.deepStrictEqual(yield* Fiber.join(opening), Option.some("text"))
      }),
    once
  )

  onServer(
    "postgres",
    "is part of the transaction it is called in",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: `CREATE SCHEMA kept; ${tables}` })
        yield* Effect.gen(function* () {
          yield* inTransaction(Effect.andThen(insertOrder(1), save("slot", "first")))
          const second = Effect.all([insertOrder(2), save("slot", "second"), load("slot")])
          yield* Effect.flip(
            inTransaction(
              Effect.tap(second, ([, , seen]) => {
                assert.deepStrictEqual(seen, Option.some("second"))
                return Effect.fail("undone" as const)
              })
            )
          )
          assert.deepStrictEqual(yield* load("slot"), Option.some("first"))
        }).pipe(Effect.provide(storeOver(workspace.url())))
        assert.deepStrictEqual(yield* workspace.sql("SELECT id::int FROM orders"), [{ id: 1 }])
      }),
    once
  )

  onServer(
    "postgres",
    "opens a table that is there also for who may not create one, and no other",
    (server) =>
      Effect.gen(function* () {
        const role = `keeper_${crypto.randomUUID().replaceAll("-", "")}`
        const workspace = yield* makeWorkspace(server, {
          sql: "CREATE SCHEMA kept; CREATE TABLE kept.checkpoints (key text PRIMARY KEY, checkpoint text)"
        })
        yield* Effect.acquireRelease(
          workspace.sql(
            `CREATE ROLE ${role} LOGIN PASSWORD 'pw'; GRANT USAGE ON SCHEMA kept TO ${role};
              GRANT ALL ON kept.checkpoints TO ${role}`
          ),
          () => Effect.ignore(workspace.sql(`DROP OWNED BY ${role}; DROP ROLE ${role}`))
        )
        const url = workspace.url(role, "pw")
        const kept = Effect.andThen(save("slot", "text"), load("slot"))
        assert.deepStrictEqual(yield* Effect.provide(kept, storeOver(url)), Option.some("text"))
        const error = yield* Effect.flip(Effect.provide(kept, storeOver(url, "kept.others")))
        assert.strictEqual((error as CheckpointStore.CheckpointError).during, "open")
      }),
    once
  )
})
