/**
 * Which row a change is of, as text: what it is ordered by. Two changes of one row have a key in common; an update that moves
 * a row to another key has both.
 *
 * What is coarser than a row is only slower, so whatever is not known for certain has its table for a key, or none: then it
 * stands alone.
 */
import type { OldRow, Row } from "../change/Change.ts"
import { nextLsn } from "../change/Change.ts"
import type { Handled } from "../change/NextLsn.ts"
import { isKeyed, keyColumns, type Relation } from "../change/Relation.ts"

/** The kinds that are of one row. */
type RowTag = "Insert" | "Update" | "Delete" | "SnapshotRow" | "SnapshotRowDeleted" | "Untyped" | "UntypedSnapshotRow"

/** A change that stands beside the context of its transaction. */
interface Beside {
  readonly _tag?: undefined
  readonly context: unknown
  readonly change: unknown
}

/** Of all that is delivered, what is of one row, also beside a context. */
export type RowOf<C> = C extends { readonly _tag: RowTag } | Beside ? C : never

/** Of all that is delivered, what is not the beginning or the end of a transaction. */
export type HandedOf<C> = Exclude<C, { readonly _tag: "Begin" | "Commit" }>

/** What rows are ordered by instead: one key or several; `undefined` for what stands alone. */
export type KeyOf<C> = (change: RowOf<C>) => string | ReadonlyArray<string> | undefined

/** What is looked at of anything that a stream delivers. */
interface Element {
  readonly _tag: string
  readonly table?: unknown
  readonly relation?: Relation
  readonly row?: Row
  readonly old?: OldRow
  readonly change?: { readonly relation: Relation }
}

const rowTags: Readonly<Record<RowTag, true>> = {
  Insert: true,
  Update: true,
  Delete: true,
  SnapshotRow: true,
  SnapshotRowDeleted: true,
  Untyped: true,
  UntypedSnapshotRow: true
}

const isRowTag = (tag: string | undefined): boolean => tag !== undefined && Object.hasOwn(rowTags, tag)

/** The change itself, where it stands beside a context. */
export const bare = (element: unknown): { readonly _tag: string } => {
  let inner = element as { readonly _tag?: string; readonly change?: unknown }
  while (inner._tag === undefined && typeof inner.change === "object" && inner.change !== null) inner = inner.change
  return inner as { readonly _tag: string }
}

/** The change as it came, also where its row does not fit a Schema: which of the server's it is. */
export const asCame = (element: unknown): { readonly _tag: string } => {
  const change = bare(element) as { readonly _tag: string; readonly change?: unknown; readonly row?: unknown }
  if (change._tag === "Untyped") return change.change as { readonly _tag: string }
  return change._tag === "UntypedSnapshotRow" ? (change.row as { readonly _tag: string }) : change
}

/** What acknowledges the unit that ends here, if one does. */
export const endOf = (element: unknown): Handled => nextLsn(bare(element) as Parameters<typeof nextLsn>[0])

/** Whether it is of one row. */
export const isOfRow = <C>(element: C): element is RowOf<C> & C => isRowTag(bare(element)._tag)

/** How rows of one description are told apart. */
interface Plan {
  readonly table: string
  /** Empty where nothing identifies a row. */
  readonly columns: ReadonlyArray<string>
  /** Two rows of one key are one row. Under `FULL` they need not be. */
  readonly isUnique: boolean
}

const plans = new WeakMap<Relation, Plan>()

const planOf = (relation: Relation): Plan => {
  let plan = plans.get(relation)
  if (plan === undefined) {
    const table = relation.oid === 0 ? JSON.stringify([relation.schema, relation.name]) : String(relation.oid)
    plan = { table, columns: keyColumns(relation), isUnique: isKeyed(relation) }
    plans.set(relation, plan)
  }
  return plan
}

const jsonOf = (values: ReadonlyArray<unknown>): string =>
  JSON.stringify(values, (_, value) => (typeof value === "bigint" ? String(value) : value))

/** The key of a row; `undefined` where a column of it is not there. What `row` lacks is as in `before`. */
const textOf = ({ columns, table }: Plan, row: Row, before: Row | undefined): string | undefined => {
  const values: Array<unknown> = []
  for (const column of columns) {
    const value = row[column] === undefined ? before?.[column] : row[column]
    if (value === undefined) return undefined
    values.push(value)
  }
  const [first] = values
  const isPlain = values.length === 1 && (typeof first === "number" || typeof first === "string")
  return isPlain ? `${table}:${first}` : `${table}${jsonOf(values)}`
}

/**
 * The rows that a change is of: the relation's oid and the values of its replica identity, those of the row before as well
 * where it tells them. Of a table without an identity, and of a declared one, whose rows are not columns by name any more: the
 * table. `undefined` for what is of no row, or tells too little.
 */
export const rowKeys = (element: unknown): ReadonlyArray<string> | undefined => {
  const change = bare(element) as Element
  if (!isRowTag(change._tag)) return undefined
  const source = change._tag === "UntypedSnapshotRow" ? change.row : change.change
  const relation = change.relation ?? (source as Element["change"])?.relation
  if (relation === undefined) return undefined
  const plan = planOf(relation)
  if (plan.columns.length === 0 || change.table !== undefined) return [plan.table]
  const { old, row } = change
  const before = old === undefined ? undefined : textOf(plan, old.row, undefined)
  if (old !== undefined && before === undefined) return undefined
  if (row === undefined) return before === undefined ? undefined : [before]
  const now = textOf(plan, row, old?.row)
  if (now === undefined) return undefined
  return before === undefined || before === now ? [now] : [before, now]
}

/** Whether its key tells one row, as it stands in the table, from all others. */
export const isUniqueRow = (change: { readonly _tag: string }): boolean => {
  const { relation, table } = change as Element
  return relation !== undefined && table === undefined && planOf(relation).isUnique
}

/** The same by a function of the user's, where there is one. */
export const keysBy = <C>(key: KeyOf<C> | undefined): ((element: C) => ReadonlyArray<string> | undefined) =>
  key === undefined
    ? rowKeys
    : (element) => {
        if (!isOfRow(element)) return undefined
        const keys = key(element)
        return typeof keys === "string" ? [keys] : keys
      }
