/**
 * What changes of one declared table do to a store that keeps it by key, and the last of it for each row: so that no store meets one
 * row twice in a request. Pure.
 *
 * Each operation may be carried out again, with all that came after it: what comes twice leaves what came once.
 */
import type { ChangeAfterSnapshot } from "../snapshot/SnapshotChange.ts"
import type { TypedOf } from "../stream/TypedSnapshot.ts"
import type { Any, KeyRow, PartialRow, Row } from "../table/Table.ts"

/** A row's place in a store. */
export interface Place<T extends Any> {
  /** The key as text: see {@link idOf}. */
  readonly id: string
  readonly key: KeyRow<T>
}

/** Whatever is stored is void. */
export interface Clear {
  readonly _tag: "Clear"
}

/** A whole row: it takes the place of what has its key, if anything has. */
export interface Put<T extends Any> extends Place<T> {
  readonly _tag: "Put"
  readonly row: Row<T>
}

/** A part of a row: the columns that it does not name stay as they are. Where nothing has its key it is of a row that is gone. */
export interface Patch<T extends Any> extends Place<T> {
  readonly _tag: "Patch"
  readonly row: PartialRow<T>
}

/**
 * A row has another key, and columns that it does not name stay as they were: as those of what has the new key, where something has,
 * for then this comes again; else as those at `from`. What is at `from` goes. Comes by itself.
 */
export interface Move<T extends Any> extends Place<T> {
  readonly _tag: "Move"
  readonly from: Place<T>
  readonly row: PartialRow<T>
}

/** Nothing has this key any more. */
export interface Remove<T extends Any> extends Place<T> {
  readonly _tag: "Remove"
}

/** What a store is told, of one table. */
export type Operation<T extends Any> = Clear | Put<T> | Patch<T> | Move<T> | Remove<T>

/** What is delivered of one table. */
export type ChangeOf<T extends Any> = TypedOf<ChangeAfterSnapshot, T>

type OfRow<T extends Any> = Exclude<Operation<T>, Clear>

const textOf = (value: unknown): unknown => (typeof value === "bigint" ? String(value) : value)

const isPlain = (value: unknown): boolean => /^(string|number|bigint|boolean)$/.test(typeof value)

/**
 * A key as text: the value, of one column that is a string, a number, a bigint or a boolean; else the values as a JSON array.
 *
 * @example
 * const id: string = Table.idOf(Orders, { id: 42 }) // "42"
 */
export const idOf = <T extends Any>(table: T, key: KeyRow<T>): string => {
  const values = table.key.map((property) => (key as Readonly<Record<string, unknown>>)[property])
  const [first] = values
  return values.length === 1 && isPlain(first) ? String(first) : JSON.stringify(values, (_, value) => textOf(value))
}

/** A row with other columns over it, of the same class. */
export const over = <T extends Any>(row: Row<T>, columns: PartialRow<T>): Row<T> =>
  Object.assign(Object.create(Object.getPrototypeOf(row)) as object, row, columns) as Row<T>

/** Gathers operations: in each of `runs` no id comes twice, and what clears is first. */
export class Operations<T extends Any> {
  readonly runs: Array<ReadonlyArray<Operation<T>>> = []
  private clears = false
  private rows = new Map<string, OfRow<T>>()
  private readonly table: T

  constructor(table: T) {
    this.table = table
  }

  /** What all rows of the table are void of: what is not carried out yet need not be. */
  clear(): void {
    this.runs.length = 0
    this.rows = new Map()
    this.clears = true
  }

  put(row: Row<T>): void {
    const place = this.placeOf(row)
    this.set({ _tag: "Put", ...place, row })
  }

  remove(old: Row<T> | KeyRow<T>): void {
    this.set({ _tag: "Remove", ...this.placeOf(old) })
  }

  /** A row that has changed, and its key before. */
  update(row: Row<T> | PartialRow<T>, isComplete: boolean, old: Row<T> | KeyRow<T> | undefined): void {
    const to = this.placeOf(row, old)
    const from = old === undefined ? to : this.placeOf(old)
    const known = this.rows.get(from.id)
    const whole = isComplete ? (row as Row<T>) : known?._tag === "Put" ? over(known.row, row) : undefined
    if (whole !== undefined) {
      if (from.id !== to.id) this.set({ _tag: "Remove", ...from })
      this.set({ _tag: "Put", ...to, row: whole })
    } else if (from.id !== to.id) {
      this.cut()
      this.runs.push([{ _tag: "Move", ...to, from, row }])
    } else if (known?._tag !== "Remove") {
      const before = known?._tag === "Patch" ? known.row : undefined
      this.set({ _tag: "Patch", ...to, row: Object.assign({}, before, row) })
    }
  }

  /** Ends a run. */
  cut(): void {
    const clear: ReadonlyArray<Clear> = this.clears ? [{ _tag: "Clear" }] : []
    if (this.clears || this.rows.size > 0) this.runs.push([...clear, ...this.rows.values()])
    this.clears = false
    this.rows = new Map()
  }

  /** The last is last: what it replaces makes room. */
  private set(operation: OfRow<T>): void {
    this.rows.delete(operation.id)
    this.rows.set(operation.id, operation)
  }

  /** A key that is stored out of line, and was left alone, is in the row before. */
  private placeOf(row: unknown, before?: unknown): Place<T> {
    const values = Object.assign({}, before, row) as Readonly<Record<string, unknown>>
    const key = Object.fromEntries(this.table.key.map((property) => [property, values[property]])) as KeyRow<T>
    return { id: idOf(this.table, key), key }
  }
}
