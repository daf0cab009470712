import { assert, describe, it } from "@effect/vitest"
import type { Change } from "@replicant/core"
import { ChangeText, withColor, withoutColor } from "../../src/cli/ChangeText.ts"
import { begin, commit, insert, message, orders, relation, snapshot } from "../support/Changes.ts"

const of = begin("0/1A2B3C8")
const plain = new ChangeText(withoutColor)

describe("ChangeText", () => {
  it("heads a transaction with its number, time and place, and its end with nothing", () => {
    assert.strictEqual(plain.format(of), "-- transaction 742, committed 2000-01-01T00:00:00.000001Z, 0/1A2B3C8")
    assert.isUndefined(plain.format(commit(of, "0/1A2B400")))
  })

  it("shows a row on one line", () => {
    const row = { id: 9_007_199_254_740_993n, note: "two words", total: "12.50", none: null, tags: ["a"] }
    assert.strictEqual(
      plain.format(insert(of, 0, row)),
      '  + insert public.orders id=9007199254740993 note="two words" total=12.50 none=null tags=["a"]'
    )
  })

  it("tells the old key, and what was not sent", () => {
    const change: Change = {
      _tag: "Update",
      begin: of,
      ordinal: 0,
      relation: orders,
      row: { id: 2 },
      unchanged: ["note"],
      old: { _tag: "Key", row: { id: 1 } }
    }
    assert.strictEqual(plain.format(change), "  ~ update public.orders id=2 (unchanged: note) (was id=1)")
  })

  it("cuts long values", () => {
    const line = plain.format(insert(of, 0, { note: "x".repeat(500) }))!
    assert.isBelow(line.length, 100)
    assert.include(line, "…")
  })

  it("lets no name or value move the cursor", () => {
    const hostile = "\u001b[2J\u009b\u202e\n"
    const change: Change = { ...insert(of, 0, { [hostile]: hostile }), relation: relation(hostile, [], []) }
    assert.notMatch(plain.format(change)!, /[\p{Cc}\u202e]/u)
    assert.notMatch(plain.format(message("0/20", new TextEncoder().encode(hostile)))!, /[\p{Cc}\u202e]/u)
  })

  it("has no colour unless asked for, and then ends each", () => {
    assert.notInclude(plain.format(insert(of, 0, { id: 1 })), "\u001b")
    const line = new ChangeText(withColor).format(insert(of, 0, { id: 1 }))!
    assert.include(line, "\u001b[32m+ insert\u001b[0m")
    assert.isTrue(line.endsWith("\u001b[0m"))
  })

  it("says how a table's shape changed", () => {
    const after = relation("orders", ["id", "comment"], ["id"])
    const change: Change = { _tag: "RelationChanged", begin: of, ordinal: 0, before: orders, relation: after }
    assert.strictEqual(plain.format(change), "  * altered public.orders added comment; dropped note")
  })

  it("tells a snapshot, and that one begun anew voids what came before", () => {
    const lines = snapshot("0/1A2B3C8", [{ id: 1, note: "a" }]).map((change) => plain.format(change))
    assert.deepStrictEqual(lines, [
      "-- snapshot of 1 table as of 0/1A2B3C8",
      "  = row public.orders id=1 note=a",
      "  completed public.orders, 1 row",
      "-- snapshot completed, 1 row"
    ])
    assert.match(plain.format(snapshot("0/1A2B3C8", [], 2)[0]!)!, /begun anew: what came before is void/)
  })
})
