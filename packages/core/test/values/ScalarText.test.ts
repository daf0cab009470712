import { assert, describe, it } from "@effect/vitest"
import { bigint, boolean, bytea, float, fromHex, integer, json, safeInteger } from "../../src/values/ScalarText.ts"
import type { TypeDecoder } from "../../src/values/TypeDecoder.ts"

const bytes = (...values: ReadonlyArray<number>) => Uint8Array.from(values)

const tables: ReadonlyArray<{
  readonly name: string
  readonly decode: TypeDecoder
  readonly takes: ReadonlyArray<readonly [text: string, value: unknown]>
  readonly refuses: ReadonlyArray<string>
}> = [
  {
    name: "boolean",
    decode: boolean,
    takes: [
      ["t", true],
      ["f", false],
      ["true", true],
      ["false", false]
    ],
    refuses: ["", "T", "1", "yes", "tt"]
  },
  {
    name: "integer",
    decode: integer,
    takes: [
      ["0", 0],
      ["-2147483648", -2147483648],
      ["4294967295", 4294967295]
    ],
    refuses: ["", "-", "+1", "1.0", " 1", "1e3", "0x10", "12345678901234567", "NaN"]
  },
  {
    name: "bigint",
    decode: bigint,
    takes: [
      ["0", 0n],
      ["9223372036854775807", 2n ** 63n - 1n],
      ["-9223372036854775808", -(2n ** 63n)]
    ],
    refuses: ["", "-", "1.0", "0x10", "9223372036854775808", "-9223372036854775809", "99999999999999999999"]
  },
  {
    name: "safeInteger",
    decode: safeInteger,
    takes: [
      ["9007199254740991", 2 ** 53 - 1],
      ["-5", -5]
    ],
    refuses: ["9007199254740992", "", "0x10"]
  },
  {
    name: "float",
    decode: float,
    takes: [
      ["0.30000000000000004", 0.30000000000000004],
      ["-0", -0],
      ["NaN", Number.NaN],
      ["Infinity", Number.POSITIVE_INFINITY],
      ["-Infinity", Number.NEGATIVE_INFINITY],
      ["1e-307", 1e-307],
      ["1.7976931348623157e+308", Number.MAX_VALUE],
      ["5e-324", Number.MIN_VALUE]
    ],
    refuses: ["", " ", "0x10", "1e", "infinity", "--1", "1,5", "."]
  },
  {
    name: "json",
    decode: json,
    takes: [
      ["null", null],
      ['{"a":[1,"x"]}', { a: [1, "x"] }]
    ],
    refuses: ["", "{", "undefined"]
  },
  {
    name: "bytea",
    decode: bytea,
    takes: [
      ["\\x", bytes()],
      ["\\x00fF5c", bytes(0, 255, 0x5c)],
      ["", bytes()],
      ["a\\\\b\\000\\377", bytes(0x61, 0x5c, 0x62, 0, 255)]
    ],
    refuses: ["\\x0", "\\xzz", "\\x0g", "é", "\\", "\\0", "\\400", "\\x€€", "\\08x"]
  }
]

describe("the text of single values", () => {
  for (const { decode, name, refuses, takes } of tables) {
    for (const [text, value] of takes) {
      it(`is ${name} ${JSON.stringify(text)}`, () => {
        assert.deepStrictEqual(decode(text), value)
      })
    }
    for (const text of refuses) {
      it(`is no ${name} as ${JSON.stringify(text)}`, () => {
        assert.throws(() => decode(text))
      })
    }
  }

  it("keeps the key __proto__ of a json object out of its prototype", () => {
    const value = json('{"__proto__":{"x":1}}') as object
    assert.strictEqual(Object.getPrototypeOf(value), Object.prototype)
    assert.deepStrictEqual(Object.keys(value), ["__proto__"])
  })
})

describe("fromHex", () => {
  it("gives every byte from its two digits, in either case", () => {
    const all = Uint8Array.from({ length: 256 }, (_, value) => value)
    const hex = Buffer.from(all).toString("hex")
    assert.deepStrictEqual(fromHex(Buffer.from(hex), 0, 512), all)
    assert.deepStrictEqual(fromHex(Buffer.from(`..${hex.toUpperCase()}`), 2, 514), all)
  })

  it("refuses an odd count and any byte that is no digit", () => {
    assert.isUndefined(fromHex(Buffer.from("000"), 0, 3))
    for (let byte = 0; byte < 256; byte++) {
      const isDigit = /[0-9a-fA-F]/.test(String.fromCharCode(byte))
      assert.strictEqual(fromHex(bytes(0x30, byte), 0, 2) !== undefined, isDigit)
    }
  })
})
