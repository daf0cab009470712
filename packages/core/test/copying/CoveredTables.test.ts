import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import type { CheckpointStore } from "../../src/checkpoint/CheckpointService.ts"
import { type Coverage, compare, coverageKey, resumed, TableCoverage } from "../../src/copying/CoveredTables.ts"
import { askedWalSender } from "../support/askedWalSender.ts"
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

const coverageOver = (store: CheckpointStore["Service"]) =>
  new TableCoverage({ slot: "orders", publications: ["shop"], store })

const coverageIn = (texts: Map<string, string>) => coverageOver(textStore(texts))

/** A store that may keep nothing, and how often it was told to. */
const counting = (keeps: boolean) => {
  const store = textStore()
  let saves = 0
  const save: CheckpointStore["Service"]["save"] = (key, text) =>
    Effect.suspend(() => {
      saves++
      return keeps ? store.save(key, text) : Effect.void
    })
  return { store: { ...store, save }, saves: () => saves }
}

/** What is told in the log, of a level from `Info` on. */
const telling = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.suspend(() => {
    const told: Array<string> = []
    const logger = Logger.layer([Logger.make(({ message }) => void told.push([message].flat().join(" ")))])
    return Effect.as(Effect.provide(effect, logger), told)
  })

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

  it.effect("[P10] are known to the process alone where the store keeps nothing of them, which is told once", () =>
    Effect.gen(function* () {
      const { saves, store } = counting(false)
      const coverage = coverageOver(store)
      const told = yield* telling(
        Effect.gen(function* () {
          yield* coverage.begin([entry("a")])
          assert.deepStrictEqual(names((yield* coverage.take([entry("a"), entry("b")])).joined), ["b"])
        })
      )
      assert.strictEqual(saves(), 1, "what keeps nothing is not asked again")
      assert.lengthOf(told, 1)
      assert.include(told[0], 'keeps nothing under "covered/orders"')
    })
  )

  it.effect("[P10] are none, and none is unread, as long as nobody has looked", () =>
    Effect.sync(() => {
      const coverage = coverageIn(new Map())
      assert.isFalse(coverage.has(entry("a")))
      assert.deepStrictEqual(coverage.unread, [])
    })
  )

  it.effect("[P10] are asked for by the stream's publications", () =>
    Effect.gen(function* () {
      const { connection, texts } = askedWalSender(() =>
        Effect.succeed([{ schema: "public", name: "a", entry: "1", attached: "[]" }])
      )
      const listed = yield* coverageIn(new Map()).list(connection)
      assert.deepStrictEqual(listed, [entry("a", "1")])
      assert.include(texts[0], "p.pubname IN ('shop')")
    })
  )

  it.effect("[P10] are stored under a key of the slot's, where they have changed, and else are not stored again", () =>
    Effect.gen(function* () {
      const { saves, store } = counting(true)
      const told = yield* telling(
        Effect.gen(function* () {
          const coverage = coverageOver(store)
          const stores = Effect.fnUntraced(function* (...published: Parameters<typeof coverage.take>[0]) {
            const before = saves()
            yield* coverage.take(published)
            return saves() - before
          })
          assert.strictEqual(yield* stores(entry("a"), entry("b")), 1, "that they are known")
          assert.strictEqual(yield* stores(entry("a"), entry("b")), 0, "the same")
          assert.strictEqual(yield* stores(entry("a"), entry("b"), entry("c")), 1, "one has joined")
          assert.strictEqual(yield* stores(entry("a"), entry("b"), entry("d")), 1, "one has joined, another left")
          assert.strictEqual(yield* stores(entry("a", "a/2"), entry("d"), entry("e")), 1, "one was published otherwise")
          assert.strictEqual(
            yield* stores(entry("a", "a/3"), entry("d"), entry("e"), entry("f")),
            1,
            "and one has joined"
          )
          assert.strictEqual(yield* stores(entry("a", "a/3"), entry("d"), entry("e")), 1, "one has left")
          assert.isTrue(Option.isSome(yield* store.load("covered/orders")))
        })
      )
      assert.deepStrictEqual(told, ["which tables are covered was not known: all that are published now, from now on"])
    })
  )

  it.effect("[P10] are whole only as they are known: what has come of any other is nothing to store", () =>
    Effect.gen(function* () {
      const { saves, store } = counting(true)
      const coverage = coverageOver(store)
      yield* coverage.begin([entry("a")])
      yield* coverage.complete([{ ...entry("stranger"), isWhole: false }])
      yield* coverage.complete([{ ...entry("a", "a/0"), isWhole: false }])
      assert.strictEqual(saves(), 1)
    })
  )

  it.effect("[P10] go on with a first copy that goes on, from what another process began", () =>
    Effect.gen(function* () {
      const texts = new Map<string, string>()
      yield* coverageIn(texts).begin([entry("kept"), entry("restarted")])
      const now = [entry("kept", "kept/2"), entry("restarted", "restarted/2")]
      const second = coverageIn(texts)
      yield* second.resume(now, ({ name }) => name === "restarted")
      assert.deepStrictEqual(names((yield* second.take(now)).again), ["kept"])
    })
  )

  it.effect("[P10] are all that is published for a first copy that goes on where nobody knows them", () =>
    Effect.gen(function* () {
      const coverage = coverageIn(new Map())
      yield* coverage.resume([entry("a")], () => false)
      const { again, joined } = yield* coverage.take([entry("a"), entry("b")])
      assert.deepStrictEqual([again, names(joined)], [[], ["b"]])
    })
  )

  for (const [what, text] of [
    ["of another version", '{"version":2}'],
    ["half a table", '{"version":1,"tables":[{"schema":"public","name":"a"}]}']
  ] as const) {
    it.effect(`[P10] that were kept as something else, ${what}, are a CheckpointError that says so`, () =>
      Effect.gen(function* () {
        const coverage = coverageIn(new Map([[coverageKey("orders"), text]]))
        const error = yield* Effect.flip(coverage.take([]))
        assert.deepInclude(error, { during: "read", key: "covered/orders" })
        assert.include(error.message, "it is not the list of tables that was saved")
      })
    )
  }
})
