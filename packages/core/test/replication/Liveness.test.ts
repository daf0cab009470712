/** How long a dead peer goes unnoticed: measured on a clock that only the test moves. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { withLogicalStream } from "../../src/stream/LogicalStream.ts"
import * as FakeWalSender from "../support/FakeWalSender.ts"

const options = { slot: "orders", plugin: Pgoutput.make({ publications: ["orders"] }) }

/** Milliseconds from the first connection's silence to its end, to the next attempt. */
const detection = Effect.fnUntraced(function* (overrides: { readonly receiverTimeout?: number }) {
  const walSender = yield* FakeWalSender.make(() => ({ isDeaf: true }))
  const fiber = yield* withLogicalStream({ ...options, timing: overrides }, () => Effect.succeed(undefined)).pipe(
    Effect.provide(walSender.layer),
    Effect.forkChild
  )
  const first = yield* walSender.accept
  let waited = 0
  while (!first.isClosed && waited < 120_000) {
    yield* TestClock.adjust(10)
    waited += 10
  }
  const pings = first.statuses.filter((status) => status.replyRequested).length
  let reconnect = 0
  while (walSender.connections.length < 2 && reconnect < 10_000) {
    yield* TestClock.adjust(10)
    reconnect += 10
  }
  yield* Fiber.interrupt(fiber)
  return { waited, pings, reconnect }
})

describe("liveness", () => {
  it.effect(
    "[N3, N4] drops a silent peer within 30 s, after one ping of ours went unanswered, and connects again",
    () =>
      Effect.gen(function* () {
        const { pings, reconnect, waited } = yield* detection({})
        assert.strictEqual(pings, 1)
        assert.isAtMost(waited, 30_000)
        assert.isAtLeast(waited, 29_000)
        assert.isAtMost(reconnect, 250)
      })
  )

  it.effect("[N3] drops it within the limit that was set", () =>
    Effect.gen(function* () {
      for (const receiverTimeout of [400, 2000, 10_000]) {
        assert.isAtMost((yield* detection({ receiverTimeout })).waited, receiverTimeout)
      }
    })
  )
})
