/**
 * What the stream has said of one table since its rows are being read anew, and what that makes of rows read before: the
 * heart of reading a table while it changes. Pure; see docs/decisions/0017 for why it is exact.
 *
 * A chunk's rows are as of a snapshot S, and are handed over at a later place of the stream. All that S sees has been
 * delivered by then. What was delivered and S does not see is kept here, by transaction, and laid over the rows: so they
 * are as of the place where they stand. What S sees is forgotten, and what comes of it later is not even kept.
 *
 * Of an update that leaves a TOAST value alone the stream does not send the value. Where the target has the row, it has the
 * value; where the row was yet to come, the chunk's row has it. One more way is left to miss it: the update also changes the
 * key, so that the row is neither where it was read nor where it will be. Such keys are read again, see `rereads`.
 *
 * Rows are kept by reference, and counted. Beyond the budget all is forgotten, and `isLost` says so: nothing is resolved
 * then until `follow` begins from a place of the stream again. What both mean for the request is said in `Phase.ts`.
 */
import type { Change, Delete, Insert, Row, Update } from "../change/Change.ts"
import type { Relation } from "../change/Relation.ts"
import { isVisible, type TransactionSnapshot } from "../snapshot/TransactionSnapshot.ts"
import { keyText, keyValues } from "./Key.ts"

/** One row's change: where it was, where it is, and what is known of it. */
interface Touch {
  /** Absent for an insert. */
  readonly from: string | undefined
  /** Absent for a delete. */
  readonly to: string | undefined
  readonly row: Row
  /** Whether columns are missing that the server did not send. */
  readonly isPartial: boolean
}

type Effects = Array<Touch | "truncate">

/** A key that must be read once more, by a snapshot that sees this transaction. */
export interface Reread {
  readonly xid: number
  /** Of the key's columns, as PostgreSQL reads them. */
  readonly values: ReadonlyArray<string>
}

export interface TouchedKeysOptions {
  /** OID of the relation, as the stream names it. */
  readonly oid: number
  readonly keyColumns: ReadonlyArray<string>
  /** What is kept at most, in bytes of decoded rows, about. */
  readonly maxBytes: number
}

/** What is kept at most of what the stream tells, until a chunk's place has come: some ten thousand rows of a kilobyte. */
export const mostTouched = 64 * 1024 * 1024

/** Keys to be read again beyond which the table is begun anew: some megabytes. */
const mostRereads = 10_000

/** What an entry costs beside its values. */
const touchWeight = 100

const weightOf = (row: Row): number => {
  let weight = touchWeight
  for (const column in row) {
    const value = row[column]
    weight += typeof value === "string" ? 16 + 2 * value.length : value instanceof Uint8Array ? 16 + value.length : 16
  }
  return weight
}

/** Whether both describe rows of the same columns. What identifies a row is seen when it is missing. */
const hasSameColumns = (self: Relation, that: Relation): boolean =>
  self === that ||
  (self.columns.length === that.columns.length &&
    self.columns.every((column, index) => {
      const other = that.columns[index]!
      return column.name === other.name && column.typeOid === other.typeOid
    }))

/** What one change makes of the rows that were read. */
const lay = ({ from, isPartial, row, to }: Touch, rows: Map<string, Row>): void => {
  const before = from === undefined ? undefined : rows.get(from)
  if (from !== undefined && from !== to) rows.delete(from)
  if (to === undefined) return
  // A row that was not read came by the stream, or will be read where it is now.
  if (before !== undefined) rows.set(to, isPartial ? { ...before, ...row } : row)
}

export class TouchedKeys {
  readonly rereads = new Map<string, Reread>()
  /** Counts what came to `rereads`. */
  moves = 0

  readonly options: TouchedKeysOptions
  private readonly transactions = new Map<number, Effects>()
  private relation: Relation | undefined
  private seen: TransactionSnapshot | undefined
  private bytes = 0
  private xid = 0
  private current: Effects | undefined
  private isFollowing = false
  private isUnfollowable = false

  constructor(options: TouchedKeysOptions) {
    this.options = options
  }

  /** What was delivered is not known: what is read now cannot be corrected. Begins so. */
  get isLost(): boolean {
    return !this.isFollowing
  }

  /** The stream describes the table otherwise, or more keys moved than are kept: it is to be begun anew. */
  get isVoid(): boolean {
    return this.isUnfollowable
  }

  /** From this place of the stream on, everything is kept. */
  follow(): void {
    this.lose()
    this.isFollowing = true
  }

  /** Forgets what is kept, and keeps nothing more but keys to be read again. */
  lose(): void {
    this.isFollowing = false
    this.transactions.clear()
    this.current = undefined
    this.bytes = 0
    this.seen = undefined
  }

  /** Rows of this relation will be read. Changes that describe it otherwise make it void. */
  expect(relation: Relation): void {
    this.relation = relation
  }

  /** A reader has taken this snapshot: what it sees need not be kept, of the past nor of the future. */
  read(snapshot: TransactionSnapshot): void {
    this.seen = snapshot
    for (const [xid, effects] of this.transactions) {
      if (!isVisible(snapshot, xid)) continue
      this.transactions.delete(xid)
      if (effects === this.current) this.current = undefined
      for (const touch of effects) this.bytes -= touch === "truncate" ? touchWeight : weightOf(touch.row)
    }
  }

  /** Takes a change that is being delivered, of whatever table. */
  deliver(change: Change): void {
    switch (change._tag) {
      case "Begin":
        // One that is delivered anew after a lost connection keeps its place, and comes whole.
        this.xid = change.xid
        this.forget(change.xid)
        return
      case "Insert":
      case "Update":
      case "Delete":
        if (change.relation.oid === this.options.oid) this.touch(change)
        return
      case "Truncate":
        if (change.relations.some(({ oid }) => oid === this.options.oid)) {
          this.rereads.clear()
          this.keep("truncate", touchWeight)
        }
        return
    }
  }

  /**
   * `rows` as the snapshot has them, by key, as they are at this place of the stream. `asked` are those of the `rereads` that
   * were read with them.
   */
  resolve(
    snapshot: TransactionSnapshot,
    rows: ReadonlyMap<string, Row>,
    asked: Iterable<string> = []
  ): ReadonlyMap<string, Row> {
    for (const key of asked) {
      const reread = this.rereads.get(key)
      if (reread !== undefined && isVisible(snapshot, reread.xid)) this.rereads.delete(key)
    }
    const now = new Map(rows)
    for (const [xid, effects] of this.transactions) {
      if (isVisible(snapshot, xid)) continue
      for (const touch of effects) {
        if (touch === "truncate") now.clear()
        else lay(touch, now)
      }
    }
    // A moved row that was read where it had been is whole.
    for (const key of this.rereads.keys()) if (now.has(key)) this.rereads.delete(key)
    return now
  }

  private touch(change: Insert | Update | Delete): void {
    if (this.relation !== undefined && !hasSameColumns(this.relation, change.relation)) this.isUnfollowable = true
    const { keyColumns } = this.options
    const to = change._tag === "Delete" ? undefined : keyValues(keyColumns, change.row)
    const old = change._tag === "Insert" ? undefined : change.old
    const from = change._tag === "Insert" ? undefined : old === undefined ? to : keyValues(keyColumns, old.row)
    if ((to !== undefined && "column" in to) || (from !== undefined && "column" in from)) {
      this.isUnfollowable = true
      return
    }
    const fromKey = from === undefined ? undefined : keyText(from)
    const toKey = to === undefined ? undefined : keyText(to)
    const row = change._tag === "Delete" ? {} : change.row
    const isPartial = change._tag !== "Delete" && change.unchanged.length > 0
    if (fromKey !== toKey) {
      if (fromKey !== undefined) this.rereads.delete(fromKey)
      if (toKey !== undefined && isPartial) {
        this.moves += 1
        this.rereads.set(toKey, { xid: this.xid, values: to! })
        if (this.rereads.size > mostRereads) this.isUnfollowable = true
      } else if (fromKey === undefined && toKey !== undefined) {
        this.rereads.delete(toKey)
      }
    }
    this.keep({ from: fromKey, to: toKey, row, isPartial }, weightOf(row))
  }

  private keep(touch: Touch | "truncate", weight: number): void {
    if (this.isLost || (this.seen !== undefined && isVisible(this.seen, this.xid))) return
    if (this.current === undefined) {
      this.current = this.transactions.get(this.xid) ?? []
      this.transactions.set(this.xid, this.current)
    }
    this.current.push(touch)
    this.bytes += weight
    if (this.bytes > this.options.maxBytes) this.lose()
  }

  private forget(xid: number): void {
    this.current = undefined
    const effects = this.transactions.get(xid)
    if (effects === undefined) return
    for (const touch of effects) this.bytes -= touch === "truncate" ? touchWeight : weightOf(touch.row)
    effects.length = 0
  }
}
