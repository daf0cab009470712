/** What a stream is warned of as it starts, by what it has asked already. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { type Starting, warningsAtStart } from "../../src/doctor/AtStart.ts"
import { type Plan, resolve } from "../../src/doctor/Plan.ts"
import type { ServerSettings } from "../../src/server/Catalog.ts"
import type { ReplicationSlot } from "../../src/server/SlotCatalog.ts"

const slot: ReplicationSlot = {
  name: "orders",
  type: "logical",
  plugin: "pgoutput",
  database: "shop",
  isTemporary: false,
  activePid: undefined,
  restartLsn: undefined,
  confirmedFlushLsn: undefined,
  walStatus: "reserved",
  invalidationReason: undefined,
  retainedBytes: 0n
}

const settings: ServerSettings = {
  walSenderTimeout: 60_000,
  walLevel: "logical",
  pid: 1,
  serverStart: "1",
  isInRecovery: false,
  limits: { slotWalKeepSize: -1, walSize: 1024, idleSlotTimeout: 0 }
}

const warnings = (
  starting: { readonly settings?: Partial<ServerSettings>; readonly slot?: Partial<ReplicationSlot> },
  plan: Plan = {}
) =>
  Effect.map(resolve({ slot: "orders", ...plan }), (asked) =>
    warningsAtStart({
      asked,
      serverVersion: 180_000,
      settings: { ...settings, ...starting.settings },
      slot: { ...slot, ...starting.slot }
    } satisfies Starting)
  )

describe("a stream that starts", () => {
  it.effect("is warned of nothing where all is well, and where limits are not told", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* warnings({}), [])
      assert.deepStrictEqual(yield* warnings({ settings: { limits: undefined } }), [])
    })
  )

  for (const [what, starting, plan, id] of [
    [
      "a server that never gives up a silent client",
      { settings: { walSenderTimeout: 0 } },
      {},
      "server.wal-sender-timeout-off"
    ],
    ["timings of ours that do not fit", {}, { statusInterval: "40 seconds" }, "server.status-interval"],
    [
      "a limit below a checkpoint's worth of WAL",
      { settings: { limits: { slotWalKeepSize: 64, walSize: 1024, idleSlotTimeout: 0 } } },
      {},
      "server.slot-limit-low"
    ],
    [
      "a timeout of idle slots",
      { settings: { limits: { slotWalKeepSize: -1, walSize: 1024, idleSlotTimeout: 600 } } },
      {},
      "server.idle-slot-timeout"
    ],
    ["a slot that is nearly lost", { slot: { walStatus: "unreserved" } }, {}, "slot.near-loss"]
  ] as const) {
    it.effect(`is warned of ${what}`, () =>
      Effect.gen(function* () {
        const said = yield* warnings(starting, plan)
        assert.strictEqual(said.length, 1)
        assert.include(said[0], `(${id}: `)
      })
    )
  }
})
