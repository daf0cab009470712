/**
 * How much WAL a slot makes the server keep, how fast that grows, and when it ends: from samples of its catalog row to a forecast.
 * Nothing is asked here and no clock is read.
 *
 * `restart_lsn` does not move with each acknowledgement but in steps, as running transactions are logged (every 15 s) and long ones
 * end: so what a slot keeps is a saw, and its rate means something over minutes only.
 *
 * Source: pg_get_replication_slots in src/backend/replication/slotfuncs.c, GetWALAvailability in
 * src/backend/access/transam/xlog.c
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Lsn from "../Lsn.ts"
import { isInvalidated } from "../server/SlotCatalog.ts"

/** What was seen of a slot and its server at one time. Bytes are numbers: they hold 9 PB. */
export interface WalSample {
  /** Milliseconds of a clock that never goes back. */
  readonly at: number
  /** When the server was started: another one, or one that was restarted, says another time. */
  readonly serverStart: string
  /** Where the server's WAL ends; of a standby, what it has received. */
  readonly walEnd: Lsn.Lsn
  /** `undefined` of a slot that keeps no WAL: a physical one that was never used, or one that is lost. */
  readonly restartLsn: Lsn.Lsn | undefined
  /** `undefined` of a physical slot. */
  readonly confirmedFlushLsn: Lsn.Lsn | undefined
  /** `reserved`, `extended`, `unreserved` or `lost`. */
  readonly walStatus: string | undefined
  readonly invalidationReason: string | undefined
  /** `safe_wal_size`: `undefined` where `max_slot_wal_keep_size` sets no limit. */
  readonly safeBytes: number | undefined
  /** `max_slot_wal_keep_size`: `undefined` for no limit. */
  readonly limitBytes: number | undefined
  /** How long nobody has streamed from it, and how long that may be: `idle_replication_slot_timeout`, of PostgreSQL 18. */
  readonly idleMillis: number | undefined
  readonly idleTimeoutMillis: number | undefined
  /** Bytes free where `pg_wal` is. No SQL tells. */
  readonly freeBytes: number | undefined
}

/** Whether what lies between them is one slot's history on one run of one server: else no rate can be told of it. */
const isContinued = (before: WalSample, after: WalSample): boolean => {
  if (before.serverStart !== after.serverStart || before.at > after.at || before.walEnd > after.walEnd) return false
  if (isInvalidated(before) && !isInvalidated(after)) return false
  if (before.restartLsn === undefined || after.restartLsn === undefined) return before.restartLsn === after.restartLsn
  return before.restartLsn <= after.restartLsn
}

/** The samples with one more: without those before a break, and those that reach back further than so many milliseconds. */
export const addSample = (
  samples: ReadonlyArray<WalSample>,
  sample: WalSample,
  windowMillis: number
): NonEmptyReadonlyArray<WalSample> => {
  const last = samples.at(-1)
  if (last === undefined || !isContinued(last, sample)) return [sample]
  // The one that stands at the window's edge, or before it, stays: so the window is covered.
  const edge = samples.findLastIndex(({ at }) => at <= sample.at - windowMillis)
  const [first = sample, ...rest] = samples.slice(Math.max(0, edge))
  return [first, ...rest, sample]
}

/** Bytes a second, over a time. */
export interface Rates {
  readonly millis: number
  /** What the server writes. */
  readonly written: number
  /** What its consumer confirms; of a physical slot, what it lets go of. */
  readonly confirmed: number | undefined
  /** By how much what the slot keeps grows; below 0 where it shrinks. */
  readonly growth: number | undefined
}

const perSecond = (bytes: bigint, millis: number): number => (Number(bytes) * 1000) / millis

const advance = (before: Lsn.Lsn | undefined, after: Lsn.Lsn | undefined): bigint | undefined =>
  before === undefined || after === undefined ? undefined : Lsn.sub(after, before)

/** The rates over so many milliseconds up to the last sample, or somewhat more; `undefined` while there is but one. */
export const ratesOver = (samples: ReadonlyArray<WalSample>, windowMillis: number): Rates | undefined => {
  const last = samples.at(-1)
  if (last === undefined || samples.length < 2) return undefined
  const first = samples.findLast(({ at }) => at <= last.at - windowMillis) ?? samples[0]!
  const millis = last.at - first.at
  if (millis <= 0) return undefined
  const written = Lsn.sub(last.walEnd, first.walEnd)
  const released = advance(first.restartLsn, last.restartLsn)
  const confirmed = advance(first.confirmedFlushLsn, last.confirmedFlushLsn) ?? released
  return {
    millis,
    written: perSecond(written, millis),
    confirmed: confirmed === undefined ? undefined : perSecond(confirmed, millis),
    growth: released === undefined ? undefined : perSecond(written - released, millis)
  }
}

/** WAL bytes from a position to where WAL ends; 0 where the position was seen a moment later than the end. */
export const bytesBehind = (walEnd: Lsn.Lsn, position: Lsn.Lsn | undefined): number | undefined =>
  position === undefined ? undefined : Math.max(0, Number(Lsn.sub(walEnd, position)))

/**
 * For how long already WAL has reached beyond a position, by samples of where it ended: 0 where nothing is beyond it. `isAtLeast`
 * where it was so at the first of them already.
 */
export const timeBehind = (
  samples: ReadonlyArray<WalSample>,
  position: Lsn.Lsn
): { readonly millis: number; readonly isAtLeast: boolean } => {
  const last = samples.at(-1)
  if (last === undefined || last.walEnd <= position) return { millis: 0, isAtLeast: false }
  const reached = samples.findLast(({ walEnd }) => walEnd <= position)
  return { millis: last.at - (reached ?? samples[0]!).at, isAtLeast: reached === undefined }
}

/** When it ends, in milliseconds from the last sample on; `undefined` where it does not, at this rate, or is not known. */
export interface Forecast {
  readonly growth: number | undefined
  readonly written: number | undefined
  readonly millisUntilLost: number | undefined
  readonly millisUntilDiskFull: number | undefined
}

const earliest = (...millis: ReadonlyArray<number | undefined>): number | undefined => {
  const known = millis.filter((each) => each !== undefined)
  return known.length === 0 ? undefined : Math.min(...known)
}

/** Until `bytes` have been used up. */
const millisUntilUsed = (bytes: number | undefined, growth: number | undefined): number | undefined => {
  if (bytes === undefined) return undefined
  if (bytes <= 0) return 0
  return growth === undefined || growth <= 0 ? undefined : Math.round((bytes / growth) * 1000)
}

const millisUntilIdleTooLong = ({ idleMillis, idleTimeoutMillis, restartLsn }: WalSample): number | undefined =>
  idleMillis === undefined || !idleTimeoutMillis || restartLsn === undefined
    ? undefined
    : Math.max(0, idleTimeoutMillis - idleMillis)

/**
 * What comes of the slot if things go on as they do. Growth is taken over the whole window and over its last part, and the
 * greater of the two counts: so a burst shows before an hour of quiet has faded, and a saw's tooth is not taken for a trend. Before
 * the samples span `recentMillis` no time is forecast from a rate.
 */
export const forecast = (samples: NonEmptyReadonlyArray<WalSample>, recentMillis: number): Forecast => {
  const last = samples.at(-1)!
  const recent = ratesOver(samples, recentMillis)
  const whole = ratesOver(samples, Number.POSITIVE_INFINITY)
  const growth =
    recent?.growth === undefined || whole?.growth === undefined ? undefined : Math.max(recent.growth, whole.growth)
  if (isInvalidated(last)) {
    return { growth, written: recent?.written, millisUntilLost: undefined, millisUntilDiskFull: undefined }
  }
  const trusted = (whole?.millis ?? 0) >= recentMillis ? growth : undefined
  return {
    growth,
    written: recent?.written,
    millisUntilLost: earliest(millisUntilUsed(last.safeBytes, trusted), millisUntilIdleTooLong(last)),
    millisUntilDiskFull: last.restartLsn === undefined ? undefined : millisUntilUsed(last.freeBytes, trusted)
  }
}
