/** What looks and keys make of what is shown. */
import { assert, describe, it } from "@effect/vitest"
import { ConnectionError } from "@replicant/core"
import { Result } from "effect"
import { chosen, initial, looked, ordered, pressed, type WatchModel } from "../../src/cli/WatchModel.ts"
import { budget, overview, slot } from "./slots.ts"

const closed = new ConnectionError({ reason: "Closed", detail: "the server went away" })

const slots = [
  slot({ name: "a", lagBytes: 5, confirmedPerSecond: 1, budget: { ...budget(), retainedBytes: 30 } }),
  slot({ name: "b", lagBytes: 50, confirmedPerSecond: 3, budget: { ...budget(), retainedBytes: 10 } }),
  slot({ name: "c", lagBytes: undefined }),
  slot({ name: "d", lagBytes: undefined, budget: budget("lost") })
]

const seen = looked(initial({ order: "lag", slot: undefined }), Result.succeed(overview({ slots })), 1000)

const press = (model: WatchModel, ...keys: ReadonlyArray<string>): WatchModel =>
  keys.reduce((before, key) => pressed(before, key)!, model)

describe("the order of slots", () => {
  for (const [by, names] of [
    ["lag", "dbac"],
    ["kept", "dabc"],
    ["rate", "dbac"],
    ["name", "abcd"]
  ] as const) {
    it(`by ${by} is ${names}`, () =>
      assert.strictEqual(
        ordered(slots, by)
          .map(({ name }) => name)
          .join(""),
        names
      ))
  }
})

describe("keys", () => {
  it("choose a slot by its name, which stays chosen where the order changes", () => {
    assert.strictEqual(chosen(seen)?.name, "d")
    const down = press(seen, "down")
    assert.strictEqual(chosen(down)?.name, "b")
    assert.strictEqual(chosen(press(down, "s"))?.name, "b")
    assert.strictEqual(chosen(press(seen, "up", "k"))?.name, "d")
    assert.strictEqual(chosen(press(seen, "j", "j", "j", "j", "j"))?.name, "c")
  })

  it("go through the orders and come round", () => {
    assert.deepStrictEqual(
      [1, 2, 3, 4].map((times) => press(seen, ..."s".repeat(times)).order),
      ["kept", "rate", "name", "lag"]
    )
  })

  it("show one slot and go back, and end", () => {
    const one = press(seen, "down", "return")
    assert.deepInclude(one, { shows: "one", selected: "b" })
    assert.deepInclude(press(one, "escape"), { shows: "all", selected: "b" })
    assert.strictEqual(press(seen, "x"), seen)
    assert.isUndefined(pressed(one, "q"))
  })

  it("do no harm where there is nothing yet", () => {
    const nothing = initial({ order: "lag", slot: undefined })
    assert.isUndefined(chosen(press(nothing, "down", "up", "return")))
  })
})

describe("looks", () => {
  it("make a trend of each slot, with a gap where nothing was seen, and forget slots that are gone", () => {
    const failed = looked(seen, Result.fail(closed), 2000)
    const again = looked(failed, Result.succeed(overview({ slots: [slot({ name: "a", lagBytes: 7 })] })), 3000)
    assert.deepStrictEqual(again.trends, new Map([["a", [5, undefined, 7]]]))
  })

  it("that fail leave what was seen, and tell since when", () => {
    const failed = looked(looked(seen, Result.fail(closed), 2000), Result.fail(closed), 5000)
    assert.strictEqual(failed.overview, seen.overview)
    assert.deepStrictEqual(failed.failure, { error: closed, since: 2000 })
    assert.isUndefined(looked(failed, Result.succeed(overview()), 6000).failure)
  })

  it("hold no more than a terminal could show", () => {
    let model = seen
    for (let time = 0; time < 500; time++) model = looked(model, Result.succeed(overview({ slots })), time)
    assert.strictEqual(model.trends.get("a")?.length, 240)
  })
})
