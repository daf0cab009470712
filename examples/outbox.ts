/**
 * Orders and what became of them, with no table for the events: `node examples/outbox.ts` follows,
 * `node examples/outbox.ts place tea` writes an order and its message in one transaction.
 */
import { NodeRuntime } from "@effect/platform-node"
import { nextLsn, Outbox, Pgoutput, TransactionContext, withLogicalStream } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { Config, Console, Effect, Schema } from "effect"
import pg from "pg"

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

const place = Effect.fn("place")(function* (item: string) {
  const connectionString = yield* Config.String("DATABASE_URL")
  const client = new pg.Client({ connectionString })
  const query = (sql: string, params: ReadonlyArray<unknown> = []) =>
    Effect.tryPromise(() => client.query(sql, [...params]))
  yield* Effect.acquireRelease(
    Effect.tryPromise(() => client.connect()),
    () => Effect.promise(() => client.end())
  )
  yield* query("BEGIN")
  yield* TransactionContext.setWith(query, Request)(yield* TransactionContext.current({ actor: "ada" }))
  yield* query("INSERT INTO orders (item) VALUES ($1)", [item])
  yield* Outbox.emitWith(query, OrderPlaced)({ item, placedAt: new Date() })
  yield* query("COMMIT")
})

const [command, item = "tea"] = process.argv.slice(2)
const program = Effect.gen(function* () {
  if (command === "place") return yield* place(item)
  return yield* follow
})

program.pipe(Effect.scoped, Effect.provide(PgWalSender.layerConfig), NodeRuntime.runMain)
