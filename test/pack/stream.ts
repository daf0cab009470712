/** Streams a transaction from a walsender in memory: what core needs of a runtime, and no more. */
import { nextLsn, Pgoutput, Table, withLogicalStream } from "@replicant/core"
import { insert, TestWalSender, tx } from "@replicant/core/testing"
import { Effect, Schema } from "effect"

const Orders = Table.make("public.orders", Schema.Struct({ id: Schema.Number, total: Schema.String }), { key: ["id"] })

const program = Effect.gen(function* () {
  const server = yield* TestWalSender
  const seen: Array<string> = []
  yield* withLogicalStream({ slot: "orders", plugin: Pgoutput.make({ publications: ["orders"] }) }, (change) => {
    seen.push(change._tag === "Insert" ? `Insert ${JSON.stringify(change.row)}` : change._tag)
    return Effect.succeed(nextLsn(change))
  }).pipe(Effect.forkChild)
  const [transaction] = yield* server.write(tx(insert(Orders, { id: 1, total: "9.50" })))
  yield* server.awaitConfirmed
  const isConfirmed = (yield* server.confirmedFlushLsn) === transaction.endLsn
  return `${seen.join(", ")}; ${isConfirmed ? "confirmed" : "not confirmed"}`
}).pipe(Effect.provide(TestWalSender.layer({ slot: "orders", publications: ["orders"] })), Effect.timeout("2 minutes"))

Effect.runPromise(program).then((line) => process.stdout.write(`${line}\n`))
