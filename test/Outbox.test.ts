/** Messages and contexts against a real server: what it sends of them, when, and what it drops. */
import { assert, describe } from "@effect/vitest"
import {
  type Change,
  Handler,
  Lsn,
  nextLsn,
  Outbox,
  Pgoutput,
  TransactionContext,
  Wal2Json,
  withLogicalStream
} from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { PgSession } from "@replicant/node/testing"
import { Effect, Redacted, Result, Schema } from "effect"
import { SqlClient } from "effect/sql"
import pg from "pg"
import { eventually } from "./support/eventually.ts"
import { follow, logicalOptions, walSender } from "./support/Follow.ts"
import { onServer } from "./support/Servers.ts"
import { sqlClient } from "./support/sqlClient.ts"
import { makeWorkspace } from "./support/Workspace.ts"

const tables = "CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE lines (of int, item text)"

const OrderPlaced = Outbox.make(
  "orders.placed",
  Schema.Struct({ id: Schema.BigInt, placedAt: Schema.Date, items: Schema.Array(Schema.String) })
)
const placed = { id: 9_007_199_254_740_993n, placedAt: new Date(0), items: ["tea", "crème brûlée", "寿司 🍣"] }
const decode = Outbox.decoder([OrderPlaced])

/** The values of `OrderPlaced` among changes, in order. */
const placedOf = (changes: ReadonlyArray<Change>) =>
  Result.getOrThrow(decode(changes)).flatMap((change) =>
    change._tag === "Message" && change.message !== undefined ? [change.value] : []
  )

/** Runs an effect in one transaction of a `SqlClient`. */
const inTransaction = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(effect))

const insertOrder = (id: number) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO orders VALUES (${id})`)

describe("the outbox", () => {
  onServer("postgres", "writes a message with the rows of its transaction, or not at all", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: tables })
      const { changes, saw } = yield* follow(workspace)
      const write = Effect.gen(function* () {
        yield* inTransaction(Effect.andThen(insertOrder(1), Outbox.emit(OrderPlaced)(placed)))
        const failing = Effect.andThen(Outbox.emit(OrderPlaced)({ ...placed, id: 2n }), Effect.fail("no" as const))
        yield* Effect.flip(inTransaction(failing))
        const unencodable = Outbox.emit(OrderPlaced)({ ...placed, id: 3 as never })
        const error = yield* Effect.flip(inTransaction(Effect.andThen(insertOrder(3), unencodable)))
        assert.strictEqual((error as { readonly _tag: string })._tag, "UnencodableMessage")
        // The transaction around goes on; what was written within the savepoint is gone.
        yield* inTransaction(
          Effect.gen(function* () {
            yield* Effect.flip(inTransaction(failing))
            yield* Outbox.emit(OrderPlaced)({ ...placed, id: 4n })
          })
        )
        yield* insertOrder(5)
      })
      yield* Effect.provide(write, sqlClient(workspace.url()))
      yield* saw("Commit", 3)
      assert.deepStrictEqual(placedOf(changes), [placed, { ...placed, id: 4n }])
      assert.deepStrictEqual(
        changes.flatMap((change) => (change._tag === "Begin" ? [] : [change._tag])),
        ["Insert", "Message", "Commit", "Message", "Commit", "Insert", "Commit"]
      )
    })
  )

  onServer(
    "postgres",
    "writes a message outside its transaction, which survives the rollback and is confirmed by itself",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: tables })
        const { changes, saw } = yield* follow(workspace)
        const attempt = Outbox.emit(OrderPlaced, { transactional: false })(placed)
        const write = inTransaction(Effect.all([insertOrder(1), attempt, Effect.fail("no" as const)]))
        yield* Effect.provide(Effect.flip(write), sqlClient(workspace.url()))
        yield* saw("Message", 1)
        assert.deepStrictEqual(
          changes.map((change) => [change._tag, nextLsn(change) !== undefined]),
          [["Message", true]]
        )
        assert.deepStrictEqual(placedOf(changes), [placed])
        const [message] = changes
        const lsn = message?._tag === "Message" ? Lsn.format(message.lsn) : assert.fail("not a message")
        const confirmed = `SELECT FROM pg_replication_slots
        WHERE slot_name = '${workspace.slot}' AND confirmed_flush_lsn >= '${lsn}'`
        yield* eventually(
          Effect.map(workspace.sql(confirmed), (rows) => rows.length > 0),
          { what: "the message was confirmed" }
        )
      })
  )

  onServer("postgres", "writes by any function that runs a query, as here pg's own", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: tables })
      const { changes, saw } = yield* follow(workspace)
      const client = yield* Effect.acquireRelease(
        Effect.promise(() => {
          const client = new pg.Client({ connectionString: workspace.url() })
          return client.connect().then(() => client)
        }),
        (client) => Effect.promise(() => client.end())
      )
      const query = (sql: string, params: ReadonlyArray<unknown>) =>
        Effect.tryPromise(() => client.query(sql, [...params]))
      for (const end of ["ROLLBACK", "COMMIT"]) {
        yield* query("BEGIN", [])
        yield* query("INSERT INTO orders VALUES ($1)", [1])
        yield* Outbox.emitWith(query, OrderPlaced)({ ...placed, items: [end] })
        yield* query(end, [])
      }
      yield* saw("Commit", 1)
      assert.deepStrictEqual(placedOf(changes), [{ ...placed, items: ["COMMIT"] }])
    })
  )

  onServer("postgres", "keeps every character in a LATIN1 database, where a row could not hold it", (server) =>
    Effect.gen(function* () {
      const database = `latin1_${crypto.randomUUID().replaceAll("-", "")}`
      const url = server.url(database)
      const slots = server.query(`SELECT FROM pg_replication_slots WHERE database = '${database}'`)
      yield* Effect.acquireRelease(
        server.query(`CREATE DATABASE ${database} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0`),
        () =>
          eventually(Effect.map(slots, (rows) => rows.length === 0)).pipe(
            Effect.andThen(server.query(`DROP DATABASE ${database} WITH (FORCE)`)),
            Effect.ignore
          )
      )
      yield* PgSession.query(url, "CREATE PUBLICATION outbox; CREATE TABLE notes (note text)")
      const changes: Array<Change> = []
      yield* withLogicalStream(
        { slot: `${database}_slot`, plugin: Pgoutput.make({ publications: ["outbox"] }), createSlot: "temporary" },
        Handler.arrays((read) => Effect.sync(() => void changes.push(...read)))
      ).pipe(Effect.provide(PgWalSender.layer({ url: Redacted.make(url) })), Effect.forkScoped)
      const streaming = `SELECT FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid
        WHERE s.database = '${database}' AND r.state IN ('catchup', 'streaming')`
      yield* eventually(Effect.map(server.query(streaming), (rows) => rows.length > 0))
      const write = Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* Effect.flip(sql`INSERT INTO notes VALUES (${placed.items[2]})`)
        yield* Outbox.emit(OrderPlaced)(placed)
      })
      yield* Effect.provide(write, sqlClient(url))
      yield* eventually(Effect.sync(() => placedOf(changes).length > 0))
      assert.deepStrictEqual(placedOf(changes), [placed])
    })
  )

  onServer("wal2json", "reads messages by wal2json as well", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: tables })
      const { changes, saw } = yield* follow(workspace, { options: { plugin: Wal2Json.make() } })
      const write = inTransaction(
        Effect.andThen(
          TransactionContext.set(TransactionContext.Request)({ actor: "ada" }),
          Outbox.emit(OrderPlaced)(placed)
        )
      )
      yield* Effect.provide(write, sqlClient(workspace.url()))
      yield* saw("Commit", 1)
      assert.deepStrictEqual(placedOf(changes), [placed])
    })
  )
})

describe("the context of a transaction", () => {
  const { Request } = TransactionContext

  onServer("postgres", "comes with the rows of every table, and with no other transaction's", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: tables })
      const seen: Array<readonly [what: string, actor: string | undefined]> = []
      yield* withLogicalStream(
        logicalOptions(workspace),
        TransactionContext.handler(
          Request,
          Handler.arrays((changes) =>
            Effect.sync(() => {
              for (const { change, context } of changes) {
                if (change._tag === "Insert") seen.push([change.relation.name, context?.actor])
                if (change._tag === "Truncate" || change._tag === "Commit") seen.push([change._tag, context?.actor])
              }
              return changes.map(({ change }) => nextLsn(change)).findLast((next) => next !== undefined)
            })
          )
        )
      ).pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
      yield* eventually(workspace.isStreaming())
      const write = Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* Effect.all([insertOrder(1), sql`INSERT INTO lines VALUES (1, 'tea')`, sql`TRUNCATE lines`]).pipe(
          TransactionContext.withTransaction(Request, { actor: "ada" })
        )
        yield* insertOrder(2)
        yield* sql.withTransaction(
          Effect.gen(function* () {
            yield* insertOrder(3)
            yield* TransactionContext.set(Request)({ actor: "bob" })
            yield* insertOrder(4)
            // The server drops what a savepoint had set, with its rows.
            const undone = Effect.andThen(insertOrder(5), Effect.fail("no" as const))
            yield* Effect.flip(TransactionContext.withTransaction(Request, { actor: "eve" })(undone))
            yield* insertOrder(6)
          })
        )
      })
      yield* Effect.provide(write, sqlClient(workspace.url()))
      yield* eventually(Effect.sync(() => seen.filter(([what]) => what === "Commit").length === 3))
      assert.deepStrictEqual(seen, [
        ["orders", "ada"],
        ["lines", "ada"],
        ["Truncate", "ada"],
        ["Commit", "ada"],
        ["orders", undefined],
        ["Commit", undefined],
        ["orders", undefined],
        ["orders", "bob"],
        ["orders", "bob"],
        ["Commit", "bob"]
      ])
    })
  )

  onServer(
    "postgres",
    "is known of a whole transaction however late it is set, and carries the writer's trace",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: tables })
        const traces: Array<string | undefined> = []
        yield* withLogicalStream(
          logicalOptions(workspace),
          Handler.transactions((transaction) =>
            Effect.gen(function* () {
              const context = yield* Effect.fromResult(TransactionContext.of(Request, transaction))
              const store = Effect.withSpan(Effect.currentSpan, "store")
              const span = yield* TransactionContext.childOf(context)(store)
              traces.push(context?.actor, span.traceId)
            })
          )
        ).pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
        yield* eventually(workspace.isStreaming())
        const write = Effect.gen(function* () {
          yield* insertOrder(1)
          yield* Effect.flatMap(TransactionContext.current({ actor: "ada" }), TransactionContext.set(Request))
          return (yield* Effect.currentSpan).traceId
        })
        const traced = Effect.withSpan(inTransaction(write), "placeOrder", { root: true })
        const traceId = yield* Effect.provide(traced, sqlClient(workspace.url()))
        yield* eventually(Effect.sync(() => traces.length === 2))
        assert.deepStrictEqual(traces, ["ada", traceId])
      })
  )
})
