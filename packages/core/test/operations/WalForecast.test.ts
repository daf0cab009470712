/** What a slot keeps and how long that lasts, by samples alone. */
import { assert, describe, it } from "@effect/vitest"
import { addSample, forecast, ratesOver, timeBehind, type WalSample } from "../../src/operations/WalForecast.ts"
import { at, mega, over, sample } from "./samples.ts"

const tenMinutes = 600_000
const minute = 60_000

const gathered = (samples: ReadonlyArray<WalSample>) =>
  samples.reduce<ReadonlyArray<WalSample>>((before, next) => addSample(before, next, tenMinutes), [])

const ahead = (samples: ReadonlyArray<WalSample>) => {
  const [first, ...rest] = gathered(samples)
  return forecast([first!, ...rest], minute)
}

describe("the samples of a slot", () => {
  it("reach back over the window, with the one at its edge, and no further", () => {
    const kept = gathered(over(1200, (second) => ({ end: second })))
    assert.strictEqual(kept[0]?.at, tenMinutes)
    assert.strictEqual(kept.at(-1)?.at, 2 * tenMinutes)
    const sparse = [0, 500, 1700].map((seconds) => sample({ seconds, end: seconds }))
    assert.deepStrictEqual(
      gathered(sparse).map(({ at }) => at),
      [500_000, 1_700_000]
    )
  })

  const before = over(100, (second) => ({ end: 100 + second, restart: 50 }))
  const breaks: ReadonlyArray<readonly [string, WalSample]> = [
    ["the server was restarted", sample({ seconds: 110, end: 211, restart: 50 }, { serverStart: "2" })],
    ["WAL ends before where it ended, as of another server", sample({ seconds: 110, end: 150, restart: 50 })],
    ["the slot keeps WAL from further back, as of another one", sample({ seconds: 110, end: 211, restart: 40 })],
    ["the slot has just come to keep WAL", sample({ seconds: 110, end: 211 }, { restartLsn: undefined })],
    ["the clock went back", sample({ seconds: 90, end: 211, restart: 50 })]
  ]
  for (const [what, broken] of breaks) {
    it(`begin anew where ${what}`, () => assert.deepStrictEqual(gathered([...before, broken]), [broken]))
  }

  it("begin anew with a slot that is made in place of a lost one", () => {
    const lost = sample({ seconds: 100, end: 200 }, { walStatus: "lost" })
    const anew = sample({ seconds: 110, end: 210, restart: 205 })
    assert.deepStrictEqual(gathered([lost, anew]), [anew])
  })
})

describe("the rates", () => {
  it("are not known of one sample", () => assert.isUndefined(ratesOver([sample({ seconds: 0, end: 1 })], minute)))

  it("tell what is written, what is confirmed and by how much what is kept grows", () => {
    const samples = over(120, (second) => ({ end: 100 + 3 * second, restart: second, confirmed: 2 * second }))
    assert.deepStrictEqual(ratesOver(samples, minute), {
      millis: minute,
      written: 3 * mega,
      confirmed: 2 * mega,
      growth: 2 * mega
    })
  })

  it("of a physical slot take what it lets go of for what is confirmed", () => {
    const samples = over(
      60,
      (second) => ({ end: 100 + second, restart: second }),
      () => ({ confirmedFlushLsn: undefined })
    )
    assert.strictEqual(ratesOver(samples, minute)?.confirmed, mega)
  })
})

describe("the time behind", () => {
  const samples = over(100, (second) => ({ end: second }))

  it("is none where nothing is beyond the position", () =>
    assert.deepStrictEqual(timeBehind(samples, at(100)), { millis: 0, isAtLeast: false }))

  it("is that since WAL ended there", () =>
    assert.deepStrictEqual(timeBehind(samples, at(40)), { millis: minute, isAtLeast: false }))

  it("is longer than what was seen where WAL ended beyond it at first already", () =>
    assert.deepStrictEqual(timeBehind(samples.slice(3), at(20)), { millis: 70_000, isAtLeast: true }))
})

describe("the forecast", () => {
  const limit = 1000
  /** As the server tells it: what is left of the limit. */
  const safe = (kept: number) => ({ safeBytes: (limit - kept) * mega })

  it("of a consumer that is gone is when the rest of the limit is written", () => {
    const { growth, millisUntilDiskFull, millisUntilLost } = ahead(
      over(
        120,
        (second) => ({ end: second }),
        (second) => safe(second)
      )
    )
    assert.strictEqual(growth, mega)
    assert.strictEqual(millisUntilLost, (limit - 120) * 1000)
    assert.isUndefined(millisUntilDiskFull)
  })

  it("takes a burst for what it is before an hour of quiet has faded", () => {
    const { millisUntilLost } = ahead(
      over(
        600,
        (second) => ({ end: Math.max(0, second - 540) * 10 }),
        (second) => safe(Math.max(0, second - 540) * 10)
      )
    )
    assert.strictEqual(millisUntilLost, ((limit - 600) / 10) * 1000)
  })

  it("does not forget what is going on for a minute of quiet", () => {
    const kept = (second: number) => Math.min(second, 540)
    const { growth, millisUntilLost } = ahead(
      over(
        600,
        (second) => ({ end: kept(second) }),
        (second) => safe(kept(second))
      )
    )
    assert.strictEqual(growth, 0.9 * mega)
    assert.strictEqual(millisUntilLost, Math.round(((limit - 540) / 0.9) * 1000))
  })

  it("does not take the tooth of a saw for a trend", () => {
    // What is kept is let go of every 30 s.
    const kept = (second: number) => second % 30
    const { growth, millisUntilLost } = ahead(
      over(
        120,
        (second) => ({ end: second, restart: second - kept(second) }),
        (second) => safe(kept(second))
      )
    )
    assert.strictEqual(growth, 0)
    assert.isUndefined(millisUntilLost)
  })

  it("of a server where nothing happens is none, though much is kept", () => {
    const { growth, millisUntilDiskFull, millisUntilLost } = ahead(
      over(
        120,
        () => ({ end: 900 }),
        () => ({ ...safe(900), freeBytes: mega })
      )
    )
    assert.strictEqual(growth, 0)
    assert.isUndefined(millisUntilLost)
    assert.isUndefined(millisUntilDiskFull)
  })

  it("of a consumer that catches up is none", () => {
    const found = ahead(
      over(
        120,
        (second) => ({ end: 500 + second, restart: 3 * second }),
        (second) => safe(second)
      )
    )
    assert.strictEqual(found.growth, -2 * mega)
    assert.isUndefined(found.millisUntilLost)
  })

  it("is not made of less than a minute, and what is over already is over", () => {
    const short = over(
      50,
      (second) => ({ end: 10 * second }),
      (second) => safe(10 * second)
    )
    assert.isUndefined(ahead(short).millisUntilLost)
    assert.strictEqual(ahead([sample({ seconds: 0, end: limit + 1 }, safe(limit + 1))]).millisUntilLost, 0)
  })

  it("of a full disk goes by the bytes that are free, also where there is no limit", () => {
    const { millisUntilDiskFull, millisUntilLost } = ahead(
      over(
        120,
        (second) => ({ end: second }),
        () => ({ freeBytes: 300 * mega })
      )
    )
    assert.strictEqual(millisUntilDiskFull, 300_000)
    assert.isUndefined(millisUntilLost)
  })

  it("of a slot that may not be idle for long is the sooner of the two ends", () => {
    const idle = (second: number) => ({ ...safe(second), idleMillis: second * 1000, idleTimeoutMillis: 300_000 })
    assert.strictEqual(ahead(over(120, (second) => ({ end: second }), idle)).millisUntilLost, 180_000)
    const soon = (second: number) => ({ ...idle(second), safeBytes: 5 * mega })
    assert.strictEqual(ahead(over(120, (second) => ({ end: second }), soon)).millisUntilLost, 5_000)
  })

  it("of a lost slot is none: it has come", () => {
    const lost = over(
      120,
      (second) => ({ end: second }),
      () => ({ walStatus: "lost", safeBytes: undefined, freeBytes: 1 })
    )
    assert.isUndefined(ahead(lost).millisUntilLost)
    assert.isUndefined(ahead(lost).millisUntilDiskFull)
  })
})
