import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as SqlClient from "effect/sql/SqlClient"
import * as Tracer from "effect/Tracer"
import { type Change, type NextLsn, nextLsn, Table } from "../../src/index.ts"
import * as Handler from "../../src/stream/Handler.ts"
import * as Outbox from "../../src/stream/Outbox.ts"
import * as TransactionContext from "../../src/stream/TransactionContext.ts"
import { emitted, OrderPlaced, placedJson } from "../outbox/events.ts"
import { recordingSql } from "../support/RecordingSql.ts"
import { taking } from "../support/taking.ts"
import { begin, commit, insert, Orders, order, orders } from "../table/shop.ts"

const { Request } = TransactionContext
const emitSql = "SELECT pg_logical_emit_message(true, $1::text, $2::text)::text"
const traceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
const set = emitted("replicant.context", '{"actor":"ada"}')
const message = emitted("orders.placed", placedJson)
const changes: ReadonlyArray<Change> = [begin, set, insert(orders, order), message, commit]

describe("TransactionContext.set", () => {
  it.effect("writes the context first in a transaction of its own, or in the one that it is called in", () =>
    Effect.gen(function* () {
      const { layer, ran } = recordingSql()
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* sql`INSERT`.pipe(TransactionContext.withTransaction(Request, { actor: "ada" }))
        yield* sql.withTransaction(TransactionContext.set(Request)({ requestId: "r" }))
      }).pipe(Effect.provide(layer))
      assert.deepStrictEqual(ran, [
        ["BEGIN"],
        [emitSql, "replicant.context", '{"actor":"ada"}'],
        ["INSERT"],
        ["COMMIT"],
        ["BEGIN"],
        [emitSql, "replicant.context", '{"requestId":"r"}'],
        ["COMMIT"]
      ])
    })
  )

  it.effect("writes under its own prefix, by a given function too", () =>
    Effect.gen(function* () {
      const Tenant = TransactionContext.make(Schema.Struct({ tenant: Schema.BigInt }), { prefix: "billing" })
      const ran: Array<ReadonlyArray<unknown>> = []
      const query = (sql: string, params: ReadonlyArray<unknown>) => Effect.sync(() => ran.push([sql, ...params]))
      yield* TransactionContext.setWith(query, Tenant)({ tenant: 1n })
      assert.deepStrictEqual(ran, [[emitSql, "billing", '{"tenant":"1"}']])
    })
  )

  it("does not compile with another context", () => {
    const write = () => {
      // @ts-expect-error: an actor is a string.
      return TransactionContext.set(Request)({ actor: 1 })
    }
    assert.isFunction(write)
  })
})

describe("TransactionContext.changes", () => {
  it.effect("follows Table.changes and Outbox.messages, and tells the context of each change", () =>
    Effect.gen(function* () {
      const seen: Array<readonly [string, string | undefined]> = []
      yield* Stream.fromIterable(changes).pipe(
        Table.changes([Orders]),
        Outbox.messages([OrderPlaced]),
        TransactionContext.changes(Request),
        Stream.runForEach(({ change, context }) =>
          Effect.sync(() => {
            const isPlaced = change._tag === "Message" && change.message === "orders.placed"
            seen.push([isPlaced ? change.value.tags[0]! : change._tag, context?.actor])
          })
        )
      )
      assert.deepStrictEqual(seen, [
        ["Begin", undefined],
        ["Message", "ada"],
        ["Insert", "ada"],
        ["tea", "ada"],
        ["Commit", "ada"]
      ])
    })
  )

  it.effect("fails with a context that does not fit", () =>
    Effect.gen(function* () {
      const source = Stream.make(begin, emitted("replicant.context", '{"actor":1}'))
      const error = yield* source.pipe(TransactionContext.changes(Request), Stream.runDrain, Effect.flip)
      assert.strictEqual(error._tag, "MessageMismatch")
    })
  )
})

describe("TransactionContext.handler", () => {
  it.effect("gives what is to be acknowledged, within Table.handler and Outbox.handler too", () =>
    Effect.gen(function* () {
      const seen: Array<string | undefined> = []
      const handle = yield* taking(
        Table.handler(
          [Orders],
          Outbox.handler(
            [OrderPlaced],
            TransactionContext.handler(Request, ({ change, context }) => {
              seen.push(context?.actor)
              return Effect.succeed(nextLsn(change))
            })
          )
        )
      )
      const done: Array<NextLsn | undefined> = []
      for (const change of changes) done.push(yield* handle(change))
      assert.deepStrictEqual(seen, [undefined, "ada", "ada", "ada", "ada"])
      assert.strictEqual(done.at(-1), commit.nextLsn)
    })
  )

  it.effect("takes arrays as well", () =>
    Effect.gen(function* () {
      const seen: Array<string | undefined> = []
      const handle = yield* taking<Change, Outbox.MessageMismatch, never>(
        TransactionContext.handler(
          Request,
          Handler.durable((all) => Effect.sync(() => seen.push(...all.map(({ context }) => context?.actor)))),
          { onMismatch: "none" }
        )
      )
      const [first, ...rest] = changes
      assert.strictEqual(yield* handle(first!, ...rest), commit.nextLsn, "by the change within its context")
      assert.deepStrictEqual(seen, [undefined, "ada", "ada", "ada", "ada"])
    })
  )
})

describe("TransactionContext.current", () => {
  it.effect("adds the trace parent of the current span, of whichever process", () =>
    Effect.gen(function* () {
      const request = { actor: "ada", requestId: undefined }
      assert.deepStrictEqual(yield* TransactionContext.current(request), request)
      const within = yield* Effect.withSpan(
        Effect.all([TransactionContext.current(request), Effect.currentSpan]),
        "placeOrder"
      )
      const [current, span] = within
      assert.deepStrictEqual(current, { ...request, traceParent: `00-${span.traceId}-${span.spanId}-01` })
      const external = TransactionContext.span({ traceParent })!
      const passed = yield* Effect.withParentSpan(TransactionContext.current(), external)
      assert.deepStrictEqual(passed, { traceParent })
    })
  )

  it.effect("leaves out a span whose identifiers are not W3C's", () =>
    Effect.gen(function* () {
      const span = Tracer.externalSpan({ spanId: "1", traceId: "2" })
      assert.deepStrictEqual(yield* Effect.withParentSpan(TransactionContext.current(), span), {})
    })
  )
})

describe("the spans of a handler", () => {
  const inner = Effect.withSpan(Effect.currentSpan, "store")

  it.effect("go on with the trace that wrote the transaction, as children of its span", () =>
    Effect.gen(function* () {
      const span = yield* Effect.withSpan(TransactionContext.childOf({ traceParent })(inner), "handleChanges")
      assert.strictEqual(span.traceId, "0af7651916cd43dd8448eb211c80319c")
      assert.strictEqual(Option.getOrThrow(span.parent).spanId, "b7ad6b7169203331")
    })
  )

  it.effect("or are linked to it, and stay in their own trace", () =>
    Effect.gen(function* () {
      const span = yield* TransactionContext.linkedTo({ traceParent })(inner)
      assert.notStrictEqual(span.traceId, "0af7651916cd43dd8448eb211c80319c")
      assert.deepStrictEqual(
        span.links.map((link) => link.span.spanId),
        ["b7ad6b7169203331"]
      )
    })
  )

  it.effect("are as ever without a context, or with a trace parent that is none", () =>
    Effect.gen(function* () {
      for (const context of [undefined, {}, { traceParent: "00-x" }]) {
        assert.isUndefined(TransactionContext.span(context))
        const child = yield* TransactionContext.childOf(context)(inner)
        const linked = yield* TransactionContext.linkedTo(context)(inner)
        assert.isTrue(Option.isNone(child.parent) && linked.links.length === 0)
      }
    })
  )
})
