/** How far behind a consumer is, by all that may be known of it. */
import { assert, describe, it } from "@effect/vitest"
import { next } from "../../src/operations/Budget.ts"
import { type SlotLook, type SlotRow, sampleOf } from "../../src/operations/SlotLook.ts"
import { slotStatusOf } from "../../src/operations/SlotStatus.ts"
import { at } from "./samples.ts"

const look: SlotLook = {
  serverVersion: 180_000,
  serverStart: "1",
  serverTime: 100_000,
  isInRecovery: false,
  walEnd: at(100),
  limitBytes: undefined,
  idleTimeoutMillis: undefined,
  mostSlots: 10,
  walDirectoryBytes: undefined,
  slots: [],
  copies: [],
  lackedRights: []
}

const row: SlotRow = {
  slot_name: "orders",
  slot_type: "logical",
  plugin: "pgoutput",
  database: "shop",
  temporary: false,
  active_pid: undefined,
  restart_lsn: at(60),
  confirmed_flush_lsn: at(80),
  wal_status: "reserved",
  safe_wal_size: undefined,
  invalidation_reason: undefined,
  failover: undefined,
  synced: undefined,
  inactive_since: undefined,
  user_name: undefined,
  application_name: undefined,
  client_addr: undefined,
  backend_start: undefined,
  wait_event: undefined,
  state: undefined,
  sent_lsn: undefined,
  write_lsn: undefined,
  flush_lsn: undefined,
  replay_lsn: undefined,
  write_lag: undefined,
  flush_lag: undefined,
  replay_lag: undefined,
  sync_state: undefined,
  reply_time: undefined,
  spill_txns: undefined,
  spill_count: undefined,
  spill_bytes: undefined,
  stream_txns: undefined,
  stream_count: undefined,
  stream_bytes: undefined,
  total_txns: undefined,
  total_bytes: undefined
}

const streaming = { active_pid: 9, state: "streaming", sent_lsn: at(100) }

/** The slot at one look, or at the last of two that are so many seconds apart: before, WAL ended so many megabytes in. */
const statusOf = (facts: Partial<SlotRow>, before?: { readonly seconds: number; readonly end: number }) => {
  const slot = { ...row, ...facts }
  const sample = (of: SlotLook, millis: number) => sampleOf(of, slot, { at: millis, freeBytes: undefined })
  const first =
    before === undefined
      ? undefined
      : next(undefined, "orders", sample({ ...look, walEnd: at(before.end) }, 100_000 - before.seconds * 1000))
  return slotStatusOf(look, slot, next(first, "orders", sample(look, 100_000)))
}

const lagOf = (...args: Parameters<typeof statusOf>) => {
  const { lagBytes, lagIsLonger, lagMillis } = statusOf(...args)
  return { lagBytes, lagMillis, lagIsLonger }
}

const behind = 20 * 1024 * 1024

describe("how far a consumer is behind", () => {
  it("is nothing where WAL ends at what it has confirmed", () =>
    assert.deepStrictEqual(lagOf({ confirmed_flush_lsn: at(100) }), { lagBytes: 0, lagMillis: 0, lagIsLonger: false }))

  it("of a physical slot is by what it keeps", () =>
    assert.strictEqual(lagOf({ slot_type: "physical", confirmed_flush_lsn: undefined }).lagBytes, 2 * behind))

  it("is known by one's own looks, whatever the server measured", () =>
    assert.deepStrictEqual(lagOf({ ...streaming, flush_lag: 5 }, { seconds: 7, end: 80 }), {
      lagBytes: behind,
      lagMillis: 7000,
      lagIsLonger: false
    }))

  it("is what the server measured where they do not reach back so far", () => {
    const measured = { lagBytes: behind, lagMillis: 9000, lagIsLonger: false }
    assert.deepStrictEqual(lagOf({ ...streaming, flush_lag: 9000 }), measured)
    assert.deepStrictEqual(lagOf({ ...streaming, flush_lag: 9000 }, { seconds: 7, end: 90 }), measured)
    assert.strictEqual(lagOf({ ...streaming, flush_lag: 5 }, { seconds: 7, end: 90 }).lagMillis, 7000, "it is no less")
  })

  it("is no time where a client has confirmed all that it was sent, and all has been read", () => {
    assert.deepStrictEqual(lagOf(streaming), { lagBytes: behind, lagMillis: 0, lagIsLonger: false })
    assert.isUndefined(lagOf({ ...streaming, sent_lsn: at(90) }).lagMillis, "there is more to read")
    assert.isUndefined(lagOf({ ...streaming, state: "catchup" }).lagMillis)
    assert.isUndefined(lagOf({ active_pid: 9 }).lagMillis, "what a role may not see it does not know")
  })

  it("is longer than nobody has streamed, where that is known", () => {
    const idle = { lagBytes: behind, lagMillis: 60_000, lagIsLonger: true }
    assert.deepStrictEqual(lagOf({ inactive_since: 40_000 }), idle)
    assert.deepStrictEqual(lagOf({ inactive_since: 40_000 }, { seconds: 5, end: 90 }), idle)
  })

  it("is longer than was looked, where nothing else is known, and not known of one look", () => {
    assert.deepStrictEqual(lagOf({}, { seconds: 5, end: 90 }), { lagBytes: behind, lagMillis: 5000, lagIsLonger: true })
    assert.deepStrictEqual(lagOf({}), { lagBytes: behind, lagMillis: undefined, lagIsLonger: false })
  })

  it("is not told of a slot that is lost, or was never used", () => {
    const nothing = { lagBytes: undefined, lagMillis: undefined, lagIsLonger: false }
    assert.deepStrictEqual(lagOf({ wal_status: "lost" }), nothing)
    assert.deepStrictEqual(lagOf({ restart_lsn: undefined, confirmed_flush_lsn: undefined }), nothing)
  })
})

describe("a slot that keeps nothing", () => {
  it("is well, whatever the server says is left of its limit", () =>
    assert.deepInclude(
      statusOf({ restart_lsn: undefined, confirmed_flush_lsn: undefined, wal_status: undefined, safe_wal_size: -5 })
        .budget,
      {
        level: "ok",
        safeBytes: undefined,
        retainedBytes: undefined
      }
    ))
})

describe("a slot that is idle for long", () => {
  const timeout = (facts: Partial<SlotRow>) => {
    const limited = { ...look, idleTimeoutMillis: 90_000 }
    const slot = { ...row, inactive_since: 40_000, ...facts }
    return next(undefined, "orders", sampleOf(limited, slot, { at: 0, freeBytes: undefined })).budget.millisUntilLost
  }

  it("is lost when idle_replication_slot_timeout is over; but not one that is streamed from, or a standby's copy", () => {
    assert.strictEqual(timeout({}), 30_000)
    assert.isUndefined(timeout({ active_pid: 9 }))
    assert.isUndefined(timeout({ synced: true }))
  })
})
