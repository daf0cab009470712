import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import * as PgTimestamp from "../src/PgTimestamp.ts"

/** As PostgreSQL adds them: `SELECT timestamptz '2000-01-01 UTC' + 1 * interval '1 microsecond'`. */
const known: ReadonlyArray<readonly [microseconds: number, text: string]> = [
  [0, "2000-01-01T00:00:00.000000Z"],
  [1, "2000-01-01T00:00:00.000001Z"],
  [-1, "1999-12-31T23:59:59.999999Z"],
  [999_999, "2000-01-01T00:00:00.999999Z"],
  [-999_999, "1999-12-31T23:59:59.000001Z"],
  [-1_000_000, "1999-12-31T23:59:59.000000Z"],
  [5_097_600_000_000, "2000-02-29T00:00:00.000000Z"],
  [-946_684_800_000_000, "1970-01-01T00:00:00.000000Z"],
  // Near the last that a number can tell from its neighbours.
  [8_999_999_999_999_999, "2285-03-13T15:59:59.999999Z"]
]

/** Where a number still holds every microsecond: until June of the year 2285, and since 1714. */
const exact = Schema.Int.check(Schema.isBetween({ minimum: Number.MIN_SAFE_INTEGER, maximum: Number.MAX_SAFE_INTEGER }))

describe("PgTimestamp", () => {
  it.each(known)("writes %d microseconds as %s", (microseconds, text) => {
    assert.strictEqual(PgTimestamp.format(PgTimestamp.make(microseconds)), text)
  })

  it("counts from 2000-01-01 in UTC", () => {
    assert.strictEqual(PgTimestamp.fromMillis(Date.UTC(2000, 0, 1)), 0)
    assert.strictEqual(PgTimestamp.toMillis(PgTimestamp.make(0)), Date.UTC(2000, 0, 1))
    assert.strictEqual(PgTimestamp.fromMillis(0), -946_684_800_000_000)
    assert.strictEqual(PgTimestamp.toMillis(PgTimestamp.make(1500)), Date.UTC(2000, 0, 1) + 1.5)
  })

  it("is whole microseconds, also from a clock with fractions of a millisecond", () => {
    const timestamp = PgTimestamp.fromMillis(Date.UTC(2026, 0, 1) + 0.1251)
    assert.isTrue(Number.isInteger(timestamp))
    assert.strictEqual(PgTimestamp.format(timestamp), "2026-01-01T00:00:00.000125Z")
  })

  it("cuts microseconds off for a Date, towards the past on both sides of 2000", () => {
    assert.strictEqual(PgTimestamp.toDate(PgTimestamp.make(1999)).toISOString(), "2000-01-01T00:00:00.001Z")
    assert.strictEqual(PgTimestamp.toDate(PgTimestamp.make(-1)).toISOString(), "1999-12-31T23:59:59.999Z")
    assert.strictEqual(
      PgTimestamp.toDate(PgTimestamp.make(8_999_999_999_999_999)).toISOString(),
      "2285-03-13T15:59:59.999Z"
    )
  })

  it("writes years of more than four digits as ISO 8601 does", () => {
    assert.match(PgTimestamp.format(PgTimestamp.make(2 ** 58)), /^\+011133-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/)
  })

  it("writes what no Date can hold without failing", () => {
    assert.strictEqual(PgTimestamp.format(PgTimestamp.make(2 ** 63)), "infinity")
    assert.strictEqual(PgTimestamp.format(PgTimestamp.make(-(2 ** 63))), "-infinity")
  })

  it.prop("format tells every two microseconds apart, and Date reads it", { exact }, ({ exact }) => {
    const timestamp = PgTimestamp.make(exact)
    const text = PgTimestamp.format(timestamp)
    assert.strictEqual(text.length, "2000-01-01T00:00:00.000000Z".length)
    const micros = Number(text.slice(20, 26))
    assert.strictEqual((Date.parse(`${text.slice(0, 19)}Z`) - Date.UTC(2000, 0, 1)) * 1000 + micros, exact)
    assert.strictEqual(PgTimestamp.toDate(timestamp).getTime(), Date.parse(`${text.slice(0, 23)}Z`))
  })

  const until2060 = Schema.Int.check(
    Schema.isBetween({ minimum: -946_684_800_000_000, maximum: 1_893_456_000_000_000 })
  )
  it.prop("Unix time and back is the same microsecond, from 1970 to 2060", { until2060 }, ({ until2060 }) => {
    const timestamp = PgTimestamp.make(until2060)
    assert.strictEqual(PgTimestamp.fromMillis(PgTimestamp.toMillis(timestamp)), timestamp)
  })
})
