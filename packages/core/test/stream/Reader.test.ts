import { assert, describe, it } from "@effect/vitest"
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Handler from "../../src/stream/Handler.ts"
import { type Reader, readStream } from "../../src/stream/Reader.ts"
import { taking } from "../support/taking.ts"

/** Tenfold what is even, nothing of what is odd, and a failure at a negative number. */
const makeReader = (): Reader<number, number, "negative"> => ({
  append: (numbers, out) => {
    for (const number of numbers) {
      if (number < 0) return "negative"
      if (number % 2 === 0) out.push(number * 10)
    }
    return undefined
  }
})

const streamOf = (arrays: ReadonlyArray<NonEmptyReadonlyArray<number>>) =>
  Stream.fromIterable(arrays).pipe(Stream.rechunk(1), Stream.flattenArray)

describe("readStream", () => {
  it.effect("keeps arrays whole, leaves out empty ones, and hands over what came before a failure", () =>
    Effect.gen(function* () {
      const arrays: Array<ReadonlyArray<number>> = []
      const error = yield* streamOf([[1, 2, 4], [3], [6, -1, 8], [10]]).pipe(
        readStream(makeReader),
        Stream.runForEachArray((numbers) => Effect.sync(() => arrays.push(numbers))),
        Effect.flip
      )
      assert.deepStrictEqual(arrays, [[20, 40], [60]])
      assert.strictEqual(error, "negative")
    })
  )

  it.effect("passes the failures of its source on, and reads with a reader of its own each run", () =>
    Effect.gen(function* () {
      let readers = 0
      const source = Stream.concat(streamOf([[2]]), Stream.fail("gone" as const)).pipe(
        readStream(() => {
          readers++
          return makeReader()
        })
      )
      for (const run of [1, 2]) {
        assert.strictEqual(yield* Effect.flip(Stream.runDrain(source)), "gone")
        assert.strictEqual(readers, run)
      }
    })
  )
})

describe("Handler.before", () => {
  it.effect("is not called where nothing is left, and fails after what came before a failure was handled", () =>
    Effect.gen(function* () {
      const seen: Array<ReadonlyArray<number>> = []
      const handle = yield* taking(
        Handler.before(
          makeReader,
          Handler.durable((numbers) => Effect.sync(() => seen.push(numbers)))
        )
      )
      yield* handle(1)
      assert.deepStrictEqual(seen, [])
      yield* handle(2)
      assert.strictEqual(yield* Effect.flip(handle(4, -1, 6)), "negative")
      assert.deepStrictEqual(seen, [[20], [40]])
    })
  )

  it.effect("fails as its handler does", () =>
    Effect.gen(function* () {
      const handle = yield* taking(
        Handler.before(
          makeReader,
          Handler.durable(() => Effect.fail("full" as const))
        )
      )
      assert.strictEqual(yield* Effect.flip(handle(2, -1)), "full")
    })
  )

  it.effect("hands over one at a time to a plain function", () =>
    Effect.gen(function* () {
      const seen: Array<number> = []
      const handle = yield* taking(
        Handler.before(makeReader, (number) =>
          Effect.sync(() => {
            seen.push(number)
            return undefined
          })
        )
      )
      yield* handle(1, 2, 4)
      assert.deepStrictEqual(seen, [20, 40])
      assert.strictEqual(yield* Effect.flip(handle(-1)), "negative")
    })
  )

  it.effect("reads with a reader of its own for each connection", () =>
    Effect.gen(function* () {
      let readers = 0
      const handler = Handler.before(
        () => {
          readers++
          return makeReader()
        },
        Handler.durable(() => Effect.void)
      )
      assert.strictEqual(readers, 0)
      yield* taking(handler)
      yield* taking(handler)
      assert.strictEqual(readers, 2)
    })
  )
})
