import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import { ConnectionError } from "../../src/ReplicationError.ts"
import { awaitPromotion } from "../../src/replication/Promotion.ts"
import { type QueryRow, WalSender } from "../../src/server/WalSender.ts"

/** A server that answers so, each time that it is asked. */
const watched = Effect.fnUntraced(function* (answer: (count: number) => Effect.Effect<QueryRow, ConnectionError>) {
  let count = 0
  const openSession = Effect.succeed({
    serverVersion: 180_000,
    query: () => Effect.map(answer(++count), (row) => [row])
  })
  const sender = WalSender.of({ connect: Effect.die("a walsender is not to be taken for it"), openSession })
  const fiber = yield* Effect.forkChild(
    Effect.provideService(awaitPromotion("100", "5 seconds"), WalSender, sender) as Effect.Effect<
      never,
      ConnectionError
    >,
    { startImmediately: true }
  )
  return { fiber, asked: () => count }
})

const row = (server_start: string, in_recovery: string): QueryRow => ({ server_start, in_recovery })

describe("a standby that is followed", () => {
  it.effect("[V7] is asked every ten seconds, and fails the stream once it is promoted, which is tried again", () =>
    Effect.gen(function* () {
      const { asked, fiber } = yield* watched((count) => Effect.succeed(row("100", count < 3 ? "t" : "f")))
      yield* TestClock.adjust("9 seconds")
      assert.strictEqual(asked(), 0)
      yield* TestClock.adjust("11 seconds")
      assert.strictEqual(asked(), 2)
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("10 seconds")
      const error = yield* Effect.flip(Fiber.join(fiber))
      assert.isTrue(error.isRetryable)
      assert.match(error.message, /promoted/)
    })
  )

  it.effect("[V7] is not taken for promoted by the word of another server, nor where nobody answers", () =>
    Effect.gen(function* () {
      const lost = Effect.fail(new ConnectionError({ reason: "Refused", detail: "" }))
      const { asked, fiber } = yield* watched((count) => (count % 2 === 0 ? Effect.succeed(row("200", "f")) : lost))
      yield* TestClock.adjust("60 seconds")
      assert.strictEqual(asked(), 6)
      assert.isUndefined(fiber.pollUnsafe())
      yield* Fiber.interrupt(fiber)
    })
  )
})
