import { assert, describe, it } from "@effect/vitest"
import { largeMessageBytes, Sizes, waitMillis } from "../../src/replication/ReadPace.ts"

const small = { bytes: 4096, messageBytes: 80, behindMillis: 60_000, elapsedMillis: 1 }

describe("ReadPace", () => {
  it("never delays live traffic", () => {
    assert.strictEqual(waitMillis({ ...small, behindMillis: 10 }, 20), 0)
  })

  it("waits while behind, no longer than it is told", () => {
    assert.strictEqual(waitMillis(small, 20), 20)
    assert.strictEqual(waitMillis(small, 5), 5)
  })

  it("waits only as long as the wanted bytes take to gather", () => {
    assert.strictEqual(waitMillis({ ...small, bytes: 51_200, elapsedMillis: 0.5 }, 20), 5)
  })

  it("does not wait when the read was large enough, or when its messages are", () => {
    assert.strictEqual(waitMillis({ ...small, bytes: 600_000, messageBytes: 8000 }, 20), 0)
    assert.strictEqual(waitMillis({ ...small, messageBytes: 100_000 }, 20), 0)
  })

  it("knows large messages by the last few reads, not by the small commit between two of them", () => {
    const sizes = new Sizes()
    sizes.next(65_536, 1)
    sizes.next(34_500, 0)
    assert.isAbove(sizes.next(48, 2), largeMessageBytes)
  })

  it("is turned off by a longest wait of 0", () => {
    assert.strictEqual(waitMillis(small, 0), 0)
  })
})
