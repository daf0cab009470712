/**
 * Declared tables over a snapshot: its rows, and the changes after them, in the types that their Schemas give.
 *
 * A row goes through the same decoder as an insert, so what fits one place fits the other. A row that does not is told as
 * an insert at the seam: in a `RowMismatch` the operation is `Insert`, and `commitLsn` the consistent point.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import type * as Effect from "effect/Effect"
import type { Begin, Change, Insert } from "../change/Change.ts"
import type { Relation } from "../change/Relation.ts"
import * as PgTimestamp from "../PgTimestamp.ts"
import { readArrays, readEach } from "../replication/ChangeArrays.ts"
import type { Any, Row } from "../table/Table.ts"
import type { RowMismatch, TableError } from "../table/TableError.ts"
import type { OnMismatch, TypedChange } from "../table/TypedChange.ts"
import { TypedChanges, type TypedOptions } from "../table/TypedChanges.ts"
import type { ChangeAfterSnapshot, SnapshotBeginning, SnapshotChange, SnapshotRow } from "./SnapshotChange.ts"

/** A row of a declared table that was there when the snapshot was taken. */
export interface TypedSnapshotRow<T extends Any> {
  readonly _tag: "SnapshotRow"
  readonly table: T["name"]
  readonly snapshot: SnapshotBeginning
  readonly relation: Relation
  readonly row: Row<T>
}

/** A row that does not fit its Schema, as it came. Handed over only under `onMismatch: "untyped"`. */
export interface UntypedSnapshotRow<T extends Any> {
  readonly _tag: "UntypedSnapshotRow"
  readonly table: T["name"]
  readonly row: SnapshotRow
  readonly mismatch: RowMismatch
}

type OfEach<T extends Any, Policy extends OnMismatch> = T extends Any
  ? TypedSnapshotRow<T> | (Policy extends "untyped" ? UntypedSnapshotRow<T> : never)
  : never

/** Everything that a stream with a snapshot delivers over a set of tables. Of a union of tables: narrow by `table`. */
export type TypedChangeAfterSnapshot<T extends Any, Policy extends OnMismatch = "fail"> =
  | Exclude<SnapshotChange, SnapshotRow>
  | OfEach<T, Policy>
  | TypedChange<T, Policy>

/** A row as an insert, of a transaction by which the row is found again. */
interface RowBegin extends Begin {
  readonly of: SnapshotRow
}

const asInsert = (row: SnapshotRow, ordinal: number): Insert => {
  const begin: RowBegin = {
    _tag: "Begin",
    xid: 0,
    commitLsn: row.snapshot.consistentPoint,
    commitTime: PgTimestamp.make(0),
    of: row
  }
  return { _tag: "Insert", begin, ordinal, relation: row.relation, row: row.row, unchanged: [] }
}

const rowOf = (begin: Begin): SnapshotRow | undefined => ("of" in begin ? (begin as RowBegin).of : undefined)

class TypedAfterSnapshot<T extends Any, Policy extends OnMismatch> {
  private readonly set: TypedChanges<T, Policy>
  private ordinal = 0

  constructor(tables: ReadonlyArray<T>, options: TypedOptions<Policy> | undefined) {
    this.set = new TypedChanges(tables, options)
  }

  /** Appends what `changes` mean to `out`, up to a failure, which it returns. */
  append(
    changes: ReadonlyArray<ChangeAfterSnapshot>,
    out: Array<TypedChangeAfterSnapshot<T, Policy>>
  ): TableError | undefined {
    const typed: Array<TypedChange<T, Policy>> = []
    // Whatever is no row's change passes as it is, and so do the marks of a snapshot.
    const inserts = changes.map((change) =>
      change._tag === "SnapshotRow" ? asInsert(change, this.ordinal++) : (change as Change)
    )
    const failure = this.set.append(inserts, typed)
    for (const change of typed) out.push(this.restore(change))
    return failure
  }

  private restore(change: TypedChange<T, Policy>): TypedChangeAfterSnapshot<T, Policy> {
    if (change._tag === "Insert") {
      const row = rowOf(change.begin)
      if (row === undefined) return change
      const { relation, snapshot } = row
      return { _tag: "SnapshotRow", table: change.table, snapshot, relation, row: change.row } as OfEach<T, Policy>
    }
    if (change._tag === "Untyped") {
      const row = rowOf(change.change.begin)
      if (row === undefined) return change
      const { mismatch, table } = change
      return { _tag: "UntypedSnapshotRow", table, row, mismatch } as OfEach<T, Policy>
    }
    return change
  }
}

/**
 * A handler of typed rows and changes as one for `withSnapshotStream`. It is not called for those of other tables.
 *
 * @example
 * Snapshot.withSnapshotStream(
 *   options,
 *   Snapshot.handler([Orders], (change) => store(change).pipe(Effect.as(nextLsn(change))))
 * )
 */
export const handler = <T extends Any, A, E, R, Policy extends OnMismatch = "fail">(
  tables: ReadonlyArray<T>,
  handle: (change: TypedChangeAfterSnapshot<T, Policy>) => Effect.Effect<A, E, R>,
  options?: TypedOptions<Policy>
): ((change: ChangeAfterSnapshot) => Effect.Effect<A | undefined, E | TableError, R>) =>
  readEach(new TypedAfterSnapshot(tables, options), handle)

/** The same for `withSnapshotStreamArray`. It is not called where nothing is left; what came before a misfit is handed over. */
export const arrayHandler = <T extends Any, A, E, R, Policy extends OnMismatch = "fail">(
  tables: ReadonlyArray<T>,
  handle: (changes: NonEmptyReadonlyArray<TypedChangeAfterSnapshot<T, Policy>>) => Effect.Effect<A, E, R>,
  options?: TypedOptions<Policy>
): ((changes: ReadonlyArray<ChangeAfterSnapshot>) => Effect.Effect<A | undefined, E | TableError, R>) =>
  readArrays(new TypedAfterSnapshot(tables, options), handle)
