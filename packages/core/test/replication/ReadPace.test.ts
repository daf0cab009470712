import { assert, describe, it } from "@effect/vitest"
import { largeMessageBytes, RecentReads, waitMillis } from "../../src/replication/ReadPace.ts"

const small = { bytes: 4096, messageBytes: 80, bytesPerMilli: 4096, behindMillis: 60_000 }

describe("ReadPace", () => {
  it("never delays live traffic", () => {
    assert.strictEqual(waitMillis({ ...small, behindMillis: 10 }, 20), 0)
  })

  it("waits while behind, no longer than it is told", () => {
    assert.strictEqual(waitMillis(small, 20), 20)
    assert.strictEqual(waitMillis(small, 5), 5)
  })

  it("waits only as long as the wanted bytes take to gather", () => {
    assert.strictEqual(waitMillis({ ...small, bytesPerMilli: 102_400 }, 20), 5)
  })

  it("does not wait when the read was large enough, or when its messages are", () => {
    assert.strictEqual(waitMillis({ ...small, bytes: 600_000, messageBytes: 8000 }, 20), 0)
    assert.strictEqual(waitMillis({ ...small, messageBytes: 100_000 }, 20), 0)
  })

  it("knows large messages by the last few reads, not by the small commit between two of them", () => {
    const recent = new RecentReads()
    recent.next(65_536, 1, 1)
    recent.next(34_500, 0, 1)
    assert.isAbove(recent.next(48, 2, 1).messageBytes, largeMessageBytes)
  })

  it("settles on the time that the wanted bytes take, also when every other read finds little", () => {
    const recent = new RecentReads()
    let waiting = 1_000_000
    let wait = 0
    let waited = 0
    for (let round = 0; round < 50; round++) {
      // 120 kB come each millisecond; a read takes what is there, 1 MB at most, and 1.5 ms to decode.
      const elapsed = wait + 1.5
      waiting += elapsed * 120_000
      const bytes = Math.min(1_048_576, waiting)
      waiting -= bytes
      wait = waitMillis({ ...recent.next(bytes, bytes / 1000, elapsed), bytes, behindMillis: 60_000 }, 20)
      waited = Math.max(waited, round < 25 ? 0 : wait)
    }
    assert.isBelow(waited, 8)
  })

  it("is turned off by a longest wait of 0", () => {
    assert.strictEqual(waitMillis(small, 0), 0)
  })
})
