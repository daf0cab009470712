/** The last state of each row among changes. */
import { assert, describe, it } from "@effect/vitest"
import type { Delete, Insert, Row } from "../../src/change/Change.ts"
import { compactRuns } from "../../src/handling/Compact.ts"
import { Random } from "../support/Random.ts"
import * as shop from "../table/shop.ts"

const { deleted, insert, relation, truncate, update } = shop
const items = relation("public", "items", ["id", "at", "long"], ["id"])
const key = (id: number) => ({ _tag: "Key", row: { id } }) as const
/** What is looked at of any of them. */
interface Shape {
  readonly _tag: string
  readonly row?: Row
  readonly old?: { readonly row: Row }
  readonly unchanged?: ReadonlyArray<string>
}

const told = (changes: ReadonlyArray<unknown>) =>
  compactRuns(changes).map((run) =>
    run.map((change) => {
      const { _tag, old, row } = change as Shape
      return [_tag, row ?? old?.row]
    })
  )

describe("compactRuns", () => {
  it("makes one insert of a row and its updates, with what they did not bring", () => {
    const changes = [insert(items, { id: 1, at: 0, long: "x" }), update(items, { id: 1, at: 1 }, ["long"])]
    assert.deepStrictEqual(told(changes), [[["Insert", { id: 1, at: 1, long: "x" }]]])
    const [run] = compactRuns([...changes, update(items, { id: 2, at: 1 }, ["long"])])
    assert.deepStrictEqual(
      run!.map((change) => (change as Insert).unchanged),
      [[], ["long"]]
    )
  })

  it("makes a delete and an insert of a row that moves", () => {
    const moved = update(items, { id: 2, at: 1 }, ["long"], key(1))
    const changes = [insert(items, { id: 1, at: 0, long: "x" }), moved]
    assert.deepStrictEqual(told(changes), [
      [
        ["Delete", { id: 1 }],
        ["Insert", { id: 2, at: 1, long: "x" }]
      ]
    ])
    // Nobody has told what it holds: as it came, between what was before and what comes after.
    assert.deepStrictEqual(told([insert(items, { id: 3 }), moved, insert(items, { id: 3 })]).length, 3)
  })

  it("lets a truncate and whatever is of no row stand alone", () => {
    const row = insert(items, { id: 1, at: 0, long: "" })
    assert.deepStrictEqual(
      told([row, truncate(items), row, shop.message]).map((run) => run.map(([tag]) => tag)),
      [["Insert"], ["Truncate"], ["Insert"], ["Message"]]
    )
  })

  it("merges no rows that are told apart by nothing, and none of declared tables", () => {
    const full = relation("public", "log", ["a"], ["a"], "full")
    const bare = relation("public", "bare", ["a"], [], "nothing")
    const rows: ReadonlyArray<unknown> = [
      insert(full, { a: 1 }),
      insert(bare, { a: 1 }),
      { ...insert(items, {}), table: "items" }
    ]
    for (const change of rows) {
      assert.deepStrictEqual(compactRuns([change, change]), [[change, change]])
    }
  })

  it("leaves what all of the changes leave, each row once in a run, over random ones", () => {
    for (let seed = 1; seed <= 300; seed++) {
      const random = new Random(seed)
      const expected = new Map<unknown, unknown>()
      const changes: Array<unknown> = []
      const apply = (rows: Map<unknown, unknown>, change: { readonly _tag: string }) => {
        const { old, row, unchanged = [] } = change as Shape
        const before = (rows.get(old?.row.id ?? row?.id) ?? {}) as Record<string, unknown>
        if (change._tag === "Truncate") {
          rows.clear()
          return
        }
        if (old !== undefined) rows.delete(old.row.id)
        if (row === undefined) return
        const kept = Object.fromEntries(unchanged.map((column) => [column, before[column]]))
        rows.set(row.id, { ...kept, ...row })
      }
      const start = new Map(Array.from({ length: 4 }, (_, id) => [id as unknown, { id, at: -1, long: `old ${id}` }]))
      for (const [id, row] of start) expected.set(id, row)
      for (let at = 0; at < 40; at++) {
        const [id, to] = [random.below(8), random.below(8)]
        const has = expected.has(id)
        const isPartial = random.chance(50)
        const now = (of: number) => ({ id: of, at, ...(isPartial ? {} : { long: `new ${at}` }) })
        const left = isPartial ? ["long"] : []
        const change = random.chance(3)
          ? truncate(items)
          : !has
            ? insert(items, { id, at, long: `in ${at}` })
            : random.chance(20)
              ? deleted(items, key(id))
              : random.chance(25) && !expected.has(to)
                ? update(items, now(to), left, key(id))
                : update(items, now(id), left)
        apply(expected, change)
        changes.push(change)
      }
      const actual = new Map(start)
      for (const run of compactRuns(changes)) {
        const keys = run.map((change) => (change as Insert).row?.id ?? (change as Delete).old?.row.id)
        assert.lengthOf(new Set(keys), keys.length, `seed ${seed}: a row twice`)
        for (const change of run) apply(actual, change as Insert)
      }
      assert.deepStrictEqual(new Map([...actual].sort()), new Map([...expected].sort()) as never, `seed ${seed}`)
    }
  })
})
