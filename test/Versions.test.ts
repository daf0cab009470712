/** Where PostgreSQL 14 to 18 differ, and what Replicant makes of it: the rows of docs/versions.md. */
import { assert, describe } from "@effect/vitest"
import { Lsn, Pgoutput, Publication, ReplicationSlot } from "@replicant/core"
import { PgServer } from "@replicant/node/testing"
import { Effect } from "effect"
import * as ReplicationCommand from "../packages/core/src/protocol/ReplicationCommand.ts"
import { eventually } from "./support/eventually.ts"
import { failureOf, follow, insertedRows, onConnection } from "./support/Follow.ts"
import * as PostgresVersion from "./support/PostgresVersion.ts"
import { onServer } from "./support/Servers.ts"
import { makeWorkspace, type Workspace } from "./support/Workspace.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY)"

/** What an error is that the server's version alone has told. */
const refused = (neededVersion: number) => ({
  _tag: "UnsupportedByServer" as const,
  neededVersion,
  isRetryable: false
})

const slotColumn = (workspace: Workspace, column: string) =>
  Effect.map(
    workspace.sql(`SELECT ${column} AS value FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`),
    ([row]) => row?.value
  )

const setup = (workspace: Workspace, options: Partial<ReplicationCommand.CreateReplicationSlot>) =>
  onConnection(workspace, (connection) =>
    ReplicationSlot.createReplicationSlot(connection, { slot: workspace.slot, plugin: "pgoutput", ...options })
  )

const alter = (workspace: Workspace, options: Omit<ReplicationCommand.AlterReplicationSlot, "slot">) =>
  onConnection(workspace, (connection) =>
    Effect.flatMap(
      Effect.fromResult(
        ReplicationCommand.alterReplicationSlotCommand({ slot: workspace.slot, ...options }, connection.serverVersion)
      ),
      connection.query
    )
  )

describe("by version, what comes", () => {
  onServer(
    "postgres",
    "an empty transaction comes as Begin and Commit from 14, not at all from 15 on, and is confirmed either way",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: `${table}; CREATE TABLE others (id int)`,
          publication: "FOR TABLE t"
        })
        const stream = yield* follow(workspace)
        yield* workspace.sql("INSERT INTO others VALUES (1)")
        // Housekeeping is a transaction like any other: so may autovacuum's be.
        yield* workspace.sql("ANALYZE others")
        const end = Lsn.fromString(yield* workspace.currentWalLsn)!
        yield* eventually(
          Effect.map(workspace.findSlot(), (slot) => (Lsn.fromString(slot?.confirmed_flush_lsn ?? "") ?? 0n) >= end),
          { what: "the empty transaction was confirmed" }
        )
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        yield* stream.saw("Insert", 1)
        yield* stream.saw("Commit", server.majorVersion < 15 ? 3 : 1)
        assert.deepStrictEqual(
          stream.changes.map((change) => change._tag),
          [...(server.majorVersion < 15 ? ["Begin", "Commit", "Begin", "Commit"] : []), "Begin", "Insert", "Commit"]
        )
      })
  )

  onServer("postgres", "a generated column does not come, unless a publication of 18 says so", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: "CREATE TABLE g (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)"
      })
      const silent = yield* follow(workspace)
      const rows: Array<[typeof silent, unknown]> = [[silent, { id: 1 }]]
      if (server.majorVersion >= 18) {
        yield* workspace.sql("CREATE PUBLICATION stored FOR TABLE g WITH (publish_generated_columns = stored)")
        const options = { slot: `${workspace.slot}_stored`, plugin: Pgoutput.make({ publications: ["stored"] }) }
        rows.push([yield* follow(workspace, { options }), { id: 1, twice: 2 }])
      }
      yield* workspace.sql("INSERT INTO g VALUES (1)")
      for (const [stream, row] of rows) {
        yield* stream.saw("Commit", 1)
        assert.deepStrictEqual(insertedRows(stream.changes), [row])
      }
    })
  )

  onServer(
    "postgres",
    "the two utmost intervals of 16 and before are finite as text and infinite in binary, as 17 reads those bytes",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE spans (low interval, high interval)" })
        const [text, binary] = yield* Effect.all(
          (["text", "binary"] as const).map((format) => {
            const plugin = Pgoutput.make({ publications: [workspace.publication], format })
            return follow(workspace, { options: { slot: `${workspace.slot}_${format}`, plugin } })
          })
        )
        const rest = "interval '2562047788:00:54.775807'"
        yield* workspace.sql(`INSERT INTO spans VALUES
          (interval '-178956970 years -8 mons -2147483648 days' - ${rest} - interval '1 microsecond',
           interval '178956970 years 7 mons 2147483647 days' + ${rest})`)
        for (const stream of [text!, binary!]) yield* stream.saw("Commit", 1)
        assert.deepStrictEqual(insertedRows(binary!.changes), [{ low: "-infinity", high: "infinity" }])
        assert.deepStrictEqual(insertedRows(text!.changes), [
          {
            low: "-178956970 years -8 mons -2147483648 days -2562047788:00:54.775808",
            high: "178956970 years 7 mons 2147483647 days 2562047788:00:54.775807"
          }
        ])
      }),
    { since: 15, until: 16 }
  )

  onServer(
    "postgres",
    "changes that were replicated to the server do not come, where origin is none",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        const origin = `${workspace.database}_origin`
        yield* Effect.acquireRelease(workspace.sql(`SELECT pg_replication_origin_create('${origin}')`), () =>
          Effect.ignore(workspace.sql(`SELECT pg_replication_origin_drop('${origin}')`))
        )
        const followers = yield* Effect.all(
          (["none", "any"] as const).map((which) => {
            const plugin = Pgoutput.make({ publications: [workspace.publication], origin: which })
            return follow(workspace, { options: { slot: `${workspace.slot}_${which}`, plugin } })
          })
        )
        const applier = yield* workspace.session
        yield* applier.query(`SELECT pg_replication_origin_session_setup('${origin}')`)
        yield* applier.query("INSERT INTO t VALUES (1)")
        yield* workspace.sql("INSERT INTO t VALUES (2)")
        const [none, any] = followers
        yield* any!.saw("Commit", 2)
        yield* none!.saw("Commit", 1)
        assert.deepStrictEqual(insertedRows(any!.changes), [{ id: 1 }, { id: 2 }])
        assert.deepStrictEqual(insertedRows(none!.changes), [{ id: 2 }])
        yield* applier.query("SELECT pg_replication_origin_session_reset()")
      }),
    { since: 16 }
  )

  onServer(
    "postgres",
    "an origin cannot be asked for up to 15, which is known from the version and not tried",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        const plugin = Pgoutput.make({ publications: [workspace.publication], origin: "none" })
        const error = yield* failureOf(workspace, { plugin })
        assert.deepInclude(error, refused(160_000))
        assert.isUndefined(yield* workspace.findSlot())
      }),
    { until: 15 }
  )

  onServer(
    "postgres",
    "a stretch written without the publication is PublicationNotFound, by the error of 17 as by the warning of 18",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        yield* (yield* follow(workspace)).stop
        yield* workspace.sql(`DROP PUBLICATION ${workspace.publication}`)
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        yield* workspace.sql(`CREATE PUBLICATION ${workspace.publication} FOR ALL TABLES`)
        yield* workspace.sql("INSERT INTO t VALUES (2)")
        // Again and again, for nothing was acknowledged: the stretch cannot be passed over by accident.
        for (let times = 0; times < 2; times++) {
          const error = yield* failureOf(workspace)
          assert.deepInclude(error, { _tag: "PublicationNotFound", isRetryable: false })
        }
      })
  )
})

describe("by version, publications", () => {
  onServer(
    "postgres",
    "of schemas need 15, which is known from the version and not tried",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        const target = Publication.schemas("public")
        const error = yield* onConnection(workspace, (connection) =>
          Effect.flip(Publication.setupPublication(connection, { name: "by_schema", target }))
        )
        assert.deepInclude(error, refused(150_000))
      }),
    { until: 14 }
  )
})

describe("by version, slots", () => {
  onServer("postgres", "a slot can be TWO_PHASE from 15 on; before, that is known and not tried", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      if (server.majorVersion < 15) {
        assert.deepInclude(yield* Effect.flip(setup(workspace, { twoPhase: true })), refused(150_000))
        return assert.isUndefined(yield* workspace.findSlot())
      }
      yield* setup(workspace, { twoPhase: true })
      assert.isTrue(yield* slotColumn(workspace, "two_phase"))
    })
  )

  onServer("postgres", "a slot can be FAILOVER from 17 on; before, that is known and not tried", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      if (server.majorVersion < 17) {
        assert.deepInclude(yield* Effect.flip(setup(workspace, { failover: true })), refused(170_000))
        return assert.isUndefined(yield* workspace.findSlot())
      }
      yield* setup(workspace, { failover: true })
      assert.isTrue(yield* slotColumn(workspace, "failover"))
    })
  )

  onServer("postgres", "a slot's FAILOVER can be altered from 17 on, and its TWO_PHASE from 18", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* setup(workspace, {})
      if (server.majorVersion < 17) {
        assert.deepInclude(yield* Effect.flip(alter(workspace, { failover: true })), refused(170_000))
      } else {
        yield* alter(workspace, { failover: true })
        assert.isTrue(yield* slotColumn(workspace, "failover"))
      }
      if (server.majorVersion < 18) {
        const needed = server.majorVersion < 17 ? 170_000 : 180_000
        return assert.deepInclude(yield* Effect.flip(alter(workspace, { twoPhase: true })), refused(needed))
      }
      yield* alter(workspace, { twoPhase: true })
      assert.isTrue(yield* slotColumn(workspace, "two_phase"))
    })
  )

  onServer(
    "postgres",
    "a slot that nobody streams from for too long is SlotInvalidated, where 18 is told to give it up",
    () =>
      Effect.gen(function* () {
        const server = yield* PgServer.make({
          ...PostgresVersion.serverOptions(),
          settings: { idle_replication_slot_timeout: "1s" }
        })
        const workspace = yield* makeWorkspace(server, { sql: table })
        yield* (yield* follow(workspace)).stop
        yield* eventually(
          Effect.gen(function* () {
            yield* workspace.sql("CHECKPOINT")
            return (yield* slotColumn(workspace, "invalidation_reason")) !== null
          }),
          { what: "the slot was invalidated" }
        )
        const error = yield* failureOf(workspace)
        assert.deepInclude(error, { _tag: "SlotInvalidated", reason: "idle_timeout", isRetryable: false })
      }),
    { since: 18 }
  )
})
