/**
 * What a change handler was given over any number of connections, held against the promise: at least once, in commit
 * order, whole transactions, and one that was cut begins anew.
 */
import { assert } from "@effect/vitest"
import { type Change, Lsn } from "@replicant/core"

export interface Delivery {
  /** The rows of each transaction as first completed, by its commit LSN, in order of that first completion. */
  readonly transactions: ReadonlyArray<ReadonlyArray<Change>>
  /** Transactions of which only a beginning came; each came again from its Begin, or is the last. */
  readonly halves: number
  /** Complete deliveries beyond the first. */
  readonly repeated: number
}

/**
 * Reads what came, and fails where the order is broken: a change outside a transaction, one that goes on in the middle,
 * one that skips another or differs from its earlier delivery.
 */
export const deliveryOf = (changes: ReadonlyArray<Change>): Delivery => {
  const seen = new Map<string, ReadonlyArray<Change>>()
  const halfOf = new Map<string, ReadonlyArray<Change>>()
  let open: Array<Change> | undefined
  let halves = 0
  let repeated = 0
  const keyOf = (transaction: ReadonlyArray<Change>): string => {
    const [begin] = transaction
    assert(begin?._tag === "Begin", "a transaction starts with its Begin")
    return Lsn.formatSortable(begin.commitLsn)
  }
  const agrees = (earlier: ReadonlyArray<Change>, later: ReadonlyArray<Change>): void => {
    const common = Math.min(earlier.length, later.length)
    assert.deepStrictEqual(later.slice(0, common), earlier.slice(0, common), "every delivery is the same")
  }
  const giveUp = (): void => {
    if (open === undefined) return
    halves += 1
    agrees(halfOf.get(keyOf(open)) ?? [], open)
    agrees(seen.get(keyOf(open)) ?? [], open)
    halfOf.set(keyOf(open), open)
  }
  for (const change of changes) {
    if (change._tag === "Begin") {
      giveUp()
      open = [change]
      continue
    }
    assert(open !== undefined, `${change._tag} within a transaction`)
    open.push(change)
    if (change._tag !== "Commit") continue
    const key = keyOf(open)
    agrees(halfOf.get(key) ?? [], open)
    const earlier = seen.get(key)
    if (earlier === undefined) {
      const last = [...seen.keys()].at(-1)
      assert(last === undefined || last < key, "in commit order")
      seen.set(key, open)
    } else {
      repeated += 1
      assert.deepStrictEqual(open, earlier, "every delivery is the same")
    }
    open = undefined
  }
  giveUp()
  const order = [...seen.keys()]
  const ranks = changes.flatMap((change) =>
    change._tag === "Begin" ? [order.indexOf(Lsn.formatSortable(change.commitLsn))] : []
  )
  for (const [index, rank] of ranks.entries()) {
    // Unknown is what was never completed: it comes after all that was.
    const before = index === 0 ? -1 : ranks[index - 1]!
    assert(rank === -1 || rank <= before + 1, "none is skipped")
  }
  return { transactions: [...seen.values()], halves, repeated }
}

/** The column `id` of every inserted row, transaction by transaction: each once, in commit order. */
export const insertedIds = ({ transactions }: Delivery): ReadonlyArray<number> =>
  transactions.flat().flatMap((change) => (change._tag === "Insert" ? [Number(change.row.id)] : []))
