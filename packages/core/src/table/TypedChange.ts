/**
 * Changes of declared tables. They have the shape of a `Change`, with `table` beside `_tag` to tell them apart, and rows
 * in the type that their Schema gives: whole, partial, or the key alone, whichever the server sent.
 *
 * What is not a row's change, `Begin`, `Commit`, `Message` and their kin, is passed on as it is, so that all that can be
 * acknowledged still can be.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import type * as Change from "../change/Change.ts"
import type { Relation } from "../change/Relation.ts"
import type { Any, KeyRow, PartialRow, Property, Row } from "./Table.ts"
import type { RowMismatch } from "./TableError.ts"

/** What every change of a row tells of itself, as in `Change`. */
interface OfTable<T extends Any> {
  readonly table: T["name"]
  readonly begin: Change.Begin
  readonly ordinal: number
  readonly relation: Relation
}

/** A row of a declared table that came to be. */
export interface TypedInsert<T extends Any> extends OfTable<T> {
  readonly _tag: "Insert"
  readonly row: Row<T>
  /** Mostly empty: optional columns that an update which entered a row filter left out. */
  readonly unchanged: ReadonlyArray<Property<T>>
}

/** The declared key of the row before. */
export interface TypedKeyRow<T extends Any> {
  readonly _tag: "Key"
  readonly row: KeyRow<T>
}

/** The whole row before, under `REPLICA IDENTITY FULL`. */
export interface TypedFullRow<T extends Any> {
  readonly _tag: "Full"
  readonly row: Row<T>
}

/** An update that tells the whole row. */
export interface CompleteUpdate<T extends Any> extends OfTable<T> {
  readonly _tag: "Update"
  readonly isComplete: true
  readonly row: Row<T>
  readonly unchanged: readonly []
  readonly old: OldRow<T> | undefined
}

/**
 * An update that left declared columns alone which are stored out of line (TOAST): they are not sent, are not in the row,
 * and keep the values they have.
 */
export interface PartialUpdate<T extends Any> extends OfTable<T> {
  readonly _tag: "Update"
  readonly isComplete: false
  readonly row: PartialRow<T>
  readonly unchanged: NonEmptyReadonlyArray<Property<T>>
  readonly old: OldRow<T> | undefined
}

/** A row of a declared table that is gone. `old` is what identifies it. */
export interface TypedDelete<T extends Any> extends OfTable<T> {
  readonly _tag: "Delete"
  readonly old: OldRow<T>
}

/** One TRUNCATE, of at least one table of the set. Others that it emptied are left out. */
export interface TypedTruncate<T extends Any> {
  readonly _tag: "Truncate"
  readonly tables: NonEmptyReadonlyArray<T["name"]>
  readonly relations: NonEmptyReadonlyArray<Relation>
  readonly begin: Change.Begin
  readonly ordinal: number
  readonly cascade: boolean
  readonly restartIdentity: boolean
}

/** A change whose row does not fit its Schema, as it came. Handed over only under `onMismatch: "untyped"`. */
export interface UntypedChange<T extends Any> {
  readonly _tag: "Untyped"
  readonly table: T["name"]
  readonly change: Change.Insert | Change.Update | Change.Delete
  readonly mismatch: RowMismatch
}

/** What the server tells of the row before: narrow by `_tag`. */
export type OldRow<T extends Any> = T extends Any ? TypedKeyRow<T> | TypedFullRow<T> : never

/** A row that came to be. Of a union of tables: narrow by `table`. */
export type Insert<T extends Any> = T extends Any ? TypedInsert<T> : never

/** A row that changed: narrow by `isComplete`. Of a union of tables: and by `table`. */
export type Update<T extends Any> = T extends Any ? CompleteUpdate<T> | PartialUpdate<T> : never

/** A row that is gone. Of a union of tables: narrow by `table`. */
export type Delete<T extends Any> = T extends Any ? TypedDelete<T> : never

/** Tables of the set were emptied. */
export type Truncate<T extends Any> = TypedTruncate<T>

/** A change whose row does not fit. */
export type Untyped<T extends Any> = T extends Any ? UntypedChange<T> : never

/**
 * What a row that does not fit its Schema does: `fail`, the default, ends the stream with a `RowMismatch`; `untyped` hands
 * the change over as it came, in an `Untyped`.
 */
export type OnMismatch = "fail" | "untyped"

/** Everything that a stream over a set of tables delivers: `TypedChange<typeof Orders | typeof Customers>`. */
export type TypedChange<T extends Any, Policy extends OnMismatch = "fail"> =
  | Change.Begin
  | Insert<T>
  | Update<T>
  | Delete<T>
  | Truncate<T>
  | (Policy extends "untyped" ? Untyped<T> : never)
  | Change.Message
  | Change.Origin
  | Change.RelationChanged
  | Change.Commit
  | Change.TwoPhaseChange
  | Change.Gap
