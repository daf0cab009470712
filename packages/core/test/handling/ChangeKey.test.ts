/** Which row a change is of. */
import { assert, describe, it } from "@effect/vitest"
import { rowKeys } from "../../src/handling/ChangeKey.ts"
import * as shop from "../table/shop.ts"

const { deleted, insert, relation, truncate, update } = shop
const orders = relation("public", "orders", ["id", "region", "total"], ["id", "region"])
const row = { id: 1, region: "eu", total: "9" }

describe("rowKeys", () => {
  it("has one key for every change of a row", () => {
    const key = rowKeys(insert(orders, row))![0]!
    assert.deepStrictEqual(rowKeys(update(orders, { ...row, total: "10" })), [key])
    assert.deepStrictEqual(rowKeys(deleted(orders, { _tag: "Key", row: { id: 1, region: "eu" } })), [key])
    assert.deepStrictEqual(rowKeys({ _tag: "SnapshotRow", relation: orders, row }), [key])
    assert.deepStrictEqual(rowKeys({ context: undefined, change: insert(orders, row) }), [key])
    assert.notDeepEqual(rowKeys(insert(orders, { ...row, region: "us" })), [key])
  })

  it("has both keys of a row that moves", () => {
    const [from] = rowKeys(insert(orders, row))!
    const [to] = rowKeys(insert(orders, { ...row, id: 2 }))!
    const old = { _tag: "Key", row: { id: 1, region: "eu" } } as const
    assert.deepStrictEqual(rowKeys(update(orders, { ...row, id: 2 }, [], old)), [from!, to!])
  })

  it("tells no two rows of several key columns for one", () => {
    const keyOf = (id: string, region: string) => rowKeys(insert(orders, { id, region, total: "" }))![0]
    assert.notStrictEqual(keyOf('a","b', "c"), keyOf("a", 'b","c'))
    const int8 = relation("public", "big", ["id"])
    assert.notDeepEqual(rowKeys(insert(int8, { id: 2n ** 53n })), rowKeys(insert(int8, { id: 2n ** 53n + 1n })))
    assert.notDeepEqual(
      rowKeys(insert({ ...int8, oid: 1 }, { id: 11 })),
      rowKeys(insert({ ...int8, oid: 11 }, { id: 1 }))
    )
  })

  it("is the whole row where that is the identity, also of columns that were not sent", () => {
    const full = relation("public", "log", ["a", "b"], ["a", "b"], "full")
    const before = rowKeys(insert(full, { a: 1, b: "long" }))![0]!
    const [after] = rowKeys(insert(full, { a: 2, b: "long" }))!
    const old = { _tag: "Full", row: { a: 1, b: "long" } } as const
    assert.deepStrictEqual(rowKeys(update(full, { a: 2 }, ["b"], old)), [before, after!])
    assert.deepStrictEqual(rowKeys(deleted(full, old)), [before])
  })

  it("is the table where no row can be told from another", () => {
    const bare = relation("public", "log", ["a"], [], "nothing")
    assert.deepStrictEqual(rowKeys(insert(bare, { a: 1 })), rowKeys(insert(bare, { a: 2 })))
    // Rows of a declared table are not columns by name: a property may even be called as another column is.
    assert.deepStrictEqual(rowKeys({ ...insert(orders, row), table: "public.orders" }), [String(orders.oid)])
    const untyped = { _tag: "Untyped", table: "public.orders", change: insert(orders, row) }
    assert.deepStrictEqual(rowKeys(untyped), [String(orders.oid)])
    const unnamed = { ...bare, oid: 0 }
    assert.notDeepEqual(rowKeys(insert(unnamed, {})), rowKeys(insert({ ...unnamed, name: "other" }, {})))
  })

  it("is nothing for what is of no row, or lacks a column of its key", () => {
    assert.isUndefined(rowKeys(truncate(orders)))
    assert.isUndefined(rowKeys(shop.message))
    assert.isUndefined(rowKeys({ _tag: "SnapshotCompleted" }))
    assert.isUndefined(rowKeys(insert(orders, { id: 1 }, ["region"])))
  })
})
