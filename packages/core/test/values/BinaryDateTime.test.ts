import { assert, describe, it } from "@effect/vitest"
import * as BinaryDateTime from "../../src/values/BinaryDateTime.ts"
import { timestampMicros } from "../../src/values/TimestampText.ts"
import { assertExact, problemOf, textOf } from "../support/BinaryBytes.ts"
import type { Part } from "../support/PgoutputBytes.ts"

const { dateTextOf, intervalText, timestampText, timestamptzText, timeText, timetzText } = BinaryDateTime

/** Microseconds from 1970 to 2000, where PostgreSQL counts from. */
const epoch = 946_684_800_000_000n

describe("the text of a timestamp", () => {
  it("stands for the microseconds it was made of, over all of the range and in any order", () => {
    let state = 1n
    const texts = [
      ...["2000-01-01 00:00:00", "1999-12-31 23:59:59.999999", "2024-02-29 12:34:56.78", "2024-02-29 00:00:00.000001"],
      ...["0001-01-01 00:00:00", "0001-12-31 23:59:59.5 BC", "4714-11-24 00:00:00 BC", "294276-12-31 23:59:59.999999"],
      ...["9999-12-31 23:59:59", "10000-01-01 00:00:00", "1900-03-01 00:00:00", "2000-02-29 10:00:00"]
    ]
    for (const text of [...texts, ...texts.toReversed()]) {
      const micros = BigInt(timestampMicros(text)) - epoch
      assert.strictEqual(textOf(timestampText, [8, micros]), text)
    }
    for (let round = 0; round < 5000; round++) {
      state = (state * 6_364_136_223_846_793_005n + 1_442_695_040_888_963_407n) & 0xffff_ffff_ffff_ffffn
      const micros = BigInt.asIntN(64, state) >> BigInt(round % 40)
      if (micros < -211_813_488_000_000_000n || micros > 9_223_371_331_200_000_000n) continue
      assert.strictEqual(timestampMicros(textOf(timestamptzText, [8, micros])), micros + epoch)
    }
  })

  it("has its zone before its era, and words for the ends", () => {
    assert.strictEqual(textOf(timestamptzText, [8, 0]), "2000-01-01 00:00:00+00")
    assert.match(textOf(timestamptzText, [8, -100_000_000_000_000_000n]), /\+00 BC$/)
    assert.strictEqual(textOf(timestamptzText, [8, 2n ** 63n - 1n]), "infinity")
    assert.strictEqual(textOf(timestampText, [8, -(2n ** 63n)]), "-infinity")
    assertExact(timestamptzText, [8, 1])
  })
})

describe("the text of a date or time", () => {
  const cases: ReadonlyArray<readonly [text: string, of: typeof dateTextOf, ...parts: ReadonlyArray<Part>]> = [
    ["2000-01-01", dateTextOf, [4, 0]],
    ["1999-12-31", dateTextOf, [4, -1]],
    ["5874897-12-31", dateTextOf, [4, 2_145_031_948]],
    ["4714-11-24 BC", dateTextOf, [4, -2_451_545]],
    ["infinity", dateTextOf, [4, 0x7fff_ffff]],
    ["-infinity", dateTextOf, [4, 0x8000_0000]],
    ["24:00:00", timeText, [8, 86_400_000_000n]],
    ["00:00:00.000001", timeText, [8, 1]],
    ["04:05:06.789+05:30", timetzText, [8, 14_706_789_000n], [4, -19_800]],
    ["00:00:00-15:59:59", timetzText, [8, 0], [4, 57_599]],
    ["00:00:00+00", timetzText, [8, 0], [4, 0]],
    ["00:00:00", intervalText, [8, 0], [4, 0], [4, 0]],
    ["1 year 2 mons -3 days +04:05:06.789", intervalText, [8, 14_706_789_000n], [4, -3], [4, 14]],
    ["-1 years -2 mons +3 days", intervalText, [8, 0], [4, 3], [4, -14]],
    ["1 mon", intervalText, [8, 0], [4, 0], [4, 1]],
    ["-00:00:00.000001", intervalText, [8, -1], [4, 0], [4, 0]],
    ["1 day -00:00:01.5", intervalText, [8, -1_500_000], [4, 1], [4, 0]],
    ["-2562047788:00:54.775808", intervalText, [8, -(2n ** 63n)], [4, 0], [4, 0]],
    ["2562047788:00:54.775807", intervalText, [8, 2n ** 63n - 1n], [4, 0], [4, 0]],
    ["infinity", intervalText, [8, 2n ** 63n - 1n], [4, 0x7fff_ffff], [4, 0x7fff_ffff]],
    ["-infinity", intervalText, [8, -(2n ** 63n)], [4, 0x8000_0000], [4, 0x8000_0000]]
  ]
  for (const [text, of, ...parts] of cases) {
    it(`is ${text}`, () => {
      assert.strictEqual(textOf(of, ...parts), text)
      assertExact(of, ...parts)
    })
  }

  it("is none beyond its day, or in a zone beyond sixteen hours", () => {
    assert.include(problemOf(timeText, [8, 86_400_000_001n]), "beyond its day")
    assert.include(problemOf(timeText, [8, -1]), "beyond its day")
    assert.include(problemOf(timetzText, [8, 0], [4, 57_600]), "beyond sixteen hours")
    assert.include(problemOf(timetzText, [8, 0], [4, 0x8000_0000]), "beyond sixteen hours")
  })
})
