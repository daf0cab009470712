import { assert, describe, it } from "@effect/vitest"
import {
  askTimeout,
  grace,
  type KeepAliveState,
  keepAliveTiming,
  minReplyInterval,
  slowestLook
} from "../../src/replication/KeepAlive.ts"

const timings = { statusInterval: 10_000, acknowledgeDelay: 1000, receiverTimeout: 30_000, answerTimeout: 60_000 }

const quiet: KeepAliveState = {
  now: 100_000,
  lastSent: 100_000,
  isDemanded: false,
  hasAdvanced: false,
  stirredAt: 100_000,
  quietSince: undefined,
  lastPing: undefined,
  late: 0,
  inquiry: undefined
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

  it("[C16] looks at once for what is to be reported at once, and ten times a second where nothing happens", () => {
    const atOnce = { ...timings, acknowledgeDelay: 0 }
    assert.deepStrictEqual(keepAliveTiming(quiet, atOnce), { _tag: "Wait", millis: 1 })
    assert.deepStrictEqual(keepAliveTiming({ ...quiet, now: 100_080 }, atOnce), { _tag: "Wait", millis: 10 })
    assert.deepStrictEqual(keepAliveTiming({ ...quiet, now: 109_000 }, atOnce), { _tag: "Wait", millis: slowestLook })
    const advanced = { ...quiet, hasAdvanced: true, now: 100_001 }
    assert.deepStrictEqual(keepAliveTiming(advanced, atOnce), { _tag: "Report" })
  })

  it("reports unasked at every interval, also without any progress", () => {
    assert.deepStrictEqual(keepAliveTiming({ ...quiet, now: 110_000 }, timings), { _tag: "Report" })
    assert.deepStrictEqual(keepAliveTiming({ ...quiet, now: 109_999 }, timings), { _tag: "Wait", millis: 1 })
  })

  it("asks for a reply at half of the receiver's timeout", () => {
    const reading = { ...quiet, quietSince: 85_000, lastSent: 99_000 }
    assert.deepStrictEqual(keepAliveTiming(reading, timings), { _tag: "Ping" })
  })

  it("takes a ping from the moment that reading began for one before it", () => {
    const began = { ...quiet, lastPing: 85_000, quietSince: 85_000, lastSent: 99_000 }
    assert.deepStrictEqual(keepAliveTiming(began, timings), { _tag: "Ping" })
  })

  it("wakes for the ping, and to see that reading has begun, where nothing else is to be done", () => {
    const rarely = { ...timings, statusInterval: 0, acknowledgeDelay: 60_000 }
    const advanced = { ...quiet, hasAdvanced: true }
    const reading = keepAliveTiming({ ...advanced, quietSince: 90_000 }, rarely)
    assert.deepStrictEqual(reading, { _tag: "Wait", millis: 5000 })
    assert.deepStrictEqual(keepAliveTiming(advanced, rarely), { _tag: "Wait", millis: 15_000 })
  })

  /** Its ping went unanswered for the other half of the time. */
  const unanswered = { ...quiet, quietSince: 75_000, lastPing: 90_000, lastSent: 104_000, now: 105_000 }

  it("asks what the walsender is doing only when its own ping went unanswered for the other half", () => {
    assert.deepStrictEqual(keepAliveTiming({ ...unanswered, now: 104_999 }, timings), { _tag: "Wait", millis: 1 })
    assert.deepStrictEqual(keepAliveTiming(unanswered, timings), { _tag: "Ask" })
  })

  it("gives nobody up while it is asking, and reports go on", () => {
    const asking = { ...unanswered, inquiry: { askedAt: 105_000 } }
    assert.strictEqual(keepAliveTiming({ ...asking, now: 113_999 }, timings)._tag, "Wait")
    assert.strictEqual(keepAliveTiming({ ...asking, now: 114_000 }, timings)._tag, "Report")
  })

  it("gives up at once who waits for us and has not answered, and who is gone", () => {
    for (const standing of ["Waiting", "Gone"] as const) {
      const answered = { ...unanswered, inquiry: { askedAt: 105_000, answer: { standing, at: 105_200 } } }
      const verdict = { _tag: "TimedOut", after: 30_000, standing } as const
      assert.deepStrictEqual(keepAliveTiming({ ...answered, now: 105_200 }, timings), verdict)
    }
  })

  it("[N13] waits for who is at work, however long, and asks again after as long a silence", () => {
    const inquiry = { askedAt: 900_000, answer: { standing: "Working", at: 900_100 } } as const
    const working = { ...unanswered, lastSent: 930_000, inquiry }
    assert.deepStrictEqual(keepAliveTiming({ ...working, now: 930_099 }, timings), { _tag: "Wait", millis: 1 })
    assert.deepStrictEqual(keepAliveTiming({ ...working, now: 930_100 }, timings), { _tag: "Ask" })
  })

  it("[N13] gives up without proof only once the ping went unanswered for as long as the server may take", () => {
    const unknown = (at: number) => ({ askedAt: at - 10, answer: { standing: "Unknown", at } }) as const
    const once = { ...unanswered, lastSent: 120_000, inquiry: unknown(115_000) }
    assert.strictEqual(keepAliveTiming({ ...once, now: 125_000 }, timings)._tag, "Wait")
    const again = { ...unanswered, lastSent: 149_000, inquiry: unknown(145_000) }
    assert.deepStrictEqual(keepAliveTiming({ ...again, now: 149_999 }, timings), { _tag: "Wait", millis: 1 })
    const verdict = { _tag: "TimedOut", after: 75_000, standing: "Unknown" } as const
    assert.deepStrictEqual(keepAliveTiming({ ...again, now: 150_000 }, timings), verdict)
  })

  it("takes no answer of an earlier silence for one of this", () => {
    const inquiry = { askedAt: 89_000, answer: { standing: "Waiting", at: 91_000 } } as const
    assert.deepStrictEqual(keepAliveTiming({ ...unanswered, inquiry }, timings), { _tag: "Ask" })
  })

  it("asks for as long as the walsender had to answer, between two seconds and ten", () => {
    const timeouts = [400, 8000, 30_000].map((receiverTimeout) => askTimeout({ receiverTimeout }))
    assert.deepStrictEqual(timeouts, [2000, 4000, 10_000])
  })

  it("[C10] takes no silence of its own making for the server's: woken late after its ping, it reads before it judges", () => {
    const slept = { ...quiet, quietSince: 60_000, lastPing: 75_000, now: 165_000, lastSent: 164_000 }
    const action = keepAliveTiming({ ...slept, late: 75_000 }, timings)
    assert.deepStrictEqual(action, { _tag: "Wait", millis: grace })
    assert.deepStrictEqual(keepAliveTiming({ ...slept, late: grace }, timings), { _tag: "Wait", millis: grace })
    assert.strictEqual(keepAliveTiming({ ...slept, late: grace - 1 }, timings)._tag, "Ask")
    assert.strictEqual(keepAliveTiming({ ...slept, now: 165_000 + grace, late: 1 }, timings)._tag, "Ask")
    // Likewise with the answer in hand.
    const inquiry = { askedAt: 100_000, answer: { standing: "Waiting", at: 100_200 } } as const
    const asked = keepAliveTiming({ ...slept, inquiry, late: 65_000 }, timings)
    assert.deepStrictEqual(asked, { _tag: "Wait", millis: grace })
    assert.strictEqual(keepAliveTiming({ ...slept, inquiry, late: 1 }, timings)._tag, "TimedOut")
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
    const off = { statusInterval: 0, acknowledgeDelay: 1000, receiverTimeout: 0, answerTimeout: 0 }
    assert.deepStrictEqual(keepAliveTiming({ ...quiet, now: 900_000, quietSince: 1 }, off), {
      _tag: "Wait",
      millis: 1000
    })
  })
})
