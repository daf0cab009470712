/**
 * The last state of each row among changes, so that a bulk statement never meets one row twice. Pure.
 *
 * What comes of it are runs: rows of distinct keys, in the order in which they were last changed, or one change that stands
 * alone between them, since it is of no row or cannot be told as a state.
 */
import type { Delete, Insert, Row, Update } from "../change/Change.ts"
import { keyColumns } from "../change/Relation.ts"
import type { SnapshotRow, SnapshotRowDeleted } from "../snapshot/SnapshotChange.ts"
import { isOfRow, isUniqueRow, rowKeys } from "./ChangeKey.ts"

type OfRow = Insert | Update | Delete | SnapshotRow | SnapshotRowDeleted

/** What an update leaves of the columns that it did not bring, taken from the state before. */
const carried = (change: Insert | Update, before: OfRow | undefined): Pick<Insert, "row" | "unchanged"> => {
  const known = before !== undefined && "row" in before ? before.row : undefined
  if (change.unchanged.length === 0 || known === undefined) return change
  const row: { [column: string]: unknown } = { ...change.row }
  const unchanged = change.unchanged.filter((column) => {
    if (known[column] === undefined) return true
    row[column] = known[column]
    return false
  })
  return { row, unchanged }
}

const onlyKey = (row: Row, columns: ReadonlyArray<string>): Row =>
  Object.fromEntries(columns.map((column) => [column, row[column]]))

/** Gathers states until something stands alone. */
class Runs {
  readonly done: Array<ReadonlyArray<unknown>> = []
  private states = new Map<string, OfRow>()
  /** Of rows that nothing tells from one another: as they came, by a key that no other has. */
  private others = 0

  add(change: unknown): void {
    if (!isOfRow(change)) this.addAlone(change)
    else if (isUniqueRow(change as OfRow)) this.addRow(change as OfRow)
    else this.states.set(` ${this.others++}`, change as OfRow)
  }

  cut(): void {
    if (this.states.size > 0) this.done.push([...this.states.values()])
    this.states = new Map()
  }

  private addRow(change: OfRow): void {
    const keys = rowKeys(change)
    if (keys === undefined) this.addAlone(change)
    else if (keys.length === 2) this.move(change as Update, keys[0]!, keys[1]!)
    else this.put(keys[0]!, this.stateOf(change, this.states.get(keys[0]!)))
  }

  private addAlone(change: unknown): void {
    this.cut()
    this.done.push([change])
  }

  /** The last is last: what it replaces makes room. */
  private put(key: string, state: OfRow): void {
    this.states.delete(key)
    this.states.set(key, state)
  }

  private stateOf(change: OfRow, before: OfRow | undefined): OfRow {
    if (change._tag !== "Update" && change._tag !== "Insert") return change
    const state = { ...change, ...carried(change, before) }
    const isNew = before !== undefined && (before._tag === "Insert" || before._tag === "SnapshotRow")
    if (change._tag === "Insert" || !isNew) return state
    const { begin, ordinal, relation, row, unchanged } = state
    return { _tag: "Insert", begin, ordinal, relation, row, unchanged }
  }

  private move(change: Update, from: string, to: string): void {
    const { row, unchanged } = carried(change, this.states.get(from))
    if (unchanged.length > 0) {
      // Deleted and inserted, it would lose what the server did not send.
      this.addAlone(change)
      return
    }
    const { begin, old, ordinal, relation } = change
    const key = onlyKey(old!.row, keyColumns(relation))
    this.put(from, { _tag: "Delete", begin, ordinal, relation, old: { _tag: "Key", row: key } })
    this.put(to, { _tag: "Insert", begin, ordinal, relation, row, unchanged })
  }
}

/**
 * The runs of these changes, in order. In a run no row is twice: an insert and its updates are an insert of the last row; an
 * update that moves a row is a delete and an insert; columns that an update did not bring are those of the state before, where
 * there is one. Changes of declared tables, and of tables without a unique identity, are left as they are.
 */
export const compactRuns = <C>(changes: ReadonlyArray<C>): ReadonlyArray<ReadonlyArray<C>> => {
  const runs = new Runs()
  for (const change of changes) runs.add(change)
  runs.cut()
  return runs.done as ReadonlyArray<ReadonlyArray<C>>
}
