/** Follows DATABASE_URL from the slot that is named, to the end of the first transaction, and leaves in good order. */
import { nextLsn, Pgoutput, withLogicalStream } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { Deferred, Effect, Redacted } from "effect"

const program = Effect.gen(function* () {
  const seen: Array<string> = []
  const committed = yield* Deferred.make<void>()
  const stream = withLogicalStream(
    { slot: process.argv[2] ?? "", plugin: Pgoutput.make({ publications: ["orders"] }) },
    (change) => {
      seen.push(change._tag === "Insert" ? `Insert ${JSON.stringify(change.row)}` : change._tag)
      const isEnd = change._tag === "Commit"
      return Effect.as(isEnd ? Deferred.succeed(committed, undefined) : Effect.void, nextLsn(change))
    }
  )
  yield* Effect.raceFirst(stream, Deferred.await(committed))
  return seen.join(", ")
}).pipe(
  Effect.provide(PgWalSender.layer({ url: Redacted.make(process.env.DATABASE_URL ?? "") })),
  Effect.timeout("2 minutes")
)

Effect.runPromise(program).then((line) => process.stdout.write(`${line}\n`))
