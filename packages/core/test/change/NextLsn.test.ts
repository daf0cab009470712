import { assert, describe, it } from "@effect/vitest"
import { NextLsn, Run } from "../../src/change/NextLsn.ts"
import * as Lsn from "../../src/Lsn.ts"

const endLsn = Lsn.fromString("16/B374D848")!

describe("NextLsn", () => {
  it("tells the position it acknowledges, exactly as delivered", () => {
    assert.strictEqual(NextLsn.deliver(endLsn, new Run()).lsn, endLsn)
  })

  it("belongs to the run that delivered it, and to no other", () => {
    const run = new Run()
    const unit = NextLsn.deliver(endLsn, run)
    assert.isTrue(NextLsn.isOf(unit, run))
    assert.isFalse(NextLsn.isOf(unit, new Run()))
  })

  it("is open until it is finished, and stays finished", () => {
    const unit = NextLsn.deliver(endLsn, new Run())
    assert.isFalse(NextLsn.isDone(unit))
    NextLsn.finish(unit)
    NextLsn.finish(unit)
    assert.isTrue(NextLsn.isDone(unit))
  })

  it("finishes alone: two units of one position are not one", () => {
    const run = new Run()
    const [first, second] = [NextLsn.deliver(endLsn, run), NextLsn.deliver(endLsn, run)]
    NextLsn.finish(first)
    assert.isFalse(NextLsn.isDone(second))
  })

  it("leads to the unit delivered after it, until it is let go", () => {
    const run = new Run()
    const [first, second] = [NextLsn.deliver(endLsn, run), NextLsn.deliver(endLsn, run)]
    assert.isUndefined(NextLsn.next(first))
    NextLsn.link(first, second)
    assert.strictEqual(NextLsn.next(first), second)
    NextLsn.link(first, undefined)
    assert.isUndefined(NextLsn.next(first))
  })

  it("cannot be made up: neither a literal nor a copy passes for one", () => {
    // @ts-expect-error: an object with an `lsn` is not a NextLsn.
    const forged: NextLsn = { lsn: endLsn }
    const run = new Run()
    const copied = { ...NextLsn.deliver(endLsn, run) } as unknown as NextLsn
    assert.throws(() => NextLsn.isOf(forged, run), TypeError)
    assert.throws(() => NextLsn.isOf(copied, run), TypeError)
    // @ts-expect-error: nor is a string that looks like an LSN.
    const text: NextLsn = "16/B374D848"
    assert.throws(() => NextLsn.isDone(text), TypeError)
    // @ts-expect-error: the constructor is private.
    assert.instanceOf(new NextLsn(endLsn, run), NextLsn)
  })

  it("shows nothing but its position when it is printed", () => {
    assert.deepStrictEqual(Object.keys(NextLsn.deliver(endLsn, new Run())), ["lsn"])
  })
})
