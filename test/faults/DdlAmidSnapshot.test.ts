/**
 * Statements that take a table's rows away at a random moment of its snapshot: the table comes whole, or as it is after
 * them, or the snapshot fails; never a part. Moments that were chosen: Snapshot.test.ts.
 */
import { assert, describe } from "@effect/vitest"
import { Array, Effect, Exit, Fiber } from "effect"
import { fault } from "../support/Faults.ts"
import { followSnapshot } from "../support/FollowSnapshot.ts"
import type { Server } from "../support/Servers.ts"
import { makeWorkspace } from "../support/Workspace.ts"

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
