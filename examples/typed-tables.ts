/** Tells of orders and refunds as they come. What the server does not say of a row, the compiler does not let us read. */
import { NodeRuntime } from "@effect/platform-node"
import { nextLsn, Pgoutput, Table, withLogicalStream } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { Console, Effect, Schema } from "effect"

const Orders = Table.make(
  "public.orders",
  Schema.Struct({ id: Schema.Number, total: Schema.FiniteFromString, note: Schema.NullOr(Schema.String) }),
  { key: ["id"] }
)

class Refund extends Schema.Class<Refund>("Refund")({ orderId: Schema.Number, amount: Schema.FiniteFromString }) {}
const Refunds = Table.make("public.refunds", Refund, { columns: { orderId: "order_id" } })

const sentence = (change: Table.TypedChange<typeof Orders | typeof Refunds, "untyped">): string | undefined => {
  if (change._tag === "Untyped") return change.mismatch.message
  if (change._tag === "Insert" && change.table === "public.refunds") return `refunded ${change.row.amount.toFixed(2)}`
  if (change._tag === "Insert") return `order ${change.row.id} over ${change.row.total.toFixed(2)}`
  if (change._tag === "Update" && change.table === "public.orders") {
    // A long note that was left alone is not sent: it is neither null nor empty.
    return change.isComplete ? `order ${change.row.id} now says ${change.row.note}` : `order ${change.row.id} changed`
  }
  // The row that is gone: its key, or all of it under REPLICA IDENTITY FULL.
  if (change._tag === "Delete" && change.table === "public.orders") return `order ${change.old.row.id} is gone`
  return undefined
}

const handler = Table.handler(
  [Orders, Refunds],
  (change) => {
    const text = sentence(change)
    return Effect.as(text === undefined ? Effect.void : Console.log(text), nextLsn(change))
  },
  { onMismatch: "untyped" }
)
const plugin = Pgoutput.make({ publications: ["shop"] })
const program = withLogicalStream({ slot: "typed_tables", plugin, createSlot: "permanent" }, handler)

program.pipe(Effect.provide(PgWalSender.layerConfig), NodeRuntime.runMain)
