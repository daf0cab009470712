/** Replicant: `Replication.changes`, each transaction acknowledged after the handler has seen it. */
import { nextLsn, Pgoutput, Replication, withLogicalStreamArray } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { Effect, Layer, Redacted, Stream } from "effect"
import { startMeasure, task } from "../Measure.ts"

const { changes: wanted, database, host, password, port, publication, slot, user } = task()

const mode = process.env.BENCH_MODE ?? "changes"

const options = { slot, plugin: Pgoutput.make({ publications: [publication] }) }

const walSender = PgWalSender.layer({
  host,
  port,
  user,
  database,
  password: Redacted.make(password),
  sslmode: "disable"
})

let count = 0
const finish = startMeasure()

/** The handler: counts, and says when it has seen everything. */
const see = (tag: string): void => {
  if (tag === "Insert" || tag === "Update" || tag === "Delete") count++
}

const withService = Effect.gen(function* () {
  const replication = yield* Replication.Replication
  switch (mode) {
    case "changes":
      return yield* Stream.runForEachArray(replication.changes, (changes) =>
        Effect.suspend(() => {
          let last: ReturnType<typeof nextLsn>
          for (const change of changes) {
            see(change._tag)
            last = nextLsn(change) ?? last
          }
          if (last !== undefined && count >= wanted) finish(count)
          return last === undefined ? Effect.void : replication.acknowledgeThrough(last)
        })
      )
    case "each":
      return yield* Stream.runForEach(replication.changes, (change) => {
        see(change._tag)
        const next = nextLsn(change)
        if (next === undefined) return Effect.void
        if (count >= wanted) finish(count)
        return replication.acknowledge(next)
      })
    default:
      return yield* Stream.runForEachArray(replication.transactions, (transactions) =>
        Effect.suspend(() => {
          for (const transaction of transactions) for (const change of transaction.changes) see(change._tag)
          if (count >= wanted) finish(count)
          return replication.acknowledgeThrough(transactions.at(-1)!.nextLsn)
        })
      )
  }
}).pipe(Effect.provide(Replication.layer({ ...options, maxTransactionBytes: 2 ** 30 }).pipe(Layer.provide(walSender))))

const withStream = withLogicalStreamArray(options, (changes) =>
  Effect.sync(() => {
    let last: ReturnType<typeof nextLsn>
    for (const change of changes) {
      see(change._tag)
      last = nextLsn(change) ?? last
    }
    if (last !== undefined && count >= wanted) finish(count)
    return last
  })
).pipe(Effect.provide(walSender))

await Effect.runPromise(mode === "withLogicalStream" ? withStream : withService)
