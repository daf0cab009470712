/** wal2json under faults: what it loses by itself, what ends its stream, and that a lost connection loses nothing. */
import { assert, describe } from "@effect/vitest"
import { type Change, nextLsn, Wal2Json } from "@replicant/core"
import { FaultProxy } from "@replicant/node/testing"
import { Effect, Logger, Schedule } from "effect"
import { eventually } from "../support/eventually.ts"
import { fault, faultTitle } from "../support/Faults.ts"
import { follow, insertedRows, walSender } from "../support/Follow.ts"
import { onServer } from "../support/Servers.ts"
import { untilGone } from "../support/Slot.ts"
import { makeWorkspace } from "../support/Workspace.ts"

const soon = { reconnect: Schedule.spaced("100 millis") }

const updates = (changes: ReadonlyArray<Change>) =>
  changes.flatMap((change) => (change._tag === "Update" ? [change] : []))

for (const formatVersion of [1, 2] as const) {
  const plugin = formatVersion === 1 ? Wal2Json.make({ formatVersion: 1 }) : Wal2Json.make({ formatVersion: 2 })

  describe(`wal2json, format ${formatVersion}`, () => {
    onServer("wal2json", faultTitle("W1", "gives int8 and numeric to their last digit"), (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: "CREATE TABLE t (id bigint PRIMARY KEY, n numeric, b bigint[])"
        })
        const stream = yield* follow(workspace, { options: { plugin } })
        const digits = `${"9".repeat(300)}.${"8".repeat(60)}`
        yield* workspace.sql(
          `INSERT INTO t VALUES (9223372036854775807, ${digits}, '{-9223372036854775808,9007199254740993}')`
        )
        yield* stream.saw("Commit", 1)
        assert.deepStrictEqual(
          insertedRows(stream.changes).map((row) => ({ ...row })),
          [{ id: 9223372036854775807n, n: digits, b: [-9223372036854775808n, 9007199254740993n] }]
        )
      })
    )

    onServer(
      "wal2json",
      faultTitle("W2", "loses what its documentation says: NaN is null, unchanged TOAST is absent, bytea is bytes"),
      (server) =>
        Effect.gen(function* () {
          const workspace = yield* makeWorkspace(server, {
            sql: `CREATE TABLE t (id int PRIMARY KEY, d float8, raw bytea, large text, n int);
              ALTER TABLE t ALTER large SET STORAGE EXTERNAL`
          })
          yield* workspace.sql("INSERT INTO t VALUES (1, 'NaN', '\\x00ff', repeat('x', 10000), 0)")
          const stream = yield* follow(workspace, { options: { plugin } })
          // Of a column that this stream has never heard of nothing is known, not even that it was left alone.
          yield* workspace.sql("UPDATE t SET n = 1")
          yield* stream.saw("Commit", 1)
          yield* workspace.sql("INSERT INTO t VALUES (2, 'Infinity', '\\x00ff', repeat('y', 10000), 0)")
          yield* workspace.sql("UPDATE t SET n = 2 WHERE id = 2")
          yield* stream.saw("Commit", 3)
          const [insert] = insertedRows(stream.changes)
          assert.strictEqual(insert?.d, null)
          assert.deepStrictEqual(insert?.raw, new Uint8Array([0, 255]))
          const [unheard, heard] = updates(stream.changes)
          for (const update of [unheard, heard]) assert.isFalse(Object.hasOwn(update!.row, "large"), "never null")
          assert.deepStrictEqual(heard?.unchanged, ["large"])
        })
    )

    onServer(
      "wal2json",
      faultTitle("W2", "leaves out the update of a table without a key, and the server's warning is logged"),
      (server) =>
        Effect.gen(function* () {
          const workspace = yield* makeWorkspace(server, {
            sql: "CREATE TABLE keyless (n int); CREATE TABLE t (id int PRIMARY KEY)",
            // A publication that publishes updates would have the server refuse them.
            publication: "FOR TABLE t"
          })
          const logged: Array<string> = []
          const logger = Logger.make(({ message }) => {
            logged.push(String(message))
          })
          const stream = yield* follow(workspace, { options: { plugin } }).pipe(Effect.provide(Logger.layer([logger])))
          yield* workspace.sql("INSERT INTO keyless VALUES (1)")
          yield* workspace.sql("UPDATE keyless SET n = 2")
          yield* workspace.sql("INSERT INTO t VALUES (1)")
          yield* eventually(Effect.sync(() => insertedRows(stream.changes).length === 2))
          assert.lengthOf(updates(stream.changes), 0)
          assert.match(logged.join("\n"), /keyless|tuple identifier/)
        })
    )

    onServer(
      "wal2json",
      faultTitle(
        ["N1", "V1", "V4"],
        "loses nothing to a connection that breaks at any byte, or is ended by the server"
      ),
      (server) =>
        Effect.gen(function* () {
          const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int PRIMARY KEY)" })
          const proxy = yield* FaultProxy.make(server)
          const layer = walSender(workspace, { host: proxy.host, port: proxy.port })
          const stream = yield* follow(workspace, {
            options: { plugin, ...soon },
            layer,
            handler: (change) => Effect.succeed(nextLsn(change))
          })
          const signal = (call: string) =>
            workspace.sql(`SELECT ${call}(active_pid) FROM pg_replication_slots
              WHERE slot_name = '${workspace.slot}' AND active`)
          const disturb = [
            proxy.cutAfter(17, "rst"),
            proxy.cutAfter(1501, "fin"),
            signal("pg_terminate_backend"),
            proxy.cutAfter(40_000, "rst"),
            signal("pg_cancel_backend")
          ]
          let last = 0
          for (const fault of disturb) {
            yield* fault
            for (const count of [1, 2000]) {
              yield* workspace.sql(`INSERT INTO t SELECT generate_series(${last + 1}, ${last + count})`)
              last += count
            }
            yield* eventually(
              Effect.sync(() => insertedRows(stream.changes).at(-1)?.id === last),
              { what: "all of it arrived" }
            )
          }
          const ids = insertedRows(stream.changes).map((row) => row.id as number)
          assert.deepStrictEqual(
            [...new Set(ids)],
            Array.from({ length: last }, (_, index) => index + 1)
          )
          const ends = stream.changes.flatMap((change) => (change._tag === "Commit" ? [change.endLsn] : []))
          assert.strictEqual(new Set(ends).size, ends.length, "and no transaction was handled twice")
        })
    )
  })
}

describe("wal2json that is refused", () => {
  onServer(
    "wal2json",
    faultTitle("W4", "for an option that it does not know (22023), with the remedy and at once"),
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int PRIMARY KEY)" })
        const plugin = Wal2Json.make({ numericDataTypesAsString: true })
        const stream = yield* follow(workspace, { options: { plugin } })
        const error = yield* stream.failure
        assert.deepInclude(error, { _tag: "ServerError", sqlState: "22023", isRetryable: false })
        assert.isNotEmpty((error as { readonly remedy?: string }).remedy)
      })
  )

  fault("W4", "as it is not installed (58P01), with the remedy, at once, and leaves no slot", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int PRIMARY KEY)" })
      const proxy = yield* FaultProxy.make(server)
      // Else each attempt would first ask for TLS, on a connection of its own.
      const layer = walSender(workspace, { host: proxy.host, port: proxy.port, sslmode: "disable" })
      const stream = yield* follow(workspace, { options: { plugin: Wal2Json.make() }, layer })
      const error = yield* stream.failure
      assert.deepInclude(error, { _tag: "ServerError", sqlState: "58P01" })
      assert.include(String((error as { readonly remedy?: string }).remedy), "install the output plugin")
      assert.strictEqual(yield* proxy.accepted, 1)
      yield* untilGone(workspace)
    })
  )
})
