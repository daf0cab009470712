/** A slot's WAL budget as a value, and what one more sample makes of it. Pure: `WalBudget.ts` asks the server. */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import { isInvalidated } from "../server/SlotCatalog.ts"
import { addJudgement, type DatedJudgement, judge, Level, Reason, standing, type Thresholds } from "./BudgetLevel.ts"
import { NumberOrNull, TextOrNull } from "./OrNull.ts"
import { addSample, bytesBehind, type Forecast, forecast, type WalSample } from "./WalForecast.ts"

/** Schema of a {@link WalBudget}: in JSON what is not known is null. */
export const WalBudget = Schema.Struct({
  slot: Schema.String,
  /** `reserved`, `extended` (beyond `max_wal_size`), `unreserved` (WAL may go with the next checkpoint) or `lost`. */
  walStatus: TextOrNull,
  /** WAL bytes that are kept for it. */
  retainedBytes: NumberOrNull,
  /** WAL bytes that may be written until it is in danger: `safe_wal_size`. Not known where there is no limit. */
  safeBytes: NumberOrNull,
  /** `max_slot_wal_keep_size`. Not known where there is no limit. */
  limitBytes: NumberOrNull,
  /** Free where `pg_wal` is, as handed in. */
  freeBytes: NumberOrNull,
  /** WAL bytes a second that the server writes, over the last minute. */
  writtenPerSecond: NumberOrNull,
  /** Bytes a second by which what is kept grows: over the last minute or the whole window, whichever is more. */
  growthPerSecond: NumberOrNull,
  /** At that rate; not known where it does not come to that, or too little was seen to tell. */
  millisUntilLost: NumberOrNull,
  millisUntilDiskFull: NumberOrNull,
  /** How old this is: 0 but where the server cannot be looked at. */
  unseenMillis: Schema.Finite,
  level: Level,
  reasons: Schema.Array(Reason)
})

/** What a slot keeps, what it may keep, and how long that lasts. Bytes and milliseconds. */
export interface WalBudget extends Schema.Schema.Type<typeof WalBudget> {}

/** How samples are judged. */
export interface BudgetOptions extends Thresholds {
  /** How far back samples count: 10 minutes. */
  readonly window?: Duration.Input | undefined
  /** How long samples must span for a time to be forecast, and what counts as the last part of the window: one minute. */
  readonly forecastAfter?: Duration.Input | undefined
  /** How long it must have been better before a level is left: 5 minutes. */
  readonly calm?: Duration.Input | undefined
}

/** A budget with what it was made of. */
export interface BudgetHistory {
  readonly samples: NonEmptyReadonlyArray<WalSample>
  readonly judgements: ReadonlyArray<DatedJudgement>
  readonly budget: WalBudget
}

const millisOf = (input: Duration.Input): number => Duration.toMillis(Duration.fromInputUnsafe(input))

interface Seen {
  readonly slot: string
  readonly at: number
  readonly samples: NonEmptyReadonlyArray<WalSample>
  readonly earlier: ReadonlyArray<DatedJudgement>
}

const budgetOf = (sample: WalSample, seen: Seen, ahead: Forecast, unseenMillis: number) => ({
  slot: seen.slot,
  walStatus: sample.walStatus,
  retainedBytes: isInvalidated(sample) ? undefined : bytesBehind(sample.walEnd, sample.restartLsn),
  safeBytes: sample.safeBytes,
  limitBytes: sample.limitBytes,
  freeBytes: sample.freeBytes,
  writtenPerSecond: ahead.written,
  growthPerSecond: ahead.growth,
  millisUntilLost: ahead.millisUntilLost,
  millisUntilDiskFull: ahead.millisUntilDiskFull,
  unseenMillis
})

const conclude = (seen: Seen, options: BudgetOptions): BudgetHistory => {
  const sample = seen.samples.at(-1)!
  const ahead = forecast(seen.samples, millisOf(options.forecastAfter ?? "1 minute"))
  const facts = budgetOf(sample, seen, ahead, seen.at - sample.at)
  const judgement = { at: seen.at, ...judge({ ...facts, isLost: isInvalidated(sample) }, options) }
  const judgements = addJudgement(seen.earlier, judgement, millisOf(options.calm ?? "5 minutes"))
  return { samples: seen.samples, judgements, budget: { ...facts, ...standing(judgements) } }
}

/** The budget after one more sample. Pass the last history, or `undefined` at the beginning. */
export const next = (
  history: BudgetHistory | undefined,
  slot: string,
  sample: WalSample,
  options: BudgetOptions = {}
): BudgetHistory => {
  const samples = addSample(history?.samples ?? [], sample, millisOf(options.window ?? "10 minutes"))
  // A slot that is made anew is not what was lost, and none of what was said of that holds.
  const isAnother = history !== undefined && isInvalidated(history.samples.at(-1)!) && !isInvalidated(sample)
  return conclude({ slot, at: sample.at, samples, earlier: isAnother ? [] : (history?.judgements ?? []) }, options)
}

/** The budget at a time when nobody could look: what was last seen, older. */
export const unseen = (history: BudgetHistory, at: number, options: BudgetOptions = {}): BudgetHistory =>
  conclude({ slot: history.budget.slot, at, samples: history.samples, earlier: history.judgements }, options)
