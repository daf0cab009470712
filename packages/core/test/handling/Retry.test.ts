/** Retries and dead letters: an outage parks nothing, and what is parked counts only once it is stored. */
import { assert, describe, it } from "@effect/vitest"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as TestClock from "effect/testing/TestClock"
import { type Change, type Insert, nextLsn } from "../../src/change/Change.ts"
import { changeId } from "../../src/change/ChangeId.ts"
import * as DeadLetters from "../../src/handling/DeadLetters.ts"
import * as Handler from "../../src/handling/Handler.ts"
import * as shop from "../table/shop.ts"
import { connect, item, moved, rowOf, Transactions } from "./delivering.ts"

class Poison extends Data.TaggedError("Poison")<{ readonly message: string }> {}
class Down extends Data.TaggedError("Down") {}

const turns = Effect.forEach(Array.from({ length: 50 }), () => Effect.yieldNow, { discard: true })
const isPoison = (error: Poison | Down) => error._tag === "Poison"
const poisonOf = (...ids: ReadonlyArray<unknown>) => {
  const handled: Array<unknown> = []
  const handle = (change: { readonly _tag: string }) =>
    Effect.suspend(() => {
      const id = change._tag === "Truncate" ? "Truncate" : rowOf(change)?.id
      if (ids.includes(id)) return Effect.fail<Poison | Down>(new Poison({ message: "secret" }))
      handled.push(id)
      return Effect.void
    })
  return { handled, handle }
}

describe("Handler.retry", () => {
  it.effect("tries again by its schedule, and fails with the last error when that ends", () =>
    Effect.gen(function* () {
      let attempts = 0
      const handle = Handler.retry<Down>(Schedule.recurs(3))(() => {
        attempts++
        return attempts === 3 || attempts > 4 ? Effect.fail(new Down()) : attempts === 4 ? Effect.void : new Down()
      })
      yield* handle()
      assert.strictEqual(attempts, 4)
      assert.strictEqual((yield* Effect.flip(handle()))._tag, "Down")
      assert.strictEqual(attempts, 8)
    })
  )
})

describe("Handler.park", () => {
  it.effect("parks a change that fails for good, with its place, its cause and how often it was tried", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const transaction = new Transactions().of(item(1), item(2), item(3))
        const { handle, handled } = poisonOf(2)
        const parking = Handler.park({ isPoison, schedule: Schedule.recurs(2) }, handle)
        const { acknowledged, give } = yield* connect(
          Handler.byKey<Change, unknown, DeadLetters.DeadLetters>({ concurrency: 1 }, parking)
        )
        yield* give(transaction)
        yield* turns
        assert.deepStrictEqual(handled, [1, 3])
        const letters = yield* Effect.flatMap(DeadLetters.DeadLetters, ({ list }) => list)
        assert.deepStrictEqual(
          letters.map(({ keys, ...letter }) => letter),
          [
            {
              slot: "",
              id: changeId(transaction[2] as Insert),
              state: "failed",
              kind: "Insert",
              table: '["public","items"]',
              cause: { tag: "Poison", message: "secret" },
              attempts: 3,
              firstAt: 0,
              lastAt: 0
            }
          ]
        )
        const found = yield* Effect.flatMap(DeadLetters.DeadLetters, ({ find }) => find(letters[0]!))
        assert.deepStrictEqual(found?.change, transaction[2])
        assert.deepStrictEqual(acknowledged, [nextLsn(transaction.at(-1)!)])
      })
    ).pipe(Effect.provide(DeadLetters.memory))
  )

  it.effect("parks later changes of the same row behind it, untried and across a move, until they are cleared", () =>
    Effect.gen(function* () {
      const { handle, handled } = poisonOf(1)
      const parking = Handler.park<Change, void, Poison | Down>({ isPoison }, handle)
      const changes = new Transactions().of(item(1), item(2), item(1), moved(1, 4), item(4), item(5)).slice(1, -1)
      for (const change of changes) yield* parking(change)
      assert.deepStrictEqual(handled, [2, 5])
      const letters = yield* DeadLetters.DeadLetters
      const causes = (yield* letters.list).map(({ attempts, cause }) => [cause.tag, attempts])
      assert.deepStrictEqual(causes, [
        ["Poison", 1],
        ["Follows", 0],
        ["Follows", 0],
        ["Follows", 0]
      ])
      // A change that comes again takes its letter's place.
      yield* parking(changes[0]!)
      assert.lengthOf(yield* letters.list, 4)
      yield* letters.clear()
      yield* parking(changes[4]!)
      assert.deepStrictEqual(handled, [2, 5, 4])
    }).pipe(Effect.provide(DeadLetters.memory))
  )

  it.effect("retries an outage in place, parks nothing, and acknowledges nothing meanwhile", () =>
    Effect.scoped(
      Effect.gen(function* () {
        let [isDown, attempts] = [true, 0]
        const parking = Handler.park<Change, void, Poison | Down>({ isPoison }, () =>
          Effect.suspend(() => {
            attempts++
            return isDown ? new Down() : Effect.void
          })
        )
        const { acknowledged, give } = yield* connect(
          Handler.byKey<Change, unknown, DeadLetters.DeadLetters>({ concurrency: 1 }, parking)
        )
        const transaction = new Transactions().of(item(1))
        yield* give(transaction)
        for (let minute = 0; minute < 10; minute++) yield* TestClock.adjust("1 minute")
        assert.isAtLeast(attempts, 30)
        assert.deepStrictEqual(acknowledged, [])
        const letters = yield* DeadLetters.DeadLetters
        assert.deepStrictEqual(yield* letters.list, [])
        isDown = false
        yield* TestClock.adjust("1 minute")
        yield* turns
        assert.deepStrictEqual(acknowledged, [nextLsn(transaction.at(-1)!)])
        assert.deepStrictEqual(yield* letters.list, [])
      })
    ).pipe(Effect.provide(DeadLetters.memory))
  )

  it.effect("counts a change as handled only once its letter is stored", () =>
    Effect.gen(function* () {
      const stored = yield* Deferred.make<void>()
      let asked = 0
      const kept = yield* DeadLetters.DeadLetters
      const slow = DeadLetters.DeadLetters.of({
        ...kept,
        park: () =>
          Effect.suspend(() =>
            asked++ === 0
              ? Effect.fail(new DeadLetters.DeadLettersError({ during: "park", problem: "no room" }))
              : Deferred.await(stored)
          )
      })
      yield* Effect.gen(function* () {
        const transaction = new Transactions().of(item(1))
        const parking = Handler.park<Change, void, Poison | Down>({ isPoison }, poisonOf(1).handle)
        const { acknowledged, give } = yield* connect(
          Handler.byKey<Change, unknown, DeadLetters.DeadLetters>({ concurrency: 1 }, parking)
        )
        yield* give(transaction)
        yield* TestClock.adjust("1 second")
        yield* turns
        assert.deepStrictEqual([asked, acknowledged.length], [2, 0])
        yield* Deferred.succeed(stored, undefined)
        yield* turns
        assert.lengthOf(acknowledged, 1)
      }).pipe(Effect.scoped, Effect.provideService(DeadLetters.DeadLetters, slow))
    }).pipe(Effect.provide(DeadLetters.memory))
  )

  it.effect("fails the stream with what is poison and of no row", () =>
    Effect.gen(function* () {
      const parking = Handler.park<Change, void, Poison | Down>({ isPoison }, poisonOf("Truncate").handle)
      assert.strictEqual((yield* Effect.flip(parking(shop.truncate(shop.orders))))._tag, "Poison")
    }).pipe(Effect.provide(DeadLetters.memory))
  )

  it.effect("gives the end of a message that is parked, which acknowledges it", () =>
    Effect.gen(function* () {
      const parking = Handler.park<Change, void, Poison | Down>({ isPoison }, () => new Poison({ message: "" }))
      assert.strictEqual(yield* parking(shop.message), nextLsn(shop.message))
      assert.lengthOf(yield* Effect.flatMap(DeadLetters.DeadLetters, ({ list }) => list), 1)
    }).pipe(Effect.provide(DeadLetters.memory))
  )

  it.effect("takes poison for an outage after too many letters, until what is held back is handled", () =>
    Effect.gen(function* () {
      let isDown = true
      const handled: Array<unknown> = []
      const breaker = { letters: 5, within: "1 minute" } as const
      const parking = Handler.park<Change, void, Poison | Down>({ isPoison, breaker }, (change) =>
        Effect.suspend(() => {
          // Every other change asks nobody, and proves nothing.
          if (isDown && (rowOf(change).id as number) % 2 === 0)
            return new Poison({ message: "an outage in its clothes" })
          handled.push(rowOf(change).id)
          return Effect.void
        })
      )
      const letters = yield* DeadLetters.DeadLetters
      const transactions = new Transactions()
      const changes = Array.from({ length: 1000 }, (_, id) => transactions.of(item(id))[1]!)
      const fiber = yield* Effect.forkChild(Effect.forEach(changes, parking, { discard: true, concurrency: 4 }))
      for (let minute = 0; minute < 60; minute++) yield* TestClock.adjust("1 minute")
      assert.isAtMost((yield* letters.list).length, 5 + 3)
      assert.isUndefined(fiber.pollUnsafe())
      isDown = false
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(fiber)
      assert.strictEqual(handled.length + (yield* letters.list).length, 1000)
    }).pipe(Effect.provide(DeadLetters.memory))
  )

  it.effect("goes on parking what is poison now and then, however often that is", () =>
    Effect.gen(function* () {
      const { handle, handled } = poisonOf(...Array.from({ length: 50 }, (_, index) => index * 2))
      const breaker = { letters: 5, within: "1 minute" } as const
      const parking = Handler.park<Change, void, Poison | Down>({ isPoison, breaker }, handle)
      const transactions = new Transactions()
      for (let id = 0; id < 100; id++) {
        yield* parking(transactions.of(item(id))[1]!)
        yield* TestClock.adjust("10 seconds")
      }
      const letters = yield* DeadLetters.DeadLetters
      assert.lengthOf(yield* letters.list, 50)
      assert.lengthOf(handled, 50)
    }).pipe(Effect.provide(DeadLetters.memory))
  )
})
