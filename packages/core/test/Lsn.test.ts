import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Lsn from "../src/Lsn.ts"

const lsn = (value: bigint): Lsn.Lsn => Lsn.make(value)!

/** LSNs as pg_lsn writes them. */
const texts: ReadonlyArray<readonly [text: string, value: bigint]> = [
  ["0/0", 0n],
  ["0/1", 1n],
  ["0/FFFFFFFF", 0xffff_ffffn],
  ["1/0", 0x1_0000_0000n],
  ["16/B374D848", 97_500_059_720n],
  ["7FFFFFFF/FFFFFFFF", 2n ** 63n - 1n],
  ["80000000/0", 2n ** 63n],
  ["FFFFFFFF/FFFFFFFF", 2n ** 64n - 1n]
]

describe("Lsn", () => {
  it.each(texts)("reads and writes %s as PostgreSQL does", (text, value) => {
    assert.strictEqual(Lsn.fromString(text), value)
    assert.strictEqual(Lsn.format(lsn(value)), text)
  })

  it("reads lower case and leading zeros, and writes neither", () => {
    assert.strictEqual(Lsn.format(Lsn.fromString("0000001a/0000000b")!), "1A/B")
  })

  it.each([
    "",
    "/",
    "0",
    "0/",
    "/0",
    "0/0/0",
    "123456789/0",
    "0/123456789",
    "g/0",
    "0x1/0",
    "-1/0",
    "+1/0",
    " 0/0",
    "0/0 ",
    "0/0\n",
    "0 /0",
    "0/0\0",
    "٠/0"
  ])("refuses %j, as pg_lsn does", (text) => {
    assert.isUndefined(Lsn.fromString(text))
  })

  it("refuses a bigint that does not fit 64 unsigned bits", () => {
    assert.isUndefined(Lsn.make(-1n))
    assert.isUndefined(Lsn.make(2n ** 64n))
    assert.strictEqual(Lsn.make(2n ** 64n - 1n), Lsn.maxValue)
    assert.strictEqual(Lsn.make(0n), Lsn.zero)
  })

  it("takes both halves as unsigned, however a cursor read them", () => {
    assert.strictEqual(Lsn.fromHalves(-1, -1), Lsn.maxValue)
    assert.strictEqual(Lsn.fromHalves(0xffff_ffff, 0xffff_ffff), Lsn.maxValue)
    assert.strictEqual(Lsn.fromHalves(0, -2_147_483_648), 0x8000_0000n)
    assert.strictEqual(Lsn.fromHalves(22, 0xb374_d848), Lsn.fromString("16/B374D848"))
  })

  it("adds and subtracts bytes of WAL without wrapping around", () => {
    assert.strictEqual(Lsn.add(Lsn.fromString("0/FFFFFFFF")!, 1n), Lsn.fromString("1/0"))
    assert.strictEqual(Lsn.add(Lsn.fromString("1/0")!, -1n), Lsn.fromString("0/FFFFFFFF"))
    assert.isUndefined(Lsn.add(Lsn.maxValue, 1n))
    assert.isUndefined(Lsn.add(Lsn.zero, -1n))
    assert.strictEqual(Lsn.sub(Lsn.fromString("0/1")!, Lsn.fromString("0/3")!), -2n)
    assert.strictEqual(Lsn.sub(Lsn.maxValue, Lsn.zero), 2n ** 64n - 1n)
  })

  it.prop("text and LSN are one another's inverse", { value: Lsn.Lsn }, ({ value }) => {
    assert.strictEqual(Lsn.fromString(Lsn.format(value)), value)
    assert.strictEqual(Lsn.fromString(Lsn.format(value).toLowerCase()), value)
    assert.strictEqual(Lsn.fromHalves(Number(value >> 32n), Number(value & 0xffff_ffffn)), value)
  })

  it.prop("every order agrees with the position in the WAL", { a: Lsn.Lsn, b: Lsn.Lsn }, ({ a, b }) => {
    const expected = a < b ? -1 : a > b ? 1 : 0
    const [sortableA, sortableB] = [Lsn.formatSortable(a), Lsn.formatSortable(b)]
    assert.strictEqual(Lsn.compare(a, b), expected)
    assert.strictEqual(Lsn.order(a, b), expected)
    assert.strictEqual(sortableA < sortableB ? -1 : sortableA > sortableB ? 1 : 0, expected)
    assert.strictEqual(Lsn.max(a, b), a < b ? b : a)
    assert.strictEqual(Lsn.min(a, b), a < b ? a : b)
    assert.strictEqual(Lsn.add(b, Lsn.sub(a, b)), a)
  })

  it("writes sixteen digits for a sink's key", () => {
    assert.strictEqual(Lsn.formatSortable(lsn(97_500_059_720n)), "00000016B374D848")
    assert.strictEqual(Lsn.formatSortable(Lsn.zero), "0000000000000000")
  })
})

describe("Lsn.LsnFromString", () => {
  it("decodes PostgreSQL's text and encodes it again", () => {
    assert.strictEqual(Schema.decodeSync(Lsn.LsnFromString)("0/1"), lsn(1n))
    for (const [text, value] of texts) {
      assert.strictEqual(Schema.decodeUnknownSync(Lsn.LsnFromString)(text), value)
      assert.strictEqual(Schema.encodeSync(Lsn.LsnFromString)(lsn(value)), text)
    }
  })

  it.effect("fails on what is not an LSN, and never with a defect", () =>
    Effect.gen(function* () {
      for (const input of ["", "0", "0/", "0/123456789", "x/y", 0, 0n, null, undefined, {}]) {
        const exit = yield* Effect.exit(Schema.decodeUnknownEffect(Lsn.LsnFromString)(input))
        assert.isTrue(Exit.isFailure(exit) && !Exit.hasDies(exit), String(input))
      }
    })
  )

  it.prop("round-trips every LSN", { value: Lsn.Lsn }, ({ value }) => {
    const text = Schema.encodeSync(Lsn.LsnFromString)(value)
    assert.strictEqual(Schema.decodeSync(Lsn.LsnFromString)(text), value)
  })
})

describe("Lsn.Lsn", () => {
  it("is a bigint within 64 unsigned bits", () => {
    const isLsn = Schema.is(Lsn.Lsn)
    assert.isTrue(isLsn(0n))
    assert.isTrue(isLsn(2n ** 64n - 1n))
    assert.isFalse(isLsn(-1n))
    assert.isFalse(isLsn(2n ** 64n))
    assert.isFalse(isLsn(1))
  })
})
