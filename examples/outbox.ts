/**
 * Orders and what became of them, with no table for the events: `node examples/outbox.ts` follows,
 * `node examples/outbox.ts place tea` writes an order and its message in one transaction.
 */
import { NodeRuntime } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { nextLsn, Outbox, Pgoutput, TransactionContext, withLogicalStream } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { Config, Console, Effect, Schema } from "effect"
import { SqlClient } from "effect/sql"

/** Writer and reader share this declaration, and nothing else. */
const OrderPlaced = Outbox.make("orders.placed", Schema.Struct({ item: Schema.String, placedAt: Schema.Date }))

const { Request } = TransactionContext

const follow = withLogicalStream(
  // The publication has no tables: messages come to every slot of their database.
  { slot: "outbox", plugin: Pgoutput.make({ publications: ["outbox"] }), createSlot: "permanent" },
  Outbox.handler(
    [OrderPlaced],
    TransactionContext.handler(Request, ({ change, context }) => {
      if (change._tag !== "Message" || change.message !== "orders.placed") return Effect.succeed(nextLsn(change))
      const { item, placedAt } = change.value
      const tell = Console.log(`${context?.actor} ordered ${item} at ${placedAt.toISOString()}`)
      // In the trace of the one who ordered.
      return tell.pipe(Effect.withSpan("tell"), TransactionContext.childOf(context), Effect.as(nextLsn(change)))
    })
  )
)

const place = (item: string) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const request = yield* TransactionContext.current({ actor: "ada" })
    // The order, the message and who it was: all of it or nothing.
    yield* sql`INSERT INTO orders ${sql.insert({ item })}`.pipe(
      Effect.andThen(Outbox.emit(OrderPlaced)({ item, placedAt: new Date() })),
      TransactionContext.withTransaction(Request, request)
    )
  }).pipe(Effect.withSpan("place"), Effect.provide(PgClient.layerConfig({ url: Config.Redacted("DATABASE_URL") })))

const [command, item = "tea"] = process.argv.slice(2)
const program = Effect.gen(function* () {
  if (command === "place") return yield* place(item)
  return yield* follow
})

program.pipe(Effect.provide(PgWalSender.layerConfig), NodeRuntime.runMain)
