/** The row that says how far a copy is: what is written of it, and what is read. */
import { assert, describe, it } from "@effect/vitest"
import { Lsn } from "@replicant/core"
import * as Effect from "effect/Effect"
import * as CopyPosition from "../../src/copy/CopyPosition.ts"
import type { TargetRow, TargetSession } from "../../src/copy/TargetSession.ts"

const lsn = (text: string) => Lsn.fromString(text)!

/** A target that answers every query with these rows, and keeps what it was asked. */
const target = (...rows: ReadonlyArray<TargetRow>) => {
  const asked: Array<string> = []
  const session: TargetSession = {
    serverVersion: 180_000,
    triggers: "quiet",
    query: (text) => Effect.sync(() => void asked.push(text.replaceAll(/\s+/g, " "))).pipe(Effect.as(rows)),
    batch: () => Effect.die("no batch"),
    copyIn: () => Effect.die("no COPY")
  }
  return { asked, session }
}

const row: TargetRow = {
  system_id: "7000",
  timeline: "3",
  state: "streaming",
  end_lsn: "0/130",
  idle_flush: null,
  snapshot: null
}

describe("the position of a copy", () => {
  it.effect("is looked for by its slot, whatever the slot is called", () =>
    Effect.gen(function* () {
      const { asked, session } = target()
      assert.isUndefined(yield* CopyPosition.load(session, "o'rders"))
      assert.deepStrictEqual(asked, [
        "SELECT system_id, timeline, state, end_lsn, idle_flush, snapshot FROM replicant.copy_position WHERE slot = 'o''rders'"
      ])
    })
  )

  it.effect("is read as it was written, with and without what may be missing", () =>
    Effect.gen(function* () {
      const position = { systemId: "7000", timeline: 3, state: "streaming", endLsn: lsn("0/130") } as const
      const bare = yield* CopyPosition.load(target(row).session, "orders")
      assert.deepStrictEqual(bare, { ...position, idleFlush: undefined, snapshot: undefined })
      const full = yield* CopyPosition.load(target({ ...row, idle_flush: "1/0", snapshot: "{}" }).session, "orders")
      assert.deepStrictEqual(full, { ...position, idleFlush: lsn("1/0"), snapshot: "{}" })
    })
  )

  it.effect("has a table or has none, as the target says", () =>
    Effect.gen(function* () {
      const there = target({ is_there: "t" })
      assert.isTrue(yield* CopyPosition.tableExists(there.session))
      assert.deepStrictEqual(there.asked, [
        "SELECT pg_catalog.to_regclass('replicant.copy_position') IS NOT NULL AS is_there"
      ])
      assert.isFalse(yield* CopyPosition.tableExists(target({ is_there: "f" }).session))
      assert.isFalse(yield* CopyPosition.tableExists(target().session))
    })
  )

  it("knows its own table from others of its name or its schema", () => {
    assert.isTrue(CopyPosition.isPositionTable({ schema: "replicant", name: "copy_position" }))
    assert.isFalse(CopyPosition.isPositionTable({ schema: "public", name: "copy_position" }))
    assert.isFalse(CopyPosition.isPositionTable({ schema: "replicant", name: "orders" }))
  })

  it("can be made by hand with the columns that are written", () => {
    assert.match(CopyPosition.createTable, /^CREATE SCHEMA IF NOT EXISTS replicant; CREATE TABLE IF NOT EXISTS /)
    for (const column of ["slot", "system_id", "timeline", "state", "end_lsn", "idle_flush", "snapshot", "tables"]) {
      assert.match(CopyPosition.createTable, new RegExp(`\\b${column} `))
    }
  })

  it.effect("begins at 0/0, in the state that it is given", () =>
    Effect.gen(function* () {
      const { asked, session } = target()
      yield* CopyPosition.insert(session, "o'rders", { systemId: "7000", timeline: 3, state: "copying" })
      assert.deepStrictEqual(asked, [
        "INSERT INTO replicant.copy_position (slot, system_id, timeline, state, end_lsn) VALUES ('o''rders', '7000', 3, 'copying', '0/0')"
      ])
    })
  )

  it("moves by statements of one slot each, under names of their own", () => {
    const at = { lsn: lsn("1/AB"), timeline: 2 }
    const steps = [
      CopyPosition.advance("orders", at),
      CopyPosition.idle("orders", at),
      CopyPosition.copying("orders", "{}"),
      CopyPosition.copying("orders", undefined),
      CopyPosition.copied("orders", at, "{}"),
      CopyPosition.copied("orders", at, undefined),
      CopyPosition.forget("orders")
    ]
    assert.deepStrictEqual(
      steps.map(({ statement: { name, text }, values }) => [name, text, values]),
      (
        [
          ["advance", "state = 'streaming', end_lsn = $2, timeline = $3", ["orders", "1/AB", "2"]],
          ["idle", "idle_flush = $2, timeline = $3", ["orders", "1/AB", "2"]],
          ["copying", "state = 'copying', end_lsn = '0/0', idle_flush = NULL, snapshot = $2", ["orders", "{}"]],
          ["copying", "state = 'copying', end_lsn = '0/0', idle_flush = NULL, snapshot = $2", ["orders", null]],
          ["copied", "state = 'copied', end_lsn = $2, snapshot = $3, timeline = $4", ["orders", "1/AB", "{}", "2"]],
          ["copied", "state = 'copied', end_lsn = $2, snapshot = $3, timeline = $4", ["orders", "1/AB", null, "2"]],
          ["forget", "snapshot = NULL", ["orders"]]
        ] as const
      ).map(([name, set, values]) => [
        `replicant_position_${name}`,
        `UPDATE replicant.copy_position SET ${set} WHERE slot = $1`,
        values
      ])
    )
  })
})
