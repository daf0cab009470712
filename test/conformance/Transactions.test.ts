/** Transactions: each whole, in the order of commits, of what was not rolled back, however large. */
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { assert, describe } from "@effect/vitest"
import { Handler, nextLsn, withLogicalStream } from "@replicant/core"
import { Effect } from "effect"
import { expected, record, scenario, transcript } from "../support/Conformance.ts"
import { eventually } from "../support/eventually.ts"
import { logicalOptions, walSender } from "../support/Follow.ts"
import { makeWorkspace } from "../support/Workspace.ts"

/** Makes the walsenders of this database write a transaction to disk beyond so little. */
const spillsAt = (size: string) => `
  DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET logical_decoding_work_mem = ${size}', current_database());
  END $$`

const spilled = (slot: string) => `
  SELECT spill_txns > 0 AS spilled FROM pg_stat_replication_slots WHERE slot_name = '${slot}'`

/** Bytes in use after a collection: what is held, and buffers that V8 has not given back yet. */
const bytesHeld = (): number => {
  setFlagsFromString("--expose-gc")
  runInNewContext("gc")()
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

describe("Transactions", () => {
  scenario("subtransactions", "shows what was kept, as executed, and nothing of what was rolled back", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, { sql: "CREATE TABLE t (a int PRIMARY KEY, b text)" })
      const insert = (a: number, b: string) => `INSERT INTO t VALUES (${a}, '${b}')`
      // Kept, released, nested, rolled back.
      yield* recorder.run(
        ...["BEGIN", insert(1, "main"), "SAVEPOINT kept", insert(2, "kept"), "SAVEPOINT nested", insert(3, "nested")],
        ...["RELEASE nested", "SAVEPOINT gone", insert(4, "gone"), "SAVEPOINT deeper", insert(5, "gone")],
        ...["RELEASE deeper", "ROLLBACK TO gone", insert(6, "after"), "RELEASE kept", insert(7, "main"), "COMMIT"]
      )
      // Only a subtransaction writes; what it rolled back is all there is.
      yield* recorder.run("BEGIN", "SAVEPOINT s", insert(10, "only"), "RELEASE s", "COMMIT")
      yield* recorder.run("BEGIN", "SAVEPOINT s", insert(11, "gone"), "ROLLBACK TO s", "COMMIT")
      // A row lock gives the main transaction its id, though it writes nothing.
      yield* recorder.run(
        ...["BEGIN", "SELECT FROM t WHERE a = 1 FOR UPDATE", "SAVEPOINT s"],
        ...["UPDATE t SET b = 'locked' WHERE a = 1", "COMMIT"]
      )
      yield* recorder.run(
        `DO $$
         BEGIN
           ${insert(20, "block")};
           BEGIN
             ${insert(21, "gone")};
             ${insert(20, "clash")};
           EXCEPTION WHEN unique_violation THEN
             ${insert(22, "caught")};
           END;
           BEGIN
             ${insert(23, "inner")};
           EXCEPTION WHEN unique_violation THEN
             NULL;
           END;
           ${insert(24, "block")};
         END $$`
      )
      yield* recorder.run("BEGIN", insert(30, "gone"), "SAVEPOINT s", insert(31, "gone"), "ROLLBACK")
      yield* recorder.expect(
        [...["I t{a=1,b=main}", "I t{a=2,b=kept}", "I t{a=3,b=nested}"], ...["I t{a=6,b=after}", "I t{a=7,b=main}"]],
        "I t{a=10,b=only}",
        "U t N{a=1,b=locked}",
        ["I t{a=20,b=block}", "I t{a=22,b=caught}", "I t{a=23,b=inner}", "I t{a=24,b=block}"]
      )
    })
  )

  scenario("commit-order", "shows transactions by their commits, each unmixed, whichever began first", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, { sql: "CREATE TABLE t (a int PRIMARY KEY, b text)" })
      const [a, b, c] = [yield* recorder.session, yield* recorder.session, yield* recorder.session]
      yield* a.query("BEGIN; INSERT INTO t VALUES (1, 'a')")
      yield* b.query("BEGIN; INSERT INTO t VALUES (2, 'b'); COMMIT")
      yield* a.query("INSERT INTO t VALUES (3, 'a')")
      yield* c.query("BEGIN; INSERT INTO t VALUES (4, 'c'); COMMIT")
      yield* a.query("COMMIT")
      const changes = yield* recorder.expect("I t{a=2,b=b}", "I t{a=4,b=c}", ["I t{a=1,b=a}", "I t{a=3,b=a}"])
      const begins = changes.filter((change) => change._tag === "Begin")
      const [first, second, third] = begins.map(({ commitLsn, xid }) => ({ commitLsn, xid }))
      assert.isTrue(third!.xid < first!.xid && first!.xid < second!.xid, "A began first and ended last")
      assert.isTrue(first!.commitLsn < second!.commitLsn && second!.commitLsn < third!.commitLsn)
      const [older] = yield* recorder.sql(
        `WITH message AS (
           SELECT lsn, substr(data, 1, 1) AS kind, row_number() OVER () AS place
           FROM pg_logical_slot_peek_binary_changes('${recorder.slot}_raw', NULL, NULL,
             'proto_version', '1', 'publication_names', '${recorder.publication}')
           WHERE substr(data, 1, 1) IN ('I', 'C')
         )
         SELECT change.lsn < commit.lsn AS older
         FROM (SELECT lsn FROM message WHERE kind = 'C' ORDER BY place LIMIT 1) AS commit,
              (SELECT lsn FROM message WHERE kind = 'I' ORDER BY place DESC LIMIT 1 OFFSET 1) AS change`
      )
      assert.deepStrictEqual(older, { older: true }, "A's first change stands before B's commit in the log")
    })
  )

  scenario("empty-transactions", "shows nothing of transactions of which nothing is published", (server) =>
    Effect.gen(function* () {
      const recorder = yield* record(server, {
        sql: "CREATE TABLE t (a int PRIMARY KEY); CREATE TABLE unpublished (a int)",
        publication: "FOR TABLE t"
      })
      yield* recorder.run(
        "INSERT INTO unpublished VALUES (1), (2)",
        "CREATE TABLE more (a int)",
        "SELECT txid_current()",
        "INSERT INTO t VALUES (1)"
      )
      yield* recorder.expect("I t{a=1}")
      const all = transcript(recorder.stream.changes)
      const mark = all.slice(-3)
      const real = [...expected(["I t{a=1}"]), ...mark]
      if (server.majorVersion > 14) {
        assert.deepStrictEqual(all, real)
      } else {
        assert.deepStrictEqual(all.slice(-real.length), real)
        const before = all.slice(0, -real.length)
        assert.isAtLeast(before.length, 2)
        assert.isTrue(before.every((line, index) => line === (index % 2 === 0 ? "B" : "C")))
      }
    })
  )

  scenario(
    "spill",
    "shows transactions that the server had to write to disk as they were executed",
    (server) =>
      Effect.gen(function* () {
        const recorder = yield* record(server, {
          sql: `CREATE TABLE t (a int PRIMARY KEY, b text); ${spillsAt("64")}`
        })
        const insert = (from: number) =>
          `INSERT INTO t SELECT a, repeat('x', 50) FROM generate_series(${from}, ${from + 4999}) AS a`
        const rows = (from: number) =>
          Array.from({ length: 5000 }, (_, index) => `I t{a=${from + index},b=${"x".repeat(50)}}`)
        const inSub = (from: number, end: string) => ["SAVEPOINT s", insert(from), end]
        yield* recorder.run("BEGIN", ...inSub(10_000, "RELEASE s"), insert(15_000), "COMMIT")
        yield* recorder.run("BEGIN", insert(20_000), ...inSub(25_000, "RELEASE s"), "COMMIT")
        yield* recorder.run("BEGIN", ...inSub(30_000, "ROLLBACK TO s"), insert(35_000), "COMMIT")
        yield* recorder.run("BEGIN", insert(40_000), ...inSub(45_000, "ROLLBACK TO s"), "COMMIT")
        yield* recorder.run("BEGIN", insert(50_000), ...inSub(55_000, "RELEASE s"), "ROLLBACK")
        yield* recorder.expect(
          [...rows(10_000), ...rows(15_000)],
          [...rows(20_000), ...rows(25_000)],
          rows(35_000),
          rows(40_000)
        )
        yield* eventually(
          Effect.map(recorder.sql(spilled(recorder.slot)), ([row]) => row?.spilled === true),
          { what: "the server has spilled to disk" }
        )
      }),
    { timeout: 120_000 }
  )

  scenario(
    "spill",
    "holds no more of a transaction of 100 MB than of a small one",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: `CREATE TABLE t (a int PRIMARY KEY, b text); ${spillsAt("64")}`
        })
        let rows = 0
        let characters = 0
        let sampled = 0
        const held: Array<number> = []
        let commits = 0
        yield* withLogicalStream(
          logicalOptions(workspace),
          Handler.arrays((changes) =>
            Effect.sync(() => {
              let last: ReturnType<typeof nextLsn>
              for (const change of changes) {
                if (change._tag === "Insert") {
                  rows++
                  characters += String(change.row.b).length
                }
                if (change._tag === "Commit") commits++
                last = nextLsn(change) ?? last
              }
              if (rows - sampled >= 1000) {
                sampled = rows
                held.push(bytesHeld())
              }
              return last
            })
          )
        ).pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
        yield* eventually(workspace.isStreaming(workspace.slot))
        const insert = (from: number) =>
          `INSERT INTO t SELECT a, repeat('x', 10000) FROM generate_series(${from}, ${from + 4999}) AS a`
        const before = bytesHeld()
        yield* workspace.sql(`BEGIN; ${insert(0)}; SAVEPOINT s; ${insert(5000)}; COMMIT`)
        yield* eventually(
          Effect.sync(() => commits > 0 && rows === 10_000),
          { what: "all rows came" }
        )
        assert.strictEqual(characters, 100_000_000)
        assert.isAtLeast(held.length, 5)
        // What is kept of each row only grows: 50 MB or more at every look of the second half. Freed buffers are given back
        // a while after the collection, so that any one look may meet more than is held, and none of them less.
        const least = Math.min(...held.slice(Math.ceil(held.length / 2)))
        assert.isBelow((least - before) / 1_000_000, 20, "megabytes")
      }),
    { timeout: 120_000 }
  )
})
