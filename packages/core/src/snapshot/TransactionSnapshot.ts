/**
 * Which transactions a reader's view of the database takes in: `pg_current_snapshot()`, as text and as a question about a
 * transaction of the stream. Pure; nothing here asks the server.
 *
 * Asked about transactions that have committed, and only those: the snapshot knows which were running, not which failed.
 *
 * Source: https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT and `XidInMVCCSnapshot` in
 * src/backend/utils/time/snapmgr.c.
 */

/** As in `pg_snapshot`. Transaction ids are `xid8`: 64 bits, which never wrap. */
export interface TransactionSnapshot {
  /** All below had ended. */
  readonly xmin: bigint
  /** This one, and all above, had not begun. */
  readonly xmax: bigint
  /** Those between that were running. Top-level transactions only: a subtransaction counts as its parent. */
  readonly running: ReadonlySet<bigint>
}

const pattern = /^(\d{1,20}):(\d{1,20}):((?:\d{1,20})(?:,\d{1,20})*)?$/

/**
 * A snapshot from PostgreSQL's text, `10:20:10,14,15`; `undefined` for anything else.
 *
 * One that a slot exports may say `11:10:`, when the last transactions before it were rolled back: nothing had begun from 11
 * on, and `xmax` counts those that committed (`SnapBuildBuildSnapshot` in src/backend/replication/logical/snapbuild.c). It
 * means `11:11:`, since what is below `xmin` is seen whatever `xmax` says.
 *
 * @example
 * fromString("10:20:10,14,15") // => { xmin: 10n, xmax: 20n, running: new Set([10n, 14n, 15n]) }
 */
export const fromString = (text: string): TransactionSnapshot | undefined => {
  const match = pattern.exec(text)
  if (match === null) return undefined
  const xmin = BigInt(match[1]!)
  const xmax = [xmin, BigInt(match[2]!)].reduce((self, that) => (self > that ? self : that))
  const running = new Set(match[3] === undefined ? [] : match[3].split(",").map(BigInt))
  const isSound = xmin > 0n && Array.from(running).every((xid) => xid >= xmin && xid < xmax)
  return isSound ? { xmin, xmax, running } : undefined
}

/** PostgreSQL's text for it, with the running transactions in order. */
export const format = ({ running, xmax, xmin }: TransactionSnapshot): string =>
  `${xmin}:${xmax}:${Array.from(running)
    .sort((self, that) => (self < that ? -1 : self > that ? 1 : 0))
    .join(",")}`

/**
 * The whole id of a transaction that the stream names by its lower 32 bits (`Begin.xid`). Ids that are alive at one time
 * lie within 2^31 of each other, and a slot holds those of the catalog back: so it is the one that is nearest to `xmax`.
 */
const wholeXid = ({ xmax }: TransactionSnapshot, xid: number): bigint => {
  const distance = (xid - Number(BigInt.asUintN(32, xmax))) | 0
  return xmax + BigInt(distance)
}

/**
 * Whether the snapshot sees what this transaction wrote, given that it committed. `xid` is `Begin.xid`: the top-level
 * transaction, in 32 bits.
 *
 * @example
 * isVisible(fromString("10:20:14")!, 13) // => true
 * isVisible(fromString("10:20:14")!, 14) // => false
 */
export const isVisible = (self: TransactionSnapshot, xid: number): boolean => {
  const whole = wholeXid(self, xid)
  if (whole >= self.xmax) return false
  return whole < self.xmin || !self.running.has(whole)
}
