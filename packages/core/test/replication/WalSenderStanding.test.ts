import { assert, describe, it } from "@effect/vitest"
import { type StandingRow, standingOf } from "../../src/replication/WalSenderStanding.ts"

const backend = { slot: "orders", pid: 42, serverStart: "1767225600.5" }

const row = (overrides: Partial<StandingRow> = {}): StandingRow => ({
  server_start: backend.serverStart,
  active_pid: 42,
  backend_type: "walsender",
  wait_event_type: null,
  ...overrides
})

describe("standingOf", () => {
  it("[N13] takes one that waits for nothing, or for anything but its client, for one at work", () => {
    for (const wait_event_type of [null, "IO", "LWLock", "Lock", "IPC", "Timeout", "BufferPin", "Extension"]) {
      assert.strictEqual(standingOf(row({ wait_event_type }), backend), "Working")
    }
  })

  it("[N3] takes one at its socket, or in its main loop, for one that waits for us", () => {
    for (const wait_event_type of ["Client", "Activity"]) {
      assert.strictEqual(standingOf(row({ wait_event_type }), backend), "Waiting")
    }
  })

  it("[N3] takes one that has not got the slot for gone, whoever has it", () => {
    const nobody = { active_pid: null, backend_type: null }
    assert.strictEqual(standingOf(row(nobody), backend), "Gone")
    assert.strictEqual(standingOf(row({ active_pid: 43 }), backend), "Gone")
  })

  it("[N13] knows nothing from another server, nor from a row that is hidden", () => {
    assert.strictEqual(standingOf(row({ server_start: "1767225600.6" }), backend), "Unknown")
    assert.strictEqual(standingOf(row({ backend_type: null }), backend), "Unknown")
  })
})
