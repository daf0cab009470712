import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber } from "effect"
import { ReadsAhead } from "../../src/replication/ReadsAhead.ts"

const fork = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkChild(effect, { startImmediately: true })

describe("ReadsAhead", () => {
  it.effect("has room for one: who offers a second waits until the first is taken", () =>
    Effect.gen(function* () {
      const reads = new ReadsAhead<number, never>()
      yield* reads.offer(1)
      const second = yield* fork(reads.offer(2))
      assert.isUndefined(second.pollUnsafe())
      assert.strictEqual(yield* reads.take, 1)
      assert.isDefined(second.pollUnsafe())
      assert.strictEqual(yield* reads.take, 2)
    })
  )

  it.effect("resumes who waits within the step that ends the waiting", () =>
    Effect.gen(function* () {
      const reads = new ReadsAhead<number, never>()
      const taking = yield* fork(reads.take)
      assert.isUndefined(taking.pollUnsafe())
      yield* reads.offer(1)
      assert.deepStrictEqual(taking.pollUnsafe(), Exit.succeed(1))
    })
  )

  it.effect("keeps a value for the next who takes where the one who waited was interrupted", () =>
    Effect.gen(function* () {
      const reads = new ReadsAhead<number, never>()
      const taking = yield* fork(reads.take)
      yield* Fiber.interrupt(taking)
      yield* reads.offer(1)
      assert.strictEqual(yield* reads.take, 1)
    })
  )

  it.effect("holds nothing of an offer that was interrupted while it waited", () =>
    Effect.gen(function* () {
      const reads = new ReadsAhead<number, string>()
      yield* reads.offer(1)
      yield* Fiber.interrupt(yield* fork(reads.offer(2)))
      assert.strictEqual(yield* reads.take, 1)
      assert.isDefined((yield* fork(reads.offer(3))).pollUnsafe(), "there is room")
      assert.strictEqual(yield* reads.take, 3)
      yield* reads.fail(Cause.fail("over"))
      assert.strictEqual(yield* Effect.flip(reads.take), "over")
    })
  )

  it.effect("lets go who waits for room when it fails, and takes nothing of what they offered", () =>
    Effect.gen(function* () {
      const reads = new ReadsAhead<number, string>()
      yield* reads.offer(1)
      const offering = yield* fork(reads.offer(2))
      yield* reads.fail(Cause.fail("over"))
      assert.isDefined(offering.pollUnsafe())
      assert.strictEqual(yield* reads.take, 1)
      assert.strictEqual(yield* Effect.flip(reads.take), "over")
    })
  )

  it.effect("ends once: what it failed with first is what everybody is told", () =>
    Effect.gen(function* () {
      const reads = new ReadsAhead<number, string>()
      yield* reads.fail(Cause.fail("first"))
      yield* reads.fail(Cause.fail("second"))
      assert.strictEqual(yield* Effect.flip(reads.take), "first")
    })
  )

  it.effect("fails who waits, and everybody after what is held", () =>
    Effect.gen(function* () {
      const reads = new ReadsAhead<number, string>()
      const taking = yield* fork(Effect.flip(reads.take))
      yield* reads.fail(Cause.fail("over"))
      assert.strictEqual(yield* Fiber.join(taking), "over")
      assert.strictEqual(yield* Effect.flip(reads.take), "over")
      // Nobody waits with an offer for room that will never be.
      yield* reads.offer(1)
      yield* reads.offer(2)
      assert.strictEqual(yield* Effect.flip(reads.take), "over")
    })
  )

  it.effect("when it is shut, interrupts who takes, drops what is held, and lets go who offers", () =>
    Effect.gen(function* () {
      const reads = new ReadsAhead<number, never>()
      yield* reads.offer(1)
      const offering = yield* fork(reads.offer(2))
      yield* reads.shutdown
      yield* Fiber.join(offering)
      const exit = yield* Effect.exit(reads.take)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterrupts(exit.cause))
    })
  )

  it.live("hands over a hundred thousand in order, whoever is the slower", () =>
    Effect.gen(function* () {
      const reads = new ReadsAhead<number, never>()
      const count = 100_000
      const producer = yield* fork(
        Effect.gen(function* () {
          for (let value = 0; value < count; value++) {
            if (value % 5000 === 0) yield* Effect.sleep(1)
            yield* reads.offer(value)
          }
        })
      )
      for (let value = 0; value < count; value++) {
        if (value % 7000 === 0) yield* Effect.sleep(1)
        assert.strictEqual(yield* reads.take, value)
      }
      yield* Fiber.join(producer)
    })
  )
})
