/** A store that is kept in step with a table of a real server, from the first copy on, with connections cut in between. */
import { assert, describe } from "@effect/vitest"
import { Handler, LogicalStream, Table, withLogicalStream } from "@replicant/core"
import { PgServer } from "@replicant/node/testing"
import { Effect, Layer, Schema, Stream } from "effect"
import { Reactivity } from "effect/reactivity"
import { SqlClient } from "effect/sql"
import { Random } from "../packages/core/test/support/Random.ts"
import { eventually } from "./support/eventually.ts"
import { logicalOptions, walSender } from "./support/Follow.ts"
import * as PostgresVersion from "./support/PostgresVersion.ts"
import { once, onServer } from "./support/Servers.ts"
import { sqlClient } from "./support/sqlClient.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

const Pages = Table.make(
  "public.pages",
  Schema.Struct({
    id: Schema.Number,
    hits: Schema.BigInt,
    body: Schema.NullOr(Schema.String),
    tags: Schema.Array(Schema.NullOr(Schema.String)),
    seen: Schema.NullOr(Schema.DateFromString)
  }),
  { key: ["id"], columns: { seen: "last_seen" } }
)

const columns = "(id int PRIMARY KEY, hits bigint NOT NULL, body text, tags text[] NOT NULL, last_seen date)"

const pages = `CREATE TABLE pages ${columns};
  ALTER TABLE pages ALTER body SET STORAGE EXTERNAL;
  INSERT INTO pages SELECT id, id, repeat('x', 3000), '{a,"b c"}', '2026-11-30' FROM generate_series(1, 15) id`

/** Keys change hands, and what is stored out of line is left alone: then an update tells only a part of its row. */
const statement = (random: Random): string => {
  const id = 1 + random.below(20)
  const other = 1 + random.below(20)
  const isFree = `NOT EXISTS (SELECT 1 FROM pages WHERE id = ${other})`
  switch (random.below(8)) {
    case 0:
      return `DELETE FROM pages WHERE id = ${id}`
    case 1:
      return `INSERT INTO pages VALUES (${id}, 0, repeat('y', ${random.below(4000)}), '{}', NULL) ON CONFLICT DO NOTHING`
    case 2:
      return `UPDATE pages SET body = NULL WHERE id = ${id}`
    case 3:
      return `UPDATE pages SET hits = hits + 9007199254740993, tags = '{NULL,z}' WHERE id = ${id}`
    case 4:
      return random.chance(10) ? "TRUNCATE pages" : `UPDATE pages SET last_seen = now()::date WHERE id = ${id}`
    default:
      return `UPDATE pages SET id = ${other} WHERE id = ${id} AND ${isFree}`
  }
}

const transactions = 120

const write = Effect.fnUntraced(function* (workspace: Workspace, seed: number) {
  const random = new Random(seed)
  for (let count = 1; count <= transactions; count++) {
    const statements = Array.from({ length: 1 + random.below(4) }, () => statement(random))
    yield* workspace.sql(["BEGIN", ...statements, "COMMIT"].join("; "))
    if (count % 30 !== 0) continue
    yield* workspace.sql(
      `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`
    )
  }
})

const rows = (workspace: Workspace, table: string) =>
  workspace.sql(`SELECT id, hits::text, md5(body) AS body, tags::text, last_seen::text FROM ${table} ORDER BY id`)

describe("a store that is kept in step", () => {
  onServer(
    "postgres",
    "is the table exactly, by Table.applyTo within Handler.once: also rows that move, of which only a part is told",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: pages })
        const target = yield* makeWorkspace(server, { sql: `CREATE TABLE kept ${columns}` })
        const options = { ...logicalOptions(workspace), createSlot: undefined, snapshot: "initial" } as const
        yield* Effect.gen(function* () {
          const kept = yield* Table.inSql(Pages, { table: "kept" })
          const position = { table: "kept_position", createTable: "ifMissing" } as const
          yield* withLogicalStream(options, Table.handler([Pages], Handler.once(position, Table.applyTo(Pages, kept))))
        }).pipe(Effect.provide([walSender(workspace), sqlClient(target.url())]), Effect.forkScoped)
        yield* eventually(workspace.isStreaming(), { what: "it streams" })
        yield* write(workspace, 7)
        yield* workspace.sql("INSERT INTO pages VALUES (1000, 1, 'the last', '{}', NULL)")
        yield* eventually(
          Effect.map(target.sql("SELECT 1 FROM kept WHERE id = 1000"), (found) => found.length === 1),
          { what: "the last row is kept" }
        )
        assert.deepStrictEqual(yield* rows(target, "kept"), yield* rows(workspace, "pages"))
      }),
    once
  )
})

/** Changes that others cannot see yet: a transaction that waits for a standby has been streamed, and is in progress all the same. */
describe("a change that cannot be seen yet", () => {
  onServer(
    "postgres",
    "is told to live queries once it can, and not before: they ask once",
    () =>
      Effect.gen(function* () {
        const server = yield* PgServer.make(PostgresVersion.serverOptions())
        const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE items (id int PRIMARY KEY)" })
        const Items = Table.make("public.items", Schema.Struct({ id: Schema.Number }), { key: ["id"] })
        const answers: Array<ReadonlyArray<number>> = []
        const ask = Effect.flatMap(SqlClient.SqlClient, (sql) => sql<{ id: number }>`SELECT id FROM items ORDER BY id`)
        const answered = (ids: ReadonlyArray<number>) =>
          eventually(
            Effect.sync(() => answers.at(-1)?.join() === ids.join()),
            { what: `the last answer is ${ids}` }
          )
        const setStandbys = (names: string) =>
          Effect.andThen(server.query(`ALTER SYSTEM SET synchronous_standby_names = '${names}'`), server.reload)
        /** A transaction that is in the WAL, and waits. */
        const insertHeld = Effect.andThen(
          Effect.forkScoped(workspace.sql("INSERT INTO items VALUES (1)")),
          eventually(
            Effect.map(
              server.query("SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'"),
              ({ length }) => length === 1
            ),
            { what: "it waits for a standby" }
          )
        )
        yield* Effect.gen(function* () {
          yield* Reactivity.stream(ask, [Items.name]).pipe(
            Stream.runForEach((rows) => Effect.sync(() => answers.push(rows.map(({ id }) => id)))),
            Effect.forkScoped
          )
          const options = { ...logicalOptions(workspace), createSlot: "temporary" } as const
          const stream = yield* LogicalStream.make(options)
          yield* Effect.forkScoped(stream.run(Table.invalidates([Items])))
          yield* eventually(workspace.isStreaming(), { what: "it streams" })
          yield* setStandbys("nobody")
          yield* insertHeld
          yield* eventually(
            Effect.map(stream.observe, ({ handlingSeconds, pending }) => pending > 0 && handlingSeconds !== undefined),
            { what: "the change has come, and waits" }
          )
          assert.isTrue(
            answers.every((ids) => ids.length === 0),
            "nobody can see it"
          )
          yield* setStandbys("")
          yield* answered([1])
        }).pipe(
          Effect.provide([walSender(workspace), Layer.provideMerge(sqlClient(workspace.url()), Reactivity.layer)])
        )
      }),
    once
  )
})
