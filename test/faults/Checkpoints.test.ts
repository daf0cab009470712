/** Checkpoints of the consumer's own: the slot is behind them or ahead, or another server has taken its place. */
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import { assert, describe } from "@effect/vitest"
import { type Change, Lsn } from "@replicant/core"
import { PgServer, type PgServerShape } from "@replicant/node/testing"
import { Effect } from "effect"
import { eventually } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { failureOf, follow, insertedRows } from "../support/Follow.ts"
import * as PostgresVersion from "../support/PostgresVersion.ts"
import type { Server } from "../support/Servers.ts"
import { makeSlot } from "../support/Slot.ts"
import { makeWorkspace } from "../support/Workspace.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY)"

const idsOf = (changes: ReadonlyArray<Change>) => insertedRows(changes).map((row) => row.id)

const lsnOf = (text: unknown): Lsn.Lsn => Lsn.fromString(String(text))!

/** WAL that no stream of a workspace hears of, not even as an empty transaction, which is what PostgreSQL 14 sends. */
const elsewhere = (server: Server) => server.query("SELECT pg_logical_emit_message(true, 'elsewhere', 'text')")

describe("a checkpoint of the consumer's own", () => {
  fault("V2", "is where the stream starts, however far back the slot is", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* makeSlot(workspace)
      for (const id of [1, 2, 3]) yield* workspace.sql(`INSERT INTO t VALUES (${id})`)
      const reader = yield* follow(workspace, { handler: () => Effect.succeed(undefined) })
      yield* reader.saw("Commit", 3)
      yield* reader.stop
      const ends = reader.changes.flatMap((change) => (change._tag === "Commit" ? [change.endLsn] : []))
      const stream = yield* follow(workspace, { options: { checkpoint: { endLsn: ends[1]! } } })
      yield* stream.saw("Commit", 1)
      assert.deepStrictEqual(idsOf(stream.changes), [3])
    })
  )

  fault("V9", "of another cluster, or beyond the server's WAL, fails before anything is started", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* makeSlot(workspace)
      const endLsn = lsnOf("0/1")
      const other = yield* failureOf(workspace, { checkpoint: { endLsn, systemId: "1" } })
      assert.deepInclude(other, { _tag: "SystemMismatch", property: "systemId", expected: "1" })
      const ahead = yield* failureOf(workspace, { checkpoint: { endLsn: lsnOf("FF/0") } })
      assert.deepInclude(ahead, { _tag: "SystemMismatch", property: "position", expected: "FF/0" })
      const history = yield* failureOf(workspace, { checkpoint: { endLsn, timeline: 7 } })
      assert.deepInclude(history, { _tag: "SystemMismatch", property: "timeline", expected: "7", found: "1" })
      assert.isFalse((yield* workspace.findSlot())?.active)
    })
  )

  fault(
    "V9",
    "that the slot has left behind fails, unless it was stored that this was idle, or it is accepted",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        const stored: Array<Lsn.Lsn> = []
        const storeIdleFlush = (lsn: Lsn.Lsn) => Effect.sync(() => stored.push(lsn))
        const first = yield* follow(workspace, { options: { storeIdleFlush } })
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        yield* first.saw("Commit", 1)
        const endLsn = first.changes.find((change) => change._tag === "Commit")!.endLsn
        yield* elsewhere(server)
        const end = lsnOf(yield* workspace.currentWalLsn)
        const confirmed = Effect.map(workspace.findSlot(), (slot) => lsnOf(slot?.confirmed_flush_lsn))
        yield* eventually(
          Effect.map(confirmed, (lsn) => lsn >= end),
          { what: "the idle position is confirmed" }
        )
        yield* first.stop
        const idleFlush = stored.at(-1)!
        assert.isTrue((yield* confirmed) <= idleFlush, "never before it is stored")

        const ahead = yield* failureOf(workspace, { checkpoint: { endLsn } })
        assert.deepInclude(ahead, {
          _tag: "SlotAheadOfCheckpoint",
          checkpoint: endLsn,
          confirmedFlushLsn: yield* confirmed
        })
        for (const options of [
          { checkpoint: { endLsn, idleFlush } },
          { checkpoint: { endLsn }, slotAheadOfCheckpoint: "accept" } as const
        ]) {
          const again = yield* follow(workspace, { options: { ...options, storeIdleFlush } })
          yield* workspace.sql("INSERT INTO t VALUES ((SELECT max(id) + 1 FROM t))")
          yield* again.saw("Commit", 1)
          yield* again.stop
          assert.strictEqual(idsOf(again.changes).length, 1)
        }
      })
  )

  fault("V3", "whose idle positions cannot be stored holds the slot back, and no acknowledgement", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      let tried = 0
      const storeIdleFlush = () =>
        Effect.suspend(() => {
          tried++
          return Effect.fail("no disk")
        })
      const stream = yield* follow(workspace, { options: { storeIdleFlush } })
      const before = lsnOf((yield* workspace.findSlot())?.confirmed_flush_lsn)
      yield* elsewhere(server)
      yield* eventually(Effect.sync(() => tried >= 3))
      assert.strictEqual(lsnOf((yield* workspace.findSlot())?.confirmed_flush_lsn), before)
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* stream.saw("Commit", 1)
      const { endLsn } = stream.changes.find((change) => change._tag === "Commit")!
      yield* eventually(
        Effect.map(workspace.findSlot(), (slot) => lsnOf(slot?.confirmed_flush_lsn) === endLsn),
        { what: "the commit is confirmed, and nothing beyond it" }
      )
    })
  )
})

/** Another timeline of the same cluster: it comes back as a standby, and is promoted. */
const promote = Effect.fnUntraced(function* (server: PgServerShape) {
  yield* server.stop()
  yield* Effect.promise(() => writeFile(join(server.dataDirectory, "standby.signal"), ""))
  yield* server.start
  yield* server.query("SELECT pg_promote()")
})

describe("a checkpoint from before a promotion", () => {
  fault(["V7", "V9"], "holds where the server's history proves it, and is refused where it does not", () =>
    Effect.gen(function* () {
      const server = yield* PgServer.make(PostgresVersion.serverOptions())
      const workspace = yield* makeWorkspace(server, { sql: table })
      const first = yield* follow(workspace)
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* first.saw("Commit", 1)
      const endLsn = first.changes.find((change) => change._tag === "Commit")!.endLsn
      yield* first.stop
      yield* workspace.sql("INSERT INTO t VALUES (2)")
      yield* promote(server)
      yield* workspace.sql("INSERT INTO t VALUES (3)")
      const options = { checkpoint: { endLsn, timeline: 1 }, slotAheadOfCheckpoint: "accept" } as const
      const second = yield* follow(workspace, { options })
      yield* second.saw("Commit", 2)
      assert.deepStrictEqual(idsOf(second.changes), [2, 3])
      const later = second.changes.filter((change) => change._tag === "Commit").at(-1)!.endLsn
      yield* second.stop
      // As if timeline 1 had gone on there: what it wrote is not what this server has.
      const diverged = yield* failureOf(workspace, { checkpoint: { endLsn: later, timeline: 1 } })
      assert.deepInclude(diverged, { _tag: "SystemMismatch", property: "timeline", expected: "1", found: "2" })
    })
  )
})
