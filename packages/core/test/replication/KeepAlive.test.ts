import { assert, describe, it } from "@effect/vitest"
import { grace, type KeepAliveState, keepAliveTiming, minReplyInterval } from "../../src/replication/KeepAlive.ts"

const timings = { statusInterval: 10_000, acknowledgeDelay: 1000, receiverTimeout: 30_000 }

const quiet: KeepAliveState = {
  now: 100_000,
  lastSent: 100_000,
  isDemanded: false,
  hasAdvanced: false,
  quietSince: undefined,
  lastPing: undefined,
  late: 0
}

describe("keepAliveTiming", () => {
  it("answers a demand at once, and many demands ten times a second", () => {
    assert.deepStrictEqual(keepAliveTiming({ ...quiet, isDemanded: true, now: 100_100 }, timings), { _tag: "Report" })
    const action = keepAliveTiming({ ...quiet, isDemanded: true, now: 100_040 }, timings)
    assert.deepStrictEqual(action, { _tag: "Wait", millis: minReplyInterval - 40 })
  })

  it("gathers acknowledgements for as long as they may wait", () => {
    const advanced = { ...quiet, hasAdvanced: true }
    assert.deepStrictEqual(keepAliveTiming({ ...advanced, now: 100_400 }, timings), { _tag: "Wait", millis: 600 })
    assert.deepStrictEqual(keepAliveTiming({ ...advanced, now: 101_000 }, timings), { _tag: "Report" })
  })

  it("reports unasked at every interval, also without any progress", () => {
    assert.deepStrictEqual(keepAliveTiming({ ...quiet, now: 110_000 }, timings), { _tag: "Report" })
    assert.deepStrictEqual(keepAliveTiming({ ...quiet, now: 109_999 }, timings), { _tag: "Wait", millis: 1 })
  })

  it("asks for a reply at half of the receiver's timeout", () => {
    const reading = { ...quiet, quietSince: 85_000, lastSent: 99_000 }
    assert.deepStrictEqual(keepAliveTiming(reading, timings), { _tag: "Ping" })
  })

  it("gives up only when its own ping went unanswered for the other half", () => {
    const pinged = { ...quiet, quietSince: 60_000, lastPing: 90_000, lastSent: 99_000 }
    assert.strictEqual(keepAliveTiming({ ...pinged, now: 104_999 }, timings)._tag, "Wait")
    assert.strictEqual(keepAliveTiming({ ...pinged, now: 105_000 }, timings)._tag, "TimedOut")
  })

  it("[C10] takes no silence of its own making for the server's: woken late after its ping, it reads before it judges", () => {
    const slept = { ...quiet, quietSince: 60_000, lastPing: 75_000, now: 165_000, lastSent: 164_000 }
    const action = keepAliveTiming({ ...slept, late: 75_000 }, timings)
    assert.deepStrictEqual(action, { _tag: "Wait", millis: grace })
    assert.strictEqual(keepAliveTiming({ ...slept, now: 165_000 + grace, late: 1 }, timings)._tag, "TimedOut")
  })

  it("takes no silence of its own making for the server's: a late wake asks first", () => {
    const slept = { ...quiet, now: 1_000_000, quietSince: 60_000, lastSent: 60_000 }
    assert.strictEqual(keepAliveTiming(slept, timings)._tag, "Ping")
  })

  it("suspends the watch while nobody reads", () => {
    assert.strictEqual(keepAliveTiming({ ...quiet, now: 100_001, lastPing: 50_000 }, timings)._tag, "Wait")
  })

  it("counts a ping answered once bytes have come since", () => {
    const answered = { ...quiet, lastPing: 50_000, quietSince: 99_000, now: 100_500, lastSent: 100_000 }
    assert.strictEqual(keepAliveTiming(answered, timings)._tag, "Wait")
  })

  it("is without pings and without unasked reports when its times are 0", () => {
    const off = { statusInterval: 0, acknowledgeDelay: 1000, receiverTimeout: 0 }
    assert.deepStrictEqual(keepAliveTiming({ ...quiet, now: 900_000, quietSince: 1 }, off), {
      _tag: "Wait",
      millis: 1000
    })
  })
})
