import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Reactivity from "effect/reactivity/Reactivity"
import type { Scope } from "effect/Scope"
import type { SqlClient } from "effect/sql/SqlClient"
import * as Statement from "effect/sql/Statement"
import type { Change } from "../../src/change/Change.ts"
import * as Table from "../../src/keeping/Table.ts"
import { connect } from "../handling/delivering.ts"
import { recordingSql } from "../support/RecordingSql.ts"
import { sqliteClient } from "../support/sqliteClient.ts"
import * as shop from "../table/shop.ts"

const { Orders, Customers, order, orders } = shop

const other = { ...order, id: 2 }

/** What asks, and how often it has. */
const watch = Effect.fnUntraced(function* (keys: Readonly<Record<string, ReadonlyArray<string>>>) {
  const reactivity = yield* Reactivity.Reactivity
  const asked: Record<string, number> = {}
  for (const [name, registered] of Object.entries(keys)) {
    asked[name] = 0
    const off = reactivity.registerUnsafe(registered, () => {
      asked[name]!++
    })
    yield* Effect.addFinalizer(() => Effect.sync(off))
  }
  return asked
})

const watched = Effect.fnUntraced(function* (options: Table.InvalidatesOptions<typeof Orders | typeof Customers> = {}) {
  const asked = yield* watch({
    orders: [Orders.name],
    one: Table.reactivityKeys(Orders, { id: 1 }),
    two: Table.reactivityKeys(Orders, { id: 2 }),
    customers: [Customers.name],
    mine: ["mine"]
  })
  const { acknowledged, give } = yield* connect(Table.invalidates([Orders, Customers], options))
  /** What asks after one read, of those that had not. */
  const after = Effect.fnUntraced(function* (...changes: ReadonlyArray<Change>) {
    for (const name of Object.keys(asked)) asked[name] = 0
    yield* give(changes)
    return Object.keys(asked).filter((name) => asked[name]! > 0)
  })
  return { acknowledged, after, asked }
})

const test = (title: string, body: () => Effect.Effect<void, unknown, Reactivity.Reactivity | SqlClient | Scope>) =>
  it.effect(title, () => Effect.scoped(body()).pipe(Effect.provide([Reactivity.layer, sqliteClient(":memory:")])))

describe("live queries", () => {
  test("ask again of a table that has changed, of a row that has changed, and no others do", () =>
    Effect.gen(function* () {
      const { after, asked } = yield* watched()
      assert.deepStrictEqual(asked, { orders: 1, one: 1, two: 1, customers: 1, mine: 0 }, "all at the beginning")
      assert.deepStrictEqual(yield* after(shop.insert(orders, order)), ["orders", "one"])
      assert.deepStrictEqual(yield* after(shop.update(orders, other)), ["orders", "two"])
      assert.deepStrictEqual(yield* after(shop.deleted(orders, { _tag: "Key", row: { id: 1 } })), ["orders", "one"])
      const moved = shop.update(orders, other, [], { _tag: "Key", row: { id: 1 } })
      assert.deepStrictEqual(yield* after(moved), ["orders", "one", "two"])
      assert.deepStrictEqual(yield* after(shop.insert(shop.others, { id: 1 })), [])
    }))

  test("ask once for all that one read brought, which is acknowledged then", () =>
    Effect.gen(function* () {
      const { acknowledged, after, asked } = yield* watched()
      yield* after(shop.begin, shop.insert(orders, order), shop.update(orders, order), shop.commit)
      assert.deepStrictEqual([asked.orders, asked.one], [1, 1])
      assert.deepStrictEqual(
        acknowledged.map(({ lsn }) => lsn),
        [shop.commit.endLsn]
      )
    }))

  test("all of a table ask when it is emptied, when a row does not fit, and when very many rows have changed", () =>
    Effect.gen(function* () {
      const { after } = yield* watched()
      const all = ["orders", "one", "two"]
      assert.deepStrictEqual(yield* after(shop.truncate(orders)), all)
      assert.deepStrictEqual(yield* after(shop.insert(orders, { ...order, total: 1 })), all)
      const many = Array.from({ length: 2000 }, (_, index) => shop.insert(orders, { ...order, id: 10 + index }))
      assert.deepStrictEqual(yield* after(...many), all)
      assert.deepStrictEqual(yield* after(...many.slice(0, 900)), ["orders"])
    }))

  test("rows that nobody asks for are not told, and a program has keys of its own", () =>
    Effect.gen(function* () {
      const { after } = yield* watched({
        where: (change) => change.table !== Orders.name || change._tag !== "Insert" || change.row.total !== "0.00",
        keys: (change) =>
          change.table === Orders.name && change._tag === "Insert" && change.row.note === "mine" ? ["mine"] : []
      })
      assert.deepStrictEqual(yield* after(shop.insert(orders, { ...order, total: "0.00" })), [])
      assert.deepStrictEqual(yield* after(shop.insert(orders, { ...order, note: "mine" })), ["orders", "one", "mine"])
    }))

  it.effect(
    "ask when the transaction can be seen, also that of a row that does not fit, before its end has come",
    () => {
      const { layer, ran } = recordingSql(
        Statement.makeCompiler({
          dialect: "pg",
          placeholder: (index) => `$${index}`,
          onIdentifier: Statement.defaultEscape('"'),
          onCustom: () => ["", []],
          onRecordUpdate: () => ["", []]
        })
      )
      return Effect.gen(function* () {
        const { after } = yield* watched()
        for (const total of ["1.00", 1]) {
          ran.length = 0
          yield* after(shop.insert(orders, { ...order, total }))
          assert.deepStrictEqual(
            ran.map(([sql]) => /ARRAY\[([^\]]*)\]/.exec(sql)?.[1]),
            [String(shop.begin.xid)]
          )
        }
      }).pipe(Effect.scoped, Effect.provide([Reactivity.layer, layer]))
    }
  )

  test("a table without a declared key is told as a whole", () =>
    Effect.gen(function* () {
      const { after } = yield* watched()
      const change = shop.insert(shop.customers, { email: "a@b.c", tags: [] })
      assert.deepStrictEqual(yield* after(change), ["customers"])
    }))
})
