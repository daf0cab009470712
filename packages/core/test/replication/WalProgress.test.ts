import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
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

  it("ignores an acknowledgement of another run", () => {
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

  it("keeps what is durable across a reconnection, and voids what is pending", () => {
    let [progress, units] = deliver(WalProgress.initial(), 10, 20)
    progress = WalProgress.restart(WalProgress.acknowledge(progress, units[0]!))
    assert.strictEqual(progress.durable, lsn(10))
    assert.strictEqual(progress.pending, 0)
  })

  /** What the server, the consumer and we may do next, in any order. */
  const Step = Schema.Literals(["unit", "open", "idle", "finish", "finishNewest", "through", "report", "reconnect"])

  it.prop(
    "over any interleaving, no report passes an unfinished unit and reports never go back",
    { steps: Schema.Array(Step), picks: Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 99 }))) },
    ({ picks, steps }) => {
      let progress = WalProgress.initial()
      // The model: what the server has sent on this connection, and which of it the handler has ended.
      let wal = 0
      let units: Array<{ readonly token: NextLsn; readonly commitLsn: Lsn.Lsn; isDone: boolean }> = []
      let isOpen = false
      let confirmed = Lsn.zero
      let pick = 0
      const choose = (count: number) => (picks.length === 0 ? 0 : picks[pick++ % picks.length]!) % count
      for (const step of steps) {
        switch (step) {
          case "unit": {
            // The commit record begins where the WAL ended: adjacent to the unit before, unless something lay between.
            const commitLsn = lsn(wal)
            wal += 10
            const [next, [token]] = deliver(progress, wal)
            progress = next
            isOpen = false
            units.push({ token: token!, commitLsn, isDone: false })
            break
          }
          case "open":
            wal += 5
            isOpen = true
            progress = receive(progress, wal, true)
            break
          case "idle":
            wal += isOpen ? 0 : 3
            progress = receive(progress, wal, isOpen)
            break
          case "finish":
          case "finishNewest":
          case "through": {
            if (units.length === 0) break
            const index = step === "finishNewest" ? units.length - 1 : choose(units.length)
            const unit = units[index]!
            if (step === "through") {
              for (const before of units.slice(0, index + 1)) before.isDone = true
              progress = WalProgress.acknowledgeThrough(progress, unit.token)
            } else {
              unit.isDone = true
              progress = WalProgress.acknowledge(progress, unit.token)
            }
            break
          }
          case "report": {
            const flushed = WalProgress.flushed(progress)
            progress = WalProgress.reportFlushed(progress, flushed)
            assert.isTrue(flushed >= confirmed, "a report went back")
            confirmed = flushed
            break
          }
          case "reconnect":
            progress = WalProgress.restart(progress)
            // The server sends again what it has not confirmed: those units are new ones here.
            units = units
              .filter((unit) => unit.token.lsn > WalProgress.resumeLsn(progress))
              .map(({ commitLsn, token }) => {
                const [next, [again]] = deliver(progress, Number(token.lsn))
                progress = next
                return { token: again!, commitLsn, isDone: false }
              })
            wal = Math.max(
              Number(confirmed),
              Number(WalProgress.resumeLsn(progress)),
              ...units.map((unit) => Number(unit.token.lsn))
            )
            isOpen = false
        }
        const flushed = WalProgress.flushed(progress)
        const oldest = units.find((unit) => !unit.isDone)
        // PostgreSQL skips a transaction whose commit record starts before the confirmed position.
        if (oldest !== undefined) assert.isTrue(flushed <= oldest.commitLsn, "a report passed an unfinished unit")
        if (isOpen) assert.isTrue(flushed < BigInt(wal), "a report passed an open transaction")
        assert.isTrue(flushed <= BigInt(wal), "a report passed what was received")
      }
    },
    { arbitrary: { runs: 2000 } }
  )
})
