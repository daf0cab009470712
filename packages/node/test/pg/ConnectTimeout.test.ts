import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Redacted } from "effect"
import { TestClock } from "effect/testing"
import * as ConnectTimeout from "../../src/pg/ConnectTimeout.ts"
import { connect, fakeServer, scram, secret } from "../support/FakeServer.ts"

const make = () => ConnectTimeout.make({ connectTimeout: Duration.seconds(10), host: "::1", port: 5433 })

/** Blocks this thread, as a long collection of garbage does, or a laptop's lid. */
const block = (millis: number): void => {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, millis)
}

describe("ConnectTimeout", () => {
  it.effect("[N6] is one limit over all the steps it is put over, however it is cut", () =>
    Effect.gen(function* () {
      const inTime = make()
      for (const length of ["2500 millis", "1 millis", "3499 millis"] as const) {
        const step = yield* Effect.forkChild(inTime(Effect.as(Effect.sleep(length), "done")), {
          startImmediately: true
        })
        yield* TestClock.adjust(length)
        assert.strictEqual(yield* Fiber.join(step), "done")
      }
      yield* TestClock.adjust("1 hour")
      const last = yield* Effect.forkChild(Effect.flip(inTime(Effect.never)), { startImmediately: true })
      yield* TestClock.adjust("3999 millis")
      assert.isUndefined(last.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const error = yield* Fiber.join(last)
      assert.deepInclude(error, { _tag: "ConnectionError", reason: "TimedOut", isRetryable: true })
      assert.include(error.message, "[::1]:5433")
    })
  )

  it.effect("[N6] interrupts what takes too long, and lets failures through", () =>
    Effect.gen(function* () {
      let interrupted = false
      const stuck = Effect.onInterrupt(Effect.never, () =>
        Effect.sync(() => {
          interrupted = true
        })
      )
      const step = yield* Effect.forkChild(Effect.exit(make()(stuck)), { startImmediately: true })
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(step)
      assert.isTrue(interrupted)
      assert.strictEqual(yield* Effect.flip(make()(Effect.fail("no"))), "no")
    })
  )

  it.effect("[N6] is no limit where there is none", () =>
    Effect.gen(function* () {
      const inTime = ConnectTimeout.make({ connectTimeout: undefined, host: "db", port: 5432 })
      const step = yield* Effect.forkChild(inTime(Effect.never), { startImmediately: true })
      yield* TestClock.adjust("1 day")
      assert.isUndefined(step.pollUnsafe())
      yield* Fiber.interrupt(step)
    })
  )

  it.live("[C10, N6] does not take our own absence for the peer's silence", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer(scram({ password: secret }))
      // Not at once: by then the clock of the limit runs.
      const blocking = Effect.sleep("20 millis").pipe(
        Effect.map(() => {
          block(1500)
          return Redacted.make(secret)
        })
      )
      const connection = yield* connect(server.port, { password: blocking, connectTimeout: "500 millis" })
      assert.strictEqual(connection.serverVersion, 180_004)
    })
  )

  it.live("[C10, N6] still gives up on a peer that is silent after it", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer([])
      const blocking = Effect.sleep("20 millis").pipe(
        Effect.map(() => {
          block(1000)
          return Redacted.make(secret)
        })
      )
      const options = { password: blocking, connectTimeout: "200 millis" } as const
      const error = yield* Effect.flip(connect(server.port, options)).pipe(Effect.timeout("3 seconds"))
      assert.deepInclude(error, { _tag: "ConnectionError", reason: "TimedOut" })
    })
  )
})
