/**
 * A timezone that changes under a stream, the process's own and the server's. Clocks that jump are tried in
 * packages/core/test/faults/Session.test.ts, where a test may set them.
 */
import { assert, describe } from "@effect/vitest"
import { PgTimestamp } from "@replicant/core"
import { Effect } from "effect"
import { eventually } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { follow, insertedRows, walSender } from "../support/Follow.ts"
import { once } from "../support/Servers.ts"
import { tapWalSender } from "../support/WalSenderTap.ts"
import { makeWorkspace } from "../support/Workspace.ts"

/** As an administrator of this machine would set it. */
const moveProcess = (zone: string | undefined): Effect.Effect<void> =>
  Effect.sync(() => {
    if (zone === undefined) delete process.env.TZ
    else process.env.TZ = zone
  })

const hoursFromUtc = Effect.sync(() => -new Date(2024, 0, 1).getTimezoneOffset() / 60)

describe("a timezone that changes", () => {
  fault(
    "C11",
    "here, on the database, or both, changes no value, no time that we tell, and no connection",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, local timestamp)"
        })
        const tap = yield* tapWalSender(walSender(workspace))
        const stream = yield* follow(workspace, {
          layer: tap.layer,
          options: { timing: { statusInterval: "100 millis" } }
        })
        const statuses = () => tap.said.filter((said) => said._tag === "StandbyStatusUpdate")
        const before = process.env.TZ
        yield* Effect.addFinalizer(() => moveProcess(before))
        const zones = [
          ["Pacific/Kiritimati", 14],
          ["America/Los_Angeles", -8],
          ["UTC", 0]
        ] as const
        for (const [index, [zone, hours]] of zones.entries()) {
          yield* moveProcess(zone)
          assert.strictEqual(yield* hoursFromUtc, hours)
          yield* workspace.sql(`ALTER DATABASE ${workspace.database} SET TimeZone = '${zone}'`)
          const told = statuses().length
          yield* workspace.sql(
            `SET TimeZone = '${zone}'; INSERT INTO t VALUES (${index}, to_timestamp(1e9), '2024-02-03 04:05:06')`
          )
          yield* stream.saw("Commit", index + 1)
          yield* eventually(
            Effect.sync(() => statuses().length > told + 2),
            { what: "status updates go on" }
          )
          const now = Date.now()
          for (const { sendTime } of statuses().slice(told)) {
            assert.approximately(PgTimestamp.toMillis(sendTime), now, 60_000)
          }
        }
        assert.lengthOf(tap.starts(), 1, "one connection all along")
        // The zone of the database bears on sessions that begin after it.
        yield* workspace.sql(`ALTER DATABASE ${workspace.database} SET TimeZone = 'Pacific/Kiritimati'`)
        yield* workspace.sql(
          `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`
        )
        yield* eventually(Effect.sync(() => tap.starts().length === 2))
        yield* workspace.sql("INSERT INTO t VALUES (3, to_timestamp(1e9), '2024-02-03 04:05:06')")
        yield* stream.saw("Commit", 4)
        assert.deepStrictEqual(
          insertedRows(stream.changes),
          [0, 1, 2, 3].map((id) => ({ id, at: "2001-09-09 01:46:40+00", local: "2024-02-03 04:05:06" }))
        )
      }),
    once
  )
})
