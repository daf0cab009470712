/** Messages on their way: nothing is told to be done that no engine has, whatever comes between. */
import { assert, describe, it } from "@effect/vitest"
import { NextLsn, Run } from "../../src/change/NextLsn.ts"
import * as Lsn from "../../src/Lsn.ts"
import type { Message } from "../../src/sink/Message.ts"
import { type Batch, Pending } from "../../src/sink/Pending.ts"
import * as Place from "../../src/sink/Place.ts"

const run = new Run()

const message = (n: number): Message => ({
  id: Place.within(Lsn.make(0x100n)!, n),
  op: "c",
  to: "items",
  key: undefined,
  value: `${n}`
})

/** Messages, the last of which ends a unit. */
const unit = (from: number, to: number) => ({
  messages: Array.from({ length: to - from + 1 }, (_, index) => message(from + index)),
  ends: [{ behind: to - from + 1, nextLsn: NextLsn.deliver(Lsn.make(BigInt(to))!, run) }]
})

const idsOf = (batch: Batch | undefined) => batch?.messages.map(({ id }) => id)

/** Whole numbers below a limit, the same in each run. */
const numbers = (seed: number) => {
  let state = seed
  return (limit: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    return Math.floor((state / 0x1_0000_0000) * limit)
  }
}

describe("Pending", () => {
  it("keeps apart what a new writer's mark says is durable and what comes then", () => {
    const pending = new Pending({ messages: 10, characters: 10_000 })
    pending.add(unit(1, 2))
    pending.next()
    assert.strictEqual(pending.resume(message(2).id)?.lsn, 2n)
    pending.add(unit(3, 3))
    assert.isUndefined(pending.settle())
    assert.deepStrictEqual(idsOf(pending.next()), [message(3).id])
  })

  it("never puts a message into a batch that is durable", () => {
    const pending = new Pending({ messages: 10, characters: 10_000 })
    pending.add(unit(1, 1))
    const batch = pending.next()!
    pending.resume(undefined)
    // An answer to the writer before comes late.
    batch.isDurable = true
    pending.add(unit(2, 2))
    assert.deepStrictEqual(idsOf(batch), [message(1).id])
  })

  it("puts one message in the place of another, and then none", () => {
    const pending = new Pending({ messages: 10, characters: 10_000 })
    pending.add(unit(1, 3))
    const shorter = (rejected: Message): Message => ({ ...rejected, value: "-" })
    assert.isTrue(pending.replace(message(2).id, shorter))
    assert.isTrue(pending.replace(message(3).id, shorter))
    assert.isFalse(pending.replace(message(2).id, shorter))
    assert.isFalse(pending.replace(message(7).id, shorter))
    assert.deepStrictEqual(
      pending.next()?.messages.map(({ value }) => value),
      ["1", "-", "-"]
    )
  })

  it("tells an end only when all before it is stored, and stores each message once and in order", () => {
    for (let seed = 1; seed <= 300; seed++) {
      const below = numbers(seed)
      const pending = new Pending({ messages: 1 + below(4), characters: 10_000 })
      /** What the engine has; and what it was sent, in order, some of it stored and not answered for. */
      const stored: Array<string> = []
      let sent: Array<{ readonly batch: Batch; readonly ids: ReadonlyArray<string>; isStored: boolean }> = []
      let [added, told] = [0, 0]
      const tell = (end: NextLsn | undefined) => {
        if (end === undefined) return
        assert.isAtMost(Number(end.lsn), stored.length, `seed ${seed}: an end was told too early`)
        told = Math.max(told, Number(end.lsn))
      }
      const store = () => {
        const next = sent.find(({ isStored }) => !isStored)
        if (next === undefined) return
        next.isStored = true
        stored.push(...next.ids)
      }
      const send = () => {
        const batch = pending.next()
        if (batch !== undefined) sent.push({ batch, ids: idsOf(batch)!, isStored: false })
      }
      const answer = () => {
        const answered = sent.filter(({ isStored }) => isStored)
        if (answered.length > 0) answered[below(answered.length)]!.batch.isDurable = true
      }
      const resume = () => {
        sent = []
        tell(pending.resume(stored.at(-1)))
      }
      const add = () => {
        const from = added + 1
        added += below(5)
        if (added >= from) tell(pending.add(unit(from, added)))
      }
      const steps = [add, add, send, send, store, store, answer, answer, () => tell(pending.settle()), resume]
      for (let step = 0; step < 200; step++) steps[below(steps.length)]!()
      resume()
      for (let round = 0; !pending.isEmpty; round++) {
        assert.isBelow(round, 2000, `seed ${seed}: it does not come to an end`)
        send()
        store()
        for (const { batch, isStored } of sent) batch.isDurable ||= isStored
        tell(pending.settle())
      }
      const all = Array.from({ length: added }, (_, index) => message(index + 1).id)
      assert.deepStrictEqual(stored, all, `seed ${seed}`)
      assert.strictEqual(told, added, `seed ${seed}`)
    }
  })
})
