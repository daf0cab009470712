/** What ends a connection, and that the stream goes on without a gap. */
import { assert, describe } from "@effect/vitest"
import { nextLsn } from "@replicant/core"
import { FaultProxy, PgServer } from "@replicant/node/testing"
import { Effect, Redacted, Schedule } from "effect"
import { eventually } from "./support/eventually.ts"
import { follow, insertedRows, walSender } from "./support/Follow.ts"
import { unhurried } from "./support/limits.ts"
import * as PostgresVersion from "./support/PostgresVersion.ts"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY)"

/** Ids in the order of their first arrival: at least once means that duplicates may follow. */
const arrived = (changes: Parameters<typeof insertedRows>[0]) => [
  ...new Set(insertedRows(changes).map((row) => row.id as number))
]

const walSenderPid = (workspace: Workspace, call: string) =>
  workspace.sql(`SELECT ${call}(active_pid) FROM pg_replication_slots WHERE slot_name = '${workspace.slot}' AND active`)

describe("reconnecting", () => {
  for (const call of ["pg_terminate_backend", "pg_cancel_backend"]) {
    onServer("postgres", `goes on after ${call}, with every change and none twice that was acknowledged`, (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        // The usual schedule would wait longer each time: what it is, LogicalStream's own tests prove.
        const stream = yield* follow(workspace, { options: { reconnect: Schedule.spaced("100 millis") } })
        for (let id = 1; id <= 5; id++) {
          yield* workspace.sql(`INSERT INTO t VALUES (${id})`)
          yield* stream.saw("Commit", id)
          const before = (yield* workspace.findSlot())?.active_pid
          yield* walSenderPid(workspace, call)
          yield* eventually(
            Effect.map(workspace.findSlot(), (slot) => slot?.active_pid !== null && slot?.active_pid !== before)
          )
        }
        assert.deepStrictEqual(
          insertedRows(stream.changes).map((row) => row.id),
          [1, 2, 3, 4, 5]
        )
      })
    )
  }

  onServer("postgres", "goes on after a broken connection in the middle of a transaction", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const proxy = yield* FaultProxy.make(server)
      const layer = walSender(workspace, { host: proxy.host, port: proxy.port })
      const stream = yield* follow(workspace, { layer })
      yield* proxy.cutAfter(100_000, "rst")
      yield* workspace.sql("INSERT INTO t SELECT generate_series(1, 5000)")
      yield* stream.saw("Commit", 1)
      assert.deepStrictEqual(arrived(stream.changes).length, 5000)
      assert.isAtLeast(yield* proxy.accepted, 2)
    })
  )

  onServer("postgres", "survives a restart of the server, whatever way it stops", () =>
    Effect.gen(function* () {
      const server = yield* PgServer.make(PostgresVersion.serverOptions())
      const workspace = yield* makeWorkspace(server, { sql: table })
      const stream = yield* follow(workspace)
      let id = 0
      for (const mode of ["fast", "immediate"] as const) {
        yield* workspace.sql(`INSERT INTO t VALUES (${++id})`)
        yield* stream.saw("Commit", id)
        yield* server.restart(mode)
        yield* workspace.sql(`INSERT INTO t VALUES (${++id})`)
        yield* stream.saw("Commit", id)
      }
      assert.deepStrictEqual(arrived(stream.changes), [1, 2, 3, 4])
      yield* server.kill
      yield* server.start
      yield* workspace.sql(`INSERT INTO t VALUES (${++id})`)
      yield* stream.saw("Insert", id)
      assert.deepStrictEqual(arrived(stream.changes), [1, 2, 3, 4, 5])
    })
  )

  onServer("postgres", "lets an idle server stop at once", () =>
    Effect.gen(function* () {
      const server = yield* PgServer.make(PostgresVersion.serverOptions())
      const workspace = yield* makeWorkspace(server, { sql: table })
      const { timing } = unhurried
      const stream = yield* follow(workspace, { layer: walSender(workspace, unhurried), options: { timing } })
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* stream.saw("Commit", 1)
      yield* server.stop("fast")
    })
  )
})

describe("a slow handler", () => {
  onServer("postgres", "holds the walsender back but never its keep-alive", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const layer = walSender(workspace, {
        url: Redacted.make(workspace.url()),
        settings: { wal_sender_timeout: "2s" }
      })
      const stream = yield* follow(workspace, {
        layer,
        // Twice as long as the server would wait, and more.
        handler: (change) => Effect.as(Effect.sleep(change._tag === "Insert" ? "5 seconds" : 0), nextLsn(change))
      })
      const pid = (yield* workspace.findSlot())!.active_pid
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* stream.saw("Commit", 1)
      assert.strictEqual((yield* workspace.findSlot())!.active_pid, pid, "one connection all along")
    })
  )
})
