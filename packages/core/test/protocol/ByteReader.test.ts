import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as Schema from "effect/Schema"
import * as Lsn from "../../src/Lsn.ts"
import { ByteReader, portableText, type TextSlices } from "../../src/protocol/ByteReader.ts"
import { DecodeError } from "../../src/ReplicationError.ts"

const bytesOf = (...bytes: ReadonlyArray<number>): Uint8Array => Uint8Array.from(bytes)
const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text)

/** The same bytes at several places of larger ones, so that no reader relies on a message starting at zero. */
const embedded = (bytes: Uint8Array): ReadonlyArray<ByteReader> =>
  [0, 1, 7].map((before) => {
    const whole = new Uint8Array(before + bytes.length + before).fill(0xff)
    whole.set(bytes, before)
    return new ByteReader().reset(whole, before, before + bytes.length)
  })

const problemOf = (run: () => unknown): DecodeError => {
  try {
    run()
  } catch (error) {
    assert.instanceOf(error, DecodeError)
    return error
  }
  return assert.fail("expected a DecodeError")
}

const anyBytes = Arbitrary.map(
  Arbitrary.array(Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))), {
    maxLength: 64
  }),
  (bytes) => Uint8Array.from(bytes)
)

describe("ByteReader", () => {
  const widths: ReadonlyArray<
    readonly [
      name: string,
      width: number,
      read: (reader: ByteReader) => unknown,
      reference: (view: DataView) => unknown
    ]
  > = [
    ["uint8", 1, (reader) => reader.uint8(), (view) => view.getUint8(0)],
    ["int16", 2, (reader) => reader.int16(), (view) => view.getInt16(0)],
    ["uint16", 2, (reader) => reader.uint16(), (view) => view.getUint16(0)],
    ["int32", 4, (reader) => reader.int32(), (view) => view.getInt32(0)],
    ["uint32", 4, (reader) => reader.uint32(), (view) => view.getUint32(0)],
    ["lsn", 8, (reader) => reader.lsn(), (view) => view.getBigUint64(0)],
    ["int64AsNumber", 8, (reader) => reader.int64AsNumber(), (view) => Number(view.getBigInt64(0))]
  ]

  const eight = Arbitrary.array(Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))), {
    minLength: 8,
    maxLength: 8
  })
  describe.each(widths)("%s", (_name, width, read, reference) => {
    it.prop("reads what a DataView reads, and moves past it", { eight }, ({ eight }) => {
      const bytes = Uint8Array.from(eight).subarray(0, width)
      for (const reader of embedded(bytes)) {
        assert.strictEqual(read(reader), reference(new DataView(Uint8Array.from(eight).buffer)))
        assert.strictEqual(reader.remaining, 0)
      }
    })

    it("reads the extremes", () => {
      for (const pattern of [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        [0x80, 0, 0, 0, 0, 0, 0, 0],
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]
      ]) {
        const bytes = Uint8Array.from(pattern)
        assert.strictEqual(read(ByteReader.over(bytes)), reference(new DataView(bytes.buffer)))
      }
    })

    it("fails on every shorter message, although bytes of the next one follow", () => {
      for (let length = 0; length < width; length++) {
        const reader = new ByteReader().reset(new Uint8Array(64), 8, 8 + length)
        const error = problemOf(() => read(reader))
        assert.isAtLeast(error.offset, 8)
        assert.isAtMost(error.offset, 8 + length)
      }
    })
  })

  it("reads microseconds exactly as far as 2^53", () => {
    for (const value of [0, 1, -1, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER, -(2 ** 32), 2 ** 32 - 1]) {
      const bytes = new Uint8Array(8)
      new DataView(bytes.buffer).setBigInt64(0, BigInt(value))
      assert.strictEqual(ByteReader.over(bytes).int64AsNumber(), value)
    }
  })

  it("reads an LSN beyond the signed range", () => {
    assert.strictEqual(ByteReader.over(new Uint8Array(8).fill(0xff)).lsn(), Lsn.maxValue)
  })

  describe("cstring", () => {
    it("reads up to its zero and no further", () => {
      for (const reader of embedded(utf8("orders\0é😀\0\0"))) {
        assert.strictEqual(reader.cstring(), "orders")
        assert.strictEqual(reader.cstring(), "é😀")
        assert.strictEqual(reader.cstring(), "")
        reader.expectEnd()
      }
    })

    it("does not take the zero of the next message for its own", () => {
      const reader = new ByteReader().reset(utf8("ab\0cd\0"), 3, 5)
      assert.strictEqual(problemOf(() => reader.cstring()).offset, 3)
      assert.include(problemOf(() => ByteReader.over(bytesOf()).cstring()).problem, "zero")
    })

    it("keeps a byte order mark, which is part of a name like any other character", () => {
      assert.strictEqual(ByteReader.over(utf8("\uFEFFid\0")).cstring(), "\uFEFFid")
    })
  })

  describe("utf8", () => {
    const invalid: ReadonlyArray<readonly [what: string, bytes: Uint8Array]> = [
      ["a lone continuation byte", bytesOf(0x80)],
      ["a sequence cut short", bytesOf(0xe2, 0x82)],
      ["an overlong zero", bytesOf(0xc0, 0x80)],
      ["half a surrogate pair", bytesOf(0xed, 0xa0, 0x80)],
      ["a code point beyond the last", bytesOf(0xf4, 0x90, 0x80, 0x80)],
      ["LATIN1", bytesOf(0x66, 0xfc, 0x72)]
    ]
    it.each(invalid)("refuses %s rather than replace it", (_what, bytes) => {
      const reader = ByteReader.over(bytes)
      problemOf(() => reader.utf8(0, bytes.length))
      // The decoder behind it is shared: one bad text must not spoil the next.
      assert.strictEqual(ByteReader.over(utf8("ok")).utf8(0, 2), "ok")
    })

    it("points at the text that is wrong", () => {
      const reader = ByteReader.over(bytesOf(0x61, 0, 0xff, 0))
      reader.cstring()
      assert.strictEqual(problemOf(() => reader.cstring()).offset, 2)
    })

    it.prop("reads what TextEncoder wrote", { text: Schema.String }, ({ text }) => {
      const bytes = utf8(text)
      assert.strictEqual(ByteReader.over(bytes).utf8(0, bytes.length), text.toWellFormed())
    })

    it("cuts text as the driver asks it to", () => {
      const slices: TextSlices = { utf8: (_bytes, start, end) => `${start}-${end}`, latin1: () => "" }
      assert.strictEqual(ByteReader.over(utf8("abc\0"), slices).cstring(), "0-3")
    })
  })

  it("skips, and says where it came from", () => {
    const reader = ByteReader.over(bytesOf(1, 2, 3, 4))
    assert.strictEqual(reader.skip(0), 0)
    assert.strictEqual(reader.skip(3), 0)
    assert.strictEqual(reader.offset, 3)
    assert.strictEqual(reader.skip(1), 3)
    assert.strictEqual(reader.skip(0), 4)
  })

  it("refuses to skip backwards or past the end, and stays where it was", () => {
    const reader = ByteReader.over(bytesOf(1, 2))
    for (const count of [-1, -(2 ** 31), 3, 2 ** 31 - 1, 2 ** 32]) {
      problemOf(() => reader.skip(count))
      assert.strictEqual(reader.offset, 0)
    }
  })

  it("copies what must outlive the read", () => {
    const read = bytesOf(1, 2, 3, 4)
    const copy = new ByteReader().reset(read, 1, 4).copy(2)
    read.fill(0)
    assert.deepStrictEqual(copy, bytesOf(2, 3))
    assert.strictEqual(copy.buffer.byteLength, 2)
  })

  it("copies to a plain Uint8Array, whatever subclass the driver reads into", () => {
    const copy = ByteReader.over(Buffer.from("abcd")).copy(2)
    assert.strictEqual(Object.getPrototypeOf(copy), Uint8Array.prototype)
  })

  it("says when a message is longer than its kind", () => {
    const reader = ByteReader.over(bytesOf(1, 2))
    assert.include(problemOf(() => reader.expectEnd()).problem, "2 bytes too many")
    reader.skip(2)
    reader.expectEnd()
  })

  it("starts anew at each reset", () => {
    const reader = ByteReader.over(bytesOf(1))
    reader.uint8()
    assert.strictEqual(reader.reset(bytesOf(7, 8, 9), 1, 2).uint8(), 8)
    assert.strictEqual(reader.remaining, 0)
  })

  it("never shows the bytes it failed on: they may be a row", () => {
    const error = problemOf(() => ByteReader.over(utf8("secret")).cstring())
    assert.notInclude(JSON.stringify(error) + String(error), "secret")
  })

  const operations: ReadonlyArray<(reader: ByteReader) => unknown> = [
    ...widths.map(([, , read]) => read),
    (reader) => reader.cstring(),
    (reader) => reader.copy(reader.uint8()),
    (reader) => reader.copy(reader.int32()),
    (reader) => reader.skip(reader.int16()),
    (reader) => reader.expectEnd()
  ]
  const program = Arbitrary.array(
    Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: operations.length - 1 }))),
    { maxLength: 12 }
  )
  it.prop(
    "whatever is read from whatever bytes, it is a value within them or a DecodeError",
    { bytes: anyBytes, program },
    ({ bytes, program }) => {
      for (const reader of embedded(bytes)) {
        const start = reader.offset
        try {
          for (const index of program) {
            operations[index]!(reader)
            assert.isAtLeast(reader.offset, start)
            assert.isAtMost(reader.offset, reader.end)
          }
        } catch (error) {
          assert.instanceOf(error, DecodeError)
        }
      }
    },
    { arbitrary: { runs: 2000 } }
  )
})

describe("portableText", () => {
  it("reads one character a byte as latin1, also where windows-1252 differs", () => {
    const every = Uint8Array.from({ length: 256 }, (_, index) => index)
    const text = portableText.latin1(every, 0, 256)
    assert.deepStrictEqual(
      Array.from(text, (character) => character.charCodeAt(0)),
      Array.from(every)
    )
    assert.strictEqual(portableText.latin1(utf8("0123"), 1, 3), "12")
  })

  it("reads latin1 of any length", () => {
    const long = new Uint8Array(1_000_003).fill(0x61)
    assert.strictEqual(portableText.latin1(long, 1, long.length), "a".repeat(1_000_002))
  })
})
