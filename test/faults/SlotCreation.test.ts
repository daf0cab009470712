/** Slots in the making: what holds them up, and what is looked at before. */
import { assert, describe } from "@effect/vitest"
import { type Change, LogicalStream, nextLsn, ReplicationSlot, Table, withLogicalStream } from "@replicant/core"
import { Effect, Fiber, Schema } from "effect"
import { eventually, patience } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { failureOf, follow, insertedRows, logicalOptions, onConnection, walSender } from "../support/Follow.ts"
import { untilGone } from "../support/Slot.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"
import { watchState } from "../support/watchState.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY)"

const idsOf = (changes: ReadonlyArray<Change>) => insertedRows(changes).map((row) => row.id)

describe("the making of a slot", () => {
  const blocked = Effect.fnUntraced(function* (workspace: Workspace) {
    const old = yield* workspace.session
    yield* old.query("SET application_name = 'forgotten'; BEGIN; SELECT txid_current() AS id")
    const [row] = yield* old.query("SELECT pg_backend_pid() AS pid")
    return { end: old.query("COMMIT"), pid: Number(row?.pid) }
  })

  fault("S9", "names the transactions that hold it up, tries again, and goes on once they have ended", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const old = yield* blocked(workspace)
      const stream = yield* LogicalStream.make({
        ...logicalOptions(workspace),
        slotPolicy: { creationTimeout: "300 millis" }
      })
      const states = yield* watchState(stream.state)
      const changes: Array<Change> = []
      const run = stream.run((change) =>
        Effect.succeed(nextLsn(change)).pipe(Effect.tap(() => Effect.sync(() => changes.push(change))))
      )
      yield* run.pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
      const causes = () => states.flatMap((now) => (now._tag === "Reconnecting" ? [now.cause] : []))
      yield* eventually(
        Effect.sync(() => causes().length >= 2),
        { what: "it has tried twice" }
      )
      const [cause] = causes()
      assert(cause?._tag === "SlotCreationBlocked")
      const named = cause.transactions.find((transaction) => transaction.pid === old.pid)
      assert.deepInclude(named, { state: "idle in transaction", applicationName: "forgotten" })
      assert.match(cause.message, new RegExp(`pid ${old.pid} .*idle in transaction.*"forgotten"`))
      // Of the oldest, which on this server may be another's, and prepared.
      assert.match(cause.remedy ?? "", /pg_terminate_backend|ROLLBACK PREPARED|pg_stat_activity/)
      assert.notInclude(cause.message, "txid_current", "no text of queries")
      yield* old.end
      yield* eventually(workspace.isStreaming())
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* eventually(Effect.sync(() => idsOf(changes).length === 1))
    })
  )

  fault("S9", "names a prepared transaction by its gid, and nothing that a role may not see", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const gid = `${workspace.database}'s`
      const quoted = gid.replaceAll("'", "''")
      yield* Effect.acquireRelease(
        workspace.sql(`BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION '${quoted}'`),
        () => Effect.ignore(workspace.sql(`ROLLBACK PREPARED '${quoted}'`))
      )
      const blockedBy = yield* onConnection(workspace, (connection) =>
        Effect.flip(
          ReplicationSlot.createReplicationSlot(connection, {
            slot: workspace.slot,
            plugin: "pgoutput",
            timeout: "200 millis"
          })
        )
      )
      assert(blockedBy._tag === "SlotCreationBlocked")
      assert.deepInclude(
        blockedBy.transactions.find((transaction) => transaction.gid === gid),
        { state: "prepared", pid: undefined }
      )
      yield* untilGone(workspace)
    })
  )

  fault(
    "S9",
    "ends within a second when given up, and leaves nothing behind though the old transaction goes on",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        const old = yield* blocked(workspace)
        for (let round = 0; round < 3; round++) {
          const fiber = yield* withLogicalStream(logicalOptions(workspace), () => Effect.succeed(undefined)).pipe(
            Effect.provide(walSender(workspace)),
            Effect.forkScoped
          )
          yield* eventually(
            Effect.map(workspace.findSlot(), (slot) => slot?.active === true),
            { what: "the slot is being made" }
          )
          yield* Effect.timeout(Fiber.interrupt(fiber), patience)
          yield* eventually(
            Effect.map(workspace.findSlot(), (slot) => slot === undefined),
            { what: "the slot is gone" }
          )
        }
        yield* old.end
        const stream = yield* follow(workspace)
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        yield* stream.saw("Insert", 1)
      })
  )
})

describe("a publication", () => {
  fault(
    "S6",
    "that does not fit the declared tables is refused before the slot is made, where the program has it checked",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        const Declared = Table.make("public.t", Schema.Struct({ id: Schema.Number, name: Schema.String }))
        const publications = [workspace.publication]
        const check: LogicalStream.Options["check"] = (connection) =>
          Table.checkPublication(connection, [Declared], { publications })
        const error = yield* failureOf(workspace, { check })
        assert(error._tag === "PublicationMismatch")
        assert.match(error.message, /declared tables.*name/)
        assert.isDefined(error.remedy)
        assert.isUndefined(yield* workspace.findSlot())
        yield* workspace.sql("ALTER TABLE t ADD COLUMN name text NOT NULL")
        const stream = yield* follow(workspace, { options: { check } })
        yield* workspace.sql("INSERT INTO t VALUES (1, 'one')")
        yield* stream.saw("Commit", 1)
      })
  )
})
