/**
 * Statements that take a table's rows away at a random moment of its snapshot: the table comes whole, or as it is after
 * them, or the snapshot fails; never a part. Moments that were chosen: Snapshot.test.ts.
 */
import { assert, describe } from "@effect/vitest"
import { nextLsn, WalSender } from "@replicant/core"
import { Array, Deferred, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { eventually } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { walSender } from "../support/Follow.ts"
import { followSnapshot, type Seen } from "../support/FollowSnapshot.ts"
import type { Server } from "../support/Servers.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"

const count = 3000

const statements = [
  "TRUNCATE later",
  "ALTER TABLE later ALTER id TYPE bigint",
  "ALTER TABLE later ADD COLUMN added double precision DEFAULT random()",
  "DROP TABLE later"
] as const

/** One snapshot, during which the statement is run. Gives how it went. */
const round = Effect.fnUntraced(function* (server: Server, statement: string) {
  const rows = `AS SELECT i AS id, repeat('x', 200) AS note FROM generate_series(1, ${count}) i`
  const workspace = yield* makeWorkspace(server, { sql: `CREATE TABLE first ${rows}; CREATE TABLE later ${rows}` })
  const stream = yield* followSnapshot(workspace, { options: { copy: { connections: 1 } } })
  yield* Effect.sleep(Math.random() * 150) // Not a wait: the moment at which the statement comes.
  const ddl = yield* Effect.forkScoped(workspace.sql(statement))
  const taken = yield* Effect.exit(stream.saw("SnapshotCompleted", 1))
  yield* Fiber.join(ddl)
  if (Exit.isFailure(taken)) {
    assert.isFalse(stream.seen.some((change) => change._tag === "SnapshotCompleted"))
    return "failed"
  }
  // A snapshot that began anew begins with all rows again.
  const seen = stream.seen.slice(stream.seen.findLastIndex((change) => change._tag === "SnapshotStarted"))
  const ids = seen.flatMap((change) =>
    change._tag === "SnapshotRow" && change.relation.name === "later" ? [Number(change.row.id)] : []
  )
  yield* workspace.sql("INSERT INTO first VALUES (0)")
  yield* stream.saw("Insert", 1)
  const truncates = stream.seen.filter((change) => change._tag === "Truncate").length
  if (ids.length === 0) {
    assert.include(["TRUNCATE later", "DROP TABLE later"], statement, "the rows are there all along")
    assert.strictEqual(truncates, 0, "it was empty before")
    return "after it"
  }
  assert.deepStrictEqual(
    ids.sort((a, b) => a - b),
    Array.range(1, count),
    "all rows, each once"
  )
  assert.strictEqual(truncates, statement.startsWith("TRUNCATE") ? 1 : 0)
  return "before it"
}, Effect.scoped)

describe("a snapshot with DDL at a random moment", () => {
  const rounds = Number(process.env.SNAPSHOT_DDL_ROUNDS ?? 4)

  fault(
    "P2",
    `has every row, or is of the time after, or fails: ${rounds} times`,
    (server) =>
      Effect.gen(function* () {
        const ways = new Map<string, number>()
        for (let index = 0; index < rounds; index++) {
          const statement = statements[index % statements.length]!
          const way = yield* round(server, statement)
          ways.set(way, (ways.get(way) ?? 0) + 1)
        }
        yield* Effect.logInfo(`${rounds} snapshots: ${[...ways].map(([way, times]) => `${way} ${times}`).join(", ")}`)
      }),
    { since: 18, timeout: 60_000 + rounds * 3000 }
  )
})

describe("DDL that waits for a snapshot", () => {
  const names = Array.range(1, 8).map((index) => `t${index}`)
  const sql = names.map((name) => `CREATE TABLE ${name} AS SELECT generate_series(1, ${count}) AS id`).join("; ")
  const alter = "ALTER TABLE t8 ADD COLUMN added int DEFAULT 1"

  /** Begins the statement, and waits until it waits for its lock. */
  const beginWaiting = Effect.fnUntraced(function* (workspace: Workspace, statement: string) {
    const ddl = yield* Effect.forkScoped(workspace.sql(statement))
    const waiting = workspace.sql(
      `SELECT pid FROM pg_stat_activity WHERE datname = '${workspace.database}' AND wait_event_type = 'Lock'
       AND query = '${statement}'`
    )
    yield* eventually(
      Effect.map(waiting, (rows) => rows.length === 1),
      { what: "the statement waits" }
    )
    return { ddl, pid: Number((yield* waiting)[0]?.pid) }
  })

  /** All rows of all tables, each once, in one attempt. */
  const isWhole = (seen: Seen) => {
    assert.lengthOf(
      seen.filter((change) => change._tag === "SnapshotStarted"),
      1
    )
    for (const name of names) {
      const ids = seen.flatMap((change) =>
        change._tag === "SnapshotRow" && change.relation.name === name ? [Number(change.row.id)] : []
      )
      assert.deepStrictEqual(
        ids.sort((a, b) => a - b),
        Array.range(1, count),
        name
      )
    }
  }

  fault(["P2"], "does not keep its other connections from tables that they have not read yet", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql })
      const gate = yield* Deferred.make<void>()
      const stream = yield* followSnapshot(workspace, {
        options: { copy: { connections: 4, lockTimeout: "2 seconds" } },
        handler: (change) =>
          change._tag === "SnapshotStarted"
            ? Effect.as(Deferred.await(gate), undefined)
            : Effect.succeed(nextLsn(change))
      })
      yield* stream.saw("SnapshotStarted", 1)
      const { ddl } = yield* beginWaiting(workspace, alter)
      yield* Deferred.succeed(gate, undefined)
      yield* stream.saw("SnapshotCompleted", 1)
      isWhole(stream.seen)
      yield* Fiber.join(ddl)
      yield* workspace.sql("INSERT INTO t8 VALUES (0, 2)")
      yield* stream.saw("Insert", 1)
      const inserted = stream.seen.findLast((change) => change._tag === "Insert")
      assert.deepStrictEqual(inserted?.row, { id: 0, added: 2 })
    })
  )

  fault(["P2"], "is let pass where it comes while the connections take their locks", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql })
      const driver = yield* Effect.provide(WalSender, walSender(workspace))
      const scope = yield* Effect.scope
      let locks = 0
      // As the second connection asks for its locks the first one has them.
      const comes = Effect.suspend(() => {
        locks += 1
        return locks === 2
          ? Effect.provideService(Effect.orDie(beginWaiting(workspace, alter)), Scope.Scope, scope)
          : Effect.void
      })
      const connect = Effect.map(driver.connect, (connection) => ({
        ...connection,
        query: (text: string) =>
          text.startsWith("LOCK TABLE") ? Effect.andThen(comes, connection.query(text)) : connection.query(text)
      }))
      const stream = yield* followSnapshot(workspace, {
        options: { copy: { connections: 2, lockTimeout: "10 seconds" } },
        layer: Layer.succeed(WalSender, WalSender.of({ ...driver, connect }))
      })
      yield* stream.saw("SnapshotCompleted", 1)
      isWhole(stream.seen)
      assert.strictEqual(locks, 4, "all were let go, and taken once more")
      const last = stream.seen.findLast((change) => change._tag === "SnapshotRow" && change.relation.name === "t8")
      assert(last?._tag === "SnapshotRow")
      assert.strictEqual(last.row.added, 1)
    })
  )

  fault(["P2"], "is named where it lets no snapshot pass, as it waits for somebody else", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql })
      const session = yield* workspace.session
      yield* session.query("BEGIN; INSERT INTO t8 VALUES (0)")
      const { pid } = yield* beginWaiting(workspace, alter)
      const stream = yield* followSnapshot(workspace, {
        options: { copy: { connections: 2, lockTimeout: "300 millis" } }
      })
      const failure = yield* stream.failure
      assert.strictEqual(failure._tag, "SnapshotLocked")
      assert.deepInclude(failure, { relations: ['"public"."t8"'], pids: [pid] })
      yield* session.query("ROLLBACK")
    })
  )
})
