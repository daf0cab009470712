/** Replicant with `Operations.layer` on the port that `BENCH_MODE` names: each read counted, and acknowledged. */
import { createServer } from "node:http"
import { NodeHttpServer } from "@effect/platform-node"
import { Handler, LogicalStream, nextLsn, Pgoutput } from "@replicant/core"
import { Operations } from "@replicant/core/operations"
import { PgWalSender } from "@replicant/node"
import { Effect, Layer, Redacted } from "effect"
import { HttpRouter } from "effect/http"
import { startHandler, task } from "../Measure.ts"

const { database, host, password, port, publication, slot, user } = task()

const walSender = PgWalSender.layer({
  host,
  port,
  user,
  database,
  password: Redacted.make(password),
  sslmode: "disable"
})

const handler = startHandler()

await Effect.runPromise(
  Effect.gen(function* () {
    const stream = yield* LogicalStream.make({ slot, plugin: Pgoutput.make({ publications: [publication] }) })
    const routes = HttpRouter.serve(Operations.layer({ streams: [stream] }), {
      disableLogger: true,
      disableListenLog: true
    })
    const address = { host: "127.0.0.1", port: Number(process.env.BENCH_MODE) }
    return yield* stream
      .run(
        Handler.arrays((changes) =>
          Effect.sync(() => {
            for (const change of changes) if (change._tag === "Insert") void handler.see(change.row)
            const last = changes.map(nextLsn).findLast((next) => next !== undefined)
            if (last !== undefined) handler.settle()
            return last
          })
        )
      )
      .pipe(Effect.provide([walSender, Layer.provide(routes, NodeHttpServer.layer(createServer, address))]))
  })
)
