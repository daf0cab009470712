/** How long `replicant lag` looks, and what it says when that is not long. */
import { assert, describe, it } from "@effect/vitest"
import { WalSender } from "@replicant/core/driver"
import { insert, relation, TestWalSender, tx } from "@replicant/core/testing"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { lookFor } from "../../src/cli/LagCommand.ts"

const orders = relation("public.orders", { columns: { id: "int" }, key: ["id"] })
/** A server that never answers. */
const silent = { connect: Effect.never, openSession: Effect.never }
const server = TestWalSender.layer({ slot: "orders", publications: ["orders"] })

/** Lets every fiber run as far as it can without time passing. */
const settle = Effect.forEach(Array.from({ length: 100 }), () => Effect.yieldNow)

describe("a look for a time", () => {
  it.effect("that is given less than all looks take tells what the looks before its end have seen", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      yield* test.write(tx(insert(orders, { id: 1 })))
      const looking = yield* Effect.forkChild(lookFor("orders", "time", 1200))
      for (let at = 0; at < 12; at++) yield* Effect.andThen(settle, TestClock.adjust("100 millis"))
      const { lagBytes = 0, lagIsLonger, lagMillis } = yield* Fiber.join(looking)
      assert.isAbove(lagBytes, 0)
      // Looked at three times, half a second apart; nobody knows since when before that.
      assert.deepStrictEqual({ lagIsLonger, lagMillis }, { lagIsLonger: true, lagMillis: 1000 })
    }).pipe(Effect.provide(server))
  )

  it.effect("that has seen nothing by then says how long it has waited", () =>
    Effect.gen(function* () {
      const looking = yield* Effect.forkChild(Effect.flip(lookFor("orders", "bytes", 1200)))
      yield* Effect.andThen(settle, TestClock.adjust("1200 millis"))
      const failure = yield* Fiber.join(looking)
      assert.strictEqual(failure._tag, "LookFailed")
      assert.strictEqual(failure.message, "the server has not answered within 1200 ms")
    }).pipe(Effect.provideService(WalSender, silent))
  )
})
