import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as Schema from "effect/Schema"
import { TextCutter } from "../../src/pgoutput/ColumnBytes.ts"
import { ByteReader, portableText, type TextSlices } from "../../src/protocol/ByteReader.ts"
import { DecodeError } from "../../src/ReplicationError.ts"
import { bigintAt, booleanAt, byteaAt, floatAt, integerAt } from "../../src/values/ScalarBytes.ts"
import { bigint, boolean, bytea, float, integer } from "../../src/values/ScalarText.ts"

const padding = "9"

/** A reader over `text` in the middle of digits, which no decoder may run into. */
const readerOver = (text: string): ByteReader => {
  const bytes = new TextEncoder().encode(padding + text + padding)
  return new ByteReader().reset(bytes, 1, bytes.length - 1)
}

const orUndefined = (decode: (text: string) => unknown) => (text: string) => {
  try {
    return decode(text)
  } catch {
    return undefined
  }
}

const pairs: ReadonlyArray<
  readonly [name: string, fromText: (text: string) => unknown, fromBytes: (reader: ByteReader) => unknown]
> = [
  ["boolean", (text) => (text.length === 1 ? boolean(text) : undefined), (r) => booleanAt(r.bytes, r.offset, r.end)],
  ["integer", integer, (r) => integerAt(r.bytes, r.offset, r.end)],
  ["bigint", bigint, (r) => bigintAt(r.bytes, r.offset, r.end)],
  ["float", float, (r) => floatAt(r.bytes, r.offset, r.end, r)],
  ["bytea", bytea, (r) => byteaAt(r.bytes, r.offset, r.end, r)]
]

const texts = [
  "",
  "-",
  "--1",
  "0",
  "-0",
  "00",
  "007",
  "1",
  "-1",
  "9",
  "10",
  "123456789",
  "1234567890",
  "12345678901",
  "-12345678901",
  "999999999999999",
  "-999999999999999",
  "1000000000000000",
  "4294967295",
  "4294967296",
  "-4294967296",
  "9007199254740993",
  "9223372036854775807",
  "9223372036854775808",
  "-9223372036854775808",
  "-9223372036854775809",
  "9999999999999999999",
  "10000000000000000000",
  "1a",
  "a1",
  "1 ",
  " 1",
  "1.",
  ".1",
  "1.5",
  "-1.5",
  "1.5.5",
  "0.1",
  "0.30000000000000004",
  "123456.789012345",
  "1234567.89012345",
  "12345678.901234567",
  "1e5",
  "1e-7",
  "1.5e+300",
  "-1.7976931348623157e+308",
  "5e-324",
  "NaN",
  "Infinity",
  "-Infinity",
  "+1",
  "t",
  "f",
  "T",
  "\\x",
  "\\x0",
  "\\x00",
  "\\xDEADbeef",
  "\\xzz",
  "a\\\\b",
  "\\000",
  "é",
  "1é"
]

describe("values from bytes", () => {
  for (const [name, fromText, fromBytes] of pairs) {
    it(`are, for ${name}, what the text decoder makes of the same text`, () => {
      for (const text of texts) {
        assert.deepStrictEqual(fromBytes(readerOver(text)), orUndefined(fromText)(text), text)
      }
    })
  }

  it.prop("hold for every bigint of 64 bits", [Arbitrary.schema(Schema.BigInt)], ([value]) => {
    for (const each of [
      BigInt.asIntN(64, value),
      BigInt.asIntN(64, value * 0x9e37_79b9_7f4a_7c15n),
      BigInt.asIntN(40, value)
    ]) {
      const reader = readerOver(String(each))
      assert.strictEqual(bigintAt(reader.bytes, reader.offset, reader.end), each)
    }
  })

  it.prop("hold for every double, by its shortest text", [Arbitrary.schema(Schema.Number)], ([value]) => {
    for (const each of [value, Number(value.toPrecision(7)), Math.round(value * 100) / 100]) {
      const reader = readerOver(Object.is(each, -0) ? "-0" : String(each))
      assert.deepStrictEqual(floatAt(reader.bytes, reader.offset, reader.end, reader), each)
    }
  })
})

describe("TextCutter", () => {
  const cutAll = (words: ReadonlyArray<string>, slices: TextSlices = portableText) => {
    const encoded = words.map((word) => new TextEncoder().encode(word))
    const bytes = Buffer.concat(encoded)
    const reader = new ByteReader(slices).reset(bytes, 0, bytes.length)
    const cutter = new TextCutter()
    let at = 0
    return encoded.map((word) => {
      at += word.length
      return cutter.cut(reader, bytes, at - word.length, at)
    })
  }

  it("cuts ASCII, accents, emoji and long text alike, whatever stands beside them", () => {
    const words = [
      "plain",
      "",
      "é",
      "☕🐘",
      "x".repeat(31),
      "y".repeat(32),
      "z".repeat(33),
      "é".repeat(200),
      "\u0000",
      "\ufeff"
    ]
    for (let turn = 0; turn < words.length; turn++) {
      const turned = [...words.slice(turn), ...words.slice(0, turn)]
      assert.deepStrictEqual(cutAll(turned), turned)
    }
  })

  const anyWords = Arbitrary.array(Arbitrary.schema(Schema.String), { maxLength: 40 })
  it.prop("gives back every text as it was", [anyWords], ([words]) => {
    const wellFormed = words.map((word) => word.toWellFormed())
    assert.deepStrictEqual(cutAll(wellFormed), wellFormed)
  })

  it("asks for one slice where many short values stand close together", () => {
    let slices = 0
    const counting: TextSlices = {
      utf8: (...args) => {
        slices += 1
        return portableText.utf8(...args)
      },
      latin1: portableText.latin1
    }
    cutAll(
      Array.from({ length: 30 }, (_, index) => `w${index}`),
      counting
    )
    assert.strictEqual(slices, 1)
  })

  it("does not give one message's text for another's once it was reset", () => {
    const bytes = new TextEncoder().encode("before")
    const reader = new ByteReader().reset(bytes, 0, 6)
    const cutter = new TextCutter()
    assert.strictEqual(cutter.cut(reader, bytes, 0, 6), "before")
    bytes.set(new TextEncoder().encode("after!"))
    cutter.reset()
    assert.strictEqual(cutter.cut(reader, bytes, 0, 6), "after!")
  })

  it("fails on what is not UTF-8, short or long, and never replaces it", () => {
    for (const word of [[0xff], [0xc3], [0xed, 0xa0, 0x80], [...new Uint8Array(40).fill(0x61), 0xe2, 0x82]]) {
      const bytes = Uint8Array.from([...word, 0x61])
      const reader = new ByteReader().reset(bytes, 0, bytes.length)
      assert.throws(() => new TextCutter().cut(reader, bytes, 0, word.length), DecodeError)
    }
  })
})
