/**
 * Opt-in decoders for the text of `date`, `timestamp` and `timestamptz`, as `DateStyle` ISO prints it. Not the default:
 * no JavaScript value holds all that PostgreSQL's do, so each of these says what it cannot hold, and refuses that.
 *
 * Without a zone (`timestamp`, `date`) the text is taken as UTC. They refuse by throwing, without the text.
 *
 * Source: https://www.postgresql.org/docs/current/datatype-datetime.html#DATATYPE-DATETIME-OUTPUT
 */

const pattern =
  /^(\d{4,7})-(\d\d)-(\d\d)(?: (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?(?:([+-])(\d\d)(?::(\d\d)(?::(\d\d))?)?)?)?( BC)?$/

const refuse = (what: string): never => {
  throw new TypeError(what)
}

/** Days from 1970-01-01 to a day of the proleptic Gregorian calendar, whose year 0 is 1 BC. */
const daysFromCivil = (year: number, month: number, day: number): number => {
  // Years that begin in March have their leap day at the end, so that months fall into one formula.
  const shifted = month > 2 ? year : year - 1
  const era = Math.floor(shifted / 400)
  const yearOfEra = shifted - era * 400
  const dayOfYear = Math.floor((153 * (month > 2 ? month - 3 : month + 9) + 2) / 5) + day - 1
  const dayOfEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear
  return era * 146_097 + dayOfEra - 719_468
}

interface Instant {
  /** Seconds since 1970-01-01 00:00 UTC. */
  readonly seconds: number
  readonly microseconds: number
}

/** `undefined` for infinity, which the caller has looked at. */
const parse = (text: string): Instant => {
  const match = pattern.exec(text) ?? refuse("not the text of a timestamp")
  const part = (index: number): number => Number(match[index] ?? 0)
  const month = part(2)
  const day = part(3)
  if (month < 1 || month > 12 || day < 1 || day > 31) refuse("not the text of a timestamp")
  const year = match[12] === undefined ? part(1) : 1 - part(1)
  const offset = (part(9) * 60 + part(10)) * 60 + part(11)
  const local = daysFromCivil(year, month, day) * 86_400 + (part(4) * 60 + part(5)) * 60 + part(6)
  return {
    seconds: match[8] === "-" ? local + offset : local - offset,
    microseconds: Number((match[7] ?? "").padEnd(6, "0"))
  }
}

/**
 * Microseconds since 1970-01-01 00:00 UTC, exact over all of PostgreSQL's range; the numbers `Infinity` and `-Infinity`
 * for `infinity` and `-infinity`. Bigints and infinities compare with each other as they should.
 *
 * @example
 * timestampMicros("2024-02-29 12:34:56.789012+00") // => 1709210096789012n
 */
export const timestampMicros = (text: string): bigint | number => {
  if (text === "infinity") return Number.POSITIVE_INFINITY
  if (text === "-infinity") return Number.NEGATIVE_INFINITY
  const { microseconds, seconds } = parse(text)
  return BigInt(seconds) * 1_000_000n + BigInt(microseconds)
}

/** The furthest a `Date` reaches from 1970, in milliseconds. */
const furthestDate = 8.64e15

/**
 * A `Date`. Refuses what a `Date` would change: infinities, microseconds below a millisecond, times beyond the year
 * 275760 or before 271822 BC.
 *
 * Columns with `now()` in them have microseconds: declare them `timestamptz(3)`, or use {@link timestampMicros}.
 *
 * @example
 * timestampDate("2024-02-29 12:34:56.789+00") // => new Date("2024-02-29T12:34:56.789Z")
 */
export const timestampDate = (text: string): Date => {
  if (text === "infinity" || text === "-infinity") refuse("a Date cannot be infinite")
  const { microseconds, seconds } = parse(text)
  if (microseconds % 1000 !== 0) refuse("a Date holds no microseconds")
  const millis = seconds * 1000 + microseconds / 1000
  return Math.abs(millis) > furthestDate ? refuse("a Date does not reach so far") : new Date(millis)
}
