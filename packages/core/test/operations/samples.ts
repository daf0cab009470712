/** Samples of a slot, made of a few words. */
import type { Lsn } from "../../src/index.ts"
import type { WalSample } from "../../src/operations/WalForecast.ts"

export const mega = 1024 * 1024

/** A WAL position so many megabytes on. */
export const at = (megabytes: number): Lsn.Lsn => BigInt(Math.round(megabytes * mega)) as Lsn.Lsn

export interface Words {
  readonly seconds: number
  /** In megabytes. */
  readonly end: number
  readonly restart?: number | undefined
  readonly confirmed?: number | undefined
}

export const sample = ({ confirmed, end, restart = 0, seconds }: Words, rest: Partial<WalSample> = {}): WalSample => ({
  at: seconds * 1000,
  serverStart: "1",
  walEnd: at(end),
  restartLsn: at(restart),
  confirmedFlushLsn: at(confirmed ?? restart),
  walStatus: "reserved",
  invalidationReason: undefined,
  safeBytes: undefined,
  limitBytes: undefined,
  idleMillis: undefined,
  idleTimeoutMillis: undefined,
  freeBytes: undefined,
  ...rest
})

/** One sample every ten seconds, of what `of` says of each second. */
export const over = (
  seconds: number,
  of: (second: number) => Omit<Words, "seconds">,
  rest: (second: number) => Partial<WalSample> = () => ({})
): ReadonlyArray<WalSample> =>
  Array.from({ length: seconds / 10 + 1 }, (_, index) => index * 10).map((second) =>
    sample({ seconds: second, ...of(second) }, rest(second))
  )
