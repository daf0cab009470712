/** What a probe says, for each thing that can be known of a slot. */
import { assert, describe, it } from "@effect/vitest"
import { judgeLag, type Limits } from "../../src/cli/LagVerdict.ts"
import { formatTime, parseMeasure } from "../../src/cli/Measure.ts"
import { budget } from "./slots.ts"

const mega = 1024 * 1024

const lag = { name: "orders", lagBytes: 20 * mega, lagMillis: 5000, lagIsLonger: false, budget: budget() }

const limits = (warn: ReadonlyArray<string>, critical: ReadonlyArray<string> = []): Limits => ({
  warn: warn.map((text) => parseMeasure(text)!),
  critical: critical.map((text) => parseMeasure(text)!)
})

describe("the verdict on a slot", () => {
  const cases: ReadonlyArray<readonly [string, Partial<typeof lag>, Limits, string, string]> = [
    ["is well without limits", {}, limits([]), "ok", "slot orders is 20 MB, 5 s behind"],
    ["is well below them", {}, limits(["21MB", "6s"], ["1GB"]), "ok", "slot orders is 20 MB, 5 s behind"],
    [
      "is a warning from bytes on",
      {},
      limits(["20MB"]),
      "warning",
      "slot orders is 20 MB, 5 s behind: warning from 20 MB on"
    ],
    [
      "is a warning from a time on",
      {},
      limits(["1GB", "5s"]),
      "warning",
      "slot orders is 20 MB, 5 s behind: warning from 5 s on"
    ],
    [
      "is the worse of two",
      {},
      limits(["1s"], ["2s"]),
      "critical",
      "slot orders is 20 MB, 5 s behind: critical from 2 s on"
    ],
    [
      "knows a time that is longer than was seen for one that is reached",
      { lagIsLonger: true },
      limits(["5s"]),
      "warning",
      "slot orders is 20 MB, more than 5 s behind: warning from 5 s on"
    ],
    [
      "is none where such a time may be reached or not",
      { lagIsLonger: true },
      limits(["1min"]),
      "unknown",
      "slot orders is 20 MB, more than 5 s behind: whether for 1 min is not known"
    ],
    [
      "is what is known, where something else is not",
      { lagIsLonger: true },
      limits(["10MB"], ["1min"]),
      "warning",
      "slot orders is 20 MB, more than 5 s behind: warning from 10 MB on"
    ]
  ]
  for (const [title, facts, given, level, text] of cases) {
    it(title, () => assert.deepStrictEqual(judgeLag({ ...lag, ...facts }, given), { level, text }))
  }

  it("is none of a slot that was never used, and critical of a lost one", () => {
    const unused = { ...lag, lagBytes: undefined, lagMillis: undefined }
    assert.strictEqual(judgeLag(unused, limits([])).level, "unknown")
    assert.strictEqual(judgeLag({ ...unused, budget: budget("lost") }, limits([])).level, "critical")
  })
})

describe("an amount", () => {
  for (const [text, measure] of [
    ["100", { bytes: 100 }],
    ["1.5GB", { bytes: 1.5 * 1024 * mega }],
    ["16 mb", { bytes: 16 * mega }],
    ["500ms", { millis: 500 }],
    ["30s", { millis: 30_000 }],
    ["5min", { millis: 300_000 }],
    ["2h", { millis: 7_200_000 }],
    ["x", undefined],
    ["-1", undefined],
    ["3 parsecs", undefined],
    ["", undefined]
  ] as const) {
    it(`"${text}" is ${JSON.stringify(measure)}`, () => assert.deepStrictEqual(parseMeasure(text), measure))
  }

  it("of time is told in one unit", () => {
    assert.deepStrictEqual([0, 999, 1500, 60_000, 150_000, 7_200_000, 200_000_000, 8.64e9].map(formatTime), [
      "0 ms",
      "999 ms",
      "1.5 s",
      "1 min",
      "2.5 min",
      "2 h",
      "2.3 days",
      "100 days"
    ])
  })
})
