import { assert, describe, it } from "@effect/vitest"
import * as TransactionSnapshot from "../../src/snapshot/TransactionSnapshot.ts"
import { Random } from "../support/Random.ts"

const parse = (text: string) => {
  const snapshot = TransactionSnapshot.fromString(text)
  assert.isDefined(snapshot, text)
  return snapshot!
}

describe("TransactionSnapshot", () => {
  it.each(["3:3:", "10:20:10,14,15", "750:750:", "18446744073709551614:18446744073709551615:18446744073709551614"])(
    "reads and writes %s as PostgreSQL does",
    (text) => assert.strictEqual(TransactionSnapshot.format(parse(text)), text)
  )

  it("writes the running ones in order, however they are kept", () => {
    for (const running of [
      [15n, 10n, 14n],
      [10n, 14n, 15n],
      [14n, 15n, 10n]
    ]) {
      assert.strictEqual(
        TransactionSnapshot.format({ xmin: 10n, xmax: 20n, running: new Set(running) }),
        "10:20:10,14,15"
      )
    }
  })

  it.each(["", "10", "10:20", "10:20:9", "10:20:20", "10:20:14,", "0:1:", "a:b:", "10:20:14 ", "-1:20:"])(
    "refuses '%s'",
    (text) => assert.isUndefined(TransactionSnapshot.fromString(text))
  )

  it("sees what had ended, and neither what was running nor what had not begun", () => {
    const snapshot = parse("10:20:10,14,15")
    const seen = Array.from({ length: 25 }, (_, xid) => xid).filter((xid) =>
      TransactionSnapshot.isVisible(snapshot, xid)
    )
    assert.deepStrictEqual(seen, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 16, 17, 18, 19])
  })

  it("takes one that ends before it begins, as a slot exports after rollbacks, for all that is below xmin", () => {
    const snapshot = parse("2349:2348:")
    const seen = [2347, 2348, 2349].map((xid) => TransactionSnapshot.isVisible(snapshot, xid))
    assert.deepStrictEqual(seen, [true, true, false])
  })

  it("knows transactions by 32 bits, also around the place where these begin again", () => {
    const epoch = 5n << 32n
    const snapshot = parse(`${epoch - 3n}:${epoch + 8n}:${epoch - 3n},${epoch + 5n}`)
    const isVisible = (xid: bigint) => TransactionSnapshot.isVisible(snapshot, Number(BigInt.asUintN(32, xid)))
    const seen = (from: bigint, to: bigint) =>
      Array.from({ length: Number(to - from) }, (_, index) => from + BigInt(index)).filter(isVisible)
    assert.deepStrictEqual(
      seen(epoch - 5n, epoch + 12n).map((xid) => xid - epoch),
      [-5n, -4n, -2n, -1n, 0n, 1n, 2n, 3n, 4n, 6n, 7n]
    )
  })

  it("gives for 32 bits what it would give for 64", () => {
    const random = new Random(20)
    for (let round = 0; round < 10_000; round++) {
      const xmin = 3n + (BigInt(random.below(1 << 10)) << 32n) + BigInt(random.uint32())
      const xmax = xmin + BigInt(random.below(1000))
      const holes = Array.from({ length: random.below(5) }, () => xmin + BigInt(random.below(1000)))
      const snapshot = { xmin, xmax, running: new Set(holes.filter((xid) => xid < xmax)) }
      const xid = xmin + BigInt(random.below(4000) - 2000)
      const expected = xid < xmax && !snapshot.running.has(xid)
      const visible = TransactionSnapshot.isVisible(snapshot, Number(BigInt.asUintN(32, xid)))
      assert.strictEqual(visible, expected, `${xid} in ${TransactionSnapshot.format(snapshot)}`)
    }
  })
})
