/** How a stream is, by what was observed of it: the one function that judges. */
import { assert, describe, it } from "@effect/vitest"
import * as Lsn from "../../src/Lsn.ts"
import * as Health from "../../src/stream/Health.ts"
import type { Observation } from "../../src/stream/Observation.ts"

/** A stream of which nothing is wrong, but for what a test says. */
const observed = (now: Partial<Observation>): Observation => ({
  slot: "orders",
  at: 1_000_000_000_000,
  state: "Streaming",
  stateSeconds: 60,
  hasEnded: false,
  received: Lsn.zero,
  handled: Lsn.zero,
  acknowledged: Lsn.zero,
  flushed: Lsn.zero,
  confirmed: Lsn.zero,
  serverUnknownSeconds: 0,
  lagSeconds: 0,
  pending: 0,
  attempts: 0,
  spillBytes: 0,
  ...now
})

const codes = (now: Partial<Observation>) => Health.of(observed(now)).reasons.map(({ code }) => code)

describe("a stream whose attempts fail at one position", () => {
  const lastFailure = { tag: "ConnectionError", message: "the peer broke the connection", agoSeconds: 5 }

  it("does not get on, for as long as it has not held", () => {
    assert.deepStrictEqual(codes({ attempts: 12, lastFailure, stateSeconds: 5 }), ["NotGettingOn"])
    assert.strictEqual(Health.of(observed({ attempts: 12, lastFailure, stateSeconds: 5 })).status, "failing")
  })

  it("does not get on while commits wait that it has not come past", () => {
    assert.include(codes({ attempts: 3, lastFailure, stateSeconds: 300, lagSeconds: 300 }), "NotGettingOn")
    assert.include(codes({ attempts: 3, lastFailure, state: "Reconnecting", stateSeconds: 31 }), "NotGettingOn")
  })

  it("is well again once a connection holds and all is done, though no position could move", () => {
    assert.deepStrictEqual(codes({ attempts: 12, lastFailure, stateSeconds: 30 }), [])
  })
})
