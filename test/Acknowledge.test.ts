/** The laws of docs/delivery.md, each against a real slot. */
import { assert, describe } from "@effect/vitest"
import { Lsn, nextLsn, Replication } from "@replicant/core"
import { Effect, Latch, Layer, Stream } from "effect"
import { eventually } from "./support/eventually.ts"
import { follow, insertedRows, logicalOptions, walSender } from "./support/Follow.ts"
import { onServer } from "./support/Servers.ts"
import { confirmed } from "./support/Slot.ts"
import { makeWorkspace } from "./support/Workspace.ts"

const items = "CREATE TABLE items (id int PRIMARY KEY); CREATE TABLE others (id int)"
const onlyItems = "FOR TABLE items"

const ids = (changes: Parameters<typeof insertedRows>[0]) => insertedRows(changes).map((row) => row.id)

const oneByOne = (from: number, to: number) =>
  `DO $$ BEGIN FOR i IN ${from}..${to} LOOP INSERT INTO items VALUES (i); COMMIT; END LOOP; END $$`

describe("acknowledgement", () => {
  onServer("postgres", "of the first of two adjacent commits leaves the second to be delivered", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: items, publication: onlyItems })
      // Two sessions hold one open transaction each, and commit at once: nothing lies between their commit records.
      let adjacent = false
      for (let round = 0; round < 20 && !adjacent; round++) {
        const first = yield* workspace.session
        const second = yield* workspace.session
        let commits = 0
        const stream = yield* follow(workspace, {
          handler: (change) => Effect.succeed(change._tag === "Commit" && ++commits === 1 ? nextLsn(change) : undefined)
        })
        const a = round * 2
        yield* first.query(`BEGIN; INSERT INTO items VALUES (${a})`)
        yield* second.query(`BEGIN; INSERT INTO items VALUES (${a + 1})`)
        yield* Effect.all([first.query("COMMIT"), second.query("COMMIT")], { concurrency: 2 })
        yield* stream.saw("Commit", 2)
        const [one, two] = stream.changes.filter((change) => change._tag === "Commit")
        adjacent = one!.endLsn === two!.commitLsn
        yield* stream.stop
        assert.strictEqual(yield* confirmed(workspace), one!.endLsn, "exactly its end, not one byte more")
        const again = yield* follow(workspace)
        yield* again.saw("Commit", 1)
        assert.deepStrictEqual(ids(again.changes), [ids(stream.changes)[1]])
        yield* again.stop
      }
      assert.isTrue(adjacent, "two commits lay side by side at least once")
    })
  )

  onServer("postgres", "that is never given confirms nothing, and all of it comes again", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: items, publication: onlyItems })
      const stream = yield* follow(workspace, { handler: () => Effect.succeed(undefined) })
      const before = yield* confirmed(workspace)
      yield* workspace.sql(oneByOne(1, 3))
      yield* stream.saw("Commit", 3)
      yield* workspace.sql("INSERT INTO others SELECT generate_series(1, 1000)")
      yield* stream.stop
      assert.isTrue((yield* confirmed(workspace)) <= Lsn.max(before, firstCommit(stream.changes)))
      const again = yield* follow(workspace)
      yield* again.saw("Commit", 3)
      assert.deepStrictEqual(ids(again.changes), [1, 2, 3])
    })
  )

  onServer("postgres", "of an idle position lets the slot of a quiet publication follow the WAL", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: items, publication: onlyItems })
      yield* follow(workspace)
      yield* workspace.sql("INSERT INTO others SELECT generate_series(1, 10000)")
      const end = Lsn.fromString(yield* workspace.currentWalLsn)!
      yield* eventually(
        Effect.map(confirmed(workspace), (lsn) => lsn >= end),
        { what: "the idle position was confirmed" }
      )
    })
  )

  onServer(
    "postgres",
    "of an idle position never happens while a delivered transaction is unfinished",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: items, publication: onlyItems })
        const gate = yield* Latch.make()
        const stream = yield* follow(workspace, {
          options: { timing: { statusInterval: "100 millis" } },
          handler: (change) =>
            change._tag === "Commit" ? Effect.as(gate.await, nextLsn(change)) : Effect.succeed(undefined)
        })
        yield* workspace.sql("INSERT INTO items VALUES (1)")
        yield* stream.saw("Commit", 1)
        yield* workspace.sql("INSERT INTO others SELECT generate_series(1, 10000)")
        const end = Lsn.fromString(yield* workspace.currentWalLsn)!
        yield* eventually(
          Effect.map(
            workspace.sql(
              `SELECT bool_or(write_lsn >= '${Lsn.format(end)}') AS told FROM pg_stat_replication r
             JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE s.slot_name = '${workspace.slot}'`
            ),
            ([row]) => row?.told === true
          ),
          { what: "the server was told that the idle position was received" }
        )
        assert.isTrue((yield* confirmed(workspace)) <= firstCommit(stream.changes))
        yield* gate.open
        yield* eventually(Effect.map(confirmed(workspace), (lsn) => lsn >= end))
      }),
    // 14 sends what is not published as an empty transaction, which waits behind the handler with all that follows it.
    { since: 15 }
  )

  onServer("postgres", "[C6] out of order confirms the longest finished prefix", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: items, publication: onlyItems })
      const layer = Replication.layer(logicalOptions(workspace)).pipe(Layer.provide(walSender(workspace)))
      yield* Effect.gen(function* () {
        const replication = yield* Replication.Replication
        yield* workspace.sql(oneByOne(1, 5))
        const transactions = yield* replication.transactions.pipe(Stream.take(5), Stream.runCollect)
        const [one, two, three, four, five] = transactions.map((transaction) => transaction.nextLsn)
        for (const done of [five, two, four]) yield* replication.acknowledge(done!)
        assert.strictEqual((yield* replication.progress).pending, 5)
        yield* replication.acknowledge(one!)
        yield* eventually(Effect.map(confirmed(workspace), (lsn) => lsn === two!.lsn))
        assert.strictEqual((yield* replication.progress).pending, 3)
        assert.isDefined(three)
      }).pipe(Effect.provide(layer))
      const again = yield* follow(workspace)
      yield* again.saw("Commit", 3)
      assert.deepStrictEqual(ids(again.changes), [3, 4, 5])
    })
  )
})

/** Where the first commit record stands. */
const firstCommit = (changes: Parameters<typeof insertedRows>[0]): Lsn.Lsn => {
  const begin = changes.find((change) => change._tag === "Begin")
  return begin?.commitLsn ?? Lsn.zero
}
