import { assert, describe, it } from "@effect/vitest"
import * as BinaryNumber from "../../src/values/BinaryNumber.ts"
import { assertExact, problemOf, textOf } from "../support/BinaryBytes.ts"
import { message } from "../support/PgoutputBytes.ts"

const { float4Text, float8Text, numericText, shortestSingle } = BinaryNumber

/** Numeric as on the wire: how many groups, the weight of the first, the sign, the scale, the groups. */
const numeric = (weight: number, sign: number, scale: number, ...groups: ReadonlyArray<number>) =>
  message([2, groups.length], [2, weight], [2, sign], [2, scale], ...groups.map((group) => [2, group] as const))

const double = (value: number): Uint8Array => {
  const bytes = Buffer.alloc(8)
  bytes.writeDoubleBE(value)
  return bytes
}
const single = (value: number): Uint8Array => {
  const bytes = Buffer.alloc(4)
  bytes.writeFloatBE(value)
  return bytes
}

describe("shortestSingle", () => {
  it("is the double that PostgreSQL's text of the single stands for", () => {
    // Each as PostgreSQL 18 prints it: ties go to the even digit, and 2^-149 has one digit.
    for (const text of [
      ...["0.1", "-0.1", "3.1415927", "16777216", "2097152.2", "2097152.8", "1e+10", "1e-05", "3.4028235e+38"],
      ...[
        "1e-45",
        "1.2621775e-29",
        "1.5474251e+26",
        "1.1754944e-38",
        "1.1754942e-38",
        "9.8607613e-32",
        "0.33333334",
        "123456.79",
        "8.388608e+06"
      ]
    ]) {
      assert.strictEqual(shortestSingle(Math.fround(Number(text))), Number(text), text)
    }
  })

  it("comes back as the single it was, for all sizes", () => {
    let state = 1
    for (let round = 0; round < 20_000; round++) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
      const value = BinaryNumber.float4At(message([4, state]), 0)
      const bytes = single(value)
      const expected = message([4, state])
      if (Number.isNaN(value)) continue
      assert.deepStrictEqual([...bytes], [...expected])
      assert.isAtMost(
        Math.abs(value)
          .toExponential()
          .replace(/\.|e.*/g, "").length,
        9
      )
    }
  })

  it("leaves alone what is no number, infinite, or negative zero", () => {
    for (const value of [Number.NaN, Infinity, -Infinity, 0, -0]) {
      assert.isTrue(Object.is(shortestSingle(value), value))
    }
  })
})

describe("the text of a float", () => {
  it("has an exponent where PostgreSQL prints one", () => {
    for (const text of [
      ...["0", "-0", "NaN", "Infinity", "-Infinity", "1", "-1.5", "123456789012345", "1e+15", "1.5e+15", "0.0001"],
      ...[
        "1e-05",
        "9.5e-05",
        "1e+100",
        "5e-324",
        "1.7976931348623157e+308",
        "9.999999999999999e+22",
        "0.30000000000000004"
      ]
    ]) {
      assert.strictEqual(textOf(float8Text, double(Number(text))), text)
    }
    for (const text of ["100000", "1e+06", "123456", "1.234567e+06", "0.1", "1e-05", "NaN", "-0", "3.4028235e+38"]) {
      assert.strictEqual(textOf(float4Text, single(Number(text))), text)
    }
  })
})

describe("the text of a numeric", () => {
  const cases: ReadonlyArray<readonly [text: string, bytes: Uint8Array]> = [
    ["0", numeric(0, 0, 0)],
    ["0.0000", numeric(0, 0, 4)],
    ["1", numeric(0, 0, 0, 1)],
    ["-12.34", numeric(0, 0x4000, 2, 12, 3400)],
    ["12.50", numeric(0, 0, 2, 12, 5000)],
    ["10000", numeric(1, 0, 0, 1)],
    ["100000000.0", numeric(2, 0, 1, 1)],
    ["10001", numeric(1, 0, 0, 1, 1)],
    ["0.0001", numeric(-1, 0, 4, 1)],
    ["0.00000001", numeric(-2, 0, 8, 1)],
    ["0.00000000001", numeric(-3, 0, 11, 10)],
    ["0.0", numeric(-3, 0, 1, 10)],
    ["1234567.0089", numeric(1, 0, 4, 123, 4567, 89)],
    ["NaN", numeric(0, 0xc000, 0)],
    ["Infinity", numeric(0, 0xd000, 32)],
    ["-Infinity", numeric(0, 0xf000, 0)]
  ]
  for (const [text, bytes] of cases) {
    it(`is ${text}`, () => {
      assert.strictEqual(textOf(numericText, bytes), text)
      assertExact(numericText, bytes)
    })
  }

  it("is as long as its weight and scale say, where the digits are few", () => {
    assert.strictEqual(textOf(numericText, numeric(32767, 0, 0, 1)).length, 1 + 4 * 32767)
    assert.strictEqual(textOf(numericText, numeric(-4096, 0, 16383, 1)).length, 2 + 16383)
  })

  it("is none of an unknown sign, a digit beyond 9999, or more decimals than there can be", () => {
    assert.include(problemOf(numericText, numeric(0, 0x8000, 0, 1)), "unknown sign")
    assert.include(problemOf(numericText, numeric(0, 0, 0, 10_000)), "beyond 9999")
    assert.include(problemOf(numericText, numeric(0, 0, 0x4000, 1)), "more decimals")
  })
})

describe("whole numbers", () => {
  it("keep all their bits", () => {
    const ones = message([8, -1n])
    assert.strictEqual(BinaryNumber.int2At(ones, 0), -1)
    assert.strictEqual(BinaryNumber.int4At(ones, 0), -1)
    assert.strictEqual(BinaryNumber.uint4At(ones, 0), 0xffff_ffff)
    assert.strictEqual(BinaryNumber.int8At(ones, 0), -1n)
    assert.strictEqual(BinaryNumber.int8At(message([8, -(2n ** 63n)]), 0), -(2n ** 63n))
    assert.strictEqual(BinaryNumber.int8At(message([8, 0x0102_0304_0506_0708n]), 0), 0x0102_0304_0506_0708n)
    assert.strictEqual(textOf(BinaryNumber.uint8Text, ones), "18446744073709551615")
    assert.strictEqual(textOf(BinaryNumber.int8Text, ones), "-1")
  })
})
