/** Copies of what is changed in place, for a world that goes another way. */
import type { SnapshotLedger } from "../../../src/rereading/Ledger.ts"
import type { TouchedKeys } from "../../../src/rereading/TouchedKeys.ts"

interface Keys {
  rereads: Map<string, unknown>
  transactions: Map<number, Array<unknown>>
  current: Array<unknown> | undefined
}

export const copyOfKeys = (keys: TouchedKeys): TouchedKeys => {
  const copy = Object.assign(Object.create(Object.getPrototypeOf(keys) as object) as object, keys)
  const inside = copy as unknown as Keys
  const { current } = inside
  inside.rereads = new Map(inside.rereads)
  inside.transactions = new Map(
    Array.from(inside.transactions, ([xid, effects]) => {
      const own = [...effects]
      if (effects === current) inside.current = own
      return [xid, own]
    })
  )
  return copy as TouchedKeys
}

interface Ledger {
  entries: Map<string, { readonly job: unknown }>
  undurable: Array<{ readonly job: unknown }>
  store: unknown
}

/** Of one job, which is another then. */
export const copyOfLedger = (ledger: SnapshotLedger, job: unknown, store: unknown): SnapshotLedger => {
  const copy = Object.assign(Object.create(Object.getPrototypeOf(ledger) as object) as object, ledger)
  const inside = copy as unknown as Ledger
  inside.entries = new Map(Array.from(inside.entries, ([id, entry]) => [id, { ...entry, job }]))
  inside.undurable = inside.undurable.map((chunk) => ({ ...chunk, job }))
  inside.store = store
  return copy as SnapshotLedger
}
