/** Amounts as people write them and read them: bytes and times in PostgreSQL's units. */
import * as Flag from "effect/cli/Flag"
import * as Option from "effect/Option"

/** So many bytes, or so many milliseconds. */
export type Measure = { readonly bytes: number } | { readonly millis: number }

const kilo = 1024

const byteUnits: { readonly [unit: string]: number } = { b: 1, kb: kilo, mb: kilo ** 2, gb: kilo ** 3, tb: kilo ** 4 }
const timeUnits: { readonly [unit: string]: number } = { ms: 1, s: 1000, min: 60_000, h: 3_600_000, d: 86_400_000 }

const pattern = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i

/**
 * An amount from its text; a number without a unit is bytes. Units are as in `postgresql.conf`: B, kB, MB, GB, TB of 1024, and ms, s,
 * min, h, d.
 *
 * @example
 * parseMeasure("1.5GB") // => { bytes: 1610612736 }
 */
export const parseMeasure = (text: string): Measure | undefined => {
  const [, digits = "", unit = ""] = pattern.exec(text.trim()) ?? []
  const amount = Number.parseFloat(digits)
  const [bytes, millis] = [byteUnits[unit.toLowerCase() || "b"], timeUnits[unit.toLowerCase()]]
  if (Number.isNaN(amount)) return undefined
  if (bytes !== undefined) return { bytes: amount * bytes }
  return millis === undefined ? undefined : { millis: amount * millis }
}

/** A flag that takes an amount of either kind. */
export const measureFlag = (name: string, description: string) =>
  Flag.String(name).pipe(
    Flag.withMetavar("100MB|30s"),
    Flag.withDescription(description),
    Flag.filterMap(
      (text) => Option.fromUndefinedOr(parseMeasure(text)),
      () => "Expected bytes or a time with its unit, as in 100MB or 30s"
    )
  )

/** A flag that takes a time above zero, in milliseconds. */
export const timeFlag = (name: string, description: string) =>
  Flag.String(name).pipe(
    Flag.withMetavar("2s"),
    Flag.withDescription(description),
    Flag.filterMap(
      (text) => {
        const measure = parseMeasure(text)
        return measure !== undefined && "millis" in measure && measure.millis > 0
          ? Option.some(measure.millis)
          : Option.none()
      },
      () => "Expected a time with its unit, as in 500ms or 2s"
    )
  )

/**
 * A time for people, in one unit.
 *
 * @example
 * formatTime(150_000) // => "2.5 min"
 */
export const formatTime = (millis: number): string => {
  const steps = [
    ["ms", 1, 1000],
    ["s", 1000, 60_000],
    ["min", 60_000, 3_600_000],
    ["h", 3_600_000, 2 * 86_400_000],
    ["days", 86_400_000, Number.POSITIVE_INFINITY]
  ] as const
  const [unit, size] = steps.find(([, , end]) => millis < end)!
  const value = millis / size
  return `${unit === "ms" || value >= 10 ? Math.round(value) : Number(value.toFixed(1))} ${unit}`
}
