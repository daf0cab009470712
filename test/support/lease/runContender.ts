/**
 * A process that follows a slot while it holds its lease, to be killed, stopped, frozen and cut off. Each transaction that it
 * has handled is a line of a ledger that all contenders share, before it is acknowledged: `name millis id,id,...`. Its options
 * are one argument of JSON, of type `ContenderOptions`. It says each state of its lease: `@Waiting`, `@Held`.
 */
import { appendFileSync } from "node:fs"
import { NodeRuntime } from "@effect/platform-node"
import { Handler, LogicalStream, Pgoutput, SlotLease } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { Effect, Redacted, Stream, SubscriptionRef } from "effect"
import { type ContenderOptions, systemMillis } from "./Contender.ts"

const options = JSON.parse(process.argv[2] ?? "{}") as ContenderOptions

const program = Effect.gen(function* () {
  const { ledger, name, publication, slot, term } = options
  const lease = yield* SlotLease.make({ slot, term })
  yield* SubscriptionRef.changes(lease.state).pipe(
    Stream.runForEach((now) => Effect.sync(() => void process.stdout.write(`@${now._tag}\n`))),
    Effect.forkScoped({ startImmediately: true })
  )
  const stream = yield* LogicalStream.make({
    slot,
    plugin: Pgoutput.make({ publications: [publication] }),
    timing: { acknowledgeDelay: "20 millis" }
  })
  const handler = Handler.transactions(({ changes }) =>
    Effect.sync(() => {
      const ids = changes.flatMap((change) => (change._tag === "Insert" ? [change.row.id] : []))
      appendFileSync(ledger, `${name} ${systemMillis()} ${ids.join(",")}\n`)
    })
  )
  yield* lease.run(stream.run(handler))
}).pipe(
  Effect.scoped,
  Effect.provide(
    PgWalSender.layer({
      url: Redacted.make(options.url),
      host: "127.0.0.1",
      port: options.port,
      applicationName: options.name
    })
  )
)

NodeRuntime.runMain(program)
