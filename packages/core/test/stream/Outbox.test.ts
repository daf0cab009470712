import { assert, describe, it } from "@effect/vitest"
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as SqlClient from "effect/sql/SqlClient"
import { type Change, type NextLsn, nextLsn, Table } from "../../src/index.ts"
import * as Handler from "../../src/stream/Handler.ts"
import * as Outbox from "../../src/stream/Outbox.ts"
import { emitted, OrderCancelled, OrderPlaced, placed, placedJson, standalone } from "../outbox/events.ts"
import { recordingSql } from "../support/RecordingSql.ts"
import { taking } from "../support/taking.ts"
import { begin, commit, insert, Orders, order, orders, others } from "../table/shop.ts"

const emitSql = "SELECT pg_logical_emit_message(true, $1::text, $2::text)::text"
const set = [OrderPlaced, OrderCancelled]
const message = emitted("orders.placed", placedJson)
const broken = emitted("orders.placed", "{}")
const streamOf = (...arrays: ReadonlyArray<NonEmptyReadonlyArray<Change>>) =>
  Stream.fromIterable(arrays).pipe(Stream.rechunk(1), Stream.flattenArray)

describe("Outbox.emit", () => {
  it.effect("runs one statement in the caller's transaction, for a declared message and in the literal form", () =>
    Effect.gen(function* () {
      const { layer, ran } = recordingSql()
      yield* Effect.gen(function* () {
        yield* Outbox.emit(OrderPlaced)(placed)
        yield* Outbox.emit("cache.flush", Schema.String)("orders")
        yield* Outbox.emit("beat", Schema.Number, { transactional: false })(1)
      }).pipe(
        (write) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(write)),
        Effect.provide(layer)
      )
      assert.deepStrictEqual(ran, [
        ["BEGIN"],
        [emitSql, "orders.placed", placedJson],
        [emitSql, "cache.flush", '"orders"'],
        ["SELECT pg_logical_emit_message(false, $1::text, $2::text)::text", "beat", "1"],
        ["COMMIT"]
      ])
    })
  )

  it.effect("fails before any SQL with a value that does not encode, and so the transaction rolls back", () =>
    Effect.gen(function* () {
      const { layer, ran } = recordingSql()
      const error = yield* Effect.flatMap(SqlClient.SqlClient, (sql) =>
        sql.withTransaction(Outbox.emit(OrderPlaced)({ ...placed, id: "1" as never }))
      ).pipe(Effect.provide(layer), Effect.flip)
      assert.deepInclude(error, { _tag: "UnencodableMessage", prefix: "orders.placed", path: ".id" })
      assert.deepStrictEqual(ran, [["BEGIN"], ["ROLLBACK"]])
    })
  )

  it("does not compile with a value of another type", () => {
    const write = () => {
      // @ts-expect-error: an id is a bigint.
      Outbox.emit(OrderCancelled)({ id: 1 })
      // @ts-expect-error: the Schema says string.
      return Outbox.emit("cache.flush", Schema.String)(1)
    }
    assert.isFunction(write)
  })
})

describe("Outbox.emitWith", () => {
  it.effect("runs the statement by the given function, and fails as that does", () =>
    Effect.gen(function* () {
      const ran: Array<ReadonlyArray<unknown>> = []
      const query = (sql: string, params: ReadonlyArray<unknown>) => Effect.sync(() => ran.push([sql, ...params]))
      const refuse = () => Effect.fail("gone" as const)
      yield* Outbox.emitWith(query, OrderPlaced)(placed)
      assert.deepStrictEqual(ran, [[emitSql, "orders.placed", placedJson]])
      assert.strictEqual(yield* Effect.flip(Outbox.emitWith(refuse, OrderPlaced)(placed)), "gone")
      const unencodable = yield* Effect.flip(Outbox.emitWith(query, OrderPlaced)({} as never))
      assert.deepInclude(unencodable, { _tag: "UnencodableMessage" })
      assert.strictEqual(ran.length, 1)
    })
  )
})

describe("Outbox.messages", () => {
  it.effect("follows Table.changes: rows and messages are typed, and what acknowledges is there", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const rows = [begin, insert(orders, order), insert(others, { id: 1 }), message, commit] as const
      yield* streamOf(rows, [standalone("others", "")]).pipe(
        Table.changes([Orders]),
        Outbox.messages(set),
        Stream.runForEach((change) =>
          Effect.sync(() => {
            if (change._tag === "Insert") seen.push(change.row.id)
            else if (change._tag === "Message" && change.message === "orders.placed") seen.push(change.value.id)
            else seen.push(change._tag, nextLsn(change) !== undefined)
          })
        )
      )
      assert.deepStrictEqual(seen, ["Begin", false, 1, placed.id, "Commit", true, "Message", true])
    })
  )

  it.effect("hands over what came before a message that does not fit, and fails then", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const error = yield* streamOf([begin, message, commit, begin, broken]).pipe(
        Outbox.messages(set),
        Stream.runForEach((change) => Effect.sync(() => seen.push(change._tag))),
        Effect.flip
      )
      assert.deepStrictEqual([seen, error._tag], [["Begin", "Message", "Commit", "Begin"], "MessageMismatch"])
    })
  )
})

describe("Outbox.handler", () => {
  it.effect("gives what is to be acknowledged, within Table.handler too", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const handle = yield* taking(
        Table.handler(
          [Orders],
          Outbox.handler(set, (change) => {
            seen.push(change._tag === "Message" && change.message === "orders.placed" ? change.value.id : change._tag)
            return Effect.succeed(nextLsn(change))
          })
        )
      )
      const done: Array<NextLsn | undefined> = []
      for (const change of [begin, insert(orders, order), insert(others, {}), message, commit]) {
        done.push(yield* handle(change))
      }
      assert.deepStrictEqual(seen, ["Begin", "Insert", placed.id, "Commit"])
      assert.deepStrictEqual(done.at(-1), commit.nextLsn)
      assert.strictEqual((yield* Effect.flip(handle(broken)))._tag, "MessageMismatch")
    })
  )
})

describe("Outbox.handler of arrays", () => {
  it.effect("takes a read at a time, and goes on where told to", () =>
    Effect.gen(function* () {
      let tags: ReadonlyArray<string | undefined> = []
      const handle = yield* taking<Change, Outbox.MessageMismatch, never>(
        Outbox.handler(
          set,
          Handler.durable((changes) =>
            Effect.sync(() => {
              tags = changes.map((change) => (change._tag === "Message" ? change.mismatch?._tag : change._tag))
            })
          ),
          { onMismatch: "untyped" }
        )
      )
      assert.strictEqual(yield* handle(begin, message, broken, commit), commit.nextLsn)
      assert.deepStrictEqual(tags, ["Begin", undefined, "MessageMismatch", "Commit"])
    })
  )
})
