import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as Schema from "effect/Schema"
import { timestampDate, timestampMicros } from "../../src/values/TimestampText.ts"

describe("timestampMicros", () => {
  // What PostgreSQL 18 says to SELECT extract(epoch FROM x) * 1000000; only the furthest it rounds up by one.
  const cases: ReadonlyArray<readonly [text: string, micros: bigint | number]> = [
    ["1970-01-01 00:00:00+00", 0n],
    ["2000-01-01 00:00:00", 946_684_800_000_000n],
    ["2024-02-29 12:34:56.789012+00", 1_709_210_096_789_012n],
    ["2024-02-29 12:34:56.7", 1_709_210_096_700_000n],
    ["1969-12-31 23:59:59.999999+00", -1n],
    ["2024-02-29", 1_709_164_800_000_000n],
    ["2024-02-29 12:00:00+05:30", 1_709_188_200_000_000n],
    ["2024-02-29 12:00:00-15:59:59", 1_709_265_599_000_000n],
    ["4714-11-24 00:00:00+00 BC", -210_866_803_200_000_000n],
    ["0001-01-01 00:00:00", -62_135_596_800_000_000n],
    ["0001-12-31 00:00:00 BC", -62_135_683_200_000_000n],
    ["294276-12-31 23:59:59.999999", 9_224_318_015_999_999_999n],
    ["infinity", Number.POSITIVE_INFINITY],
    ["-infinity", Number.NEGATIVE_INFINITY]
  ]
  for (const [text, micros] of cases) {
    it(`takes ${text}`, () => {
      assert.strictEqual(timestampMicros(text), micros)
    })
  }

  it("puts the infinities before and after every timestamp", () => {
    assert.isTrue(timestampMicros("294276-12-31 23:59:59.999999") < timestampMicros("infinity"))
    assert.isTrue(timestampMicros("4714-11-24 00:00:00 BC") > timestampMicros("-infinity"))
  })

  const malformed = [
    "",
    "now",
    "2024-13-01",
    "2024-00-01",
    "2024-01-32",
    "29.02.2024",
    "2024-02-29T00:00:00Z",
    "2024-02-29 BCE"
  ]
  for (const text of malformed) {
    it(`refuses ${JSON.stringify(text)}`, () => {
      assert.throws(() => timestampMicros(text), "not the text of a timestamp")
    })
  }

  const millis = Arbitrary.schema(
    Schema.Int.check(Schema.isBetween({ minimum: -62_135_596_800_000, maximum: 253_402_300_799_999 }))
  )

  it.prop("agrees with Date over all years of four digits", [millis], ([milliseconds]) => {
    const text = new Date(milliseconds).toISOString().replace("T", " ").replace("Z", "+00")
    assert.strictEqual(timestampMicros(text), BigInt(milliseconds) * 1000n)
    assert.strictEqual(timestampDate(text).getTime(), milliseconds)
  })
})

describe("timestampDate", () => {
  it("takes what a Date holds exactly", () => {
    assert.deepStrictEqual(timestampDate("2024-02-29 12:34:56.789+00"), new Date("2024-02-29T12:34:56.789Z"))
    assert.deepStrictEqual(timestampDate("2024-02-29 12:34:56.789000"), new Date("2024-02-29T12:34:56.789Z"))
    assert.strictEqual(timestampDate("275760-09-13 00:00:00+00").getTime(), 8.64e15)
  })

  const refused = [
    "infinity",
    "-infinity",
    "2024-02-29 12:34:56.789012+00",
    "275760-09-13 00:00:01+00",
    "294276-12-31 00:00:00",
    "x"
  ]
  for (const text of refused) {
    it(`refuses ${text}`, () => {
      assert.throws(() => timestampDate(text), TypeError)
    })
  }
})
