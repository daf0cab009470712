/**
 * What a declared table costs a row, beside decoding it from bytes (bench/decode.ts): changes as a plugin gives them, in
 * arrays of 512, through `Table.decoder`. Prints nanoseconds a row. The Schema JIT is switched on once for a process, so
 * run it twice:
 *
 * node [--import effect/schema/SchemaJITCompiler/enable] bench/typedTables.ts
 */
import { type Change, Lsn, PgTimestamp, type Relation, Table } from "@replicant/core"
import { Result, Schema } from "effect"

const fields = {
  id: Schema.BigInt,
  account: Schema.Number,
  amount: Schema.String,
  status: Schema.NullOr(Schema.String),
  isOpen: Schema.Boolean,
  createdAt: Schema.String
}
const sameNames = Schema.Struct({
  id: fields.id,
  account: fields.account,
  amount: fields.amount,
  status: fields.status,
  is_open: fields.isOpen,
  created_at: fields.createdAt
})
class Order extends Schema.Class<Order>("Order")(sameNames.fields) {}

const row = {
  id: 9007199254740993n,
  account: 4711,
  amount: "12.50",
  status: null,
  is_open: true,
  created_at: "2026-01-02 03:04:05.678901+00"
}
const relation: Relation.Relation = {
  oid: 16_385,
  schema: "public",
  name: "orders",
  replicaIdentity: "default",
  columns: Object.keys(row).map((name, index) => ({
    name,
    isKey: index === 0,
    typeOid: 25,
    typeName: "text",
    typeModifier: -1
  }))
}
const begin = { _tag: "Begin", xid: 1, commitLsn: Lsn.zero, commitTime: PgTimestamp.make(0) } as const
const place = { begin, relation } as const
const { amount: _toast, ...withoutAmount } = row

/** 512 of them, as many as a read may bring. */
const arrayOf = (make: (ordinal: number) => Change): ReadonlyArray<Change> =>
  Array.from({ length: 512 }, (_, ordinal) => make(ordinal))

const inserts = arrayOf((ordinal) => ({ _tag: "Insert", ...place, ordinal, row: { ...row }, unchanged: [] }))
const partial = arrayOf((ordinal) => ({
  _tag: "Update",
  ...place,
  ordinal,
  row: { ...withoutAmount },
  unchanged: ["amount"],
  old: undefined
}))
const deletes = arrayOf((ordinal) => ({
  _tag: "Delete",
  ...place,
  ordinal,
  old: { _tag: "Key", row: { id: BigInt(ordinal) } }
}))

const key = ["id"] as const
const struct = Table.decoder([Table.make("public.orders", sameNames, { key })])
const renaming = Table.decoder([
  Table.make("public.orders", Schema.Struct(fields), {
    key,
    columns: { isOpen: "is_open", createdAt: "created_at" }
  })
])
const classes = Table.decoder([Table.make("public.orders", Order, { key })])
const others = Table.decoder([Table.make("public.others", sameNames)])

type Decode = (changes: ReadonlyArray<Change>) => Result.Result<ReadonlyArray<unknown>, unknown>

const cases: ReadonlyArray<readonly [what: string, decode: Decode, changes: ReadonlyArray<Change>]> = [
  ["insert, Schema.Struct", struct, inserts],
  ["insert, two columns renamed", renaming, inserts],
  ["insert, Schema.Class", classes, inserts],
  ["update, one TOAST column unchanged", struct, partial],
  ["delete, key row", struct, deletes],
  ["insert into a table outside the set", others, inserts]
]

const passes = 400
const rounds = 7
const median = (figures: ReadonlyArray<number>): number => figures.toSorted((a, b) => a - b)[figures.length >> 1]!

const nanosecondsARow = (decode: Decode, changes: ReadonlyArray<Change>): number => {
  const begun = process.hrtime.bigint()
  for (let pass = 0; pass < passes; pass++) {
    const result = decode(changes)
    if (Result.isFailure(result)) throw result.failure
  }
  return Number(process.hrtime.bigint() - begun) / (passes * changes.length)
}

// Cases take turns, so that none has the machine to itself.
const figures = cases.map((): Array<number> => [])
for (let round = -1; round < rounds; round++) {
  for (const [index, [, decode, changes]] of cases.entries()) {
    const figure = nanosecondsARow(decode, changes)
    if (round >= 0) figures[index]!.push(figure)
  }
}
for (const [index, [what]] of cases.entries()) {
  console.log(`${what.padEnd(40)}${median(figures[index]!).toFixed(0).padStart(6)} ns`)
}
