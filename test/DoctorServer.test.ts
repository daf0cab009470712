/**
 * What a doctor finds in a server's settings, and in transactions that all slots wait for: on servers of its own, since it makes
 * them ill.
 */
import { assert, describe, it } from "@effect/vitest"
import type { Doctor } from "@replicant/core/operations"
import { PgServer } from "@replicant/node/testing"
import { Clock, Effect } from "effect"
import { cures, examine, findingsOf, found, silent, subjectsOf, untilFound } from "./support/Doctoring.ts"
import { eventually } from "./support/eventually.ts"
import * as PostgresVersion from "./support/PostgresVersion.ts"

const version = PostgresVersion.current()

const since = (major: number, settings: Readonly<Record<string, string>>) => (version >= major ? settings : {})

const ill = {
  max_replication_slots: 1,
  max_wal_senders: 2,
  wal_sender_timeout: "0",
  max_slot_wal_keep_size: "32MB",
  max_wal_size: "64MB",
  password_encryption: "md5",
  ...since(17, { synchronized_standby_slots: "nobody" }),
  ...since(18, { idle_replication_slot_timeout: "1h" })
}

const made = (slot: string) => `SELECT pg_create_logical_replication_slot('${slot}', 'pgoutput')`

const set = (server: PgServer["Service"], settings: Readonly<Record<string, string>>) =>
  Effect.forEach(Object.entries(settings), ([name, value]) => server.query(`ALTER SYSTEM SET ${name} = '${value}'`))

describe(`a doctor at a server of PostgreSQL ${version}`, () => {
  it.live("finds settings that end streams, lose slots, or have no room, and is silent once they are mended", () =>
    Effect.gen(function* () {
      const server = yield* PgServer.make({ ...PostgresVersion.serverOptions(), settings: ill })
      yield* server.query(made("one"))
      const atFirst = yield* examine(server.url(), { slot: "two", snapshot: true })
      found(
        atFirst,
        "server.slots-left",
        "server.walsenders-left",
        "server.wal-sender-timeout-off",
        "server.slot-limit-low",
        "network.password-encryption",
        ...(version >= 17 ? ["standby.synchronized-slots"] : []),
        ...(version >= 18 ? ["server.idle-slot-timeout"] : [])
      )
      silent(atFirst, "server.wal-level", "server.restart-pending", "server.slot-limit-off")

      yield* server.query("SELECT pg_drop_replication_slot('one')")
      yield* set(server, {
        max_replication_slots: "10",
        max_wal_senders: "10",
        wal_sender_timeout: "5s",
        max_slot_wal_keep_size: "-1",
        password_encryption: "scram-sha-256",
        wal_level: "replica",
        ...since(17, { synchronized_standby_slots: "" }),
        ...since(18, { idle_replication_slot_timeout: "0" })
      })
      yield* server.reload
      const pending = yield* untilFound(
        examine(server.url(), { statusInterval: "3 seconds" }),
        "server.restart-pending"
      )
      assert.includeMembers([...subjectsOf(pending, "server.restart-pending")], ["max_wal_senders", "wal_level"])
      found(pending, "server.wal-sender-timeout-short", "server.slot-limit-off")
      assert.strictEqual(findingsOf(pending, "server.status-interval")[0]?.severity, "error")

      yield* server.restart()
      const low = yield* examine(server.url(), {})
      assert.strictEqual(findingsOf(low, "server.wal-level")[0]?.severity, "error")
      assert.strictEqual(findingsOf(low, "server.wal-sender-timeout-short")[0]?.severity, "warning")
      silent(low, "server.restart-pending")

      for (const sql of cures(low, "server.wal-level")) yield* server.query(sql)
      yield* set(server, { wal_sender_timeout: "60s", max_slot_wal_keep_size: "1GB" })
      yield* server.restart()
      silent(
        yield* examine(server.url(), { slot: "two", snapshot: true }),
        "server.wal-level",
        "server.restart-pending",
        "server.slots-left",
        "server.walsenders-left",
        "server.wal-sender-timeout-off",
        "server.wal-sender-timeout-short",
        "server.status-interval",
        "server.slot-limit-off",
        "server.slot-limit-low",
        "server.idle-slot-timeout",
        "network.password-encryption",
        "standby.synchronized-slots"
      )
    })
  )

  it.live("finds a version that is mended no more, by the date", () =>
    Effect.gen(function* () {
      const server = yield* PgServer.make(PostgresVersion.serverOptions())
      const at = (date: string) =>
        Effect.flatMap(Clock.Clock, (clock) =>
          examine(server.url(), {}).pipe(
            // Its methods are its prototype's.
            Effect.provideService(
              Clock.Clock,
              Object.assign(Object.create(clock), { currentTimeMillis: Effect.succeed(Date.parse(date)) })
            )
          )
        )
      assert.strictEqual(findingsOf(yield* at("2040-01-01"), "server.version")[0]?.severity, "warning")
      const young = yield* at("2021-12-01")
      silent(young, "server.version")
      // The server's own clock is not that old.
      found(young, "network.clock")
      silent(yield* examine(server.url(), {}), "network.clock")
    })
  )

  it.live("finds slots that are lost, or soon will be, and WAL that fills the disk", () =>
    Effect.gen(function* () {
      // No checkpoint comes by itself, by which a slot that is near its loss would be lost before anybody has looked.
      const server = yield* PgServer.make({
        ...PostgresVersion.serverOptions(),
        settings: { max_slot_wal_keep_size: "64MB", max_wal_size: "8GB" }
      })
      yield* server.query(made("slot"))
      silent(yield* examine(server.url(), { slot: "slot" }), "slot.near-loss", "slot.lost")
      const onward = server.query("SELECT pg_logical_emit_message(false, '', 'x'); SELECT pg_switch_wal()")
      const near = yield* untilFound(Effect.andThen(onward, examine(server.url(), { slot: "slot" })), "slot.near-loss")
      assert.match(findingsOf(near, "slot.near-loss")[0]?.seen ?? "", /given up/)
      yield* Effect.repeat(onward, { times: 6 })
      yield* server.query("CHECKPOINT")
      const lost = yield* examine(server.url(), { slot: "slot" })
      found(lost, "slot.lost")
      silent(lost, "slot.near-loss")
      for (const sql of cures(lost, "slot.lost")) yield* server.query(sql)

      yield* set(server, { max_slot_wal_keep_size: "-1" })
      yield* server.reload
      yield* server.query(made("slot"))
      yield* eventually(
        Effect.map(server.query("SHOW max_slot_wal_keep_size"), ([row]) => row?.max_slot_wal_keep_size === "-1")
      )
      const disk = (free: number | undefined, behindBytes?: number) =>
        examine(server.url(), {
          slot: "slot",
          freeDisk: (directory) => Effect.sync(() => (directory.endsWith("pg_wal") ? free : undefined)),
          thresholds: { behindBytes }
        })
      assert.strictEqual(findingsOf(yield* disk(100), "disk.wal")[0]?.severity, "error")
      silent(yield* disk(2 ** 60), "disk.wal")
      silent(yield* disk(2 ** 30), "disk.wal")
      assert.match(findingsOf(yield* disk(undefined, 1), "disk.wal")[0]?.seen ?? "", /cannot be seen/)
      silent(yield* disk(undefined), "disk.wal")
    })
  )

  it.live("finds transactions that a slot waits for, and publications that are younger than it", () =>
    Effect.gen(function* () {
      const server = yield* PgServer.make({
        ...PostgresVersion.serverOptions(),
        settings: { max_prepared_transactions: 5, ...since(18, { idle_replication_slot_timeout: "5s" }) }
      })
      yield* server.query("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t")
      const quiet = yield* examine(server.url(), { slot: "slot", snapshot: true })
      silent(quiet, "transaction.blocks-slot", "transaction.prepared", "transaction.old", "transaction.hidden")

      yield* server.query(made("made"))
      const younger = (publication: string) => examine(server.url(), { slot: "made", publications: [publication] })
      silent(yield* younger("p"), "publication.younger")
      yield* server.query("CREATE PUBLICATION young FOR TABLE t")
      found(yield* younger("young"), "publication.younger")
      if (version >= 18) {
        yield* untilFound(younger("p"), "slot.idle-timeout")
      }

      const session = yield* server.connect()
      yield* session.query("BEGIN; INSERT INTO t VALUES (1)")
      const plan: Doctor.Plan = { slot: "slot", snapshot: true, thresholds: { oldTransaction: 0 } }
      const busy = yield* untilFound(examine(server.url(), plan), "transaction.blocks-slot")
      found(busy, "transaction.old")
      assert.notInclude(JSON.stringify(busy), "INSERT INTO")
      // It exists already: nobody waits.
      silent(yield* examine(server.url(), { slot: "made" }), "transaction.blocks-slot")
      silent(yield* examine(server.url(), { slot: "made", snapshot: true }), "transaction.blocks-slot")
      yield* session.query("PREPARE TRANSACTION 'it''s'")
      const prepared = yield* examine(server.url(), plan)
      silent(prepared, "transaction.blocks-slot")
      assert.strictEqual(findingsOf(prepared, "transaction.prepared")[0]?.severity, "error")

      yield* server.query("CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'secret'")
      const holder = yield* server.connect()
      yield* holder.query("BEGIN; SELECT txid_current()")
      const blind = yield* examine(server.url("postgres", "replicator", "secret"), plan)
      found(blind, "transaction.hidden", "unseen.hba")
      const granted = cures(blind, "transaction.hidden")
      for (const sql of [...granted, ...cures(blind, "unseen.hba")]) {
        yield* server.query(sql)
      }
      const seeing = yield* examine(server.url("postgres", "replicator", "secret"), plan)
      silent(seeing, "transaction.hidden", "network.hba-errors")
      assert.notInclude(JSON.stringify(seeing), "secret")

      for (const sql of cures(prepared, "transaction.prepared")) {
        yield* server.query(sql)
      }
      silent(yield* examine(server.url(), plan), "transaction.prepared")
    })
  )
})
