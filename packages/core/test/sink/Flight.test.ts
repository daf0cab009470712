/** Messages on their way into an engine: what is told of them, and when it is given up. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/testing/TestClock"
import type { NextLsn } from "../../src/change/NextLsn.ts"
import { SinkRejected } from "../../src/sink/SinkError.ts"
import { type Append, MemoryEngine } from "../../src/sink/SinkMemory.ts"
import { item, Transactions } from "../handling/delivering.ts"
import { endOf, keysOf, lsns, sinking, system, turns } from "./sinking.ts"

/** An engine that takes no row of the key 2, be it told otherwise. */
class Picky extends MemoryEngine {
  protected override admit(append: Append) {
    const rejected = append.batch.find(({ key }) => key === '["2"]')
    return rejected === undefined
      ? super.admit(append)
      : new SinkRejected({ sink: "picky", id: rejected.id, detail: "too large" })
  }
}

describe("Flight", () => {
  it.effect("fails when what stands in the place of a rejected message is rejected as well", () =>
    Effect.gen(function* () {
      let asked = 0
      const { acknowledged, failures, give, keys } = yield* sinking(new Picky(), {
        batch: { messages: 1 },
        onRejected: (message) => {
          asked++
          return { ...message, value: "dropped" }
        }
      })
      yield* give(new Transactions().of(item(1), item(2), item(3)))
      for (let round = 0; round < 20; round++) yield* Effect.andThen(turns, TestClock.adjust("1 minute"))
      assert.deepStrictEqual([asked, failures.length, yield* keys], [1, 1, keysOf(1, 1)])
      assert.deepInclude(failures[0], { _tag: "SinkRejected", id: "0000000000000100-00000001" })
      assert.lengthOf(acknowledged, 0)
    })
  )

  it.effect("tells again what is durable where the telling was cut off, though nothing comes any more", () =>
    Effect.gen(function* () {
      const engine = new MemoryEngine()
      const told: Array<NextLsn> = []
      let asked = 0
      // The first one never ends.
      const acknowledgeThrough = (unit: NextLsn) =>
        Effect.suspend(() => (asked++ === 0 ? Effect.never : Effect.sync(() => void told.push(unit))))
      const { failures, give, keys } = yield* sinking(
        engine,
        { batch: { messages: 1 } },
        { system, acknowledgeThrough }
      )
      const of = new Transactions()
      const [first, second] = [of.of(item(1)), of.of(item(2))]
      yield* give(first)
      yield* turns
      yield* engine.setFull(true)
      yield* give(second)
      yield* turns
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(lsns(told), [endOf(first)])
      yield* engine.setFull(false)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual([yield* keys, failures], [keysOf(1, 2), []])
    })
  )
})
