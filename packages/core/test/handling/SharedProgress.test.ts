/** What several consumers have done: by the longest finished prefix of each, and the shortest of these. */
import { assert, describe, it } from "@effect/vitest"
import { NextLsn, Run } from "../../src/change/NextLsn.ts"
import { SharedProgress } from "../../src/handling/SharedProgress.ts"
import * as Lsn from "../../src/Lsn.ts"

const units = (count: number) => {
  const run = new Run()
  return Array.from({ length: count }, (_, index) => NextLsn.deliver(Lsn.make(BigInt(index + 1) * 16n)!, run))
}

const numbers = (seed: number) => {
  let state = seed
  return (limit: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    return Math.floor((state / 0x1_0000_0000) * limit)
  }
}

describe("SharedProgress", () => {
  for (const seed of [1, 2, 3]) {
    it(`passes no unit that a required consumer has not done with all before it, in any order (${seed})`, () => {
      const next = numbers(seed)
      const all = units(5000)
      const progress = new SharedProgress()
      const required = ["a", "b", "c"]
      const names = [...required, "d"]
      const done = new Map(names.map((name) => [name, new Set<number>()]))
      for (const name of names) progress.join(name, required.includes(name))
      let [delivered, passed] = [0, 0]
      const prefixOf = (name: string) => {
        let count = 0
        while (done.get(name)!.has(count)) count++
        return count
      }
      const tell = (name: string, index: number, isThrough: boolean) => {
        const own = done.get(name)!
        if (isThrough) for (let each = 0; each <= index; each++) own.add(each)
        else own.add(index)
        const last = isThrough
          ? progress.acknowledgeThrough(name, all[index]!)
          : progress.acknowledge(name, all[index]!)
        const least = Math.min(...required.map(prefixOf))
        if (last !== undefined) passed = all.indexOf(last) + 1
        assert.strictEqual(passed, least)
        const [lsn = Lsn.zero] = [all[prefixOf(name) - 1]?.lsn]
        assert.strictEqual(progress.doneBy(name), lsn)
        const at = next(delivered)
        assert.strictEqual(progress.hasAll(name, all[at]!.lsn), prefixOf(name) > at)
      }
      for (let step = 0; step < 3000; step++) {
        if (delivered < all.length && next(3) === 0) progress.deliver(all[delivered++]!)
        if (delivered === 0) continue
        const name = names[next(4)]!
        const from = prefixOf(name)
        const index = from + next(Math.min(4, delivered - from + 1))
        if (index < delivered) tell(name, index, next(4) === 0)
      }
      for (const name of names) tell(name, delivered - 1, true)
      assert.strictEqual(passed, delivered)
    })
  }

  it("waits for nobody who has left, and knows nothing of what is not its own", () => {
    const [first, second, foreign] = units(3) as [NextLsn, NextLsn, NextLsn]
    const progress = new SharedProgress()
    progress.join("a", true)
    progress.join("b", false)
    progress.deliver(first)
    progress.deliver(second)
    assert.strictEqual(progress.acknowledgeThrough("a", second), second)
    assert.isFalse(progress.hasAll("b", first.lsn))
    progress.leave("b")
    assert.isFalse(progress.hasAll("b", first.lsn))
    assert.isUndefined(progress.acknowledge("a", foreign))
    assert.isUndefined(progress.acknowledge("b", first))
    progress.join("b", false)
    assert.isTrue(progress.hasAll("b", second.lsn))
  })

  it("remembers no more than so many units of who is optional, and never that he has them", () => {
    const progress = new SharedProgress()
    progress.join("a", true)
    progress.join("b", false)
    const all = units(250_000)
    for (const unit of all) {
      progress.deliver(unit)
      progress.acknowledge("a", unit)
    }
    assert.isFalse(progress.hasAll("b", all[0]!.lsn))
    assert.isBelow((progress as unknown as { readonly units: ReadonlyArray<unknown> }).units.length, 110_000)
  })
})
