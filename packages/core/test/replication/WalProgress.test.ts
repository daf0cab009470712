/** One law at a time, by example. Every order in which things can happen is in `model/Model.test.ts`. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Ref from "effect/Ref"
import { NextLsn } from "../../src/change/NextLsn.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as WalProgress from "../../src/replication/WalProgress.ts"

const lsn = (value: number) => BigInt(value) as Lsn.Lsn

/** Delivers units that end at these positions. */
const deliver = (progress: WalProgress.WalProgress, ...ends: ReadonlyArray<number>) => {
  const delivered = ends.map((end) => NextLsn.deliver(lsn(end), progress.run))
  const received = lsn(ends.at(-1) ?? 0)
  return [WalProgress.receiveWal(progress, { received, isOpen: false, delivered }), delivered] as const
}

const receive = (progress: WalProgress.WalProgress, received: number, isOpen = false) =>
  WalProgress.receiveWal(progress, { received: lsn(received), isOpen, delivered: [] })

describe("WalProgress", () => {
  it("reports 0/0 before anything is received", () => {
    assert.strictEqual(WalProgress.flushed(WalProgress.initial()), Lsn.zero)
  })

  it("reports nothing of a unit that is delivered and not acknowledged", () => {
    const [progress] = deliver(WalProgress.initial(), 100)
    assert.strictEqual(WalProgress.flushed(progress), Lsn.zero)
    assert.strictEqual(WalProgress.flushed(receive(progress, 500)), Lsn.zero)
  })

  it("reports the end of a unit exactly, not one byte more", () => {
    const [progress, [first]] = deliver(WalProgress.initial(), 100)
    const [more] = deliver(progress, 200)
    assert.strictEqual(WalProgress.flushed(WalProgress.acknowledge(more, first!)), lsn(100))
  })

  it("tells as handled what is done or idle, also where that may not be reported, and nothing that is pending", () => {
    const limited = WalProgress.allowIdle(WalProgress.initial(), Lsn.zero)
    const idle = receive(limited, 50)
    assert.deepStrictEqual([WalProgress.handledLsn(idle), WalProgress.flushed(idle)], [lsn(50), Lsn.zero])
    const [progress, [first]] = deliver(idle, 100, 200)
    assert.strictEqual(WalProgress.handledLsn(progress), Lsn.zero)
    const one = receive(WalProgress.acknowledge(progress, first!), 300)
    assert.strictEqual(WalProgress.handledLsn(one), lsn(100))
    assert.strictEqual(WalProgress.handledLsn(WalProgress.restart(one)), lsn(100))
    assert.strictEqual(WalProgress.handledLsn(receive(WalProgress.restart(one), 400, true)), lsn(100))
  })

  it("reports an idle position only when nothing is open or pending", () => {
    const idle = receive(WalProgress.initial(), 300)
    assert.strictEqual(WalProgress.flushed(idle), lsn(300))
    assert.strictEqual(WalProgress.flushed(receive(WalProgress.initial(), 300, true)), Lsn.zero)
    const [pending, [unit]] = deliver(idle, 400)
    const later = receive(pending, 900)
    assert.strictEqual(WalProgress.flushed(later), Lsn.zero)
    assert.strictEqual(WalProgress.flushed(WalProgress.acknowledge(later, unit!)), lsn(900))
  })

  it("moves over the longest finished prefix when units finish out of order", () => {
    let [progress, units] = deliver(WalProgress.initial(), 10, 20, 30)
    progress = WalProgress.acknowledge(progress, units[2]!)
    assert.strictEqual(WalProgress.flushed(progress), Lsn.zero)
    progress = WalProgress.acknowledge(progress, units[0]!)
    assert.strictEqual(WalProgress.flushed(progress), lsn(10))
    progress = WalProgress.acknowledge(progress, units[1]!)
    assert.strictEqual(WalProgress.flushed(progress), lsn(30))
    assert.strictEqual(progress.pending, 0)
  })

  it("goes on where the queue was empty, and where it was not", () => {
    let [progress, [first]] = deliver(WalProgress.initial(), 10)
    progress = WalProgress.acknowledge(progress, first!)
    const [two, [second, third]] = deliver(progress, 20, 30)
    progress = WalProgress.acknowledge(two, second!)
    const [three, [fourth]] = deliver(progress, 40)
    progress = WalProgress.acknowledge(three, fourth!)
    assert.strictEqual(WalProgress.flushed(progress), lsn(20), "the third is not done")
    progress = WalProgress.acknowledge(progress, third!)
    assert.strictEqual(WalProgress.flushed(progress), lsn(40))
  })

  it("a unit that has left the queue holds none that came after it, so that memory goes with each", () => {
    const [progress, [first]] = deliver(WalProgress.initial(), 10, 20)
    assert.isDefined(NextLsn.next(first!))
    WalProgress.acknowledge(progress, first!)
    assert.isUndefined(NextLsn.next(first!))
  })

  it("acknowledgeThrough covers all that was delivered before", () => {
    let [progress, units] = deliver(WalProgress.initial(), 10, 20, 30)
    progress = WalProgress.acknowledgeThrough(progress, units[1]!)
    assert.strictEqual(WalProgress.flushed(progress), lsn(20))
    assert.strictEqual(progress.pending, 1)
    progress = WalProgress.acknowledgeThrough(progress, units[0]!)
    assert.strictEqual(WalProgress.flushed(progress), lsn(20))
    assert.strictEqual(progress.pending, 1)
  })

  it("acknowledgeThrough of a unit that is done already covers none delivered since, also of an equal LSN", () => {
    // wal2json's format 1 tells no LSN of a message outside a transaction: it bears that of the unit before.
    let [progress, units] = deliver(WalProgress.initial(), 10, 10, 20)
    progress = WalProgress.acknowledge(progress, units[0]!)
    progress = WalProgress.acknowledgeThrough(progress, units[0]!)
    assert.strictEqual(progress.pending, 2)
    assert.strictEqual(WalProgress.flushed(progress), lsn(10))
  })

  it("acknowledgeThrough covers the later of two units that end at one LSN", () => {
    let [progress, units] = deliver(WalProgress.initial(), 10, 10, 20)
    progress = WalProgress.acknowledgeThrough(progress, units[1]!)
    assert.strictEqual(progress.pending, 1)
    assert.strictEqual(WalProgress.flushed(progress), lsn(10))
  })

  it("of two units that end at one LSN, each is acknowledged by itself", () => {
    let [progress, units] = deliver(WalProgress.initial(), 10, 10)
    progress = WalProgress.acknowledge(progress, units[1]!)
    assert.strictEqual(WalProgress.flushed(progress), Lsn.zero)
    progress = WalProgress.acknowledge(progress, units[0]!)
    assert.strictEqual(WalProgress.flushed(progress), lsn(10))
  })

  it("[C12] a unit that is acknowledged to another stream than its own is not done", () => {
    const [here] = deliver(WalProgress.initial(), 10)
    const [there, [first, second]] = deliver(WalProgress.initial(), 10, 20)
    assert.strictEqual(WalProgress.acknowledge(here, second!), here)
    assert.strictEqual(WalProgress.flushed(WalProgress.acknowledge(there, first!)), lsn(10))
  })

  it("[C12] ignores an acknowledgement of another run", () => {
    const [progress, [stale]] = deliver(WalProgress.initial(), 10)
    const again = WalProgress.restart(progress)
    const [redelivered, [fresh]] = deliver(again, 10)
    assert.strictEqual(WalProgress.acknowledge(redelivered, stale!), redelivered)
    assert.strictEqual(WalProgress.acknowledgeThrough(redelivered, stale!), redelivered)
    assert.strictEqual(WalProgress.flushed(WalProgress.acknowledge(redelivered, fresh!)), lsn(10))
  })

  it("never reports less than it did", () => {
    const idle = receive(WalProgress.initial(), 300)
    const reported = WalProgress.reportFlushed(idle, WalProgress.flushed(idle))
    const [pending] = deliver(reported, 400)
    assert.strictEqual(WalProgress.flushed(pending), lsn(300))
  })

  it("reports an idle position up to its limit, and beyond it only what is acknowledged", () => {
    const limited = receive(WalProgress.allowIdle(WalProgress.initial(), lsn(100)), 300)
    assert.strictEqual(WalProgress.flushed(limited), lsn(100))
    assert.strictEqual(WalProgress.beyondIdleLimit(limited), lsn(300))
    assert.strictEqual(WalProgress.flushed(WalProgress.allowIdle(limited, lsn(300))), lsn(300))
    const [progress, [unit]] = deliver(limited, 400)
    assert.isUndefined(WalProgress.beyondIdleLimit(progress), "not while something is pending")
    assert.strictEqual(WalProgress.flushed(progress), lsn(0))
    const done = WalProgress.acknowledge(progress, unit!)
    assert.strictEqual(WalProgress.flushed(done), lsn(400))
    assert.isUndefined(WalProgress.beyondIdleLimit(done))
    assert.strictEqual(WalProgress.flushed(receive(WalProgress.restart(done), 500)), lsn(400))
    assert.isUndefined(WalProgress.beyondIdleLimit(receive(WalProgress.initial(), 300)), "nor without a limit")
  })

  it("keeps what is durable across a reconnection, and voids what is pending", () => {
    let [progress, units] = deliver(WalProgress.initial(), 10, 20)
    progress = WalProgress.restart(receive(WalProgress.acknowledge(progress, units[0]!), 25, true))
    assert.strictEqual(progress.durable, lsn(10))
    assert.strictEqual(progress.pending, 0)
    assert.isFalse(progress.isOpen, "and the transaction that was open comes again from its beginning")
  })

  it("resumes behind what is done and what was reported, whichever is further", () => {
    const [delivered, [unit]] = deliver(WalProgress.initial(), 100)
    const done = WalProgress.acknowledge(delivered, unit!)
    assert.strictEqual(WalProgress.resumeLsn(done), lsn(100), "done and not reported")
    assert.strictEqual(WalProgress.resumeLsn(WalProgress.reportFlushed(done, lsn(300))), lsn(300), "idle and reported")
  })

  it.effect("is changed for all who share it", () =>
    Effect.gen(function* () {
      const shared = yield* WalProgress.make
      yield* WalProgress.updateWalProgress(shared, (progress) => receive(progress, 300))
      assert.strictEqual((yield* Ref.get(shared)).received, lsn(300))
    })
  )

  it("reports nothing and keeps no unit where nothing is to be confirmed, whatever comes and is acknowledged", () => {
    let [progress, units] = deliver({ ...WalProgress.initial(), confirm: "nothing" }, 10, 20, 30)
    progress = WalProgress.acknowledge(progress, units[0]!)
    progress = WalProgress.acknowledgeThrough(progress, units[2]!)
    progress = WalProgress.restart(receive(progress, 300))
    assert.strictEqual(WalProgress.flushed(receive(progress, 400)), Lsn.zero)
    assert.deepInclude(progress, {
      confirm: "nothing",
      pending: 0,
      first: undefined,
      last: undefined,
      durable: Lsn.zero
    })
  })
})
