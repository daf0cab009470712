/** What a session of ours is set to before it is asked anything. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { pinSession } from "../../src/server/Catalog.ts"

const asked = Effect.fnUntraced(function* (serverVersion: number) {
  const texts: Array<string> = []
  yield* pinSession({
    serverVersion,
    query: (text) =>
      Effect.sync(() => {
        texts.push(text)
        return []
      })
  })
  return texts
})

describe("a session that is pinned", () => {
  it.effect("takes one question, whatever it sets", () =>
    Effect.gen(function* () {
      assert.lengthOf(yield* asked(140_000), 1)
    })
  )

  it.effect("compiles nothing: PostgreSQL takes seconds to compile what it answers in milliseconds", () =>
    Effect.gen(function* () {
      assert.include((yield* asked(140_000))[0], "SET jit = off")
    })
  )

  it.effect("is set to what its version knows", () =>
    Effect.gen(function* () {
      assert.notInclude((yield* asked(160_000))[0], "SET transaction_timeout")
      assert.include((yield* asked(170_000))[0], "SET transaction_timeout = 0")
    })
  )
})
