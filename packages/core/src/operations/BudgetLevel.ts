/**
 * How bad it is: a forecast against thresholds. A level is reached at once, and left once it has been better for a while, so that
 * nobody is called at each tooth of a saw.
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"

/** From well to lost, in this order. */
export const levels = ["ok", "warning", "critical", "lost"] as const

/** `lost` is the server's word and final: nothing can be streamed from the slot any more. The others are by thresholds. */
export const Level: Schema.Codec<Level> = Schema.Literals(levels)
export type Level = (typeof levels)[number]

/** Whether a level is that bad, or worse. */
export const isAtLeast = (level: Level, least: Level): boolean => levels.indexOf(level) >= levels.indexOf(least)

/**
 * Why a level is what it is:
 * `Lost` the server gave the slot up; `Unreserved` WAL that it needs goes with the next checkpoint; `TimeUntilLost`,
 * `TimeUntilDiskFull`, `SafeBytes`, `RetainedBytes` are beyond a threshold of that name; `Unseen` it could not be looked at.
 */
export const Reason: Schema.Codec<Reason> = Schema.Literals([
  "Lost",
  "Unreserved",
  "TimeUntilLost",
  "TimeUntilDiskFull",
  "SafeBytes",
  "RetainedBytes",
  "Unseen"
])
export type Reason =
  | "Lost"
  | "Unreserved"
  | "TimeUntilLost"
  | "TimeUntilDiskFull"
  | "SafeBytes"
  | "RetainedBytes"
  | "Unseen"

/** What makes a level: any of these. Bytes that are left out are not looked at. */
export interface Threshold {
  /** So soon the slot would be lost, or the disk full, whichever comes first. Zero for once it is so. */
  readonly timeLeft?: Duration.Input | undefined
  /** So little may be written until the slot is in danger: `safe_wal_size`. */
  readonly safeBytes?: number | undefined
  /** So much is kept for it. */
  readonly retainedBytes?: number | undefined
}

/** By level. Where nothing else is said, 4 hours left are a warning and one is critical. */
export interface Thresholds {
  readonly warning?: Threshold | undefined
  readonly critical?: Threshold | undefined
}

const defaultTimeLeft = { warning: "4 hours", critical: "1 hour" } as const

/** What is judged. */
export interface Judged {
  readonly isLost: boolean
  readonly walStatus: string | undefined
  readonly retainedBytes: number | undefined
  readonly safeBytes: number | undefined
  readonly millisUntilLost: number | undefined
  readonly millisUntilDiskFull: number | undefined
  /** How long it could not be looked at. */
  readonly unseenMillis: number
}

export interface Judgement {
  readonly level: Level
  readonly reasons: ReadonlyArray<Reason>
}

/** Beyond this nobody knows how things are: at the least a warning. */
const mostUnseenMillis = 60_000

const isWithin = (value: number | undefined, least: number | undefined): boolean =>
  value !== undefined && least !== undefined && value <= least

const reasonsFor = (judged: Judged, level: "warning" | "critical", thresholds: Thresholds): ReadonlyArray<Reason> => {
  const threshold = thresholds[level] ?? {}
  const timeLeft = Duration.toMillis(Duration.fromInputUnsafe(threshold.timeLeft ?? defaultTimeLeft[level]))
  const found: Array<Reason> = []
  if (isWithin(judged.millisUntilLost, timeLeft)) found.push("TimeUntilLost")
  if (isWithin(judged.millisUntilDiskFull, timeLeft)) found.push("TimeUntilDiskFull")
  if (isWithin(judged.safeBytes, threshold.safeBytes)) found.push("SafeBytes")
  if (isWithin(threshold.retainedBytes, judged.retainedBytes)) found.push("RetainedBytes")
  return found
}

/** The worst level that holds, and all that makes it. */
export const judge = (judged: Judged, thresholds: Thresholds = {}): Judgement => {
  if (judged.isLost) return { level: "lost", reasons: ["Lost"] }
  const unreserved: ReadonlyArray<Reason> = judged.walStatus === "unreserved" ? ["Unreserved"] : []
  const critical = [...unreserved, ...reasonsFor(judged, "critical", thresholds)]
  if (critical.length > 0) return { level: "critical", reasons: critical }
  const unseen: ReadonlyArray<Reason> = judged.unseenMillis > mostUnseenMillis ? ["Unseen"] : []
  const warning = [...reasonsFor(judged, "warning", thresholds), ...unseen]
  return warning.length > 0 ? { level: "warning", reasons: warning } : { level: "ok", reasons: [] }
}

/** A judgement and when it was made. */
export interface DatedJudgement extends Judgement {
  readonly at: number
}

/** Judgements with one more, as far as they still count: those of the last `calmMillis`. */
export const addJudgement = (
  judgements: ReadonlyArray<DatedJudgement>,
  judgement: DatedJudgement,
  calmMillis: number
): ReadonlyArray<DatedJudgement> => [...judgements.filter(({ at }) => at > judgement.at - calmMillis), judgement]

/** The worst of them, and of several the last. */
export const standing = (judgements: ReadonlyArray<DatedJudgement>): Judgement => {
  let worst: Judgement = { level: "ok", reasons: [] }
  for (const { level, reasons } of judgements) if (isAtLeast(level, worst.level)) worst = { level, reasons }
  return worst
}
