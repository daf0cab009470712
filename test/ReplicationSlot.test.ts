/** Slots and publications over a replication connection, on a real server. */
import { assert, describe } from "@effect/vitest"
import { Lsn, Publication, ReplicationSlot } from "@replicant/core"
import { Effect, Fiber } from "effect"
import { eventually, patience } from "./support/eventually.ts"
import { follow, insertedRows, onConnection } from "./support/Follow.ts"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace } from "./support/Workspace.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY)"

describe("replication slots", () => {
  for (const name of ["postgres", "wal2json"] as const) {
    onServer(name, "are made, found, listed and dropped", (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        const { slot } = workspace
        yield* onConnection(workspace, (connection) =>
          Effect.gen(function* () {
            assert.isUndefined(yield* ReplicationSlot.getReplicationSlot(connection, slot))
            const made = yield* ReplicationSlot.createReplicationSlot(connection, {
              slot,
              plugin: "pgoutput",
              snapshot: "export"
            })
            assert.isTrue(made.consistentPoint > Lsn.zero)
            assert.isDefined(made.snapshotName)
            const found = yield* ReplicationSlot.getReplicationSlot(connection, slot)
            assert.deepInclude(found, {
              type: "logical",
              plugin: "pgoutput",
              database: workspace.database,
              isTemporary: false
            })
            const all = yield* ReplicationSlot.listReplicationSlots(connection)
            assert.include(
              all.map((each) => each.name),
              slot
            )
            yield* ReplicationSlot.dropReplicationSlot(connection, slot)
            const again = yield* Effect.flip(ReplicationSlot.dropReplicationSlot(connection, slot))
            assert.strictEqual(again._tag, "SlotNotFound")
          })
        )
      })
    )
  }

  onServer("postgres", "that are temporary go with their connection", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const stream = yield* follow(workspace, { options: { createSlot: "temporary" } })
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* stream.saw("Commit", 1)
      yield* stream.stop
      yield* eventually(Effect.map(workspace.findSlot(), (slot) => slot === undefined))
    })
  )

  onServer(
    "postgres",
    "that are temporary and lost with their connection fail, as changes are lost with them",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        const stream = yield* follow(workspace, { options: { createSlot: "temporary" } })
        yield* workspace.sql(
          `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`
        )
        assert.strictEqual((yield* stream.failure)._tag, "SlotNotFound")
      })
  )

  onServer(
    "postgres",
    "whose making waits for an old transaction can be given up at once, and used once made",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        const old = yield* workspace.session
        yield* old.query("BEGIN; SELECT txid_current()")
        const make = onConnection(workspace, (connection) =>
          ReplicationSlot.createReplicationSlot(connection, { slot: workspace.slot, plugin: "pgoutput" })
        )
        const fiber = yield* Effect.forkScoped(make)
        yield* eventually(
          Effect.map(workspace.findSlot(), (slot) => slot?.active === true),
          {
            what: "the slot is being made"
          }
        )
        yield* Effect.timeout(Fiber.interrupt(fiber), patience)
        yield* old.query("COMMIT")
        const stream = yield* follow(workspace)
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        yield* stream.saw("Commit", 1)
        assert.deepStrictEqual(insertedRows(stream.changes), [{ id: 1 }])
      })
  )
})

describe("publications", () => {
  onServer("postgres", "are made once, adopted after, under any name", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: `${table}; CREATE TABLE "od.d ""x" (id int)` })
      const name = 'A "strange", name;--'
      const target = Publication.tables("t", { schema: "public", name: 'od.d "x' })
      yield* onConnection(workspace, (connection) =>
        Effect.gen(function* () {
          const made = yield* Publication.setupPublication(connection, { name, target, operations: ["insert"] })
          assert.deepStrictEqual(made.operations, ["insert"])
          const adopted = yield* Publication.setupPublication(connection, { name, target, operations: ["insert"] })
          assert.deepStrictEqual(adopted, made)
          const short = yield* Effect.flip(Publication.setupPublication(connection, { name, target }))
          assert(short._tag === "PublicationMismatch")
          yield* connection.query(short.remedy ?? "")
          yield* Publication.setupPublication(connection, { name, target })
        })
      )
    })
  )

  onServer("postgres", "of all tables are made", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* onConnection(workspace, (connection) =>
        Effect.gen(function* () {
          const all = { name: workspace.publication, target: Publication.allTables }
          assert.isTrue((yield* Publication.setupPublication(connection, all)).isAllTables)
          const anew = { name: "all_of_them", target: Publication.allTables }
          assert.isTrue((yield* Publication.setupPublication(connection, anew)).isAllTables)
        })
      )
    })
  )

  onServer(
    "postgres",
    "of schemas are checked for what they cover",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: `${table}; CREATE SCHEMA other` })
        yield* onConnection(workspace, (connection) =>
          Effect.gen(function* () {
            const name = "by_schema"
            yield* Publication.setupPublication(connection, { name, target: Publication.schemas("public") })
            const target = Publication.schemas("public", "other")
            const error = yield* Effect.flip(Publication.setupPublication(connection, { name, target }))
            assert(error._tag === "PublicationMismatch")
            yield* connection.query(error.remedy ?? "")
            yield* Publication.setupPublication(connection, { name, target })
          })
        )
      }),
    { since: 15 }
  )
})
