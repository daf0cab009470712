/** What docs/testing.md says of `@replicant/core/testing`, held against it. */
import * as Fs from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { TestWalSender } from "../../src/testing/index.ts"

const read = (path: string) => Fs.readFileSync(new URL(`../../../../${path}`, import.meta.url), "utf8")

describe("docs/testing.md", () => {
  it("shows the example that runs, to the letter", () => {
    const blocks = [...read("docs/testing.md").matchAll(/^```ts\n([\s\S]*?)^```/gm)].map((match) => match[1])
    assert.include(blocks, read("packages/core/test/testing/Example.test.ts"))
  })

  it.effect("names every control there is, and no other", () =>
    Effect.gen(function* () {
      const named = new Set([...read("docs/testing.md").matchAll(/\bserver\.(\w+)/g)].map((match) => match[1]))
      assert.sameMembers([...named], Object.keys(yield* TestWalSender))
    }).pipe(Effect.provide(TestWalSender.layer({ slot: "s" })))
  )
})
