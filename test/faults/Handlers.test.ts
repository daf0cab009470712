/** Handlers that fail, end in any order, or are slow. */
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { assert, describe } from "@effect/vitest"
import { type Lsn, nextLsn, Replication, type Transaction, withLogicalStream } from "@replicant/core"
import { Array, Cause, Effect, Exit, Fiber, Layer, Stream } from "effect"
import { makeLedger, startConsumer } from "../support/Consumer.ts"
import { eventually } from "../support/eventually.ts"
import { type FaultId, fault } from "../support/Faults.ts"
import { failureOf, follow, insertedRows, logicalOptions, walSender } from "../support/Follow.ts"
import { confirmed, isFree, makeSlot } from "../support/Slot.ts"
import { makeWorkspace } from "../support/Workspace.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY)"

describe("a handler that is wrong", () => {
  const ways: ReadonlyArray<
    readonly [FaultId, how: string, what: string, wrong: (boom: Error) => Effect.Effect<never, Error>]
  > = [
    ["C4", "fails", "error", (boom) => Effect.fail(boom)],
    ["C5", "dies", "defect", (boom) => Effect.die(boom)],
    [
      "C5",
      "throws",
      "defect",
      (boom) => {
        throw boom
      }
    ]
  ]
  for (const [id, how, what, wrong] of ways) {
    fault(id, `and ${how} ends the stream with that ${what}, and acknowledges nothing of its transaction`, (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        const boom = new Error("boom")
        const fiber = yield* withLogicalStream(logicalOptions(workspace), (change) =>
          change._tag === "Insert" && change.row.id === 3 ? wrong(boom) : Effect.succeed(nextLsn(change))
        ).pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
        yield* eventually(workspace.isStreaming())
        yield* workspace.sql("DO $$ BEGIN FOR i IN 1..5 LOOP INSERT INTO t VALUES (i); COMMIT; END LOOP; END $$")
        const exit = yield* Fiber.await(fiber)
        assert(Exit.isFailure(exit))
        assert.strictEqual(Cause.squash(exit.cause), boom)
        assert.strictEqual(Cause.hasDies(exit.cause), what === "defect")
        yield* eventually(isFree(workspace), { what: "the slot is free" })
        const again = yield* follow(workspace)
        yield* again.saw("Commit", 3)
        assert.deepStrictEqual(
          insertedRows(again.changes).map((row) => row.id),
          [3, 4, 5]
        )
      })
    )
  }

  fault(
    "C5",
    "and never ends fails by the time limit that it is given, and holds up nothing but its stream",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        const stream = yield* follow<Cause.TimeoutError>(workspace, {
          handler: () => Effect.timeout(Effect.never, "300 millis")
        })
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        assert.strictEqual((yield* stream.failure)._tag, "TimeoutError")
        yield* eventually(isFree(workspace), { what: "the slot is free" })
        const again = yield* follow(workspace)
        yield* again.saw("Commit", 1)
      })
  )
})

describe("two streams of one slot", () => {
  fault("C8", "in one process: the second finds it in use at once, and the first is left alone", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const first = yield* follow(workspace)
      const activePid = Number((yield* workspace.findSlot())!.active_pid)
      const refused = yield* failureOf(workspace, { slotPolicy: { inUse: "fail" } })
      assert.deepInclude(refused, { _tag: "SlotInUse", activePid })
      const second = yield* follow(workspace)
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* first.saw("Commit", 1)
      assert.lengthOf(second.changes, 0)
      assert.strictEqual(Number((yield* workspace.findSlot())!.active_pid), activePid)
      yield* first.stop
      yield* workspace.sql("INSERT INTO t VALUES (2)")
      yield* second.saw("Commit", 1)
      assert.deepStrictEqual(
        insertedRows(second.changes).map((row) => row.id),
        [2]
      )
    })
  )
})

describe("acknowledgement by hand", () => {
  fault("C12", "confirms what it is told, stored or not, and never what this stream has not delivered", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* makeSlot(workspace)
      yield* workspace.sql("DO $$ BEGIN FOR i IN 1..3 LOOP INSERT INTO t VALUES (i); COMMIT; END LOOP; END $$")
      /** Takes so many transactions of a stream of its own, which ends with this. */
      const take = <A>(
        count: number,
        use: (
          units: ReadonlyArray<Transaction>,
          replication: Replication.Replication["Service"]
        ) => Effect.Effect<A, unknown>
      ) =>
        Effect.gen(function* () {
          const replication = yield* Replication.Replication
          return yield* use(yield* Stream.runCollect(Stream.take(replication.transactions, count)), replication)
        }).pipe(Effect.provide(Replication.layer(logicalOptions(workspace)).pipe(Layer.provide(walSender(workspace)))))
      const old = yield* take(3, (units, replication) => Effect.as(replication.acknowledge(units[0]!.nextLsn), units))
      assert.strictEqual(yield* confirmed(workspace), old[0]!.nextLsn.lsn, "by the consumer's own choice")
      yield* take(2, (units, replication) =>
        Effect.gen(function* () {
          const ids = units.flatMap(({ changes }) => insertedRows(changes).map((row) => row.id))
          assert.deepStrictEqual(ids, [2, 3], "what was acknowledged does not come again, handled or not")
          yield* replication.acknowledge(old[2]!.nextLsn)
          yield* replication.acknowledgeThrough(old[2]!.nextLsn)
          assert.strictEqual((yield* replication.progress).pending, 2, "of another stream it is void")
        })
      )
      assert.strictEqual(yield* confirmed(workspace), old[0]!.nextLsn.lsn)
      yield* take(2, (units, replication) => replication.acknowledgeThrough(units[1]!.nextLsn))
      assert.isTrue((yield* confirmed(workspace)) >= old[2]!.nextLsn.lsn)
    })
  )
})

describe("handlers in parallel", () => {
  fault(
    ["C6", "C7"],
    "that end in any order, and are left at any moment, have confirmed no unfinished transaction",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        yield* makeSlot(workspace)
        const total = 200
        yield* workspace.sql(`DO $$ BEGIN FOR i IN 1..${total} LOOP INSERT INTO t VALUES (i); COMMIT; END LOOP; END $$`)
        const finished = new Map<Lsn.Lsn, number>()
        /** So many more are finished in a round, and it is left amid the rest. */
        const share = 25
        while (finished.size < total) {
          const goal = finished.size + share
          const layer = Replication.layer(logicalOptions(workspace)).pipe(Layer.provide(walSender(workspace)))
          const done = yield* confirmed(workspace)
          const part = Effect.gen(function* () {
            const replication = yield* Replication.Replication
            yield* replication.transactions.pipe(
              Stream.mapEffect(
                (transaction) =>
                  Effect.gen(function* () {
                    assert.isTrue(transaction.nextLsn.lsn > done, "not again what was confirmed")
                    yield* Effect.sleep(Math.random() * 20)
                    if (finished.size === goal) return yield* Effect.never
                    for (const row of insertedRows(transaction.changes)) {
                      finished.set(transaction.nextLsn.lsn, row.id as number)
                    }
                    yield* replication.acknowledge(transaction.nextLsn)
                  }),
                { concurrency: 8, unordered: true }
              ),
              Stream.runDrain
            )
          }).pipe(Effect.provide(layer))
          const enough = eventually(
            Effect.sync(() => finished.size === goal),
            { what: "some are finished" }
          )
          yield* Effect.raceFirst(part, enough)
          const end = yield* confirmed(workspace)
          const ids = [...finished].filter(([lsn]) => lsn <= end).map(([, id]) => id)
          assert.deepStrictEqual(
            ids.sort((a, b) => a - b),
            Array.range(1, ids.length),
            "a prefix, without a gap"
          )
        }
        assert.strictEqual(finished.size, total)
      })
  )
})

/** Resident memory of a process in bytes. */
const residentBytes = (pid: number) =>
  Effect.promise(() => promisify(execFile)("ps", ["-o", "rss=", "-p", String(pid)])).pipe(
    Effect.map(({ stdout }) => Number(stdout) * 1024)
  )

describe("a consumer that is slow", () => {
  /** That much waits, for so long. */
  const megabytes = Number(process.env.REPLICANT_WAITING_MEGABYTES ?? 200)
  const seconds = Number(process.env.REPLICANT_WAITING_SECONDS ?? 1)
  const bytes = megabytes * 1_000_000

  fault(
    ["C9", "D1"],
    `leaves ${megabytes} MB with the server for ${seconds} s: its memory stays what it was, and its lag can be seen`,
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int PRIMARY KEY, note text)" })
        yield* workspace.sql("ALTER TABLE t ALTER note SET STORAGE EXTERNAL")
        yield* makeSlot(workspace)
        const ledger = yield* makeLedger
        // A heap that is small is collected soon: what is measured is what is held, not what nobody has cleared away yet.
        const small = ["--max-old-space-size=64"]
        const consumer = yield* startConsumer(workspace, ledger, { gate: ledger.gate }, small)
        const idle = yield* residentBytes(consumer.pid)
        const count = megabytes * 10
        yield* workspace.sql(`DO $$ BEGIN FOR i IN 1..${count} LOOP
          INSERT INTO t VALUES (i, repeat('x', ${bytes / count})); COMMIT; END LOOP; END $$`)
        yield* eventually(Effect.sync(() => consumer.said().includes("@begun")))
        const lag = yield* eventually(
          Effect.map(
            workspace.sql(
              `SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::float8 AS bytes
               FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`
            ),
            ([row]) => Number(row?.bytes)
          )
        )
        assert.isAbove(lag, bytes * 0.9)
        let waiting = 0
        for (let second = 1; second <= seconds; second++) {
          yield* Effect.sleep("1 second") // Not a wait: how long nobody reads.
          waiting = Math.max(waiting, (yield* residentBytes(consumer.pid)) - idle)
        }
        assert.isBelow(waiting, bytes / 4, "bytes more than an idle one: what waits is with the server")
        yield* ledger.openGate
        yield* eventually(
          Effect.map(ledger.read, (handled) => handled.length === count),
          { deadline: 60_000 + megabytes * 500, what: "all is handled" }
        )
        yield* consumer.kill("SIGTERM")
        yield* consumer.ended
        const peak = consumer.peakBytes() - idle
        assert.isBelow(peak, bytes, "not what was waiting, nor twice as much")
        yield* Effect.logInfo(`idle ${idle / 1e6} MB, waiting +${waiting / 1e6} MB, peak +${peak / 1e6} MB`)
      }),
    { since: 18, timeout: 90_000 + seconds * 1000 + megabytes * 300 }
  )
})
