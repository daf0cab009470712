/** Several consumers of one slot on a real server, with the connection cut: nothing is confirmed that a required one lacks. */
import { assert, describe } from "@effect/vitest"
import { type Change, Handler, LogicalStream, nextLsn, Pgoutput, type Snapshot } from "@replicant/core"
import { Effect, Fiber } from "effect"
import { eventually } from "./support/eventually.ts"
import { logicalOptions, walSender } from "./support/Follow.ts"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace } from "./support/Workspace.ts"

type Delivered = Change | Snapshot.Change | Snapshot.OneTableChange

describe("Handler.broadcast", () => {
  onServer(
    "postgres",
    "keeps its required consumers whole over cuts, and brings one that was left behind up again",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: "CREATE TABLE items (id int PRIMARY KEY, at int NOT NULL); INSERT INTO items SELECT id, 0 FROM generate_series(1, 20) id",
          publication: "FOR TABLE items"
        })
        const { publication } = workspace
        const stream = yield* LogicalStream.make({
          ...logicalOptions(workspace),
          plugin: Pgoutput.make({ publications: [publication], messages: true }),
          snapshot: "never"
        })
        const [ledger, index, cache] = [
          new Map<unknown, unknown>(),
          new Map<unknown, unknown>(),
          new Map<unknown, unknown>()
        ]
        const [seen, reasons]: [Array<number>, Array<string>] = [[], []]
        let isStuck = false
        const handler = Handler.broadcast<Delivered, Record<string, Handler.Consumer<Delivered, never, never>>>({
          ledger: Handler.required(
            Handler.each<Delivered, never, never>((change) =>
              Effect.sync(() => {
                if (change._tag === "Update") {
                  seen.push(change.row.at as number)
                  ledger.set(change.row.id, change.row.at)
                }
                assert.notInclude(["SnapshotRow", "TableSnapshotStarted"], change._tag)
                return nextLsn(change)
              })
            )
          ),
          index: Handler.required(
            Handler.batch<Delivered>({ rows: 20, within: "50 millis" }, (changes) =>
              Effect.sync(() => {
                for (const change of changes) if (change._tag === "Update") index.set(change.row.id, change.row.at)
              })
            )
          ),
          cache: Handler.optional(
            Handler.durable<Delivered>((changes) =>
              Effect.gen(function* () {
                while (isStuck) yield* Effect.sleep("20 millis")
                for (const change of changes) {
                  if (change._tag === "TableSnapshotStarted") cache.clear()
                  if (change._tag === "Update" || change._tag === "SnapshotRow") cache.set(change.row.id, change.row.at)
                }
              })
            ),
            {
              queue: 4,
              whenLagged: ({ reason }) => Effect.sync(() => void reasons.push(reason)),
              reread: { request: stream.request, tables: ["public.items"] }
            }
          )
        })
        const fiber = yield* Effect.forkChild(Effect.provide(stream.run(handler), walSender(workspace)))
        yield* eventually(workspace.isStreaming(), { what: "it streams" })
        yield* eventually(
          Effect.sync(() => cache.size === 20),
          { what: "the cache has read the table" }
        )
        isStuck = true
        for (let at = 1; at <= 100; at++) {
          yield* workspace.sql(`UPDATE items SET at = ${at} WHERE id = ${1 + (at % 20)}`)
          if (at % 40 === 0)
            yield* workspace.sql(
              `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`
            )
        }
        const end = yield* workspace.currentWalLsn
        // Though the cache hangs.
        yield* eventually(
          Effect.map(
            workspace.sql(`SELECT 1 FROM pg_replication_slots
            WHERE slot_name = '${workspace.slot}' AND confirmed_flush_lsn >= '${end}'`),
            (rows) => rows.length === 1
          ),
          { what: "all is confirmed" }
        )
        const wanted = yield* Effect.map(workspace.sql("SELECT id, at FROM items ORDER BY id"), (rows) =>
          rows.map(({ at, id }): [unknown, unknown] => [Number(id), Number(at)])
        )
        const sorted = (rows: ReadonlyMap<unknown, unknown>) =>
          [...rows].sort(([left], [right]) => Number(left) - Number(right))
        assert.deepStrictEqual(sorted(ledger), wanted)
        assert.deepStrictEqual(sorted(index), wanted)
        assert.deepStrictEqual(
          [...new Set(seen)],
          Array.from({ length: 100 }, (_, at) => at + 1)
        )
        isStuck = false
        yield* eventually(
          Effect.sync(() => JSON.stringify(sorted(cache)) === JSON.stringify(wanted)),
          {
            what: "the cache is what the table is"
          }
        )
        assert.strictEqual(reasons[0], "Started")
        assert.isAbove(reasons.length, 1)
        yield* Fiber.interrupt(fiber)
      })
  )
})
