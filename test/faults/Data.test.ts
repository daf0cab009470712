/** Faults of the data: what is large, what is deep, and what nobody can decode. */
import { inspect } from "node:util"
import { NodeFileSystem } from "@effect/platform-node"
import { assert, describe } from "@effect/vitest"
import {
  type Change,
  type InProgress,
  nextLsn,
  Pgoutput,
  type ReplicationError,
  TransactionSpill,
  withLogicalStream
} from "@replicant/core"
import { FaultProxy } from "@replicant/node/testing"
import { Effect, Fiber, Layer, Redacted, Schedule } from "effect"
import { makeLedger, startConsumer } from "../support/Consumer.ts"
import { eventually, patience } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { follow, insertedRows, logicalOptions, walSender } from "../support/Follow.ts"
import { confirmed, makeSlot } from "../support/Slot.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY)"

describe("10,000 subtransactions, of which every tenth is rolled back", () => {
  const write = (workspace: Workspace) =>
    workspace.sql(`DO $$ BEGIN
      FOR i IN 1..10000 LOOP
        BEGIN
          INSERT INTO t VALUES (i);
          IF i % 10 = 0 THEN RAISE EXCEPTION 'no'; END IF;
        EXCEPTION WHEN raise_exception THEN NULL;
        END;
      END LOOP;
    END $$`)

  const kept = Array.from({ length: 10_000 }, (_, index) => index + 1).filter((id) => id % 10 !== 0)

  /** The server streams what outgrows so little. */
  const impatient = (workspace: Workspace) =>
    Layer.merge(
      walSender(workspace, { settings: { logical_decoding_work_mem: "64kB" } }),
      TransactionSpill.layer({ maxBytesInMemory: 100_000 }).pipe(Layer.provide(NodeFileSystem.layer))
    )

  fault("D2", "come as the 9,000 rows that were kept, in their order, at the commit", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const stream = yield* follow(workspace)
      yield* write(workspace)
      yield* stream.saw("Commit", 1)
      assert.deepStrictEqual(
        insertedRows(stream.changes).map((row) => row.id),
        kept
      )
    })
  )

  fault("D2", "come so as well where the transaction is streamed in progress and gathered", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* makeSlot(workspace)
      yield* write(workspace)
      const changes: Array<Change> = []
      const plugin = Pgoutput.make({ publications: [workspace.publication], streaming: "on" })
      yield* withLogicalStream({ ...logicalOptions(workspace), plugin }, (change) => {
        changes.push(change)
        return Effect.succeed(nextLsn(change))
      }).pipe(Effect.provide(impatient(workspace)), Effect.forkScoped)
      yield* eventually(Effect.sync(() => changes.some((change) => change._tag === "Commit")))
      assert.deepStrictEqual(
        insertedRows(changes).map((row) => row.id),
        kept
      )
    })
  )

  fault("D2", "tell of each abort where they are taken in progress: what is left then is what was kept", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* makeSlot(workspace)
      yield* write(workspace)
      const bySubtransaction = new Map<number, Array<number>>()
      let streamed = 0
      let ended: InProgress.ChangeInProgress["_tag"] | undefined
      const plugin = Pgoutput.make({ publications: [workspace.publication], streaming: "on" })
      yield* withLogicalStream({ ...logicalOptions(workspace), plugin, inProgress: "deliver" }, (change) => {
        if (change._tag === "Streamed" && change.change._tag === "Insert") {
          streamed++
          bySubtransaction.set(change.subxid, [
            ...(bySubtransaction.get(change.subxid) ?? []),
            change.change.row.id as number
          ])
        } else if (change._tag === "StreamAbort") bySubtransaction.delete(change.subxid)
        else if (change._tag === "StreamCommit") ended = change._tag
        return Effect.succeed(undefined)
      }).pipe(Effect.provide(impatient(workspace)), Effect.forkScoped)
      yield* eventually(Effect.sync(() => ended !== undefined))
      assert.isAtLeast(streamed, kept.length)
      assert.deepStrictEqual([...bySubtransaction.values()].flat(), kept)
    })
  )
})

describe("a large value", () => {
  fault(
    "D3",
    "of 200 MB arrives whole, within three times its size of memory, in time linear in it",
    (server) =>
      Effect.gen(function* () {
        const take = Effect.fnUntraced(function* (length: number) {
          const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int PRIMARY KEY, note text)" })
          yield* makeSlot(workspace)
          const ledger = yield* makeLedger
          const consumer = yield* startConsumer(workspace, ledger, { lengthOf: "note" })
          // What a process has by itself is told by one that takes a small value.
          yield* workspace.sql(`INSERT INTO t VALUES (1, repeat('x', ${length}))`)
          const [handled] = yield* eventually(
            Effect.map(ledger.read, (lines) => (lines.length > 0 ? lines : undefined)),
            { what: "the value arrived" }
          )
          yield* consumer.kill("SIGTERM")
          yield* consumer.ended
          assert.deepStrictEqual(handled?.ids, [length])
          return { millis: consumer.cpuMillis(), peak: consumer.peakBytes() }
        })
        const none = yield* take(1)
        const quarter = yield* take(50_000_000)
        const whole = yield* take(200_000_000)
        yield* Effect.logInfo(
          `50 MB in ${Math.round(quarter.millis)} ms of work, 200 MB in ${Math.round(whole.millis)} ms, +${Math.round((whole.peak - none.peak) / 1e6)} MB`
        )
        assert.isBelow(whole.peak - none.peak, 3 * 200_000_000)
        const worked = (one: typeof none) => Math.max(one.millis - none.millis, 0)
        assert.isBelow(worked(whole), 8 * worked(quarter) + 1000, "four times as much is not sixteen times the work")
      }),
    { since: 18, timeout: 120_000 }
  )
})

/** A stream that must give up by itself: its error, and how often it connected. */
const giveUp = Effect.fnUntraced(function* (
  workspace: Workspace,
  server: { readonly host: string; readonly port: number }
) {
  const proxy = yield* FaultProxy.make(server)
  const layer = walSender(workspace, {
    url: Redacted.make(workspace.url()),
    host: proxy.host,
    port: proxy.port,
    sslmode: "disable" // Else each attempt would first ask for TLS, on a connection of its own.
  })
  const handled: Array<Change> = []
  const fiber = yield* withLogicalStream(logicalOptions(workspace), (change) => {
    handled.push(change)
    return Effect.succeed(nextLsn(change))
  }).pipe(Effect.provide(layer), Effect.forkScoped)
  return {
    handled,
    failure: Effect.flip(Fiber.join(fiber)).pipe(Effect.timeout(patience)) as Effect.Effect<ReplicationError, unknown>,
    attempts: proxy.accepted
  }
})

describe("a change that cannot be decoded", () => {
  const secret = "a value that must not be told"

  fault(
    "D4",
    "since its row filter divides by zero (22012), fails the stream after a few attempts at most, and stays unconfirmed",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: "CREATE TABLE t (id int PRIMARY KEY, n int)",
          publication: "FOR TABLE t WHERE (10 / n > 0)"
        })
        yield* makeSlot(workspace)
        yield* workspace.sql("INSERT INTO t VALUES (1, 1)")
        yield* workspace.sql("INSERT INTO t VALUES (2, 0)")
        yield* workspace.sql("INSERT INTO t VALUES (3, 1)")
        const stream = yield* giveUp(workspace, server)
        const error = yield* stream.failure
        assert.include(String(error), "22012")
        assert.isAtMost(yield* stream.attempts, 5)
        const ids = [...new Set(insertedRows(stream.handled).map((row) => row.id))]
        assert.deepStrictEqual(ids, [1])
        const first = stream.handled.find((change) => change._tag === "Commit")!
        assert.isTrue((yield* confirmed(workspace)) <= first.endLsn, "nothing beyond what came before")
      }),
    { since: 15 }
  )

  fault(
    "D4",
    "since its bytes are not UTF-8 (22021), fails the stream after a few attempts at most, and quotes nothing of it",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: "CREATE TABLE t (id int PRIMARY KEY, note text)",
          encoding: "SQL_ASCII"
        })
        yield* makeSlot(workspace)
        yield* workspace.sql("INSERT INTO t VALUES (1, 'plain')")
        yield* workspace.sql(`INSERT INTO t VALUES (2, '${secret}' || E'\\xff')`)
        const stream = yield* giveUp(workspace, server)
        const error = yield* stream.failure
        assert.include(String(error), "22021")
        assert.notInclude(String(error) + inspect(error, { depth: 10 }), secret)
        assert.isAtMost(yield* stream.attempts, 5)
        assert.deepStrictEqual([...new Set(insertedRows(stream.handled).map((row) => row.id))], [1])
      })
  )

  if (process.env.REPLICANT_HUGE !== undefined) {
    fault(
      ["D3", "D4"],
      "since its text is over 1 GB (54000, or XX000 for one value alone), fails the stream after a few attempts at most",
      (server) =>
        Effect.gen(function* () {
          const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int PRIMARY KEY, note bytea)" })
          yield* makeSlot(workspace)
          yield* workspace.sql("INSERT INTO t VALUES (1, convert_to(repeat('x', 600000000), 'UTF8'))")
          const stream = yield* giveUp(workspace, server)
          const error = yield* stream.failure
          assert.match(String(error), /54000|XX000/)
          assert.isAtMost(yield* stream.attempts, 5)
          assert.lengthOf(insertedRows(stream.handled), 0)
        }),
      { since: 18, timeout: 120_000 }
    )
  }

  fault("D5", "since our own decoder of a type throws, fails with place and LSN, and never tells the value", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE secrets (id int PRIMARY KEY, word text)" })
      const refuse = (text: string): unknown => {
        if (text !== secret) return text
        throw new Error(`I will not have ${text}`)
      }
      const plugin = Pgoutput.make({
        publications: [workspace.publication],
        types: { byName: new Map([["text", refuse]]) }
      })
      const stream = yield* follow(workspace, { options: { plugin } })
      yield* workspace.sql("INSERT INTO secrets VALUES (1, 'fine')")
      yield* stream.saw("Commit", 1)
      yield* workspace.sql(`INSERT INTO secrets VALUES (2, '${secret}')`)
      const error = yield* stream.failure
      assert(error._tag === "DecodeError")
      assert.match(error.message, /secrets/)
      assert.match(error.message, /word/)
      assert.match(error.message, /text/)
      assert.isDefined(error.lsn)
      const told = [String(error), error.stack, String(error.cause), JSON.stringify({ ...error, lsn: undefined })]
      assert.notInclude(told.join(" "), secret)
      const commits = stream.changes.flatMap((change) => (change._tag === "Commit" ? [change.endLsn] : []))
      // Between the two the stream was idle, and may have told a position that others' WAL had reached.
      const done = yield* confirmed(workspace)
      assert.isTrue(done >= commits[0]! && done <= error.lsn!, `${done} lies between what was done and what was not`)
      const again = yield* follow(workspace)
      yield* again.saw("Commit", 1)
      assert.deepStrictEqual(
        insertedRows(again.changes).map((row) => row.id),
        [2]
      )
    })
  )
})

describe("what the server cannot send", () => {
  fault(
    "D4",
    "is tried three times at its place, then fails telling which",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, {
          sql: "CREATE TABLE t (id int PRIMARY KEY, divisor int NOT NULL); ALTER TABLE t REPLICA IDENTITY FULL",
          publication: "FOR TABLE t WHERE (1 / divisor > -1)"
        })
        const stream = yield* follow(workspace, { options: { reconnect: Schedule.spaced("20 millis") } })
        yield* workspace.sql("INSERT INTO t VALUES (1, 1)")
        yield* stream.saw("Commit", 1)
        const done = stream.changes.find((change) => change._tag === "Commit")!.endLsn
        yield* workspace.sql("INSERT INTO t VALUES (2, 0)")
        const error = yield* stream.failure
        assert(error._tag === "ServerError")
        assert.deepInclude(error, { sqlState: "22012", stage: "Streaming", isRetryable: false })
        assert.isTrue(error.lsn !== undefined && error.lsn >= done)
        assert.include(error.message, "behind LSN")
        const again = stream.states.filter((now) => now._tag === "Reconnecting")
        assert.strictEqual(again.length, 2, "three attempts in all")
        assert.deepStrictEqual(
          insertedRows(stream.changes).map((row) => row.id),
          [1]
        )
      }),
    { since: 15 }
  )

  fault("D4", "because its bytes are no text of the client's encoding fails likewise", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: "CREATE TABLE t (id int PRIMARY KEY, name text)",
        encoding: "SQL_ASCII"
      })
      const stream = yield* follow(workspace, { options: { reconnect: Schedule.spaced("20 millis") } })
      yield* workspace.sql("INSERT INTO t VALUES (1, convert_from('\\xff'::bytea, 'SQL_ASCII'))")
      assert.deepInclude(yield* stream.failure, { _tag: "ServerError", sqlState: "22021" })
      assert.strictEqual(stream.states.filter((now) => now._tag === "Reconnecting").length, 2)
    })
  )

  fault("V4", "for being cancelled is sent on the next connection", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const stream = yield* follow(workspace, { options: { reconnect: Schedule.spaced("50 millis") } })
      for (let id = 1; id <= 5; id++) {
        yield* workspace.sql(
          `SELECT pg_cancel_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`
        )
        yield* eventually(
          Effect.sync(() => stream.states.filter((now) => now._tag === "Streaming").length === id + 1),
          { what: "it streams again" }
        )
        yield* workspace.sql(`INSERT INTO t VALUES (${id})`)
        yield* stream.saw("Insert", id)
      }
      const causes = stream.states.flatMap((now) => (now._tag === "Reconnecting" ? [now.cause] : []))
      assert.isTrue(causes.every((cause) => cause._tag === "ServerError" && cause.sqlState === "57014"))
    })
  )
})
