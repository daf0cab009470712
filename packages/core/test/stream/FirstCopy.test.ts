/** What a first copy shares with what is requested of its stream: the store. */
import { assert, describe, it } from "@effect/vitest"
import { CheckpointStore, Pgoutput } from "@replicant/core"
import { Effect, Option } from "effect"
import { checkpointKey } from "../../src/copying/CopyCheckpoint.ts"
import { type FirstCopy, storeOfRequests } from "../../src/stream/FirstCopy.ts"

type Store = CheckpointStore.CheckpointStore["Service"]

const slot = "shop"
const ofCopy = checkpointKey(slot)
const ofRequests = `tables/${slot}`

/** The store of a copy as its requests have it. */
const seenOf = (store: Store): Store => {
  const copy: Partial<FirstCopy> = { options: { slot, plugin: Pgoutput.make({ publications: ["orders"] }) }, store }
  return storeOfRequests(copy as FirstCopy)!
}

/** What is kept of a copy after requests have done that to a store. */
const keptAfter = (store: Store, use: (requests: Store) => Effect.Effect<unknown, CheckpointStore.CheckpointError>) =>
  Effect.gen(function* () {
    yield* store.save(ofCopy, "of the copy")
    yield* use(seenOf(store))
    return yield* store.load(ofCopy)
  })

const uses: ReadonlyArray<[name: string, use: Parameters<typeof keptAfter>[1]]> = [
  ["saved", (store) => store.save(ofRequests, "of requests")],
  ["removed", (store) => store.remove(ofRequests)],
  ["saved and removed", (store) => Effect.andThen(store.save(ofRequests, "of requests"), store.remove(ofRequests))]
]

/** A store that keeps one text, whatever the key. */
const oneText = (): Store => {
  let kept: string | undefined
  return {
    load: () => Effect.sync(() => Option.fromUndefinedOr(kept)),
    save: (_, text) =>
      Effect.sync(() => {
        kept = text
      }),
    remove: () =>
      Effect.sync(() => {
        kept = undefined
      })
  }
}

describe("a store of a copy and of what is requested", () => {
  for (const [name, use] of uses) {
    it.effect(`that keeps one text whatever the key keeps the copy's, when requests are ${name}`, () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* keptAfter(oneText(), use), Option.some("of the copy"))
      })
    )

    it.effect(`that keeps texts by key keeps the copy's, when requests are ${name}`, () =>
      Effect.gen(function* () {
        const store = yield* CheckpointStore.CheckpointStore
        assert.deepStrictEqual(yield* keptAfter(store, use), Option.some("of the copy"))
      }).pipe(Effect.provide(CheckpointStore.memory))
    )
  }

  it.effect("gives requests nothing of the copy's, and what they have saved by key", () =>
    Effect.gen(function* () {
      const one = oneText()
      yield* one.save(ofCopy, "of the copy")
      assert.deepStrictEqual(yield* seenOf(one).load(ofRequests), Option.none())
      const requests = seenOf(yield* CheckpointStore.CheckpointStore)
      yield* requests.save(ofRequests, "of requests")
      assert.deepStrictEqual(yield* requests.load(ofRequests), Option.some("of requests"))
      yield* requests.remove(ofRequests)
      assert.deepStrictEqual(yield* requests.load(ofRequests), Option.none())
    }).pipe(Effect.provide(CheckpointStore.memory))
  )
})
