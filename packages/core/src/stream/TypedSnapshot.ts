/**
 * Declared tables over a snapshot: its rows, and the changes after them, in the types that their Schemas give.
 *
 * A row goes through the same decoder as an insert, and one that is gone as a delete, so what fits one place fits the
 * other. A row that does not is told as one at the seam: in a `RowMismatch` the operation is `Insert` or `Delete`, and
 * `commitLsn` the consistent point.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import type { Begin, Change } from "../change/Change.ts"
import type { Relation } from "../change/Relation.ts"
import * as PgTimestamp from "../PgTimestamp.ts"
import type {
  ChangeAfterSnapshot,
  SnapshotChange,
  SnapshotResumed,
  SnapshotRow,
  SnapshotRowDeleted
} from "../snapshot/SnapshotChange.ts"
import type { TableSnapshotChange } from "../snapshot/TableSnapshotChange.ts"
import type { Any, Row } from "../table/Table.ts"
import type { RowMismatch, TableError } from "../table/TableError.ts"
import type { OldRow, OnMismatch, TypedChange } from "../table/TypedChange.ts"
import { TypedChanges, type TypedOptions } from "../table/TypedChanges.ts"
import { readArrays, readEach, readStream } from "./ChangeArrays.ts"

/** A row of a declared table that was there when the snapshot was taken. */
export interface TypedSnapshotRow<T extends Any> {
  readonly _tag: "SnapshotRow"
  readonly table: T["name"]
  readonly snapshot: SnapshotRow["snapshot"]
  readonly relation: Relation
  readonly row: Row<T>
}

/** A row of a declared table that may be stored and is gone. `old` is what identifies it. */
export interface TypedSnapshotRowDeleted<T extends Any> {
  readonly _tag: "SnapshotRowDeleted"
  readonly table: T["name"]
  readonly snapshot: SnapshotResumed
  readonly relation: Relation
  readonly old: OldRow<T>
}

/** A row that does not fit its Schema, as it came. Handed over only under `onMismatch: "untyped"`. */
export interface UntypedSnapshotRow<T extends Any> {
  readonly _tag: "UntypedSnapshotRow"
  readonly table: T["name"]
  readonly row: SnapshotRow | SnapshotRowDeleted
  readonly mismatch: RowMismatch
}

type OfEach<T extends Any, Policy extends OnMismatch> = T extends Any
  ? TypedSnapshotRow<T> | TypedSnapshotRowDeleted<T> | (Policy extends "untyped" ? UntypedSnapshotRow<T> : never)
  : never

/** Everything that a stream with a snapshot delivers over a set of tables. Of a union of tables: narrow by `table`. */
export type TypedChangeAfterSnapshot<T extends Any, Policy extends OnMismatch = "fail"> =
  | Exclude<SnapshotChange, SnapshotRow | SnapshotRowDeleted>
  | TableSnapshotChange
  | OfEach<T, Policy>
  | TypedChange<T, Policy>

/** A row as a change of a transaction by which the row is found again. */
interface RowBegin<Of extends SnapshotRow | SnapshotRowDeleted = SnapshotRow | SnapshotRowDeleted> extends Begin {
  readonly of: Of
}

const beginOf = <Of extends SnapshotRow | SnapshotRowDeleted>(of: Of): RowBegin<Of> => ({
  _tag: "Begin",
  xid: 0,
  commitLsn: of.snapshot.consistentPoint,
  commitTime: PgTimestamp.make(0),
  of
})

/** What is no row passes as it is, and so do the marks of a snapshot. */
const asChange = (change: ChangeAfterSnapshot, ordinal: number): Change => {
  switch (change._tag) {
    case "SnapshotRow": {
      const { relation, row } = change
      return { _tag: "Insert", begin: beginOf(change), ordinal, relation, row, unchanged: [] }
    }
    case "SnapshotRowDeleted":
      return { _tag: "Delete", begin: beginOf(change), ordinal, relation: change.relation, old: change.old }
    default:
      return change as Change
  }
}

const isOfRow = (begin: Begin): begin is RowBegin => "of" in begin

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
    const failure = this.set.append(
      changes.map((change) => asChange(change, this.ordinal++)),
      typed
    )
    for (const change of typed) out.push(this.restore(change))
    return failure
  }

  private restore(change: TypedChange<T, Policy>): TypedChangeAfterSnapshot<T, Policy> {
    if (change._tag === "Insert" && isOfRow(change.begin)) {
      const { relation, snapshot } = change.begin.of
      return { _tag: "SnapshotRow", table: change.table, snapshot, relation, row: change.row } as OfEach<T, Policy>
    }
    if (change._tag === "Delete" && isOfRow(change.begin)) {
      const { relation, snapshot } = change.begin.of
      const { old, table } = change
      return { _tag: "SnapshotRowDeleted", table, snapshot, relation, old } as OfEach<T, Policy>
    }
    if (change._tag === "Untyped" && isOfRow(change.change.begin)) {
      const { mismatch, table } = change
      return { _tag: "UntypedSnapshotRow", table, row: change.change.begin.of, mismatch } as OfEach<T, Policy>
    }
    return change
  }
}

/**
 * A stream of rows and changes as a stream of the typed ones of these tables. Those of other tables are dropped; what
 * marks the snapshot passes, and so do `Begin`, `Commit` and their kin.
 *
 * @example
 * const replication = yield* Snapshot.SnapshotReplication
 * yield* replication.changes.pipe(
 *   Snapshot.changes([Orders, Customers]),
 *   Stream.runForEach((change) => Effect.andThen(store(change), replication.acknowledgeChange(change)))
 * )
 */
export const changes =
  <T extends Any, Policy extends OnMismatch = "fail">(tables: ReadonlyArray<T>, options?: TypedOptions<Policy>) =>
  <E, R>(
    self: Stream.Stream<ChangeAfterSnapshot, E, R>
  ): Stream.Stream<TypedChangeAfterSnapshot<T, Policy>, E | TableError, R> =>
    readStream(() => new TypedAfterSnapshot(tables, options))(self)

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
