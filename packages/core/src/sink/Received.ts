/**
 * What a sink has appended, at the other end: messages of declared tables, typed by the same declarations as the stream. One
 * Schema from the table to the last consumer. The public module `Received`.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { errorId } from "../ErrorForm.ts"
import { describeIssue } from "../table/describeIssue.ts"
import { type DecodeRow, Misfit, RowDecoder } from "../table/RowDecoder.ts"
import type { Any, KeyRow, PartialRow, Property, Row } from "../table/Table.ts"
import { restoring } from "./JsonValue.ts"

/** A message is no envelope of ours, or its row does not fit the declared table. No row value is in this error. */
export class EnvelopeMismatch extends Schema.TaggedError<EnvelopeMismatch>(errorId("EnvelopeMismatch"))(
  "EnvelopeMismatch",
  {
    /** The message's place, as far as it is known. */
    id: Schema.String,
    table: Schema.optional(Schema.String),
    problem: Schema.String
  }
) {
  get remedy(): string {
    return "declare in the Schema what the columns may hold (docs/values.md); of an envelope that is not ours read the text yourself"
  }
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    const of = this.table === undefined ? "" : ` of ${this.table}`
    return `the message ${this.id}${of} does not fit: ${this.problem}`
  }
}

/** What all of them tell. */
interface Of<T extends Any> {
  readonly table: T["name"]
  /** Names the message for ever, and sorts as messages were appended. */
  readonly id: string
  readonly source: MessageSource
}

/** Where a message comes from: see docs/sinks.md. */
export interface MessageSource {
  readonly lsn: string
  readonly ordinal?: number | undefined
  readonly last?: boolean | undefined
  readonly xid?: number | undefined
  readonly time?: string | undefined
}

/** A row that came to be, or was read by a snapshot. */
export interface ReceivedRow<T extends Any> extends Of<T> {
  readonly _tag: "Insert" | "SnapshotRow"
  readonly row: Row<T>
}

/** A row that changed, whole. */
export interface ReceivedUpdate<T extends Any> extends Of<T> {
  readonly _tag: "Update"
  readonly isComplete: true
  readonly row: Row<T>
}

/** A row that changed, without columns that were left alone: keep what you have of them. */
export interface ReceivedPartialUpdate<T extends Any> extends Of<T> {
  readonly _tag: "Update"
  readonly isComplete: false
  readonly row: PartialRow<T>
  readonly unchanged: NonEmptyReadonlyArray<Property<T>>
}

/** A row that is gone. `key` is `undefined` where nothing identifies a row. */
export interface ReceivedDelete<T extends Any> extends Of<T> {
  readonly _tag: "Delete"
  readonly key: KeyRow<T> | undefined
}

/** A table that was emptied. */
export interface ReceivedTruncate<T extends Any> extends Of<T> {
  readonly _tag: "Truncate"
}

/** A message of a set of tables: narrow by `table` and `_tag`. */
export type Received<T extends Any> = T extends Any
  ? ReceivedRow<T> | ReceivedUpdate<T> | ReceivedPartialUpdate<T> | ReceivedDelete<T> | ReceivedTruncate<T>
  : never

/** What is read of an envelope. */
interface Envelope {
  readonly op: string
  readonly key?: { readonly [column: string]: unknown } | null
  readonly after?: { readonly [column: string]: unknown } | null
  readonly unchanged?: ReadonlyArray<string>
  readonly source: MessageSource & { readonly schema?: string; readonly table?: string }
}

interface Plan {
  readonly table: Any
  readonly rows: RowDecoder
  readonly decodeKey: DecodeRow
  readonly restore: ReadonlyMap<string, (json: unknown) => unknown>
}

const planOf = (table: Any): Plan => {
  const rows = new RowDecoder(table)
  const restore = new Map(
    Array.from(table.columns, ([property, column]) => [column, restoring(table.rowSchema.fields[property]!)] as const)
  )
  return { table, rows, restore, decodeKey: rows.only(table.key.length > 0 ? table.key : [...table.columns.keys()]) }
}

/** Gives a row's values the forms that its Schema decodes. */
const restoreRow = ({ restore }: Plan, row: { readonly [column: string]: unknown }) => {
  const restored: Record<string, unknown> = {}
  for (const [column, value] of restore) if (Object.hasOwn(row, column)) restored[column] = value(row[column])
  return restored
}

const parse = (text: string): Envelope | undefined => {
  try {
    const envelope = JSON.parse(text) as Envelope | null
    return typeof envelope?.op === "string" && typeof envelope.source?.lsn === "string" ? envelope : undefined
  } catch {
    return undefined
  }
}

/** A reader of messages: `undefined` for what is of no table of the set. */
export type Decode<T extends Any> = (
  id: string,
  text: string | undefined
) => Result.Result<Received<T> | undefined, EnvelopeMismatch>

/**
 * A reader of envelopes of these tables. Tombstones, control messages and tables outside of the set are `undefined`.
 *
 * @example
 * const decode = Received.decoder([Orders, Customers])
 */
export const decoder = <const T extends Any>(tables: ReadonlyArray<T>): Decode<T> => {
  const plans = new Map(tables.map((table) => [JSON.stringify(table.relation), planOf(table)]))
  return (id, text) => {
    if (text === undefined) return Result.succeed(undefined)
    const envelope = parse(text)
    if (envelope === undefined) return Result.fail(new EnvelopeMismatch({ id, problem: "it is no envelope of ours" }))
    const { after, key, op, source, unchanged = [] } = envelope
    const plan = plans.get(JSON.stringify({ schema: source.schema, name: source.table }))
    if (plan === undefined || op === "s") return Result.succeed(undefined)
    const { table } = plan
    const of = { table: table.name, id, source }
    const told = (decode: DecodeRow, row: { readonly [column: string]: unknown }, make: (row: unknown) => object) => {
      const decoded = decode(restoreRow(plan, row))
      return decoded instanceof Misfit
        ? Result.fail(new EnvelopeMismatch({ id, table: table.name, problem: problemOf(plan, decoded) }))
        : Result.succeed(make(decoded) as Received<T>)
    }
    switch (op) {
      case "c":
      case "r":
        return told(plan.rows.without(unchanged).decode, after ?? {}, (row) => ({
          ...of,
          _tag: op === "c" ? "Insert" : "SnapshotRow",
          row
        }))
      case "u": {
        const part = plan.rows.without(unchanged)
        const isComplete = part.unchanged.length === 0
        return told(part.decode, after ?? {}, (row) => ({
          ...of,
          _tag: "Update",
          isComplete,
          row,
          ...(isComplete ? {} : { unchanged: part.unchanged })
        }))
      }
      case "d":
        if (key === undefined || key === null)
          return Result.succeed({ ...of, _tag: "Delete", key: undefined } as unknown as Received<T>)
        return told(plan.decodeKey, key, (row) => ({ ...of, _tag: "Delete", key: row }))
      case "t":
        return Result.succeed({ ...of, _tag: "Truncate" } as unknown as Received<T>)
      default:
        return Result.succeed(undefined)
    }
  }
}

const problemOf = ({ table }: Plan, { error }: Misfit): string => {
  const { expected, path } = Schema.isSchemaError(error)
    ? describeIssue(error.issue, [], table.rowSchema.ast)
    : { path: [], expected: "a row that decodes without throwing or waiting" }
  return `${path.length === 0 ? "the row" : path.join(".")}: expected ${expected}`
}
