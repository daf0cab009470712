/**
 * Publications made of declared tables, and checked against them, on real catalogs; and what the source then refuses.
 */
import { assert, describe } from "@effect/vitest"
import { Table, TypeDecoder } from "@replicant/core"
import { type ReplicantConnection, WalSender } from "@replicant/core/driver"
import { Effect, Result, Schema } from "effect"
import { follow, insertedRows, walSender } from "./support/Follow.ts"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

const shop = `
  CREATE TABLE orders (id int PRIMARY KEY, region text NOT NULL, total numeric, internal text);
  CREATE SCHEMA "crm.eu";
  CREATE TABLE "crm.eu"."a ""b""" (email text PRIMARY KEY, "since when" timestamptz)`

const Orders = Table.make("public.orders", Schema.Struct({ id: Schema.Number, total: Schema.NullOr(Schema.String) }), {
  key: ["id"]
})
const Customers = Table.make(
  { schema: "crm.eu", name: 'a "b"' },
  Schema.Struct({ email: Schema.String, since: Schema.NullOr(Schema.String) }),
  { columns: { since: "since when" } }
)

const withConnection = <A, E>(
  workspace: Workspace,
  use: (connection: ReplicantConnection) => Effect.Effect<A, E, never>
) =>
  Effect.scoped(Effect.flatMap(WalSender, (sender) => Effect.flatMap(sender.connect, use))).pipe(
    Effect.provide(walSender(workspace))
  )

const create = <T extends Table.Any>(
  workspace: Workspace,
  tables: ReadonlyArray<T>,
  options: Table.TablePublicationOptions<T>
) => withConnection(workspace, (connection) => Table.createPublication(connection, tables, options))

const check = (workspace: Workspace, tables: ReadonlyArray<Table.Any>, options: Table.CheckPublicationOptions) =>
  withConnection(workspace, (connection) => Table.checkPublication(connection, tables, options))

/** Everything a check finds, as `problem: names`. */
const found = Effect.fnUntraced(function* (
  workspace: Workspace,
  tables: ReadonlyArray<Table.Any>,
  options: Table.CheckPublicationOptions
) {
  const result = yield* Effect.result(check(workspace, tables, options))
  if (Result.isSuccess(result)) return []
  const error = result.failure
  if (error._tag !== "DeclarationMismatch") return yield* error
  return error.problems
})

const kinds = (problems: ReadonlyArray<Table.DeclarationProblem>) =>
  problems.map(({ names, problem }) => [problem, ...names].join(" "))

const published = (workspace: Workspace, name: string) =>
  workspace.sql(`SELECT schemaname || '.' || tablename AS table FROM pg_publication_tables
    WHERE pubname = '${name}' ORDER BY 1`)

/** Runs the statements that the problems' remedies are. */
const cure = Effect.fnUntraced(function* (workspace: Workspace, problems: ReadonlyArray<Table.DeclarationProblem>) {
  for (const { remedy } of problems) yield* workspace.sql(remedy)
})

describe("Table.createPublication", () => {
  onServer("postgres", "publishes the declared tables whole, under any name, and passes the check", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: shop })
      yield* create(workspace, [Orders, Customers], { name: 'My "Pub"' })
      assert.deepStrictEqual(yield* published(workspace, 'My "Pub"'), [
        { table: 'crm.eu.a "b"' },
        { table: "public.orders" }
      ])
      const [row] = yield* workspace.sql("SELECT * FROM pg_publication WHERE pubname = 'My \"Pub\"'")
      assert.deepInclude(row, {
        pubinsert: true,
        pubupdate: true,
        pubdelete: true,
        pubtruncate: true,
        pubviaroot: false
      })
      yield* check(workspace, [Orders, Customers], { publications: ['My "Pub"'] })
      const again = yield* Effect.flip(create(workspace, [Orders], { name: 'My "Pub"' }))
      assert.deepInclude(again, { _tag: "ServerError", sqlState: "42710" })
    })
  )

  onServer(
    "postgres",
    "lists the declared columns and the key, filters rows, and sends just those",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: shop, publication: "FOR ALL TABLES" })
        const Totals = Table.make(
          "orders",
          Schema.Struct({ total: Schema.String, gone: Schema.optionalKey(Schema.String) })
        )
        yield* workspace.sql(`DROP PUBLICATION ${workspace.publication}`)
        yield* create(workspace, [Totals], {
          name: workspace.publication,
          columns: "declared",
          filters: { orders: "id > 10 -- the small ones are tests" },
          operations: ["insert", "delete"]
        })
        const stream = yield* follow(workspace)
        yield* workspace.sql("INSERT INTO orders VALUES (1, 'eu', 1, 'x'), (11, 'eu', 2, 'x')")
        yield* workspace.sql("UPDATE orders SET total = 3")
        yield* workspace.sql("INSERT INTO orders VALUES (12, 'eu', 4, 'x')")
        yield* stream.saw("Insert", 2)
        assert.deepStrictEqual(insertedRows(stream.changes), [
          { id: 11, total: "2" },
          { id: 12, total: "4" }
        ])
        assert.isFalse(stream.changes.some((change) => change._tag === "Update"))
      }),
    { since: 15 }
  )

  onServer(
    "postgres",
    "refuses column lists and row filters on a server that has none, and makes nothing",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: shop })
        for (const options of [{ columns: "declared" }, { filters: { "public.orders": "id > 1" } }] as const) {
          const error = yield* Effect.flip(create(workspace, [Orders], { name: "p", ...options }))
          assert.deepInclude(error, { _tag: "UnsupportedByServer", neededVersion: 150_000 })
        }
        assert.lengthOf(yield* published(workspace, "p"), 0)
      }),
    { until: 14 }
  )

  onServer(
    "postgres",
    "makes nothing where the source would refuse its own UPDATE: no identity, or a filter on other columns",
    (server) =>
      Effect.gen(function* () {
        const sql = `${shop}; CREATE TABLE log (at int)`
        const workspace = yield* makeWorkspace(server, { sql, publication: "FOR TABLE orders" })
        const Log = Table.make("log", Schema.Struct({ at: Schema.NullOr(Schema.Number) }))
        const error = yield* Effect.flip(
          create(workspace, [Orders, Log], { name: "p", filters: { "public.orders": "total > 1 AND id > 2" } })
        )
        if (error._tag !== "DeclarationMismatch") return yield* error
        assert.deepStrictEqual(kinds(error.problems), ["filterNotInIdentity total", "noReplicaIdentity"])
        assert.lengthOf(yield* workspace.sql("SELECT FROM pg_publication WHERE pubname = 'p'"), 0)

        // And so it would be: what was refused is what PostgreSQL refuses.
        yield* workspace.sql("CREATE PUBLICATION p FOR TABLE orders WHERE (total > 1), log")
        yield* workspace.sql("INSERT INTO orders VALUES (1, 'eu', 1, ''); INSERT INTO log VALUES (1)")
        yield* Effect.flip(workspace.sql("UPDATE orders SET total = 2"))
        yield* Effect.flip(workspace.sql("UPDATE log SET at = 2"))
        yield* cure(workspace, [error.problems[0]])
        yield* workspace.sql("UPDATE orders SET total = 2")
        yield* create(workspace, [Log], { name: "inserts", operations: ["insert", "truncate"] })
      }),
    { since: 15 }
  )

  onServer(
    "postgres",
    "makes nothing for a table or column that is not there, and tells all of them at once",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: `${shop}; CREATE UNLOGGED TABLE cache (id int)` })
        const Misnamed = Table.make("Orders", Schema.Struct({ id: Schema.Number }))
        const Extended = Table.make("orders", Schema.Struct({ id: Schema.Number, more: Schema.String }))
        const Cache = Table.make("cache", Schema.Struct({}))
        const error = yield* Effect.flip(create(workspace, [Misnamed, Extended, Cache], { name: "p" }))
        if (error._tag !== "DeclarationMismatch") return yield* error
        assert.deepStrictEqual(kinds(error.problems), ["tableMissing", "columnMissing more", "notPublishable"])
        assert.include(error.message, '"public"."Orders" does not exist')
        assert.lengthOf(yield* workspace.sql("SELECT FROM pg_publication WHERE pubname = 'p'"), 0)
      })
  )
})

describe("Table.alterPublication", () => {
  onServer(
    "postgres",
    "adds what is missing, takes out the rest, and changes nothing where that does not fit",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: shop, publication: "FOR TABLE orders" })
        const name = workspace.publication
        const alter = (tables: ReadonlyArray<Table.Any>, options: Omit<Table.TablePublicationOptions, "name"> = {}) =>
          withConnection(workspace, (connection) => Table.alterPublication(connection, tables, { name, ...options }))
        yield* alter([Orders, Customers], { operations: ["insert"], publishViaPartitionRoot: true })
        assert.lengthOf(yield* published(workspace, name), 2)
        const [row] = yield* workspace.sql(`SELECT * FROM pg_publication WHERE pubname = '${name}'`)
        assert.deepInclude(row, { pubinsert: true, pubupdate: false, pubviaroot: true })
        yield* alter([Customers])
        assert.deepStrictEqual(yield* published(workspace, name), [{ table: 'crm.eu.a "b"' }])
        const Wrong = Table.make("public.orders", Schema.Struct({ id: Schema.String }))
        const error = yield* Effect.flip(alter([Wrong]))
        assert.strictEqual(error._tag, "DeclarationMismatch")
        assert.deepStrictEqual(yield* published(workspace, name), [{ table: 'crm.eu.a "b"' }])
        const missing = yield* Effect.flip(
          withConnection(workspace, (connection) => Table.alterPublication(connection, [Orders], { name: "none" }))
        )
        assert.strictEqual(missing._tag, "PublicationNotFound")
      })
  )
})

describe("Table.checkPublication", () => {
  onServer("postgres", "fails with PublicationNotFound, and with all that is wrong, each with its cure", (server) =>
    Effect.gen(function* () {
      const sql = `${shop}; CREATE TABLE log (at int); CREATE TABLE other (id int PRIMARY KEY, n bigint)`
      const workspace = yield* makeWorkspace(server, { sql, publication: "FOR TABLE orders, log" })
      const publications = [workspace.publication]
      const missing = yield* Effect.flip(check(workspace, [Orders], { publications: [...publications, "none"] }))
      assert.deepInclude(missing, { _tag: "PublicationNotFound", publications: ["none"] })
      yield* workspace.sql(`ALTER PUBLICATION ${workspace.publication} SET (publish = 'insert, update')`)
      const Keyed = Table.make("orders", Schema.Struct({ id: Schema.Number, region: Schema.String }), {
        key: ["id", "region"]
      })
      const Log = Table.make("log", Schema.Struct({ at: Schema.NullOr(Schema.Number) }), { key: ["at"] })
      const Other = Table.make("other", Schema.Struct({ id: Schema.Number, n: Schema.NullOr(Schema.Number) }))
      const tables = [Keyed, Log, Other]
      const problems = yield* found(workspace, tables, { publications })
      assert.deepStrictEqual(kinds(problems), [
        "operationNotPublished delete truncate",
        "keyNotInIdentity region",
        "noReplicaIdentity",
        "notPublished",
        "typeMismatch n"
      ])
      const inserts = yield* found(workspace, [Log], { publications, operations: ["insert"] })
      assert.deepStrictEqual(kinds(inserts), ["noReplicaIdentity"], "UPDATE is published, wanted or not")
      const statements = problems.filter(
        ({ problem }) => problem === "operationNotPublished" || problem === "notPublished"
      )
      yield* cure(workspace, statements)
      yield* workspace.sql("ALTER TABLE log ADD PRIMARY KEY (at)")
      assert.deepStrictEqual(kinds(yield* found(workspace, tables, { publications })), [
        "keyNotInIdentity region",
        "typeMismatch n"
      ])
    })
  )

  onServer(
    "postgres",
    "finds what column lists leave out and where they differ; the cures keep the filter",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: shop,
          publication: "FOR TABLE orders (region, internal) WHERE (region = 'eu''s') WITH (publish = 'insert')"
        })
        const publications = [workspace.publication]
        const problems = yield* found(workspace, [Orders], { publications, operations: ["insert"] })
        assert.deepStrictEqual(kinds(problems), ["columnNotPublished id total"])
        yield* cure(workspace, problems)
        yield* check(workspace, [Orders], { publications, operations: ["insert"] })
        const [row] = yield* workspace.sql("SELECT attnames::text, rowfilter FROM pg_publication_tables")
        assert.deepStrictEqual(row, { attnames: "{id,region,total,internal}", rowfilter: "(region = 'eu''s'::text)" })
        yield* workspace.sql(`ALTER PUBLICATION ${workspace.publication} SET TABLE orders (total);
          ALTER PUBLICATION ${workspace.publication} SET (publish = 'insert, update, delete, truncate')`)
        const Totals = Table.make("orders", Schema.Struct({ total: Schema.NullOr(Schema.String) }))
        const uncovered = yield* found(workspace, [Totals], { publications })
        assert.deepStrictEqual(kinds(uncovered), ["identityNotPublished id"])
        yield* Effect.flip(workspace.sql("INSERT INTO orders VALUES (1, ''); UPDATE orders SET total = 1"))
        yield* cure(workspace, uncovered)
        yield* workspace.sql("INSERT INTO orders VALUES (1, ''); UPDATE orders SET total = 1")
        yield* workspace.sql("CREATE PUBLICATION whole FOR TABLE orders")
        const both = [...publications, "whole"]
        const differing = yield* found(workspace, [Totals], { publications: both })
        assert.deepStrictEqual(kinds(differing), [`columnListsDiffer ${both.join(" ")}`])
        yield* workspace.sql("ALTER TABLE orders REPLICA IDENTITY FULL")
        assert.deepStrictEqual(kinds(yield* found(workspace, [Totals], { publications })), [
          "identityNotPublished region internal"
        ])
        yield* Effect.flip(workspace.sql("UPDATE orders SET total = 1"))
      }),
    { since: 15 }
  )

  onServer(
    "postgres",
    "knows under which name partitions are sent, and which of them the source cannot write",
    (server) =>
      Effect.gen(function* () {
        const sql = `
        CREATE TABLE events (id int, day date NOT NULL) PARTITION BY RANGE (day);
        CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
        CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
        ALTER TABLE events_2 REPLICA IDENTITY FULL`
        const workspace = yield* makeWorkspace(server, { sql, publication: "FOR TABLE events" })
        const publications = [workspace.publication]
        const Events = Table.make("events", Schema.Struct({ day: Schema.String }))
        const Second = Table.make("events_2", Schema.Struct({ day: Schema.String }))
        yield* check(workspace, [Second], { publications })
        const [asPartitions, ...rest] = yield* found(workspace, [Events], { publications })
        assert.deepStrictEqual(kinds([asPartitions!, ...rest]), ["sentAsPartitions"])
        yield* workspace.sql(asPartitions!.remedy.split(", or")[0]!)
        const atRoot = yield* found(workspace, [Events, Second], { publications })
        assert.deepStrictEqual(kinds(atRoot), ["noReplicaIdentity public.events_1", "sentAsRoot public.events"])
        yield* workspace.sql("INSERT INTO events VALUES (1, '2026-01-05'), (1, '2026-02-05')")
        yield* Effect.flip(workspace.sql("UPDATE events SET id = 2"))
        yield* cure(workspace, atRoot.slice(0, 1))
        yield* workspace.sql("UPDATE events SET id = 2")
        yield* check(workspace, [Events], { publications })
      })
  )

  onServer(
    "postgres",
    "counts a deferrable key, a lost index and NOTHING as no identity, and takes the types asked for",
    (server) =>
      Effect.gen(function* () {
        const sql = `CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, at timestamptz);
        CREATE DOMAIN small AS int; CREATE TABLE d (id small PRIMARY KEY, tags int[])`
        const workspace = yield* makeWorkspace(server, { sql })
        const publications = [workspace.publication]
        const T = Table.make("t", Schema.Struct({ at: Schema.NullOr(Schema.Date) }))
        const types = { byName: new Map([["timestamptz", TypeDecoder.timestampDate]]) }
        const D = Table.make(
          "d",
          Schema.Struct({ id: Schema.Number, tags: Schema.Array(Schema.NullOr(Schema.Number)) })
        )
        yield* check(workspace, [D], { publications })
        assert.deepStrictEqual(kinds(yield* found(workspace, [T], { publications, types })), ["noReplicaIdentity"])
        assert.deepStrictEqual(kinds(yield* found(workspace, [T], { publications })), [
          "typeMismatch at",
          "noReplicaIdentity"
        ])
        yield* Effect.flip(workspace.sql("INSERT INTO t VALUES (1); UPDATE t SET at = now()"))
        yield* workspace.sql("ALTER TABLE t REPLICA IDENTITY FULL; ALTER TABLE d REPLICA IDENTITY NOTHING")
        yield* check(workspace, [T], { publications, types })
        assert.deepStrictEqual(kinds(yield* found(workspace, [D], { publications })), ["noReplicaIdentity"])
        yield* workspace.sql("CREATE UNIQUE INDEX d_id ON d (id); ALTER TABLE d REPLICA IDENTITY USING INDEX d_id")
        yield* check(workspace, [D], { publications })
        yield* workspace.sql("DROP INDEX d_id")
        assert.deepStrictEqual(kinds(yield* found(workspace, [D], { publications })), ["noReplicaIdentity"])
      })
  )

  onServer("postgres", "knows that generated columns are not sent, unless the publication says so", (server) =>
    Effect.gen(function* () {
      const sql = "CREATE TABLE g (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)"
      const workspace = yield* makeWorkspace(server, { sql, publication: "FOR TABLE g" })
      const G = Table.make("g", Schema.Struct({ id: Schema.Number, twice: Schema.NullOr(Schema.Number) }))
      const publications = [workspace.publication]
      const problems = yield* found(workspace, [G], { publications })
      assert.deepStrictEqual(kinds(problems), ["columnNotPublished twice"])
      if (server.majorVersion < 18) return
      yield* workspace.sql(problems[0]!.remedy.split(", or")[0]!)
      yield* check(workspace, [G], { publications })
      yield* create(workspace, [G], { name: "listed", columns: "declared" })
    })
  )
})
