/** Who writes finds what a consumer made of it, many at a time and with connections that are cut. */
import { assert, describe } from "@effect/vitest"
import { type Change, Handler, LogicalStream } from "@replicant/core"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { eventually, patience } from "./support/eventually.ts"
import { logicalOptions, walSender } from "./support/Follow.ts"
import { once, onServer } from "./support/Servers.ts"
import { sqlClient } from "./support/sqlClient.ts"
import { makeWorkspace } from "./support/Workspace.ts"

const { ReadYourWrites } = LogicalStream

describe("ReadYourWrites over effect's own client", () => {
  onServer(
    "postgres",
    "each of eight writers finds its own in the cache behind each of its commits, also such as are not on the disk",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: "CREATE TABLE items (id int PRIMARY KEY, at int); CREATE TABLE others (id int)",
          publication: "FOR TABLE items"
        })
        const cache = new Map<unknown, unknown>()
        const stream = yield* LogicalStream.make(logicalOptions(workspace))
        const handler = Handler.byKey<Change>({ concurrency: 4 }, (change) =>
          Effect.andThen(
            Effect.suspend(() => Effect.sleep(Math.random() * 4)),
            Effect.sync(() => {
              if (change._tag === "Insert" || change._tag === "Update") cache.set(change.row.id, change.row.at)
            })
          )
        )
        yield* stream.run(handler).pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
        yield* eventually(workspace.isStreaming(), { what: "it streams" })
        const writer = Effect.fnUntraced(function* (id: number) {
          const sql = yield* SqlClient.SqlClient
          for (let at = 1; at <= 25; at++) {
            const commit = at % 2 === 0 ? sql`SET LOCAL synchronous_commit = off` : sql`SELECT 1`
            const write = sql`INSERT INTO items VALUES (${id}, ${at}) ON CONFLICT (id) DO UPDATE SET at = excluded.at`
            const beside = sql`INSERT INTO others VALUES (${at})`
            yield* ReadYourWrites.handled(
              stream,
              patience
            )(Effect.andThen(sql.withTransaction(Effect.andThen(commit, write)), at % 5 === 0 ? beside : sql`SELECT 1`))
            assert.strictEqual(cache.get(id), at)
            if (id === 1 && at % 10 === 0) {
              yield* workspace.sql(
                `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`
              )
            }
          }
        })
        yield* Effect.forEach([1, 2, 3, 4, 5, 6, 7, 8], writer, { concurrency: "unbounded" }).pipe(
          Effect.provide(sqlClient(workspace.url()))
        )
        assert.strictEqual(cache.size, 8)
      }),
    once
  )
})
