import { assert, describe, it } from "@effect/vitest"
import { isPattern, matcher } from "../../src/codegen/NamePattern.ts"

const is = (pattern: string, table: string, schema = "public") => matcher([pattern])({ schema, name: table })

describe("a pattern of tables", () => {
  it("has * for any characters and ? for one, and is of public unless it names a schema", () => {
    assert.isTrue(is("order*", "order_items") && is("order?", "orders") && is("*.orders", "orders", "shop"))
    assert.isFalse(is("order?", "order") || is("order*", "orders", "shop") || is("shop.*", "orders"))
    assert.isTrue(isPattern("a*") && isPattern("a?"))
    assert.isFalse(isPattern("a.b"))
  })

  it("takes every other character as it is", () => {
    assert.isTrue(is("a+(b)[c]|$", "a+(b)[c]|$"))
    assert.isFalse(is("a.b+", "bb", "a") || is("a|b", "a"))
    assert.isTrue(is("a*b", "a\nb"))
  })
})
