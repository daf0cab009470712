/** What one look asks of a server, and what it lacks a right for. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { lookAtSlots } from "../../src/operations/SlotLook.ts"

/** A server without slots, whose role may list `pg_wal`, or not; and what it was asked. */
const lookWith = Effect.fnUntraced(function* (listsWal: "t" | "f", slot?: string) {
  const asked: Array<string> = []
  const session = {
    serverVersion: 180_000,
    query: (text: string) =>
      Effect.sync(() => {
        asked.push(text)
        if (/FROM pg_catalog\.pg_ls_waldir/.test(text)) return [{ bytes: "16777216" }]
        if (!/pg_catalog\.pg_settings/.test(text)) return []
        return [
          {
            server_start: "1",
            now: "2",
            in_recovery: "f",
            wal_end: "0/1",
            keep_size: "-1",
            idle_timeout: null,
            idle_unit: null,
            most_slots: "10",
            reads_stats: "t",
            lists_wal: listsWal
          }
        ]
      })
  }
  return { look: yield* lookAtSlots(session, slot), asked: asked.join("\n") }
})

describe("a look at a server's slots", () => {
  it.effect("at all of them sums up what pg_wal takes, or says for want of which right it does not", () =>
    Effect.gen(function* () {
      const { look } = yield* lookWith("t")
      assert.strictEqual(look.walDirectoryBytes, 16_777_216)
      assert.deepStrictEqual(look.lackedRights, [])
      const { asked, look: less } = yield* lookWith("f")
      assert.isUndefined(less.walDirectoryBytes)
      assert.deepStrictEqual(less.lackedRights, ["pg_ls_waldir"])
      assert.notMatch(asked, /FROM pg_catalog\.pg_ls_waldir/)
    })
  )

  it.effect("at one of them walks through no directory, looks at no COPY, and lacks no right to", () =>
    Effect.gen(function* () {
      for (const listsWal of ["t", "f"] as const) {
        const { asked, look } = yield* lookWith(listsWal, "orders")
        assert.notMatch(asked, /FROM pg_catalog\.(pg_ls_waldir|pg_stat_progress_copy)/)
        assert.include(asked, "slot_name = 'orders'")
        assert.deepStrictEqual(look.lackedRights, [])
      }
    })
  )
})
