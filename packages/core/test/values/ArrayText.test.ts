import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as Schema from "effect/Schema"
import { parseArray } from "../../src/values/ArrayText.ts"

const texts = (source: string, delimiter?: "," | ";") => parseArray(source, (text) => text, delimiter)

describe("parseArray", () => {
  const cases: ReadonlyArray<readonly [source: string, value: ReadonlyArray<unknown>]> = [
    ["{}", []],
    ["{a}", ["a"]],
    ["{a,NULL,b}", ["a", null, "b"]],
    ['{"NULL",NULL}', ["NULL", null]],
    ['{"",a}', ["", "a"]],
    ['{"a,b","c}d","{"," "}', ["a,b", "c}d", "{", " "]],
    ['{"\\"","\\\\","a\\"b\\\\c"}', ['"', "\\", 'a"b\\c']],
    ["{a\\,b}", ["a,b"]],
    ['{"line\nbreak","\\\n"}', ["line\nbreak", "\n"]],
    [
      "{{a,b},{c,d}}",
      [
        ["a", "b"],
        ["c", "d"]
      ]
    ],
    ["{{{a}},{{NULL}}}", [[["a"]], [[null]]]],
    ["[0:1]={a,b}", ["a", "b"]],
    [
      "[-1:0][2:3]={{1,2},{3,4}}",
      [
        ["1", "2"],
        ["3", "4"]
      ]
    ],
    ["{{{{{{x}}}}}}", [[[[[["x"]]]]]]],
    ["{☕,é}", ["☕", "é"]]
  ]
  for (const [source, value] of cases) {
    it(`takes ${JSON.stringify(source)}`, () => {
      assert.deepStrictEqual(texts(source), value)
    })
  }

  it("separates boxes by semicolons, and then takes commas for part of them", () => {
    assert.deepStrictEqual(texts("{(1,1),(0,0);(2,2),(0,0)}", ";"), ["(1,1),(0,0)", "(2,2),(0,0)"])
  })

  it("hands every element but NULL to the decoder", () => {
    assert.deepStrictEqual(parseArray("{1,NULL,{3}}".replace("{3}", "3"), BigInt), [1n, null, 3n])
  })

  const malformed = [
    "",
    "a",
    "{",
    "}",
    "{a",
    "{a,",
    "{a,}",
    "{,a}",
    "{,}",
    '{"a}',
    '{"a"b}',
    '{a"b"}',
    "{a}b",
    "{a}}",
    "{{a}",
    "{{a},b}",
    "{a,{b}}",
    "[0:1]",
    "[0:1]{a}",
    "[x:1]={a}",
    "[0:1]=",
    "{a;b}x",
    '{"a\\',
    "{a\\",
    "{{{{{{{x}}}}}}}"
  ]
  for (const source of malformed) {
    it(`refuses ${JSON.stringify(source)} without quoting it`, () => {
      assert.throws(() => texts(source), new TypeError("not the text of an array").message)
    })
  }

  it("takes nesting no deeper than PostgreSQL's, however deep the text claims to be", () => {
    assert.throws(() => texts("{".repeat(1_000_000)), TypeError)
  })

  const items = Arbitrary.array(Arbitrary.schema(Schema.NullOr(Schema.String)), { maxLength: 6 })
  const print = (values: ReadonlyArray<string | null>) =>
    `{${values.map((value) => (value === null ? "NULL" : `"${value.replaceAll(/["\\]/g, "\\$&")}"`)).join(",")}}`

  it.prop("gives back whatever text was quoted into it", [items], ([values]) => {
    assert.deepStrictEqual(texts(print(values)), values)
  })
})
