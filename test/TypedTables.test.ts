/**
 * Declared tables against a real server: what it sends by replica identity and TOAST, and what is acknowledged of it.
 */
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { assert, describe } from "@effect/vitest"
import {
  Handler,
  nextLsn,
  Pgoutput,
  Publication,
  Replication,
  Table,
  TypeDecoder,
  Wal2Json,
  WalSender,
  withLogicalStream
} from "@replicant/core"
import { Effect, Fiber, Layer, Schema, Stream } from "effect"
import { eventually, patience } from "./support/eventually.ts"
import { logicalOptions, walSender } from "./support/Follow.ts"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

const shop = `
  CREATE TABLE orders (id int PRIMARY KEY, total numeric, note text, placed_at date, internal text);
  ALTER TABLE orders ALTER note SET STORAGE EXTERNAL, ALTER internal SET STORAGE EXTERNAL;
  CREATE SCHEMA "crm.eu";
  CREATE TABLE "crm.eu".customers (email text, tags text[], since timestamptz);
  ALTER TABLE "crm.eu".customers REPLICA IDENTITY FULL;
  CREATE TABLE others (id int)`

const Orders = Table.make(
  "public.orders",
  Schema.Struct({
    id: Schema.Number,
    total: Schema.FiniteFromString,
    note: Schema.NullOr(Schema.String),
    placedAt: Schema.NullOr(Schema.String)
  }),
  { key: ["id"], columns: { placedAt: "placed_at" } }
)

class Customer extends Schema.Class<Customer>("Customer")({
  email: Schema.String,
  tags: Schema.Array(Schema.String),
  since: Schema.Date
}) {}

const Customers = Table.make({ schema: "crm.eu", name: "customers" }, Customer)

type Typed = Table.TypedChange<typeof Orders | typeof Customers, "untyped">

const optionsOf = (workspace: Workspace) => ({
  ...logicalOptions(workspace),
  plugin: Pgoutput.make({
    publications: [workspace.publication],
    types: { byName: new Map([["timestamptz", TypeDecoder.timestampDate]]) }
  })
})

/** Follows both tables under `untyped`, array by array, and acknowledges all. */
const follow = Effect.fnUntraced(function* (workspace: Workspace) {
  const seen: Array<Typed> = []
  const handler = Table.handler(
    [Orders, Customers],
    Handler.arrays((changes) =>
      Effect.sync(() => {
        seen.push(...changes)
        return changes.map(nextLsn).findLast((next) => next !== undefined)
      })
    ),
    { onMismatch: "untyped" }
  )
  const fiber = yield* withLogicalStream(optionsOf(workspace), handler).pipe(
    Effect.provide(walSender(workspace)),
    Effect.forkScoped
  )
  yield* eventually(
    Effect.map(workspace.isStreaming(), (streaming) => streaming || fiber.pollUnsafe() !== undefined),
    { what: "the stream began" }
  )
  const saw = (tag: Typed["_tag"], count: number) =>
    eventually(
      Effect.sync(() => seen.filter((change) => change._tag === tag).length >= count),
      { what: `${count} typed changes of kind ${tag} arrived` }
    )
  return { seen, saw, stop: Fiber.interrupt(fiber) }
})

/** All of one kind, of one table. */
const ofOrders = <Tag extends "Insert" | "Update" | "Delete">(seen: ReadonlyArray<Typed>, tag: Tag) =>
  seen.filter(
    (change): change is Extract<Typed, { readonly _tag: Tag; readonly table: "public.orders" }> =>
      change._tag === tag && "table" in change && change.table === "public.orders"
  )

describe("typed tables", () => {
  onServer("postgres", "are whole rows, key rows and full rows, by each table's replica identity", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: shop })
      const stream = yield* follow(workspace)
      yield* workspace.sql(`INSERT INTO orders VALUES (1, 12.5, NULL, '2026-01-02', 'x');
        INSERT INTO "crm.eu".customers VALUES ('ann@example.org', '{new,vip}', '2026-01-02 03:04:05+02');
        INSERT INTO others VALUES (1)`)
      yield* workspace.sql(`UPDATE orders SET id = 2, total = 13;
        UPDATE "crm.eu".customers SET tags = '{}'`)
      yield* workspace.sql(`DELETE FROM orders; DELETE FROM "crm.eu".customers; TRUNCATE others, orders`)
      yield* stream.saw("Commit", 3)
      const [inserted] = ofOrders(stream.seen, "Insert")
      assert.deepStrictEqual(inserted?.row, { id: 1, total: 12.5, note: null, placedAt: "2026-01-02" })
      const [updated] = ofOrders(stream.seen, "Update")
      assert.deepStrictEqual(updated?.old, { _tag: "Key", row: { id: 1 } })
      assert.deepStrictEqual(updated?.row, { id: 2, total: 13, note: null, placedAt: "2026-01-02" })
      assert.deepStrictEqual(ofOrders(stream.seen, "Delete")[0]?.old, { _tag: "Key", row: { id: 2 } })
      const customers = stream.seen.filter((change) => "table" in change && change.table === "crm.eu.customers")
      const since = new Date("2026-01-02T01:04:05Z")
      const ann = new Customer({ email: "ann@example.org", tags: ["new", "vip"], since })
      assert.deepStrictEqual(
        customers.map((change) => {
          switch (change._tag) {
            case "Insert":
              return [change._tag, change.row]
            case "Update":
              return [change._tag, change.row, change.old]
            case "Delete":
              return [change._tag, change.old]
            default:
              return [change._tag]
          }
        }),
        [
          ["Insert", ann],
          ["Update", new Customer({ ...ann, tags: [] }), { _tag: "Full", row: ann }],
          ["Delete", { _tag: "Full", row: new Customer({ ...ann, tags: [] }) }]
        ]
      )
      const truncate = stream.seen.find((change) => change._tag === "Truncate")
      assert.deepStrictEqual(truncate?.tables, ["public.orders"])
    })
  )

  onServer("postgres", "are partial where the server left a declared TOAST column out, and only there", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: shop })
      const stream = yield* follow(workspace)
      yield* workspace.sql("INSERT INTO orders VALUES (1, 1, repeat('x', 9000), NULL, repeat('y', 9000))")
      yield* workspace.sql("UPDATE orders SET total = 2")
      yield* workspace.sql("UPDATE orders SET note = 'short'")
      yield* workspace.sql("UPDATE orders SET note = repeat('z', 9000)")
      yield* workspace.sql("ALTER TABLE orders REPLICA IDENTITY FULL")
      yield* workspace.sql("UPDATE orders SET total = 3")
      yield* stream.saw("Update", 4)
      const updates = ofOrders(stream.seen, "Update")
      assert.deepStrictEqual(
        updates.map((change) => [change.isComplete, change.unchanged, Object.keys(change.row).length]),
        [
          [false, ["note"], 3],
          [true, [], 4],
          [true, [], 4],
          [true, [], 4]
        ]
      )
      const full = updates[3]
      assert.strictEqual(full?.isComplete && full.row.note?.length, 9000, "filled from the old row")
      assert.strictEqual(full?.old?._tag === "Full" ? full.old.row.total : undefined, 2)
    })
  )

  onServer(
    "postgres",
    "acknowledge what was handled, also transactions of other tables, and resume after it",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: shop })
        const first = yield* follow(workspace)
        yield* workspace.sql("INSERT INTO orders VALUES (1, 1)")
        yield* workspace.sql("INSERT INTO others VALUES (1)")
        yield* first.saw("Commit", 2)
        yield* first.stop
        const last = first.seen.filter((change) => change._tag === "Commit").at(-1)
        yield* workspace.sql("INSERT INTO others VALUES (2)")
        yield* workspace.sql("INSERT INTO orders VALUES (2, 2)")
        const second = yield* follow(workspace)
        yield* second.saw("Commit", 2)
        assert.deepStrictEqual(
          second.seen.map((change) => change._tag),
          ["Begin", "Commit", "Begin", "Insert", "Commit"]
        )
        const [begin] = second.seen
        assert.isTrue(begin?._tag === "Begin" && last !== undefined && begin.commitLsn >= last.endLsn)
      })
  )

  onServer(
    "postgres",
    "fail for a row that does not fit, having acknowledged what came before, and stand there",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: shop })
        const seen: Array<number> = []
        const run = withLogicalStream(
          optionsOf(workspace),
          Table.handler([Orders], (change) => {
            if (change._tag === "Insert") seen.push(change.row.id)
            return Effect.succeed(nextLsn(change))
          })
        ).pipe(Effect.provide(walSender(workspace)))
        const fiber = yield* Effect.forkScoped(run)
        yield* eventually(workspace.isStreaming())
        yield* workspace.sql("INSERT INTO orders VALUES (1, 1)")
        yield* workspace.sql("INSERT INTO orders VALUES (2, 'NaN', 's3cret')")
        yield* workspace.sql("INSERT INTO orders VALUES (3, 3)")
        const error = yield* Effect.flip(Fiber.join(fiber)).pipe(Effect.timeout(patience))
        if (error._tag !== "RowMismatch") return assert.fail(String(error))
        assert.deepInclude({ ...error }, { column: "total", operation: "Insert", ordinal: 0, relation: "orders" })
        assert.notInclude(error.message, "NaN")
        const again = yield* Effect.flip(run).pipe(Effect.timeout(patience))
        assert.strictEqual(again._tag === "RowMismatch" && again.changeId, error.changeId)
        assert.deepStrictEqual(seen, [1], "the first is acknowledged, the third never handed over")
        const stream = yield* follow(workspace)
        yield* stream.saw("Insert", 1)
        const untyped = stream.seen.find((change) => change._tag === "Untyped")
        assert.deepInclude(untyped?._tag === "Untyped" && untyped.change._tag === "Insert" && untyped.change.row, {
          id: 2,
          total: "NaN"
        })
        assert.strictEqual(untyped?.mismatch.changeId, error.changeId)
        assert.strictEqual(ofOrders(stream.seen, "Insert")[0]?.row.id, 3)
      })
  )

  onServer(
    "postgres",
    "fail for a declared column that the publication leaves out, before any row",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: shop, publication: "FOR TABLE orders (id, note)" })
        const run = withLogicalStream(
          logicalOptions(workspace),
          Table.handler([Orders], (change) => Effect.succeed(nextLsn(change)))
        ).pipe(Effect.provide(walSender(workspace)))
        const fiber = yield* Effect.forkScoped(run)
        yield* eventually(workspace.isStreaming())
        yield* workspace.sql("INSERT INTO orders VALUES (1, 'NaN')")
        const error = yield* Effect.flip(Fiber.join(fiber)).pipe(Effect.timeout(patience))
        assert.deepInclude({ ...error }, { _tag: "TableMismatch", problem: "missing", columns: ["total", "placed_at"] })
      }),
    // Column lists and row filters came with PostgreSQL 15.
    { since: 15 }
  )

  onServer(
    "postgres",
    "fail for an insert that a row filter made of an update without its TOAST column",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: `${shop}; ALTER TABLE orders REPLICA IDENTITY USING INDEX orders_pkey`,
          publication: "FOR TABLE orders WHERE (id > 10)"
        })
        const stream = yield* follow(workspace)
        yield* workspace.sql("INSERT INTO orders VALUES (1, 1, repeat('x', 9000))")
        yield* workspace.sql("UPDATE orders SET id = 11")
        yield* stream.saw("Untyped", 1)
        const untyped = stream.seen.find((change) => change._tag === "Untyped")
        assert.deepInclude({ ...untyped?.mismatch }, { operation: "Insert", column: "note", isUnsent: true })
      }),
    // Column lists and row filters came with PostgreSQL 15.
    { since: 15 }
  )

  onServer("postgres", "type a Replication's changes, and whole transactions", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: shop })
      const layer = Replication.layer(optionsOf(workspace)).pipe(Layer.provide(walSender(workspace)))
      const totals = yield* Effect.gen(function* () {
        const replication = yield* Replication.Replication
        yield* workspace.sql("INSERT INTO orders VALUES (1, 1.5), (2, 2.5)")
        return yield* replication.changes.pipe(
          Table.changes([Orders]),
          Stream.take(4),
          Stream.tap((change) => {
            const next = nextLsn(change)
            return next === undefined ? Effect.void : replication.acknowledge(next)
          }),
          Stream.runFold(
            () => 0,
            (sum, change) => (change._tag === "Insert" ? sum + change.row.total : sum)
          )
        )
      }).pipe(Effect.provide(layer))
      assert.strictEqual(totals, 4)
      yield* workspace.sql("INSERT INTO orders VALUES (3, 3.5); INSERT INTO others VALUES (1)")
      const decode = Table.decoder([Orders])
      const sums: Array<number> = []
      yield* withLogicalStream(
        optionsOf(workspace),
        Handler.transactions(({ changes }) =>
          Effect.map(Effect.fromResult(decode(changes)), (typed) => {
            for (const change of typed) if (change._tag === "Insert") sums.push(change.row.total)
          })
        )
      ).pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
      yield* eventually(Effect.sync(() => sums.length > 0))
      assert.deepStrictEqual(sums, [3.5], "what was acknowledged does not come again")
    })
  )

  onServer("postgres", "make the publication they need, and find out what one lacks", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: shop })
      yield* Effect.gen(function* () {
        const connection = yield* (yield* WalSender).connect
        const target = Table.publicationTarget([Orders, Customers])
        yield* Publication.setupPublication(connection, { name: "shop", target })
        yield* Publication.setupPublication(connection, { name: "shop", target })
        yield* connection.query(`ALTER PUBLICATION shop DROP TABLE "crm.eu".customers`)
        const error = yield* Effect.flip(Publication.setupPublication(connection, { name: "shop", target }))
        assert.strictEqual(error._tag, "PublicationMismatch")
        assert.include(error.message, '"crm.eu"."customers"')
      }).pipe(Effect.provide(walSender(workspace)))
    })
  )
})

describe("typed tables over wal2json", () => {
  onServer(
    "wal2json",
    "are partial and keyed as over pgoutput, also before an insert has named the columns",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: `${shop}; INSERT INTO orders VALUES (1, 1, repeat('x', 9000))`
        })
        const seen: Array<Table.TypedChange<typeof Orders>> = []
        const handler = Table.handler([Orders], (change) => {
          seen.push(change)
          return Effect.succeed(nextLsn(change))
        })
        yield* withLogicalStream({ ...logicalOptions(workspace), plugin: Wal2Json.make() }, handler).pipe(
          Effect.provide(walSender(workspace)),
          Effect.forkScoped
        )
        yield* eventually(workspace.isStreaming())
        yield* workspace.sql("UPDATE orders SET total = 2")
        yield* workspace.sql("DELETE FROM orders")
        yield* workspace.sql("INSERT INTO orders VALUES (2, 3)")
        yield* eventually(Effect.sync(() => seen.filter((change) => change._tag === "Commit").length === 3))
        const [updated, deleted, inserted] = seen.filter((change) => "table" in change)
        assert.deepInclude(updated, { isComplete: false, unchanged: ["note"] })
        assert.deepInclude(updated, { row: { id: 1, total: 2, placedAt: null } })
        assert.deepInclude(deleted, { old: { _tag: "Key", row: { id: 1 } } })
        assert.deepInclude(inserted, { row: { id: 2, total: 3, note: null, placedAt: null } })
      })
  )
})

describe("examples/typed-tables.ts", () => {
  onServer("postgres", "tells of rows that fit, and in its place of one that does not", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: `CREATE TABLE orders (id int PRIMARY KEY, total numeric, note text);
          ALTER TABLE orders ALTER note SET STORAGE EXTERNAL;
          CREATE TABLE refunds (order_id int, amount numeric);
          CREATE PUBLICATION shop FOR TABLE orders, refunds`
      })
      const lines: Array<string> = []
      const path = fileURLToPath(new URL("../examples/typed-tables.ts", import.meta.url))
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          const child = spawn(process.execPath, [path], { env: { ...process.env, DATABASE_URL: workspace.url() } })
          child.stdout.setEncoding("utf8").on("data", (text: string) => lines.push(...text.trim().split("\n")))
          return child
        }),
        (child) =>
          Effect.callback<void>((resume) => {
            if (child.exitCode !== null) return resume(Effect.void)
            child.once("close", () => resume(Effect.void))
            child.kill("SIGINT")
          })
      )
      yield* eventually(workspace.isStreaming("typed_tables"))
      yield* workspace.sql("INSERT INTO orders VALUES (7, 12.5, repeat('x', 9000)); INSERT INTO refunds VALUES (7, 2)")
      yield* workspace.sql("UPDATE orders SET total = 13; UPDATE orders SET note = 'paid'")
      yield* workspace.sql("INSERT INTO orders VALUES (8, 'NaN'); DELETE FROM orders WHERE id = 7")
      const isDone = Effect.sync(() => lines.length >= 6)
      yield* eventually(isDone, { what: "six lines were printed" }).pipe(
        Effect.mapError((error) => new Error(`${error.message}: ${lines.join("\n")}`))
      )
      const mismatch = lines.find((line) => line.includes("does not fit")) ?? assert.fail(lines.join("\n"))
      assert.include(mismatch, '"public"."orders" does not fit its Schema in column "total": expected')
      assert.deepStrictEqual(lines, [
        "order 7 over 12.50",
        "refunded 2.00",
        "order 7 changed",
        "order 7 now says paid",
        mismatch,
        "order 7 is gone"
      ])
    })
  )
})
