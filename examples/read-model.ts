/**
 * Keeps a read model in a database of its own: orders as they are, each transaction exactly once, and on top of them whatever views and
 * indexes the readers want. With DATABASE_URL and READ_MODEL_URL.
 *
 * Rows and position are one transaction there, so no crash can come between them, and nothing that comes again is applied twice.
 */
import { NodeRuntime } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { Handler, Pgoutput, Table, withLogicalStream } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { Config, Effect, Layer, Schema } from "effect"
import { SqlClient } from "effect/sql"

const Orders = Table.make(
  "public.orders",
  Schema.Struct({ id: Schema.Number, customer: Schema.String, total: Schema.String, status: Schema.String }),
  { key: ["id"] }
)

const program = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE IF NOT EXISTS order_list
    (id int PRIMARY KEY, customer text NOT NULL, total numeric NOT NULL, status text NOT NULL)`
  yield* sql`CREATE OR REPLACE VIEW open_totals AS
    SELECT customer, sum(total) AS total, count(*) AS orders FROM order_list WHERE status <> 'paid' GROUP BY customer`
  const orderList = yield* Table.inSql(Orders, { table: "order_list" })
  return yield* withLogicalStream(
    { slot: "read_model", plugin: Pgoutput.make({ publications: ["orders"] }), snapshot: "initial" },
    Table.handler(
      [Orders],
      Handler.once({ table: "read_model_position", createTable: "ifMissing" }, Table.applyTo(Orders, orderList))
    )
  )
})

const services = Layer.mergeAll(
  PgWalSender.layerConfig,
  PgClient.layerConfig({ url: Config.Redacted("READ_MODEL_URL") })
)

program.pipe(Effect.provide(services), NodeRuntime.runMain)
