/** Whether a server has all that was copied: by the timelines that it has gone through. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { checkHistory, isOfHistory } from "../../src/copying/SeamHistory.ts"
import * as Lsn from "../../src/Lsn.ts"
import { askedWalSender } from "../support/askedWalSender.ts"

const lsn = (text: string): Lsn.Lsn => Lsn.fromString(text)!

/** It has left timeline 1 at 0/A00, and is on timeline 2. */
const server = () =>
  askedWalSender((text) => {
    if (text === "IDENTIFY_SYSTEM") {
      return Effect.succeed([{ systemid: "7000", timeline: "2", xlogpos: "0/F00", dbname: "shop" }])
    }
    if (text !== "TIMELINE_HISTORY 2") return undefined
    return Effect.succeed([{ filename: "00000002.history", content: "1\t0/A00\tno recovery target specified\n" }])
  })

const system = { systemId: "7000", timeline: 2, xLogPos: lsn("0/F00"), database: "shop" }

describe("what was copied", () => {
  for (const [what, copied, expected] of [
    ["on the timeline of now, wherever its seam is,", { seam: lsn("FF/0"), timeline: 2 }, true],
    ["before an earlier timeline was left", { seam: lsn("0/A00"), timeline: 1 }, true],
    ["behind where an earlier timeline was left", { seam: lsn("0/A01"), timeline: 1 }, false],
    ["on a timeline that the server has not reached", { seam: lsn("0/1"), timeline: 3 }, false]
  ] as const) {
    it.effect(`[V7] ${what} is ${expected ? "" : "not "}of the server's history`, () =>
      Effect.gen(function* () {
        const { connection } = server()
        assert.strictEqual(yield* isOfHistory(connection, system, copied), expected)
        if (expected) return yield* checkHistory(connection, copied)
        const error = yield* Effect.flip(checkHistory(connection, copied))
        assert.deepInclude(error, {
          _tag: "SystemMismatch",
          property: "timeline",
          expected: String(copied.timeline),
          found: "2"
        })
      })
    )
  }

  it.effect("by a version that did not say the timeline is taken for the server's, and nobody is asked", () =>
    Effect.gen(function* () {
      const { connection, texts } = server()
      assert.isTrue(yield* isOfHistory(connection, system, { seam: lsn("FF/0") }))
      assert.deepStrictEqual(texts, [])
      yield* checkHistory(connection, { seam: lsn("FF/0") })
    })
  )
})
