/**
 * Changes as letters have them, and as handlers do. Rows of declared tables have values of their Schema's: in a letter they have the
 * form that the Schema encodes them to, so that any store can keep them. What did not fit is read anew when it is tried again, by the
 * Schema of that day.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { ChangeAfterSnapshot } from "../snapshot/SnapshotChange.ts"
import { readerOf } from "../stream/TypedSnapshot.ts"
import type { Any } from "../table/Table.ts"
import { RowMismatch, type TableError } from "../table/TableError.ts"
import { bare } from "./ChangeKey.ts"
import { DeadLettersError } from "./Letter.ts"

interface Element {
  readonly _tag?: string
  readonly table?: unknown
  readonly change?: Element
  readonly row?: unknown
  readonly old?: { readonly row: unknown } | undefined
  readonly mismatch?: RowMismatch
}

type Row = { readonly [property: string]: unknown }

/** What says that a change does not fit its Schema; `undefined` of all others. */
export const mismatchOf = (change: unknown): RowMismatch | undefined => {
  const { _tag, mismatch } = bare(change) as Element
  return _tag === "Untyped" || _tag === "UntypedSnapshotRow" ? mismatch : undefined
}

/** Something at the place of the change itself, where that stands beside a context. */
const within = (element: Element, put: (change: Element) => unknown): unknown =>
  element._tag === undefined && element.change !== undefined
    ? { ...element, change: within(element.change, put) }
    : put(element)

const rowsOf = ({ old, row, ...rest }: Element, each: (row: Row) => unknown): unknown => ({
  ...rest,
  ...(row === undefined ? {} : { row: each(row as Row) }),
  ...(old === undefined ? {} : { old: { ...old, row: each(old.row as Row) } })
})

/** How the changes of these tables are put into letters, and taken out. */
export class LetterForm {
  private readonly tables: ReadonlyArray<Any>
  private readonly makeReader: () => {
    append(changes: ReadonlyArray<never>, out: Array<unknown>): TableError | undefined
  }

  constructor(tables: ReadonlyArray<Any> = []) {
    this.tables = tables
    this.makeReader = readerOf<ChangeAfterSnapshot, Any, "untyped">(tables, { onMismatch: "untyped" }) as never
  }

  private byField(table: unknown, row: Row, each: (field: Schema.Constraint, value: unknown) => unknown): Row {
    const fields = this.tables.find(({ name }) => name === table)?.rowSchema.fields
    if (fields === undefined) return row
    return Object.fromEntries(
      Object.entries(row).map(([property, value]) => {
        const field = fields[property]
        return [property, field === undefined ? value : each(field, value)]
      })
    )
  }

  /** As a letter has it. */
  readonly put = (change: unknown): Effect.Effect<unknown, DeadLettersError> =>
    Effect.try({
      try: () =>
        within(change as Element, (bared) => {
          if (mismatchOf(bared) !== undefined) return { ...bared, mismatch: { ...bared.mismatch } }
          if (bared.table === undefined) return bared
          return rowsOf(bared, (row) =>
            this.byField(bared.table, row, (field, value) =>
              Schema.encodeUnknownSync(field as Schema.Codec<unknown>)(value)
            )
          )
        }),
      catch: () => {
        const problem = "a row of a declared table does not encode by its Schema"
        return new DeadLettersError({ during: "encode", problem })
      }
    })

  /** As the handler takes it. */
  readonly take = (change: unknown): Effect.Effect<unknown, DeadLettersError | TableError> =>
    Effect.suspend((): Effect.Effect<unknown, DeadLettersError | TableError> => {
      const bared = bare(change) as Element
      if (bared._tag === "Untyped" || bared._tag === "UntypedSnapshotRow")
        return this.readAnew(change as Element, bared)
      if (bared.table === undefined) return Effect.succeed(change)
      return Effect.try({
        try: () =>
          within(change as Element, (typed) =>
            rowsOf(typed, (row) =>
              this.byField(bared.table, row, (field, value) =>
                Schema.decodeUnknownSync(field as Schema.Codec<unknown>)(value)
              )
            )
          ),
        catch: () => {
          const problem = "a row in a letter does not decode by the Schema of its table"
          return new DeadLettersError({ during: "find", problem })
        }
      })
    })

  /** By the Schema as it is now. */
  private readAnew(change: Element, bared: Element): Effect.Effect<unknown, TableError> {
    const out: Array<unknown> = []
    const failure = this.makeReader().append([bared._tag === "Untyped" ? bared.change : bared.row] as never, out)
    if (failure !== undefined) return Effect.fail(failure)
    // Of a table that is declared no more it stays what it is.
    const [typed = { ...bared, mismatch: new RowMismatch(bared.mismatch as never) }] = out
    return Effect.succeed(within(change, () => typed))
  }
}
