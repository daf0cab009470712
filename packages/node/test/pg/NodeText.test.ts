import { assert, describe, it } from "@effect/vitest"
import { portableText } from "@replicant/core/driver"
import { Schema } from "effect"
import { nodeText } from "../../src/pg/NodeText.ts"

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

describe("nodeText", () => {
  it("cuts text at offsets, out of any Uint8Array", () => {
    const read = bytes("önä€😀x")
    assert.strictEqual(nodeText.utf8(read, 0, read.length), "önä€😀x")
    assert.strictEqual(nodeText.utf8(read, 2, 3), "n")
    assert.strictEqual(nodeText.utf8(read, 3, 3), "")
    assert.strictEqual(nodeText.latin1(read, read.length - 1, read.length), "x")
    assert.strictEqual(nodeText.utf8(read.subarray(2), 0, 1), "n")
  })

  it("refuses bytes that are not UTF-8, and lets a replacement character that was sent pass", () => {
    assert.isUndefined(nodeText.utf8(Uint8Array.of(0x61, 0xff, 0x62), 0, 3))
    assert.isUndefined(nodeText.utf8(bytes("€"), 0, 2))
    assert.isUndefined(nodeText.utf8(Uint8Array.of(0xed, 0xa0, 0x80), 0, 3))
    assert.strictEqual(nodeText.utf8(bytes("a\uFFFDb"), 0, 5), "a\uFFFDb")
  })

  it("keeps a byte order mark", () => {
    assert.strictEqual(nodeText.utf8(bytes("\uFEFFa"), 0, 4), "\uFEFFa")
  })

  it("fails with a DecodeError where text is longer than any string can be", () => {
    const tooLong = Buffer.allocUnsafeSlow(0x2000_0000)
    for (const cut of [nodeText.utf8, nodeText.latin1]) {
      assert.throws(() => cut(tooLong, 0, tooLong.length), /more than a string can hold/)
    }
  })

  it.prop("agrees with the portable slices on any bytes", [Schema.Array(Schema.Int)], ([numbers]) => {
    const read = Uint8Array.from(numbers)
    const start = Math.min(1, read.length)
    for (const slice of ["utf8", "latin1"] as const) {
      assert.strictEqual(nodeText[slice](read, start, read.length), portableText[slice](read, start, read.length))
    }
  })
})
