import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { CheckpointStore } from "../../src/checkpoint/CheckpointService.ts"
import { all, type Coverage, compare, coverageKey, resumed, TableCoverage } from "../../src/copying/CoveredTables.ts"
import { textStore } from "../support/textStore.ts"

const entry = (name: string, text = `${name}/1`, attached: ReadonlyArray<string> = []) => ({
  schema: "public",
  name,
  entry: text,
  attached
})

const known = (wholes: Readonly<Record<string, boolean>>): Coverage =>
  new Map(Object.entries(wholes).map(([name, isWhole]) => [`"public"."${name}"`, { ...entry(name), isWhole }]))

const wholes = (coverage: Coverage) =>
  Object.fromEntries(Array.from(coverage.values(), ({ isWhole, name }) => [name, isWhole]))

const names = (tables: ReadonlyArray<{ readonly name: string }>) => tables.map(({ name }) => name)

/** A store that may keep nothing of what is saved. */
const storeOf = (texts: Map<string, string>, keeps: boolean): CheckpointStore["Service"] =>
  keeps ? textStore(texts) : { ...textStore(texts), save: () => Effect.void }

const coverageIn = (texts: Map<string, string>, keeps = true) =>
  new TableCoverage({ slot: "orders", publications: ["shop"], store: storeOf(texts, keeps) })

describe("the tables that a stream covers", () => {
  it("[P10] are asked for nothing while they are published as they were", () => {
    const before = known({ a: true, b: false })
    const { again, coverage, joined, left } = compare(before, [entry("a"), entry("b")])
    assert.deepStrictEqual(wholes(coverage), { a: true, b: false })
    assert.deepStrictEqual([again, joined, left], [[], [], []])
  })

  it("[P10] are told from those that join, that come back, and that leave", () => {
    const { again, coverage, joined, left } = compare(known({ same: true, again: true, begun: false, gone: true }), [
      entry("same"),
      entry("again", "again/2"),
      entry("begun", "begun/2"),
      entry("made")
    ])
    assert.deepStrictEqual(wholes(coverage), { same: true, again: false, begun: false, made: false })
    assert.deepStrictEqual(names(joined), ["made"])
    assert.deepStrictEqual(names(again), ["again", "begun"])
    assert.deepStrictEqual(names(left), ["gone"])
  })

  it("[P10] lack rows where a partition was attached, and none where one was detached", () => {
    const root: Coverage = new Map([['"public"."root"', { ...entry("root", "r", ["1:5"]), isWhole: true }]])
    const after = (attached: ReadonlyArray<string>) => names(compare(root, [entry("root", "r", attached)]).again)
    assert.deepStrictEqual(after(["1:5"]), [])
    assert.deepStrictEqual(after([]), [])
    assert.deepStrictEqual(after(["1:5", "2:9"]), ["root"])
  })

  it("[P10] have the entry under which their copying was begun, and another once that begins anew", () => {
    const now = [entry("kept", "kept/2"), entry("restarted", "restarted/2"), entry("joined")]
    const coverage = resumed(known({ kept: true, restarted: true }), now, ({ name }) => name === "restarted")
    assert.deepStrictEqual(
      Array.from(coverage.values(), (table) => table.entry),
      ["kept/1", "restarted/2", "joined/1"]
    )
  })

  it.effect("[P10] are known to the next process, also those whose rows have not come", () =>
    Effect.gen(function* () {
      const texts = new Map<string, string>()
      const first = coverageIn(texts)
      yield* first.begin([entry("a")])
      yield* first.take([entry("a"), entry("b"), entry("c")])
      yield* first.complete([{ ...entry("c"), isWhole: false }])
      // Of another entry by now: what has come is not what it is.
      yield* first.complete([{ ...entry("b", "b/0"), isWhole: false }])
      const second = coverageIn(texts)
      const { again, joined, left } = yield* second.take([entry("a"), entry("b"), entry("c")])
      assert.deepStrictEqual([again, joined, left], [[], [], []])
      assert.deepStrictEqual(names(second.unread), ["b"])
    })
  )

  it.effect("[P10] are all that is published where nobody knows", () =>
    Effect.gen(function* () {
      const coverage = coverageIn(new Map())
      const { joined } = yield* coverage.take([entry("a")])
      assert.deepStrictEqual(joined, [])
      assert.deepStrictEqual(coverage.unread, [])
      assert.isTrue(coverage.has(entry("a")))
      assert.isFalse(coverage.has(entry("b")))
    })
  )

  it.effect("[P10] are known to the process alone where the store keeps nothing of them", () =>
    Effect.gen(function* () {
      const coverage = coverageIn(new Map(), false)
      yield* coverage.begin([entry("a")])
      assert.deepStrictEqual(names((yield* coverage.take([entry("a"), entry("b")])).joined), ["b"])
    })
  )

  it.effect("[P10] that were kept as something else are a CheckpointError", () =>
    Effect.gen(function* () {
      const coverage = coverageIn(new Map([[coverageKey("orders"), '{"version":2}']]))
      const error = yield* Effect.flip(coverage.take([]))
      assert.strictEqual(error.during, "read")
      assert.deepStrictEqual(Array.from(all([])), [])
    })
  )
})
