/** The table `t` of each workload, declared as a program would that wants its rows typed. */
import { Table } from "@replicant/core"
import { Schema } from "effect"

const Orders = Schema.Struct({
  id: Schema.Number,
  customer: Schema.Number,
  amount: Schema.String,
  note: Schema.String,
  paid: Schema.Boolean,
  at: Schema.String
})

const Values = Schema.Struct({ id: Schema.Number, body: Schema.String })

/** In the order of the types in Workload.ts. */
const wideFields = [
  Schema.Number,
  Schema.BigInt,
  Schema.String,
  Schema.Boolean,
  Schema.String,
  Schema.String,
  Schema.String,
  Schema.Number,
  Schema.String,
  Schema.Struct({ a: Schema.Number, b: Schema.String })
]

const Wide = Schema.Struct(
  Object.fromEntries(Array.from({ length: 30 }, (_, index) => [`c${index}`, wideFields[index % wideFields.length]!]))
)

export const tableOf = (workload: string | undefined) => {
  if (workload === "wide") return Table.make("t", Wide)
  return workload === "values100k" ? Table.make("t", Values) : Table.make("t", Orders)
}
