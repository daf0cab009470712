import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { ChunkPace } from "../../src/rereading/ChunkPace.ts"

/** Chunks of a table whose rows take so long and weigh so much, one after the other. */
const read = Effect.fnUntraced(function* (
  pace: ChunkPace,
  chunks: number,
  { bytes, millis }: { readonly bytes: number; readonly millis: number }
) {
  const sizes: Array<number> = []
  for (let index = 0; index < chunks; index++) {
    const { rows } = pace
    sizes.push(rows)
    const chunk = Effect.as(TestClock.adjust(`${rows * millis} millis`), { rows, bytes: rows * bytes })
    yield* pace.measure(chunk)
  }
  return sizes
})

describe("ChunkPace", () => {
  it.effect("doubles from a thousand rows while chunks are done sooner than asked", () =>
    Effect.gen(function* () {
      const sizes = yield* read(new ChunkPace({ rows: 20_000 }), 7, { bytes: 1, millis: 0.001 })
      assert.deepStrictEqual(sizes, [1000, 2000, 4000, 8000, 16_000, 20_000, 20_000])
    })
  )

  it.effect("settles where a chunk takes the time that is asked for", () =>
    Effect.gen(function* () {
      const sizes = yield* read(new ChunkPace({ duration: "1 second" }), 5, { bytes: 1, millis: 4 })
      assert.deepStrictEqual(sizes, [1000, 250, 250, 250, 250])
    })
  )

  it.effect("settles where a chunk has the size that is asked for, and comes down to a quarter at a time", () =>
    Effect.gen(function* () {
      const sizes = yield* read(new ChunkPace({ bytes: 1_000_000 }), 6, { bytes: 100_000, millis: 0.001 })
      assert.deepStrictEqual(sizes, [1000, 250, 62, 15, 10, 10])
    })
  )

  it.effect("never has less than one row", () =>
    Effect.gen(function* () {
      const sizes = yield* read(new ChunkPace({ bytes: 10, rows: 2 }), 4, { bytes: 1_000_000, millis: 1 })
      assert.deepStrictEqual(sizes, [2, 1, 1, 1])
    })
  )

  it("learns nothing from a chunk without rows, and shrinks when one was in vain", () => {
    const pace = new ChunkPace()
    pace.learn({ rows: 0, bytes: 0, millis: 10 })
    assert.strictEqual(pace.rows, 1000)
    pace.shrink()
    assert.strictEqual(pace.rows, 250)
  })
})
