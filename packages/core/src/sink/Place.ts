/**
 * The places of messages: a change's own name (`changeId`), and of several messages that one change becomes a part behind it.
 * As text they sort as they are appended, so that an engine need only say which it has last.
 *
 * Rows of a first copy have no name that stays. They stand right before the seam, where no record can be: records begin and
 * end at multiples of eight. So what a later attempt reads comes after all that an earlier one brought.
 */
import { within } from "../change/ChangeId.ts"
import * as Lsn from "../Lsn.ts"

export { behind, within } from "../change/ChangeId.ts"

/** A part of a change: `0000000001946FA8-00000002.0001` is the second of its messages. */
export const part = (id: string, index: number): string =>
  index === 0 ? id : `${id}.${index.toString(16).toUpperCase().padStart(4, "0")}`

const perPlace = 0x1_0000_0000

/** The `index`-th element of a first copy; there is room for seven times 2^32. */
export const before = (consistentPoint: Lsn.Lsn, index: number): string => {
  const from = consistentPoint - 7n + BigInt(Math.floor(index / perPlace))
  return within((from < 0n ? 0n : from) as Lsn.Lsn, index % perPlace)
}

/** What a place is made of. */
export interface Parts {
  readonly lsn: Lsn.Lsn
  /** `undefined` for what ends there, or stands outside of any transaction. */
  readonly ordinal: number | undefined
  readonly part: number
}

const form = /^([0-9A-F]{16})(?:-([0-9A-F]{8}))?(?:\.([0-9A-F]{4}))?$/

/** Takes a place apart; `undefined` for what is none. */
export const parse = (id: string): Parts | undefined => {
  const [, lsn, ordinal, index = "0"] = form.exec(id) ?? []
  if (lsn === undefined) return undefined
  return {
    lsn: BigInt(`0x${lsn}`) as Lsn.Lsn,
    ordinal: ordinal === undefined ? undefined : Number.parseInt(ordinal, 16),
    part: Number.parseInt(index, 16)
  }
}

/** Puts it together again. */
export const format = ({ lsn, ordinal, part: index }: Parts): string =>
  part(ordinal === undefined ? Lsn.formatSortable(lsn) : within(lsn, ordinal), index)
