/** Values as JSON: nothing lost, and read back by any reader. */
import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { encodeValue, JsonText, types } from "../../src/sink/ValueJson.ts"

describe("encodeValue", () => {
  const cases: ReadonlyArray<readonly [what: string, value: unknown, text: string]> = [
    ["a bigint beyond 2^53", 9_007_199_254_740_993n, '"9007199254740993"'],
    ["NaN", Number.NaN, '"NaN"'],
    ["infinity", Number.NEGATIVE_INFINITY, '"-Infinity"'],
    ["negative zero", -0, "-0"],
    ["a large double", 1e21, "1e+21"],
    ["bytes", new Uint8Array([0, 255, 16]).subarray(1), '"\\\\xff10"'],
    ["no bytes", new Uint8Array(0), '"\\\\x"'],
    ["null", null, "null"],
    ["false", false, "false"],
    [
      "an array with NULL in it",
      [
        [1, null],
        ["a", 2n]
      ],
      '[[1,null],["a","2"]]'
    ],
    ["text with a quote and a line break", 'a"\n', '"a\\"\\n"'],
    ["text with C1 controls and DEL", "\u009b\u007f", '"\\u009b\\u007f"']
  ]
  for (const [what, value, text] of cases) {
    it(`writes ${what}`, () => assert.strictEqual(encodeValue(value), text))
  }

  it("writes json columns as PostgreSQL has them, on one line", () => {
    const [decode] = types.byName!.values()
    const value = decode!('{"n":\n 12345678901234567890.10, "n":1}')
    assert.instanceOf(value, JsonText)
    assert.strictEqual(encodeValue(value), '{"n":  12345678901234567890.10, "n":1}')
  })

  it("writes a column named __proto__ like any other", () => {
    const row = Object.defineProperty({ a: 1 }, "__proto__", { value: 2, enumerable: true })
    assert.strictEqual(encodeValue(row), '{"a":1,"__proto__":2}')
  })

  it.prop("is read back by JSON.parse, whatever the text", { text: Schema.String }, ({ text }) => {
    assert.strictEqual(JSON.parse(encodeValue(text)), text)
    assert.notMatch(encodeValue(text), /[\n\r]/)
  })

  it.prop("keeps every double", { value: Schema.Number }, ({ value }) => {
    const read: unknown = JSON.parse(encodeValue(value))
    assert.isTrue(Object.is(typeof read === "string" ? Number(read) : read, value))
  })
})
