import { assert, describe, it } from "@effect/vitest"
import { largeMessageBytes, RecentReads, waitMillis } from "../../src/replication/ReadPace.ts"

const small = { messageBytes: 80, bytesPerMilli: 4096, share: 1, behindMillis: 60_000 }

describe("ReadPace", () => {
  it("never delays live traffic", () => {
    assert.strictEqual(waitMillis({ ...small, behindMillis: 10 }, 20), 0)
  })

  it("waits while behind, no longer than it is told", () => {
    assert.strictEqual(waitMillis(small, 20), 20)
    assert.strictEqual(waitMillis(small, 5), 5)
  })

  it("waits only as long as the wanted bytes take to gather", () => {
    assert.strictEqual(waitMillis({ ...small, bytesPerMilli: 102_400 }, 20), 9)
  })

  it("does not wait for what a busy server sends late, and little of", () => {
    assert.strictEqual(waitMillis({ ...small, bytesPerMilli: 100 }, 20), 0)
  })

  it("does not wait for large messages", () => {
    assert.strictEqual(waitMillis({ ...small, messageBytes: 100_000 }, 20), 0)
  })

  it("knows large messages by the last few reads, not by the small commit between two of them", () => {
    const recent = new RecentReads()
    recent.next(65_536, 1, 1)
    recent.next(34_500, 0, 1)
    assert.isAbove(recent.next(48, 2, 1).messageBytes, largeMessageBytes)
  })

  /** Drains what comes at a rate through a window for a second, and gives the last wait and the bytes a millisecond. */
  const drain = (rate: number, window: number, jitter = 0) => {
    const recent = new RecentReads()
    let [waiting, time, wait, drained] = [window, 0, 0, 0]
    for (let round = 0; time < 1000; round++) {
      // A read takes what is there, 1 MB at most, and 1.5 ms to decode.
      const elapsed = wait + 1.5
      time += elapsed
      waiting = Math.min(window, waiting + elapsed * rate * (1 + jitter * (round % 3)))
      const bytes = Math.min(1_048_576, waiting)
      waiting -= bytes
      drained += bytes
      wait = waitMillis({ ...recent.next(bytes, bytes / 1000, elapsed), behindMillis: 60_000 }, 20)
    }
    return { wait, bytesPerMilli: drained / time }
  }

  it("settles on the time that the wanted bytes take", () => {
    const { bytesPerMilli, wait } = drain(120_000, 4_000_000, 0.1)
    assert.isAbove(bytesPerMilli, 110_000)
    assert.isAbove(wait, 2)
    assert.isBelow(wait, 10)
  })

  it("does not take a full receive window for a slow server", () => {
    // Waiting for all that was wanted would bring one window in 20 ms.
    assert.isAbove(drain(100_000, 204_800).bytesPerMilli, 3 * (204_800 / 20))
  })

  it("does not take a steady server for a full receive window", () => {
    assert.strictEqual(drain(30_000, 4_000_000, 0.02).wait, 20)
  })

  it("waits as long for a slow server as it may", () => {
    assert.isAbove(drain(2000, 4_000_000).wait, 15)
  })

  it("is turned off by a longest wait of 0", () => {
    assert.strictEqual(waitMillis(small, 0), 0)
  })
})
