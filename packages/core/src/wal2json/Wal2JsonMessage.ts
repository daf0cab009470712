/**
 * What wal2json writes, as schemas: format 2, one JSON object a change; format 1, one a transaction. Both become the
 * same few messages here, so that what follows knows no formats.
 *
 * Members that are not listed are let pass and left out. Numbers are text still: see `JsonText.ts`.
 *
 * Source: https://github.com/eulerto/wal2json, README.md and wal2json.c
 */
import type * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { LsnFromString } from "../Lsn.ts"
import * as PgTimestamp from "../PgTimestamp.ts"

const Digits = Schema.String.check(Schema.isPattern(/^[0-9]{1,10}$/))

/** Printed with `%d` in format 2, so that OIDs from 2^31 on are negative there. */
const SignedDigits = Schema.String.check(Schema.isPattern(/^-?[0-9]{1,10}$/))

const Value = Schema.NullOr(Schema.Union([Schema.String, Schema.Boolean]))

/** A value as JSON has it: numbers and all other types as text, `boolean` as such. */
export type Value = typeof Value.Type

/** A column of a row. `type` is missing without `include-types`. */
export interface Column {
  readonly name: string
  readonly type?: string | undefined
  readonly typeoid: string
  readonly value: Value
}

/** A row that was inserted, updated or deleted. */
export interface RowMessage {
  readonly action: "I" | "U" | "D"
  readonly schema: string
  readonly table: string
  /** The new row, without unchanged TOAST columns; empty for a delete. */
  readonly columns: ReadonlyArray<Column>
  /** What identifies the row before; `undefined` when wal2json had nothing. */
  readonly identity: ReadonlyArray<Column> | undefined
  /** Names of the primary key's columns, `undefined` where wal2json does not tell them. */
  readonly primaryKey: ReadonlyArray<string> | undefined
}

/** Where a transaction begins, or a whole one of format 1. */
export interface Envelope {
  readonly xid: string
  readonly timestamp: string
  readonly origin?: string | undefined
}

const envelope = { xid: Digits, timestamp: Schema.String, origin: Schema.optionalKey(Digits) }
const table = { schema: Schema.String, table: Schema.String }
const Columns = Schema.Array(
  Schema.Struct({
    name: Schema.String,
    type: Schema.optionalKey(Schema.String),
    typeoid: SignedDigits,
    value: Value
  })
)
const row = {
  xid: Digits,
  ...table,
  pk: Schema.Array(Schema.Struct({ name: Schema.String }))
}

const Format2 = Schema.Union([
  Schema.Struct({ action: Schema.Literal("B"), ...envelope, lsn: LsnFromString, nextlsn: LsnFromString }),
  Schema.Struct({ action: Schema.Literal("I"), ...row, columns: Columns }),
  Schema.Struct({ action: Schema.Literal("U"), ...row, columns: Columns, identity: Schema.optionalKey(Columns) }),
  Schema.Struct({ action: Schema.Literal("D"), ...row, identity: Columns }),
  Schema.Struct({ action: Schema.Literal("T"), xid: Digits, ...table, lsn: LsnFromString }),
  Schema.Struct({
    action: Schema.Literal("M"),
    xid: Schema.NullOr(Digits),
    lsn: LsnFromString,
    transactional: Schema.Boolean,
    prefix: Schema.String,
    content: Schema.String
  }),
  Schema.Struct({ action: Schema.Literal("C"), xid: Digits, lsn: LsnFromString, nextlsn: LsnFromString })
])

/** A message of format 2. */
export type Format2Message = typeof Format2.Type

/** Decodes one JSON object of format 2; the failure is not to be shown, for it holds values. */
export const decodeFormat2: (json: unknown) => Result.Result<Format2Message, unknown> =
  Schema.decodeUnknownResult(Format2)

const Names = Schema.Array(Schema.String)
const columns = {
  columnnames: Names,
  columntypes: Schema.optionalKey(Names),
  columntypeoids: Schema.Array(SignedDigits),
  columnvalues: Schema.Array(Value)
}
const oldkeys = Schema.Struct({
  keynames: Names,
  keytypes: Schema.optionalKey(Names),
  keytypeoids: Schema.Array(SignedDigits),
  keyvalues: Schema.Array(Value)
})
const pk = Schema.optionalKey(Schema.Struct({ pknames: Names }))

const Format1Change = Schema.Union([
  Schema.Struct({ kind: Schema.Literal("insert"), ...table, ...columns, pk }),
  Schema.Struct({ kind: Schema.Literal("update"), ...table, ...columns, pk, oldkeys: Schema.optionalKey(oldkeys) }),
  Schema.Struct({ kind: Schema.Literal("delete"), ...table, pk, oldkeys }),
  Schema.Struct({
    kind: Schema.Literal("message"),
    transactional: Schema.Boolean,
    prefix: Schema.String,
    content: Schema.String
  })
])

/** A change of format 1. */
export type Format1Change = typeof Format1Change.Type

/** A transaction, or a message outside any, which is a `change` of one and nothing beside. */
const Format1 = Schema.Union([
  Schema.Struct({ ...envelope, nextlsn: LsnFromString, change: Schema.Array(Format1Change) }),
  Schema.Struct({ xid: Schema.optionalKey(Schema.Never), change: Schema.Tuple([Format1Change]) })
])

/** What one message of format 1 holds. */
export type Format1Message = typeof Format1.Type

/** Decodes one JSON object of format 1; the failure is not to be shown, for it holds values. */
export const decodeFormat1: (json: unknown) => Result.Result<Format1Message, unknown> =
  Schema.decodeUnknownResult(Format1)

/** Columns out of format 1's parallel lists, or `undefined` when these differ in length. */
export const zipColumns = (
  names: ReadonlyArray<string>,
  types: ReadonlyArray<string> | undefined,
  typeoids: ReadonlyArray<string>,
  values: ReadonlyArray<Value>
): ReadonlyArray<Column> | undefined =>
  names.length === values.length &&
  names.length === typeoids.length &&
  (types === undefined || types.length === names.length)
    ? names.map((name, index) => ({
        name,
        type: types?.[index],
        typeoid: typeoids[index]!,
        value: values[index]!
      }))
    : undefined

const timestampPattern =
  /^([0-9]{4,6})-([0-9]{2})-([0-9]{2}) ([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?([-+])([0-9]{2})(?::([0-9]{2}))?(?::([0-9]{2}))?$/

/**
 * A commit's timestamp out of `timestamptz_to_str`'s text, which is ISO in the session's time zone whatever its
 * DateStyle; `undefined` for anything else.
 *
 * @example
 * commitTime("2000-01-01 05:30:00.000001+05:30") // => 1
 */
export const commitTime = (text: string): PgTimestamp.PgTimestamp | undefined => {
  const match = timestampPattern.exec(text)
  if (match === null) return undefined
  const part = (index: number): number => Number(match[index] ?? 0)
  const offset = (part(9) * 3600 + part(10) * 60 + part(11)) * (match[8] === "-" ? -1000 : 1000)
  const millis = Date.UTC(part(1), part(2) - 1, part(3), part(4), part(5), part(6)) - offset
  const micros = Number((match[7] ?? "").padEnd(6, "0"))
  return PgTimestamp.make(PgTimestamp.fromMillis(millis) + micros)
}
