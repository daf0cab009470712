/** What a doctor finds at a standby, and in what its primary expects of it: before PostgreSQL 17 and from there on. */
import { assert, describe, it } from "@effect/vitest"
import type { Doctor } from "@replicant/core/operations"
import { PgWalSender } from "@replicant/node"
import type { PgServerShape } from "@replicant/node/testing"
import { Effect, Redacted } from "effect"
import { cures, examine, findingsOf, found, silent, untilFound, untilSilent } from "./support/Doctoring.ts"
import { eventually } from "./support/eventually.ts"
import * as PostgresVersion from "./support/PostgresVersion.ts"
import { standbyOf, trustingServer } from "./support/Standby.ts"

const version = PostgresVersion.current()

const withStandby = (primary: PgServerShape, standby: PgServerShape, plan: Doctor.Plan = {}) =>
  examine(primary.url(), { slot: "slot", standby: PgWalSender.session({ url: Redacted.make(standby.url()) }), ...plan })

describe(`a doctor of a standby of PostgreSQL ${version}`, () => {
  it.live("finds what keeps it from taking over, and that it has, and is silent where all is well", () =>
    Effect.gen(function* () {
      const primary = yield* trustingServer()
      yield* primary.query("CREATE TABLE t (id int PRIMARY KEY)")
      const { promote, server: standby } = yield* standbyOf(primary)
      const failover = version >= 17 ? ", false, false, true" : ""
      yield* primary.query(`SELECT pg_create_logical_replication_slot('slot', 'pgoutput'${failover})`)
      if (version >= 17) {
        yield* primary.query("ALTER SYSTEM SET synchronized_standby_slots = 'standby'")
        yield* primary.reload
        yield* eventually(
          Effect.map(
            standby.query("SELECT FROM pg_replication_slots WHERE synced AND NOT temporary"),
            (rows) => rows.length === 1
          ),
          { what: "the slot is kept in step" }
        )
      }
      // What a standby has received, and told of, comes to be known bit by bit.
      const well = yield* untilSilent(
        withStandby(primary, standby),
        "standby.promoted",
        "standby.stranger",
        "standby.feedback",
        "standby.lag",
        "standby.lag-at-source",
        "standby.slot-sync",
        "standby.room",
        "standby.source",
        "standby.synchronized-slots",
        "slot.failover",
        "slot.synced"
      )
      if (version >= 17) silent(well, "standby.slot")
      else found(well, "standby.slot")

      // The standby itself, asked as if it were the source.
      const asSource = yield* examine(standby.url(), { slot: "slot" })
      found(asSource, "standby.source", ...(version >= 17 ? ["slot.synced"] : []))
      assert.strictEqual(findingsOf(asSource, "standby.source")[0]?.severity, version < 16 ? "error" : "note")

      yield* standby.query("ALTER SYSTEM SET hot_standby_feedback = off")
      if (version >= 17) yield* standby.query("ALTER SYSTEM SET sync_replication_slots = off")
      yield* standby.query("SELECT pg_reload_conf(); SELECT pg_wal_replay_pause()")
      yield* primary.query("INSERT INTO t VALUES (1)")
      const ill = yield* eventually(
        Effect.map(withStandby(primary, standby, { thresholds: { behindBytes: 1 } }), (report) =>
          ["standby.feedback", "standby.lag", "standby.lag-at-source"].every((id) => findingsOf(report, id).length > 0)
            ? report
            : undefined
        ),
        { what: "the standby is ill" }
      )
      assert.match(findingsOf(ill, "standby.lag")[0]?.seen ?? "", /paused/)
      if (version >= 17) found(ill, "standby.slot-sync")
      const mends = [
        ...cures(ill, "standby.lag"),
        ...cures(ill, "standby.feedback"),
        ...cures(ill, "standby.slot-sync")
      ]
      for (const sql of mends) yield* standby.query(sql)
      yield* untilSilent(withStandby(primary, standby), "standby.feedback", "standby.lag", "standby.slot-sync")

      const other = yield* trustingServer({ max_wal_senders: 3 })
      found(yield* withStandby(primary, other), "standby.stranger", "standby.promoted", "standby.room")

      if (version >= 17) {
        yield* primary.query("ALTER SYSTEM SET synchronized_standby_slots = 'nobody, standby'")
        yield* primary.reload
        yield* primary.query("SELECT pg_create_logical_replication_slot('own', 'pgoutput')")
        const waiting = yield* untilFound(examine(primary.url(), { slot: "own" }), "standby.synchronized-slots")
        assert.strictEqual(findingsOf(waiting, "standby.synchronized-slots")[0]?.severity, "error")
        found(waiting, "slot.failover")
        for (const sql of cures(waiting, "standby.synchronized-slots")) yield* primary.query(sql)
        yield* primary.reload
        yield* untilSilent(examine(primary.url(), {}), "standby.synchronized-slots")
      }
      yield* promote
      found(yield* withStandby(primary, standby), "standby.promoted")
    })
  )
})
