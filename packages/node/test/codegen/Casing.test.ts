import { assert, describe, it } from "@effect/vitest"
import { camelName, propertyNames } from "../../src/codegen/Casing.ts"

describe("a column's property", () => {
  it("is as JavaScript has names", () => {
    const named = ["placed_at", "id", "userID", "USER_ID", "_hidden_one", "order date", "größe_cm", "a__b", "_", "x1_2"]
    assert.deepStrictEqual(named.map(camelName), [
      ...["placedAt", "id", "userID", "userId", "_hiddenOne", "orderDate", "größeCm", "aB", "_", "x12"]
    ])
  })

  it("is the column's own name where two would share one", () => {
    const columns = ["a_b", "a__b", "c_d", "cD", "e_f"]
    const properties = propertyNames(columns, "camel")
    assert.deepStrictEqual([...properties.values()], ["a_b", "a__b", "c_d", "cD", "eF"])
    assert.deepStrictEqual([...propertyNames(columns, "keep").values()], columns)
  })
})
