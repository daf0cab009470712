/** The order of work by its keys, held against a model that counts, for each key, what has ended. */
import { assert, describe, it } from "@effect/vitest"
import { KeyOrder, type Work } from "../../src/handling/KeyOrder.ts"
import { Random } from "../support/Random.ts"

/** Work as the model knows it: how many before it have each of its keys. */
interface Placed {
  readonly before: ReadonlyArray<number>
  readonly keys: ReadonlyArray<string>
}

/** Runs so many works over so many keys, some of two keys, some of which fail; gives how many ended and how many ran at once. */
const run = (seed: number, works: number, { failing }: { readonly failing: boolean }) => {
  const random = new Random(seed)
  const keyCount = 1 + random.below(random.pick([3, 50, 5000]))
  const concurrency = 1 + random.below(16)
  const order = new KeyOrder<Placed>()
  const added = new Map<string, number>()
  const ended = new Map<string, number>()
  const running: Array<Work<Placed>> = []
  const [failed, lost] = [new Set<string>(), new Set<string>()]
  let left = works
  let [done, failures, most] = [0, 0, 0]
  const key = () => `k${random.below(keyCount)}`
  const add = () => {
    const keys = random.chance(10) ? [key(), key()] : [key()]
    const before = keys.map((name) => added.get(name) ?? 0)
    for (const name of new Set(keys)) added.set(name, (added.get(name) ?? 0) + 1)
    order.add({ before, keys }, keys)
    // Whatever comes after what has failed is never to begin.
    if (keys.some((name) => lost.has(name))) for (const name of keys) lost.add(name)
    left--
  }
  while (left > 0 || running.length > 0 || (order.size > 0 && !failing)) {
    if (left > 0 && order.size < 64 && random.chance(60)) add()
    else if (left > 0 && order.size >= 64 && running.length === 0 && failing) break
    if (running.length < concurrency) {
      const work = order.take()
      if (work !== undefined) {
        const { before, keys } = work.value
        keys.forEach((name, index) => {
          if ((ended.get(name) ?? 0) !== before[index]) assert.fail(`seed ${seed}: ${name} begins out of order`)
          if (failed.has(name)) assert.fail(`seed ${seed}: ${name} goes on after its failure`)
        })
        running.push(work)
        most = Math.max(most, running.length)
      } else if (running.length === 0 && order.size > 0 && !failing) assert.fail(`seed ${seed}: nothing may begin`)
    }
    if (running.length > 0 && random.chance(50)) {
      const [work] = running.splice(random.below(running.length), 1)
      if (failing && random.below(500) === 0) {
        failures++
        for (const name of work!.value.keys) failed.add(name)
        continue
      }
      for (const name of new Set(work!.value.keys)) ended.set(name, (ended.get(name) ?? 0) + 1)
      order.end(work!)
      done++
    }
  }
  return { done, failures, most, size: order.size }
}

describe("KeyOrder", () => {
  it("keeps the order of each key over a million works with moved keys, and runs all of them", () => {
    let [done, most] = [0, 0]
    for (let seed = 1; seed <= 40; seed++) {
      const result = run(seed, 25_000, { failing: false })
      assert.strictEqual(result.size, 0, `seed ${seed}`)
      done += result.done
      most = Math.max(most, result.most)
    }
    assert.strictEqual(done, 1_000_000)
    assert.isAtLeast(most, 8, "never side by side")
  })

  it("never begins what follows a failure by key", () => {
    let failures = 0
    for (let seed = 101; seed <= 120; seed++) failures += run(seed, 2000, { failing: true }).failures
    assert.isAtLeast(failures, 20)
  })

  it("forgets the keys of what has ended", () => {
    const order = new KeyOrder<number>()
    for (let index = 0; index < 5000; index++) {
      order.add(index, [`k${index}`, "shared"])
      order.end(order.take()!)
    }
    assert.strictEqual(order.size, 0)
    assert.strictEqual((order as unknown as { readonly last: Map<string, unknown> }).last.size, 0)
  })
})
