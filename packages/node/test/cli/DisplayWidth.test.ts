import { assert, describe, it } from "@effect/vitest"
import { cutTo, displayWidth, padTo, sparkline } from "../../src/cli/DisplayWidth.ts"

describe("the width of a text", () => {
  for (const [text, width] of [
    ["", 0],
    ["orders", 6],
    ["商店", 4],
    ["ｶﾅ", 2],
    ["한국", 4],
    ["한국".normalize("NFD"), 4],
    ["cafe\u0301", 4],
    ["👍", 2],
    ["▁▂█…", 4]
  ] as const) {
    it(`of ${JSON.stringify(text)} is ${width}`, () => assert.strictEqual(displayWidth(text), width))
  }
})

describe("a text made to fit", () => {
  it("is cut between glyphs, with an ellipsis, and never wider than asked", () => {
    assert.strictEqual(cutTo("orders", 6), "orders")
    assert.strictEqual(cutTo("orders", 5), "orde…")
    assert.strictEqual(cutTo("商店店", 5), "商店…")
    assert.strictEqual(cutTo("商店店", 4), "商…")
    assert.strictEqual(cutTo("cafe\u0301s", 4), "caf…")
    assert.strictEqual(cutTo("abc", 1), "…")
    assert.strictEqual(cutTo("abc", 0), "")
    for (let columns = 0; columns < 9; columns++) {
      assert.isAtMost(displayWidth(cutTo("a商b店👍cde\u0301", columns)), columns)
    }
  })

  it("is filled up by its width and not by its length", () => {
    assert.strictEqual(padTo("商店", 6), "商店  ")
    assert.strictEqual(padTo("商店", 6, "right"), "  商店")
    assert.strictEqual(padTo("商店", 2), "商店")
  })
})

describe("a sparkline", () => {
  it("is of the last values, by the greatest of those shown", () => {
    assert.strictEqual(sparkline([9, 0, 1, 2, 4], 4), "▁▃▅█")
    assert.strictEqual(sparkline([0, 0], 4), "▁▁")
    assert.strictEqual(sparkline([1, undefined, 1], 4), "█ █")
    assert.strictEqual(sparkline([], 4), "")
    assert.strictEqual(sparkline([1], 0), "")
  })
})
