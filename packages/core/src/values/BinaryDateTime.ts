/**
 * Dates and times in PostgreSQL's binary format, to the text that `DateStyle` ISO, `IntervalStyle` postgres and the time
 * zone UTC print. Replicant's sessions are set so: the text is the one the text format brings.
 *
 * Not values: `TimestampText.ts` makes those of the text, as it does of the text format's.
 *
 * Source: src/backend/utils/adt/datetime.c (EncodeDateTime, EncodeInterval), timestamp.c, date.c
 */
import type { ByteReader } from "../protocol/ByteReader.ts"

const two = (value: number): string => (value < 10 ? `0${value}` : String(value))

/** Microseconds of a day. */
const day = 86_400_000_000

/** Days from 1970-01-01 to 2000-01-01, where PostgreSQL counts from. */
const epoch = 10_957

/** `2024-02-29`, of days since 2000-01-01; the era is left to {@link eraOf}. */
const dateText = (days: number): { readonly text: string; readonly isBc: boolean } => {
  // The inverse of `daysFromCivil` in TimestampText.ts: years begin in March, so that their leap day comes last.
  const shifted = days + epoch + 719_468
  const era = Math.floor(shifted / 146_097)
  const dayOfEra = shifted - era * 146_097
  const yearOfEra = Math.floor(
    (dayOfEra - Math.floor(dayOfEra / 1460) + Math.floor(dayOfEra / 36_524) - Math.floor(dayOfEra / 146_096)) / 365
  )
  const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100))
  const march = Math.floor((5 * dayOfYear + 2) / 153)
  const month = march < 10 ? march + 3 : march - 9
  const year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
  const isBc = year <= 0
  const shown = isBc ? 1 - year : year
  const yearText = shown > 999 ? String(shown) : String(shown).padStart(4, "0")
  return { text: `${yearText}-${two(month)}-${two(dayOfYear - Math.floor((153 * march + 2) / 5) + 1)}`, isBc }
}

const eraOf = (isBc: boolean): string => (isBc ? " BC" : "")

/** `.789012`, without the zeros at its end; nothing for nought. */
const fractionText = (micros: number): string => {
  if (micros === 0) return ""
  const digits = String(micros + 1_000_000)
  let end = 7
  while (digits.charCodeAt(end - 1) === 0x30) end -= 1
  return `.${digits.slice(1, end)}`
}

/** `12:34:56.789012` of seconds and microseconds; hours may go beyond 24. */
const clockText = (seconds: number, micros: number): string => {
  const minutes = Math.floor(seconds / 60)
  const hours = Math.floor(minutes / 60)
  return `${two(hours)}:${two(minutes - hours * 60)}:${two(seconds - minutes * 60)}${fractionText(micros)}`
}

/** Whole `unit`s of an Int64, rounded down, and what is left of it: both exact, which a double of it would not be. */
const divided = (high: number, low: number, unit: number): { readonly whole: number; readonly rest: number } => {
  if (high >= -0x20_0000 && high < 0x20_0000) {
    const value = high * 0x1_0000_0000 + low
    const whole = Math.floor(value / unit)
    return { whole, rest: value - whole * unit }
  }
  const value = (BigInt(high) << 32n) | BigInt(low)
  const rest = ((value % BigInt(unit)) + BigInt(unit)) % BigInt(unit)
  return { whole: Number((value - rest) / BigInt(unit)), rest: Number(rest) }
}

const isLargest = (high: number, low: number): boolean => high === 0x7fff_ffff && low === 0xffff_ffff
const isSmallest = (high: number, low: number): boolean => high === -0x8000_0000 && low === 0

export const dateTextOf = (reader: ByteReader): string => {
  const days = reader.int32()
  if (days === 0x7fff_ffff) return "infinity"
  if (days === -0x8000_0000) return "-infinity"
  const { isBc, text } = dateText(days)
  return text + eraOf(isBc)
}

/** The text of one timestamp after another, `2024-02-29 12:34:56.789012+00`, and the day whose date stands in it. */
const printed = new Uint8Array(29)
let printedDay = Number.NaN

const printTwo = (at: number, value: number): void => {
  const tens = (value / 10) | 0
  printed[at] = 0x30 + tens
  printed[at + 1] = 0x30 + value - tens * 10
}

/** Puts the date of a day into {@link printed}; false where it does not fit there: beyond the year 9999, before 1. */
const printDate = (days: number): boolean => {
  const { isBc, text } = dateText(days)
  if (isBc || text.length > 10) return false
  for (let at = 0; at < 10; at++) printed[at] = text.charCodeAt(at)
  printed[10] = 0x20
  printedDay = days
  return true
}

/** Puts the time behind the date; where it ends. */
const printClock = (seconds: number, micros: number): number => {
  // Small enough for 32 bits, and quicker so: this is the hot path.
  const minutes = (seconds / 60) | 0
  const hours = (minutes / 60) | 0
  printTwo(11, hours)
  printed[13] = 0x3a
  printTwo(14, minutes - hours * 60)
  printed[16] = 0x3a
  printTwo(17, seconds - minutes * 60)
  if (micros === 0) return 19
  printed[19] = 0x2e
  const upper = (micros / 10_000) | 0
  const middle = ((micros - upper * 10_000) / 100) | 0
  printTwo(20, upper)
  printTwo(22, middle)
  printTwo(24, micros - upper * 10_000 - middle * 100)
  let end = 26
  while (printed[end - 1] === 0x30) end -= 1
  return end
}

/**
 * Timestamps are the commonest of the types that must be printed, and those of a table are mostly of few days: the date is
 * worked out once for all that follow on the same, and a single string is made.
 */
const timestampTextWith = (reader: ByteReader, zone: "" | "+00"): string => {
  const high = reader.int32()
  const low = reader.uint32()
  if (isLargest(high, low)) return "infinity"
  if (isSmallest(high, low)) return "-infinity"
  const { rest, whole } = divided(high, low, day)
  const seconds = (rest / 1_000_000) | 0
  const micros = (rest - seconds * 1_000_000) | 0
  if (whole !== printedDay && !printDate(whole)) {
    const { isBc, text } = dateText(whole)
    return `${text} ${clockText(seconds, micros)}${zone}${eraOf(isBc)}`
  }
  let end = printClock(seconds, micros)
  if (zone !== "") {
    printed[end] = 0x2b
    printed[end + 1] = 0x30
    printed[end + 2] = 0x30
    end += 3
  }
  return reader.slices.latin1(printed, 0, end)
}

export const timestampText = (reader: ByteReader): string => timestampTextWith(reader, "")

export const timestamptzText = (reader: ByteReader): string => timestampTextWith(reader, "+00")

/** `24:00:00` is a time. */
export const timeText = (reader: ByteReader): string => {
  const { rest, whole } = divided(reader.int32(), reader.uint32(), 1_000_000)
  if (whole < 0 || whole > 86_400 || (whole === 86_400 && rest > 0)) reader.fail("a time beyond its day")
  return clockText(whole, rest)
}

/** The zone is in seconds west of Greenwich, and printed as hours east of it. */
export const timetzText = (reader: ByteReader): string => {
  const time = timeText(reader)
  const zone = reader.int32()
  const size = Math.abs(zone)
  if (size >= 16 * 3600) reader.fail("a time zone beyond sixteen hours")
  const minutes = Math.floor(size / 60)
  const seconds = size - minutes * 60
  const hours = Math.floor(minutes / 60)
  const rest = minutes - hours * 60
  const below = seconds !== 0 ? `:${two(rest)}:${two(seconds)}` : rest !== 0 ? `:${two(rest)}` : ""
  return `${time}${zone <= 0 ? "+" : "-"}${two(hours)}${below}`
}

/** `1 year 2 mons -3 days +04:05:06.789`: after a part below nought, one above it says so. */
export const intervalText = (reader: ByteReader): string => {
  const high = reader.int32()
  const low = reader.uint32()
  const days = reader.int32()
  const months = reader.int32()
  // Infinite when all three fields are (PostgreSQL 17); one alone is as finite as any.
  if (isLargest(high, low) && days === 0x7fff_ffff && months === 0x7fff_ffff) return "infinity"
  if (isSmallest(high, low) && days === -0x8000_0000 && months === -0x8000_0000) return "-infinity"
  let text = ""
  let isBefore = false
  const part = (value: number, unit: string): void => {
    if (value === 0) return
    const sign = isBefore && value > 0 ? "+" : ""
    text += `${text === "" ? "" : " "}${sign}${value} ${unit}${value === 1 ? "" : "s"}`
    isBefore = value < 0
  }
  part(Math.trunc(months / 12), "year")
  part(months % 12, "mon")
  part(days, "day")
  const { rest, whole } = divided(high, low, 1_000_000)
  if (text !== "" && whole === 0 && rest === 0) return text
  const isNegative = whole < 0
  const clock = !isNegative
    ? clockText(whole, rest)
    : rest === 0
      ? clockText(-whole, 0)
      : clockText(-whole - 1, 1_000_000 - rest)
  return `${text === "" ? "" : `${text} `}${isNegative ? "-" : isBefore ? "+" : ""}${clock}`
}
