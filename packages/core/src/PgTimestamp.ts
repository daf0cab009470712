/**
 * PostgreSQL's own clock: microseconds since 2000-01-01 00:00 UTC, as they stand in replication messages.
 *
 * A number, not a `Date`: a `Date` keeps milliseconds and would drop the rest. Exact until the year 2285.
 *
 * Source: `TimestampTz` in src/include/datatype/timestamp.h.
 */
import type * as Brand from "effect/Brand"

/** Microseconds since 2000-01-01 00:00 UTC. */
export type PgTimestamp = number & Brand.Brand<"PgTimestamp">

/** 2000-01-01 in milliseconds of Unix time. */
const epochMillis = 946_684_800_000

/** From microseconds since 2000-01-01. */
export const make = (microseconds: number): PgTimestamp => microseconds as PgTimestamp

/** From Unix time in milliseconds, whose fraction is kept to the microsecond. */
export const fromMillis = (millis: number): PgTimestamp => Math.round((millis - epochMillis) * 1000) as PgTimestamp

/** Unix time in milliseconds; microseconds become its fraction. */
export const toMillis = (timestamp: PgTimestamp): number => timestamp / 1000 + epochMillis

/** A `Date`: loses the microseconds below a millisecond. Invalid beyond the year 275760, which no `Date` can hold. */
export const toDate = (timestamp: PgTimestamp): Date => new Date(Math.floor(toMillis(timestamp)))

/**
 * ISO 8601 in UTC with all six digits of microseconds; `infinity` or `-infinity` for what no `Date` can hold.
 *
 * @example
 * PgTimestamp.format(PgTimestamp.make(1)) // => "2000-01-01T00:00:00.000001Z"
 */
export const format = (timestamp: PgTimestamp): string => {
  const date = toDate(timestamp)
  if (Number.isNaN(date.getTime())) return timestamp < 0 ? "-infinity" : "infinity"
  const micros = ((timestamp % 1_000_000) + 1_000_000) % 1_000_000
  const seconds = date.toISOString().slice(0, -".000Z".length)
  return `${seconds}.${String(micros).padStart(6, "0")}Z`
}
