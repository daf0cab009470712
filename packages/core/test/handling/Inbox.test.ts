/** `Handler.inbox` over SQLite: what is delivered again is left out, also where many are handled side by side. */
import { assert, describe, it } from "@effect/vitest"
import { type Change, Handler, nextLsn, Pgoutput, Table, withLogicalStream } from "@replicant/core"
import { insert, TestWalSender, tx } from "@replicant/core/testing"
import { Data, Effect, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { sqliteClient } from "../support/sqliteClient.ts"
import { item, rowOf, Transactions } from "./delivering.ts"

class Broken extends Data.TaggedError("Broken") {}

const Items = Table.make("public.items", Schema.Struct({ id: Schema.Number }), { key: ["id"] })

const options = { table: "inbox", consumer: "ledger", createTable: "ifMissing" } as const

const makeLedger = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE ledger (id int)`)

const book = (change: { readonly _tag: string }) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    change._tag === "Insert"
      ? Effect.asVoid(sql`INSERT INTO ledger VALUES (${rowOf(change).id as number})`)
      : Effect.void
  )

const idsOf = (table: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(sql.unsafe(`SELECT id FROM ${table} ORDER BY id`).values, (rows) => rows.map(([id]) => id))
  )

describe("Handler.inbox", () => {
  it.effect("books each change once, eight side by side, though the server forgets what was confirmed", () =>
    Effect.gen(function* () {
      const source = yield* TestWalSender
      yield* makeLedger
      yield* Effect.forkChild(
        withLogicalStream(
          { slot: "items", plugin: Pgoutput.make({ publications: ["items"] }) },
          Handler.byKey({ concurrency: 8 }, Handler.inbox(options, book))
        )
      )
      for (let round = 0; round < 5; round++) {
        yield* source.awaitStreaming
        yield* source.write(...Array.from({ length: 20 }, (_, index) => tx(insert(Items, { id: round * 20 + index }))))
        // Amid its work, or behind it.
        if (round % 2 === 0) yield* TestClock.adjust("1 second")
        yield* source.crash
        yield* source.start
        yield* TestClock.adjust("1 minute")
      }
      yield* source.awaitConfirmed
      assert.deepStrictEqual(
        yield* idsOf("ledger"),
        Array.from({ length: 100 }, (_, index) => index)
      )
    }).pipe(Effect.provide([sqliteClient(":memory:"), TestWalSender.layer({ slot: "items", publications: ["items"] })]))
  )

  it.effect("knows a change whose row does not fit its Schema, too", () =>
    Effect.gen(function* () {
      let handled = 0
      const handle = Handler.inbox(options, () => Effect.sync(() => handled++))
      const [, change] = new Transactions().of(item(1))
      const untyped = { _tag: "Untyped", table: "public.items", change }
      for (const each of [untyped, untyped, change]) yield* handle(each)
      assert.strictEqual(handled, 1)
    }).pipe(Effect.provide(sqliteClient(":memory:")))
  )

  it.effect("knows a change only once its work is committed, and says of it then what acknowledges it", () =>
    Effect.gen(function* () {
      yield* makeLedger
      let fails = true
      const handle = Handler.inbox(options, (change: Change) =>
        Effect.andThen(
          book(change),
          Effect.suspend(() => (fails ? Effect.fail(new Broken()) : Effect.succeed("done")))
        )
      )
      const [, change, commit] = new Transactions().of(item(1))
      assert.strictEqual((yield* Effect.flip(handle(change!)))._tag, "Broken")
      assert.deepStrictEqual([yield* idsOf("ledger"), yield* idsOf("inbox")], [[], []])
      fails = false
      assert.strictEqual(yield* handle(change!), "done")
      assert.strictEqual(yield* handle(change!), undefined)
      assert.strictEqual(yield* handle(commit!), "done")
      assert.strictEqual(yield* handle(commit!), nextLsn(commit!))
      assert.deepStrictEqual(yield* idsOf("ledger"), [1])
    }).pipe(Effect.provide(sqliteClient(":memory:")))
  )

  it.effect("forgets ids that are older than what is kept, its own alone", () =>
    Effect.gen(function* () {
      yield* makeLedger
      const other = Handler.inbox({ ...options, consumer: "other" }, book)
      const transactions = new Transactions()
      const inserted = () => transactions.of(item(1))[1]!
      yield* other(inserted())
      const handle = Handler.inbox({ ...options, keep: "1 hour" }, book)
      for (let index = 0; index < 999; index++) yield* handle(inserted())
      yield* TestClock.adjust("2 hours")
      yield* handle(inserted())
      assert.lengthOf(yield* idsOf("inbox"), 2)
    }).pipe(Effect.provide(sqliteClient(":memory:")))
  )
})
