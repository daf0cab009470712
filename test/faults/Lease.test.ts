/**
 * Several processes and one slot: the owner of its lease is killed, told to leave, frozen or cut off, and another goes on. More
 * rounds, with their medians: `npm run lease:proof`.
 */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { copyOptions } from "../support/Copying.ts"
import { eventually } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { playRounds } from "../support/lease/Rounds.ts"
import { type Replicant, startReplicant } from "../support/Replicant.ts"
import { makeSlot } from "../support/Slot.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY)"

const rounds = Number(process.env.REPLICANT_LEASE_ROUNDS ?? 2)

const says = (running: Replicant, text: string) =>
  eventually(
    Effect.sync(() => running.stderr().includes(text)),
    { what: `it says "${text}"` }
  )

const printed = (running: Replicant, id: number) =>
  eventually(
    Effect.sync(() => running.lines().some(({ row }) => (row as { id?: number } | undefined)?.id === id)),
    { what: `row ${id} is printed; it said ${running.stderr()}` }
  )

/** Of whoever waits for a lock, the oldest transaction that its snapshot keeps. */
const horizon = (workspace: Workspace) =>
  Effect.map(
    workspace.sql(`SELECT backend_xmin::text::int8 AS xmin FROM pg_stat_activity
      WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'advisory'`),
    ([row]) => (row === undefined ? undefined : Number(row.xmin))
  )

describe("the owner of a lease", () => {
  fault(
    "C13",
    `is killed, leaves, is frozen, loses the lease's session alone, and its network, ${rounds} times each: another goes on, nothing is lost`,
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server)
        const { took, ...counts } = yield* playRounds(workspace, { rounds, term: 1500 })
        assert.deepInclude(counts, { lost: 0, confirmedTooFar: 0, outOfOrder: 0 })
        for (const times of took.values()) assert.lengthOf(times, rounds)
      }),
    { timeout: 120_000 }
  )

  fault(
    "C13",
    "that is `replicant stream` is followed by another, which held no walsender and no old snapshot",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        yield* makeSlot(workspace)
        const start = (name: string) =>
          startReplicant(["stream", "--slot", workspace.slot, "--publication", workspace.publication, "--lease"], {
            DATABASE_URL: workspace.url(),
            PGAPPNAME: name
          })
        const first = yield* start("first host")
        yield* says(first, "holding the lease")
        const second = yield* start("second host")
        yield* says(second, '("first host")')
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        yield* printed(first, 1)
        const senders = yield* workspace.sql(`SELECT FROM pg_stat_replication WHERE application_name LIKE '% host'`)
        assert.lengthOf(senders, 1)
        const [row] = yield* workspace.sql("SELECT pg_current_xact_id()::text::int8 AS xid")
        yield* eventually(
          Effect.map(horizon(workspace), (xmin) => xmin !== undefined && xmin > Number(row?.xid)),
          { what: "the standby's snapshot is a new one" }
        )
        yield* first.kill("SIGKILL")
        yield* workspace.sql("INSERT INTO t VALUES (2)")
        yield* printed(second, 2)
        yield* second.kill("SIGTERM")
        assert.strictEqual((yield* second.ended).code, 143)
      })
  )

  fault(
    "C13",
    "that is `replicant copy` and frozen loses its place at the target, too, and stands by when it wakes",
    (server) =>
      Effect.gen(function* () {
        const source = yield* makeWorkspace(server, { sql: table })
        const target = yield* makeWorkspace(server, { sql: table })
        const { slot } = copyOptions(source, target)
        const args = ["copy", "--publication", source.publication, "--slot", slot, "--create", "--lease"]
        const start = startReplicant(args, { DATABASE_URL: source.url(), TARGET_URL: target.url() })
        const arrived = (id: number) =>
          eventually(
            Effect.map(target.sql(`SELECT FROM t WHERE id = ${id}`), (rows) => rows.length === 1),
            { what: `row ${id} is at the target` }
          )
        yield* source.sql("INSERT INTO t VALUES (1)")
        const first = yield* start
        yield* arrived(1)
        const second = yield* start
        yield* says(second, "standing by")
        yield* first.kill("SIGSTOP")
        yield* source.sql("INSERT INTO t VALUES (2)")
        yield* arrived(2)
        yield* first.kill("SIGCONT")
        yield* says(first, "standing by")
        yield* source.sql("INSERT INTO t VALUES (3)")
        yield* arrived(3)
        for (const running of [second, first]) {
          yield* running.kill("SIGTERM")
          assert.strictEqual((yield* running.ended).code, 0)
        }
      })
  )
})
