import { assert, describe, it } from "@effect/vitest"
import { tableName } from "../../src/table/TableName.ts"

describe("tableName", () => {
  it("parts a text at its first dot, and takes public where there is none", () => {
    assert.deepStrictEqual(tableName("sales.orders"), { schema: "sales", name: "orders" })
    assert.deepStrictEqual(tableName("orders"), { schema: "public", name: "orders" })
    assert.deepStrictEqual(tableName("a.b.c"), { schema: "a", name: "b.c" })
  })

  it("takes names apart as they are: nothing is folded or unquoted", () => {
    assert.deepStrictEqual(tableName('Sales."Orders"'), { schema: "Sales", name: '"Orders"' })
    assert.deepStrictEqual(tableName({ schema: "a.b", name: "c.d" }), { schema: "a.b", name: "c.d" })
  })
})
