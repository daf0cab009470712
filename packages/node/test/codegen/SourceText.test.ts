import { runInThisContext } from "node:vm"
import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import {
  commentText,
  constantName,
  constantNames,
  propertyKey,
  shellWord,
  stringLiteral
} from "../../src/codegen/SourceText.ts"

/** What JavaScript reads in a source. */
const read = (source: string): unknown => runInThisContext(`"use strict"; (${source})`)

const hostile = [
  "it's",
  'say "hi"',
  `'"`,
  "\\",
  '\\"',
  "\n\r\t\0",
  "\u2028\u202e\ufeff",
  "\u{e0041}",
  "$" + "{x}",
  "`",
  "</script>"
]

describe("stringLiteral", () => {
  for (const text of hostile) {
    it(`of ${JSON.stringify(text)} is that text again, and shows every character`, () => {
      assert.strictEqual(read(stringLiteral(text)), text)
      assert.notMatch(stringLiteral(text), /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u)
    })
  }

  it("takes the quotes that need the fewer escapes", () => {
    assert.strictEqual(stringLiteral('say "hi"'), `'say "hi"'`)
    assert.strictEqual(stringLiteral(`"it's"`), `'"it\\'s"'`)
    assert.strictEqual(stringLiteral(`'"`), `"'\\""`)
  })

  it.prop("reads back as any text", { text: Schema.String }, ({ text }) => {
    assert.strictEqual(read(stringLiteral(text)), text)
  })
})

describe("propertyKey", () => {
  it("is an own property, whatever its name", () => {
    for (const name of [...hostile, "__proto__", "constructor", "class", "1", "a.b", "größe", ""]) {
      assert.deepStrictEqual(Object.keys(read(`({ ${propertyKey(name)}: 1 })`) as object), [name])
    }
    assert.strictEqual(propertyKey("class"), "class")
  })
})

describe("commentText", () => {
  it("ends no comment and no line", () => {
    for (const text of ["a */ b", "a\nb", "\r\u2028", "*/*/"]) {
      assert.notMatch(commentText(text), /\*\/|[\n\r\u2028]/)
    }
  })
})

describe("shellWord", () => {
  it("quotes what a shell would not leave alone", () => {
    assert.strictEqual(shellWord("public.orders"), "public.orders")
    assert.strictEqual(shellWord("it's"), "'it'\\''s'")
    assert.strictEqual(shellWord(""), "''")
    assert.strictEqual(shellWord("$HOME"), "'$HOME'")
  })
})

describe("constantName", () => {
  it("makes one word of many, and a name of what is none", () => {
    assert.strictEqual(constantName("order_items"), "OrderItems")
    assert.strictEqual(constantName('a "b".c'), "ABC")
    assert.strictEqual(constantName("größe"), "Größe")
    assert.strictEqual(constantName("2fa"), "T2fa")
    assert.strictEqual(constantName("..."), "T")
    assert.strictEqual(constantName("__proto__"), "Proto")
  })
})

describe("constantNames", () => {
  it("gives the bare name to the one in public, and no name twice", () => {
    const table = (schema: string, name: string) => ({ schema, name, suffix: "Table" })
    assert.deepStrictEqual(
      constantNames([
        table("crm", "orders"),
        table("public", "OrderItems"),
        table("public", "date"),
        table("public", "order_items"),
        table("public", "orders"),
        { schema: "public", name: "orders", suffix: "Enum" }
      ]),
      ["CrmOrders", "OrderItems", "DateTable", "OrderItemsTable", "Orders", "OrdersEnum"]
    )
    assert.deepStrictEqual(constantNames(["a", "a_", "_a", "a__"].map((name) => table("public", name))), [
      "A",
      "ATable",
      "ATable2",
      "ATable3"
    ])
  })
})
