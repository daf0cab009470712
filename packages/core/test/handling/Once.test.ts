/** `Handler.once` over SQLite: work and position are one transaction, whatever breaks in between. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { type Change, Handler, Lsn, Pgoutput, Table, Wal2Json, withLogicalStream } from "@replicant/core"
import { insert, TestWalSender, tx, unpublished } from "@replicant/core/testing"
import { Data, Effect, Fiber, Schema } from "effect"
import { SqlClient, SqlError } from "effect/sql"
import { TestClock } from "effect/testing"
import { type Committing, sqliteClient } from "../support/sqliteClient.ts"
import { connect, item, rowOf, Transactions } from "./delivering.ts"

const Items = Table.make("public.items", Schema.Struct({ id: Schema.Number }), { key: ["id"] })

const plugin = Pgoutput.make({ publications: ["items"] })

const positions = { table: "positions", createTable: "ifMissing" } as const

class Broken extends Data.TaggedError("Broken") {}

const makeLedger = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE IF NOT EXISTS ledger (id int)`)

/** One row more for each insert that is handled: what is done twice is there twice. */
const book = (changes: ReadonlyArray<{ readonly _tag: string }>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.forEach(
      changes.filter(({ _tag }) => _tag === "Insert" || _tag === "SnapshotRow"),
      (change) => sql`INSERT INTO ledger VALUES (${rowOf(change).id as number})`,
      { discard: true }
    )
  )

const booked = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(sql`SELECT id FROM ledger ORDER BY rowid`.values, (rows) => rows.map(([id]) => id))
)

const files = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "replicant-once-"))),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
  ),
  (directory) => join(directory, "ledger.db")
)

const options = { slot: "items", plugin }

/** The program under test, as a process that is begun anew each time. */
const follow = (handle: typeof book = book) =>
  Effect.andThen(makeLedger, withLogicalStream(options, Handler.once(positions, handle)))

const rows = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => tx(insert(Items, { id: from + index })))

const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => from + index)

const server = TestWalSender.layer({ slot: "items", publications: ["items"] })

const lost = new SqlError.SqlError({ reason: new SqlError.ConnectionError({ cause: new Error("no answer") }) })

/** Every other answer to a COMMIT is lost: by turns of one that was done, and of one that was not. */
const losingAnswers = () => {
  let commits = 0
  const losing: Committing = (connection) => {
    commits++
    const end = commits % 4 === 0 ? "COMMIT" : "ROLLBACK"
    const done = connection.executeUnprepared(commits % 2 === 0 ? end : "COMMIT", [], undefined)
    return commits % 2 === 0 ? Effect.andThen(done, lost) : Effect.asVoid(done)
  }
  return { commits: () => commits, losing }
}

describe("Handler.once", () => {
  it.effect(
    "stores every change once, though the server forgets what was confirmed and the program is begun anew",
    () =>
      Effect.gen(function* () {
        const file = yield* files
        const source = yield* TestWalSender
        for (let round = 0; round < 5; round++) {
          const process = yield* Effect.forkChild(Effect.provide(follow(), sqliteClient(file)))
          yield* source.awaitStreaming
          yield* source.write(...rows(round * 20 + 1, round * 20 + 10))
          yield* TestClock.adjust("1 second")
          yield* source.awaitConfirmed
          // Its slots are as of long ago: all of it would come again.
          yield* source.crash
          yield* source.start
          yield* TestClock.adjust("1 minute")
          yield* source.write(...rows(round * 20 + 11, round * 20 + 20))
          yield* TestClock.adjust("1 second")
          yield* source.awaitConfirmed
          yield* Fiber.interrupt(process)
          yield* source.crash
          yield* source.start
        }
        assert.deepStrictEqual(yield* Effect.provide(booked, sqliteClient(file)), range(1, 100))
      }).pipe(Effect.provide(server))
  )

  it.effect("undoes what a function had done that fails, and does it when it is begun anew", () =>
    Effect.gen(function* () {
      const file = yield* files
      const source = yield* TestWalSender
      let fails = true
      const failing = (changes: ReadonlyArray<{ readonly _tag: string }>) =>
        Effect.flatMap(book(changes), () => (fails ? Effect.fail(new Broken()) : Effect.void))
      const run = Effect.andThen(makeLedger, withLogicalStream(options, Handler.once(positions, failing)))
      yield* source.write(...rows(1, 3))
      const error = yield* Effect.flip(Effect.provide(run, sqliteClient(file)))
      assert.strictEqual(error._tag, "Broken")
      assert.deepStrictEqual(yield* Effect.provide(booked, sqliteClient(file)), [])
      assert.lengthOf(yield* source.unconfirmed, 3)
      fails = false
      yield* Effect.forkChild(Effect.provide(run, sqliteClient(file)))
      yield* source.awaitStreaming
      yield* TestClock.adjust("1 second")
      yield* source.awaitConfirmed
      assert.deepStrictEqual(yield* Effect.provide(booked, sqliteClient(file)), [1, 2, 3])
    }).pipe(Effect.provide(server))
  )

  it.effect("tries a transaction again whose COMMIT got no answer, done or not, and books it once", () =>
    Effect.gen(function* () {
      const file = yield* files
      const source = yield* TestWalSender
      const { commits, losing } = losingAnswers()
      yield* Effect.forkChild(Effect.provide(follow(), sqliteClient(file, losing)))
      yield* source.awaitStreaming
      for (let id = 1; id <= 12; id++) {
        yield* source.write(...rows(id, id))
        yield* TestClock.adjust("1 minute")
      }
      yield* source.awaitConfirmed
      assert.isAbove(commits(), 16)
      assert.deepStrictEqual(yield* Effect.provide(booked, sqliteClient(file)), range(1, 12))
    }).pipe(Effect.provide(server))
  )

  it.effect("holds the stream back and confirms nothing while the database is down", () =>
    Effect.gen(function* () {
      const file = yield* files
      const source = yield* TestWalSender
      let isDown = true
      const downed = (changes: ReadonlyArray<{ readonly _tag: string }>) =>
        Effect.suspend(() => (isDown ? Effect.fail(lost) : book(changes)))
      yield* Effect.forkChild(
        Effect.provide(
          Effect.andThen(makeLedger, withLogicalStream(options, Handler.once(positions, downed))),
          sqliteClient(file)
        )
      )
      yield* source.awaitStreaming
      yield* source.write(...rows(1, 2))
      for (let minute = 0; minute < 5; minute++) yield* TestClock.adjust("1 minute")
      assert.lengthOf(yield* source.unconfirmed, 2)
      isDown = false
      yield* TestClock.adjust("1 minute")
      yield* source.awaitConfirmed
      assert.deepStrictEqual(yield* Effect.provide(booked, sqliteClient(file)), [1, 2])
    }).pipe(Effect.provide(server))
  )

  it.effect("commits nothing for a session whose place another has taken", () =>
    Effect.gen(function* () {
      yield* makeLedger
      const handler = Handler.once<Change, unknown, SqlClient.SqlClient>(positions, book)
      yield* handler.position!("orders")
      const transactions = new Transactions()
      const first = yield* connect(handler)
      yield* first.give(transactions.of(item(1)))
      const second = yield* connect(handler)
      const error = yield* Effect.flip(first.give(transactions.of(item(2))))
      assert.strictEqual((error as Handler.PositionError).during, "keep")
      assert.lengthOf(first.acknowledged, 1)
      yield* second.give(transactions.of(item(3)))
      assert.deepStrictEqual(yield* booked, [1, 3])
    }).pipe(Effect.scoped, Effect.provide(sqliteClient(":memory:")))
  )

  it.effect("fails before anything comes where the database is an older copy of itself, or the cluster another", () =>
    Effect.gen(function* () {
      const file = yield* files
      const source = yield* TestWalSender
      const process = yield* Effect.forkChild(Effect.provide(follow(), sqliteClient(file)))
      yield* source.awaitStreaming
      const [first] = yield* source.write(...rows(1, 2))
      yield* TestClock.adjust("1 second")
      yield* source.awaitConfirmed
      yield* Fiber.interrupt(process)
      const change = (set: string) =>
        Effect.provide(
          Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe(`UPDATE positions SET ${set}`)),
          sqliteClient(file)
        )
      yield* change(`end_lsn = '${Lsn.formatSortable(first!.endLsn)}', idle_flush = NULL`)
      assert.strictEqual(
        (yield* Effect.flip(Effect.provide(follow(), sqliteClient(file))))._tag,
        "SlotAheadOfCheckpoint"
      )
      yield* change("system_id = '1'")
      assert.strictEqual((yield* Effect.flip(Effect.provide(follow(), sqliteClient(file))))._tag, "SystemMismatch")
      yield* change("system_id = NULL, timeline = NULL, end_lsn = '0FFFFFFF00000000'")
      assert.strictEqual((yield* Effect.flip(Effect.provide(follow(), sqliteClient(file))))._tag, "SystemMismatch")
      assert.deepStrictEqual(yield* Effect.provide(booked, sqliteClient(file)), [1, 2])
    }).pipe(Effect.provide(server))
  )

  it.effect("goes on after an idle time, in which the slot has moved on by itself", () =>
    Effect.gen(function* () {
      const file = yield* files
      const source = yield* TestWalSender
      const process = yield* Effect.forkChild(Effect.provide(follow(), sqliteClient(file)))
      yield* source.awaitStreaming
      const [first] = yield* source.write(...rows(1, 1), unpublished(100_000))
      yield* TestClock.adjust("1 minute")
      yield* source.awaitConfirmed
      assert.isAbove(Number((yield* source.confirmedFlushLsn) - first!.endLsn), 50_000)
      yield* Fiber.interrupt(process)
      yield* source.write(...rows(2, 2))
      yield* Effect.forkChild(Effect.provide(follow(), sqliteClient(file)))
      yield* source.awaitStreaming
      yield* TestClock.adjust("1 second")
      yield* source.awaitConfirmed
      assert.deepStrictEqual(yield* Effect.provide(booked, sqliteClient(file)), [1, 2])
    }).pipe(Effect.provide(server))
  )

  it.effect("takes the rows of a first copy, begun anew where it broke, and then each change once", () =>
    Effect.gen(function* () {
      const source = yield* TestWalSender
      const handle = (changes: ReadonlyArray<{ readonly _tag: string }>) =>
        Effect.flatMap(SqlClient.SqlClient, (sql) =>
          changes.some(({ _tag }) => _tag === "SnapshotStarted") ? sql`DELETE FROM ledger` : book(changes)
        )
      yield* makeLedger
      yield* source.breakCopyAfter(3)
      yield* Effect.forkChild(withLogicalStream({ ...options, snapshot: "initial" }, Handler.once(positions, handle)))
      yield* source.awaitBroken
      yield* source.write(...rows(6, 6))
      yield* TestClock.adjust("1 minute")
      yield* source.awaitStreaming
      const [position] = yield* Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT end_lsn FROM positions`.values)
      assert.isAbove(Number(`0x${position![0]}`), 0, "the end of the copy is a position")
      yield* source.write(...rows(7, 9))
      yield* TestClock.adjust("1 minute")
      yield* source.awaitConfirmed
      assert.deepStrictEqual(yield* booked, range(1, 9))
    }).pipe(
      Effect.provide([
        sqliteClient(":memory:", losingAnswers().losing),
        TestWalSender.layer({
          slot: "items",
          slotExists: "no",
          publications: ["items"],
          rows: range(1, 5).map((id) => insert(Items, { id }))
        })
      ])
    )
  )

  it.effect("puts a transaction together that comes in many reads, and refuses one beyond the budget", () =>
    Effect.gen(function* () {
      yield* makeLedger
      const handler = Handler.once<Change, unknown, SqlClient.SqlClient>(positions, book)
      yield* handler.position!("orders")
      const [first, second] = [new Transactions(), new Transactions()]
      const { acknowledged, give } = yield* connect(handler, { maxTransactionBytes: 100 })
      const [begin, one, two, commit] = first.of(item(1), item(2))
      yield* give([begin!], 40)
      yield* give([one!], 40)
      assert.deepStrictEqual([yield* booked, acknowledged], [[], []])
      yield* give([two!, commit!, ...second.of(item(3)).slice(0, 1)], 40)
      assert.deepStrictEqual([yield* booked, acknowledged.length], [[1, 2], 1])
      const error = yield* Effect.flip(give(second.of(item(4)).slice(1, 2), 70))
      assert.strictEqual((error as { readonly _tag: string })._tag, "TransactionTooLarge")
    }).pipe(Effect.scoped, Effect.provide(sqliteClient(":memory:")))
  )

  it.effect("refuses what it cannot keep a position of", () =>
    Effect.gen(function* () {
      const optionOf = <O extends Parameters<typeof withLogicalStream>[0]>(refused: O) =>
        Effect.map(
          Effect.flip(
            withLogicalStream<O, unknown, SqlClient.SqlClient>(
              refused,
              Handler.once(positions, () => Effect.void)
            )
          ),
          (error) => [(error as { readonly _tag: string })._tag, (error as { readonly option?: string }).option]
        )
      const [twoPhase, format] = [
        Pgoutput.make({ publications: ["items"], twoPhase: true }),
        Wal2Json.make({ formatVersion: 1 })
      ]
      assert.deepStrictEqual(yield* optionOf({ slot: "items", plugin: twoPhase }), ["InvalidOption", "twoPhase"])
      assert.deepStrictEqual(yield* optionOf({ slot: "items", plugin: format }), ["InvalidOption", "formatVersion"])
      assert.deepStrictEqual(yield* optionOf({ ...options, checkpoint: { endLsn: Lsn.zero } }), [
        "InvalidOption",
        "checkpoint"
      ])
    }).pipe(Effect.provide([server, sqliteClient(":memory:")]))
  )
})
