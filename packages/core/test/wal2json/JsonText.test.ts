import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { DecodeError } from "../../src/ReplicationError.ts"
import { parseJsonText } from "../../src/wal2json/JsonText.ts"

/** What `parseJsonText` gives for JSON of `value`: its numbers as text. */
const asText = (value: unknown): unknown => {
  if (typeof value === "number") return JSON.stringify(value)
  if (Array.isArray(value)) return value.map(asText)
  if (value === null || typeof value !== "object") return value
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, asText(member)]))
}

describe("JsonText", () => {
  it("keeps every digit of numbers that no double can hold", () => {
    const digits = "1234567890".repeat(40)
    for (const number of ["9223372036854775807", "-9223372036854775808", "1.10", "-0", "1e+20", `${digits}.50`]) {
      assert.deepStrictEqual(parseJsonText(`{"value":${number}}`), { value: number })
    }
  })

  it.prop(
    "reads what JSON.stringify writes, but for numbers",
    { value: Schema.toCodecJson(Schema.Array(Schema.Struct({ a: Schema.String, b: Schema.NullOr(Schema.Boolean) }))) },
    ({ value }) => {
      assert.deepStrictEqual(parseJsonText(JSON.stringify(value)), asText(value))
    }
  )

  it("takes quotes and backslashes at the end of a string for what they are", () => {
    for (const text of ['"', "\\", '\\"', '\\\\"', "a\\", '"a"', '\\u0041"', "\n\t\u0007", "😀\u2028"]) {
      assert.deepStrictEqual(parseJsonText(JSON.stringify([text, text])), [text, text])
    }
  })

  it("refuses what is not one JSON value, telling where and not what", () => {
    const broken = [
      "",
      " 1",
      "1 ",
      "01",
      "1.",
      ".5",
      "+1",
      "--1",
      "1e",
      "NaN",
      "tru",
      "nulL",
      "truetrue",
      '"secret',
      '"secret\\"',
      '"secret\\x"',
      '"secret\\u12"',
      "[",
      "[1",
      "[1,",
      "[1,]",
      "[,1]",
      "[1}",
      "{",
      '{"secret"',
      '{"secret":',
      '{"secret":1',
      '{"secret":1,',
      '{"secret":1,}',
      "{secret:1}",
      '{"a":"b".c}',
      "{1:2}",
      "{}{}"
    ]
    for (const text of broken) {
      const error = failureOf(text)
      assert.instanceOf(error, DecodeError, text)
      assert.isFalse(JSON.stringify(error).includes("secret"), text)
    }
    assert.strictEqual((failureOf('{"a":"b".c}') as DecodeError).offset, 8)
  })

  it("refuses JSON nested deeper than wal2json ever writes, and never overflows the stack", () => {
    assert.instanceOf(failureOf("[".repeat(1_000_000)), DecodeError)
    assert.instanceOf(failureOf('{"a":'.repeat(1_000_000)), DecodeError)
  })

  it("lets no member set a prototype", () => {
    assert.instanceOf(failureOf('{"__proto__":{"isAdmin":true}}'), DecodeError)
    assert.instanceOf(failureOf('{"\\u005f_proto__":{"isAdmin":true}}'), DecodeError)
  })

  it("reads a string of nothing but escapes in time that is linear in its length", () => {
    const text = '\\"'.repeat(500_000)
    assert.strictEqual((parseJsonText(JSON.stringify(text)) as string).length, text.length)
  })
})

const failureOf = (text: string): unknown => {
  try {
    return parseJsonText(text)
  } catch (error) {
    return error
  }
}
