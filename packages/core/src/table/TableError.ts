/**
 * The two ways in which a database is not as a program declared it: a relation that lacks what was declared, and a row that
 * its Schema does not take. Neither holds a value, nor a text made from one.
 */
import * as Schema from "effect/Schema"
import { changeId } from "../change/ChangeId.ts"
import * as Lsn from "../Lsn.ts"
import { errorJson } from "../ReplicationError.ts"

const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`

/** The relation is not as declared: told when it is first seen, before any of its rows. Nothing of them is acknowledged. */
export class TableMismatch extends Schema.TaggedError<TableMismatch>("@replicant/core/TableMismatch")("TableMismatch", {
  schema: Schema.String,
  relation: Schema.String,
  /** Declared `columns` that are `missing`, or that are declared as key and are `notKey`. */
  problem: Schema.Literals(["missing", "notKey"]),
  columns: Schema.NonEmptyArray(Schema.String),
  /** The transaction that brought the first row. */
  commitLsn: Lsn.Lsn
}) {
  get remedy(): string {
    return this.problem === "missing"
      ? "publish these columns, or declare them with Schema.optionalKey, or not at all"
      : "declare as key what is in the table's replica identity: its primary key, or REPLICA IDENTITY USING INDEX"
  }
  get isRetryable(): boolean {
    return false
  }
  override toJSON(): unknown {
    return errorJson(this)
  }
  override get message(): string {
    const columns = this.columns.map(quoted).join(", ")
    const problem =
      this.problem === "missing"
        ? `does not have the declared columns ${columns}`
        : `does not have the declared key columns ${columns} in its replica identity`
    return `${quoted(this.schema)}.${quoted(this.relation)} ${problem}, at LSN ${Lsn.format(this.commitLsn)}`
  }
}

/** A row does not fit the Schema of its table. Nothing from it on is acknowledged. */
export class RowMismatch extends Schema.TaggedError<RowMismatch>("@replicant/core/RowMismatch")("RowMismatch", {
  schema: Schema.String,
  relation: Schema.String,
  /** What was done to the row. */
  operation: Schema.Literals(["Insert", "Update", "Delete"]),
  /** The row as it is now, or the one before. */
  tuple: Schema.Literals(["row", "old"]),
  /** The column; `undefined` when it is the row as a whole. */
  column: Schema.optional(Schema.String),
  /** The way within the column's value: `.items[0].price`; `*` for a key that is data. `""` for the value itself. */
  path: Schema.String,
  /** What the Schema takes there. */
  expected: Schema.String,
  /** With `ordinal`, which change it is: see `changeId`. */
  commitLsn: Lsn.Lsn,
  ordinal: Schema.Number,
  /** The column was not sent: an update that entered a row filter left it alone. */
  isUnsent: Schema.Boolean
}) {
  get remedy(): string {
    return this.isUnsent
      ? `declare the column with Schema.optionalKey, or: ALTER TABLE ${quoted(this.schema)}.${quoted(this.relation)} REPLICA IDENTITY FULL`
      : 'declare in the Schema what the column may hold (docs/values.md), or let such rows through: onMismatch: "untyped"'
  }
  get isRetryable(): boolean {
    return false
  }
  /** The change's `changeId`. */
  get changeId(): string {
    return changeId({ _tag: this.operation, begin: { commitLsn: this.commitLsn }, ordinal: this.ordinal })
  }
  override toJSON(): unknown {
    return errorJson(this)
  }
  override get message(): string {
    const of = `${this.tuple === "row" ? "a row" : "an old row"} of ${quoted(this.schema)}.${quoted(this.relation)}`
    const where = this.column === undefined ? "" : ` in column ${quoted(this.column)}${this.path}`
    const what = this.isUnsent ? "it was not sent" : `expected ${this.expected}`
    return `${of} does not fit its Schema${where}: ${what} (${this.operation} ${this.changeId})`
  }
}

/** What typed tables may fail with, beside what the stream does. */
export type TableError = RowMismatch | TableMismatch
