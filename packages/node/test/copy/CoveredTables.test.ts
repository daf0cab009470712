import { assert, describe, it } from "@effect/vitest"
import {
  all,
  type Coverage,
  type CoverageState,
  compare,
  compareCopying,
  FollowedTables,
  isOutdated
} from "../../src/copy/CoveredTables.ts"

const entry = (name: string, text = `${name}/1`, attached: ReadonlyArray<string> = []) => ({
  schema: "public",
  name,
  entry: text,
  attached
})

const key = (name: string) => `"public"."${name}"`

const states = (coverage: Coverage) =>
  Object.fromEntries(Array.from(coverage.values(), ({ name, state }) => [name, state]))

const known = (states: Readonly<Record<string, CoverageState>>): Coverage =>
  new Map(Object.entries(states).map(([name, state]) => [key(name), { ...entry(name), state }]))

const names = (tables: ReadonlyArray<{ readonly name: string }>) => tables.map(({ name }) => name)

describe("what is published, against what is covered", () => {
  it("[P11] asks for nothing while both are the same", () => {
    const before = known({ a: "covered", b: "covered" })
    const { coverage, foreign, joined, left } = compare(before, [entry("a"), entry("b")])
    assert.deepStrictEqual(coverage, before)
    assert.deepStrictEqual([foreign, joined, left], [[], [], []])
    assert.isFalse(isOutdated(before, [entry("a"), entry("b")]))
  })

  it("[P11] tells tables that join from those that come back: only the first may be somebody else's", () => {
    const { coverage, foreign, joined, left } = compare(
      known({ same: "covered", again: "covered", back: "left", gone: "covered", begun: "reading", off: "left" }),
      [entry("same"), entry("again", "again/2"), entry("back"), entry("begun"), entry("made")]
    )
    assert.deepStrictEqual(states(coverage), {
      same: "covered",
      again: "awaited",
      back: "awaited",
      begun: "awaited",
      made: "awaited",
      gone: "left",
      off: "left"
    })
    assert.sameMembers(names(joined), ["again", "back", "begun", "made"])
    assert.deepStrictEqual(foreign, [key("made")])
    assert.deepStrictEqual(left, [key("gone")])
  })

  it("[P11] takes a partition that was attached for rows that are missing, and one that was detached for none", () => {
    const before = new Map([[key("root"), { ...entry("root", "r", ["1:5"]), state: "covered" as const }]])
    const after = (attached: ReadonlyArray<string>) => names(compare(before, [entry("root", "r", attached)]).joined)
    assert.deepStrictEqual(after(["1:5"]), [])
    assert.deepStrictEqual(after([]), [])
    assert.deepStrictEqual(after(["1:9"]), ["root"])
    assert.deepStrictEqual(after(["1:5", "2:9"]), ["root"])
    const detached = compare(before, [entry("root", "r", [])]).coverage
    assert.deepStrictEqual(names(compare(detached, [entry("root", "r", ["1:5"])]).joined), ["root"], "and again")
  })

  it("[P11] is outdated by what is not under way already", () => {
    const before = known({ a: "awaited", b: "reading", c: "left" })
    assert.isFalse(isOutdated(before, [entry("a"), entry("b")]))
    assert.isTrue(isOutdated(before, [entry("a", "a/2"), entry("b")]), "put in again while it was awaited")
    assert.isTrue(isOutdated(before, [entry("a"), entry("b"), entry("c")]), "it is back")
    assert.isTrue(isOutdated(before, [entry("a")]), "it has left")
  })

  it("[P11] keeps, while the first copy goes on, by what each table was published when that began", () => {
    const { coverage, foreign } = compareCopying(known({ a: "copying", b: "copying" }), [
      entry("a", "a/2"),
      entry("new")
    ])
    assert.deepStrictEqual(states(coverage), { a: "copying", b: "copying", new: "copying" })
    assert.deepStrictEqual(foreign, [key("new")])
    const followed = new FollowedTables(coverage, { followsAll: false, mayEmpty: false })
    followed.completeCopy()
    followed.takeChange()?.done()
    assert.deepStrictEqual(names(compare(followed.coverage, [entry("a", "a/2"), entry("new")]).joined), ["a"])
  })
})

describe("the tables that a session follows", () => {
  const make = () => new FollowedTables(all([entry("a")], "awaited"), { followsAll: false, mayEmpty: false })

  it("[P11] applies nothing of a table before its beginning, and all from there on", () => {
    const followed = make()
    assert.isFalse(followed.follows(key("a")))
    followed.set({ schema: "public", name: "a" }, "reading")
    assert.isTrue(followed.follows(key("a")))
    assert.isTrue(followed.isReading(key("a")))
  })

  it("[P11] forgets with a connection what was not committed", () => {
    const followed = make()
    followed.set({ schema: "public", name: "a" }, "reading")
    followed.reset()
    assert.isFalse(followed.follows(key("a")))
    assert.isUndefined(followed.takeChange())
    followed.set({ schema: "public", name: "a" }, "reading")
    followed.takeChange()?.done()
    followed.reset()
    assert.isTrue(followed.follows(key("a")))
  })

  it("[P11] tells once of a table that nobody knows, and never of one that is awaited", () => {
    const followed = make()
    let told = 0
    followed.onStranger = () => {
      told += 1
    }
    for (const name of ["a", "new", "new"]) assert.isFalse(followed.follows(key(name)))
    assert.strictEqual(told, 1)
  })
})
