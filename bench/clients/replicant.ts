/** Replicant: `Replication.changes`, each transaction acknowledged after the handler has seen it. */
import {
  type Change,
  Handler,
  type NextLsn,
  nextLsn,
  Pgoutput,
  Replication,
  Table,
  withLogicalStream
} from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { Effect, Layer, Redacted, Stream } from "effect"
import { startHandler, task } from "../Measure.ts"
import { tableOf } from "../Tables.ts"

const { database, host, password, port, publication, slot, user, workload } = task()

const mode = process.env.BENCH_MODE ?? "changes"

const format = mode === "binary" ? "binary" : "text"
const plugin = Pgoutput.make({ publications: [publication], format })
const options = { slot, plugin, ...(mode === "neverWaiting" && { timing: { maxReadWait: 0 } }) }

const walSender = PgWalSender.layer({
  host,
  port,
  user,
  database,
  password: Redacted.make(password),
  sslmode: "disable"
})

const handler = startHandler()

/** What of a change, typed or not, the handler is shown. */
type Seen = Change | Table.TypedChange<ReturnType<typeof tableOf>>

/** Shows the handler a row. */
const see = (change: Seen): Promise<void> | undefined => {
  switch (change._tag) {
    case "Insert":
    case "Update":
      return handler.see(change.row)
    case "Delete":
      return handler.see(change.old.row)
    default:
      return undefined
  }
}

/** Shows the handler an array of changes, and gives what acknowledges it. */
const seeAll = (changes: ReadonlyArray<Seen>): NextLsn | undefined => {
  let last: NextLsn | undefined
  for (const change of changes) {
    void see(change)
    last = nextLsn(change) ?? last
  }
  if (last !== undefined) handler.settle()
  return last
}

const takeArray =
  ({ acknowledgeThrough }: Replication.Replication["Service"]) =>
  (changes: ReadonlyArray<Seen>): Effect.Effect<void> => {
    const last = seeAll(changes)
    return last === undefined ? Effect.void : acknowledgeThrough(last)
  }

const withService = Effect.gen(function* () {
  const replication = yield* Replication.Replication
  switch (mode) {
    case "changes":
    case "binary":
    case "neverWaiting":
      return yield* Stream.runForEachArray(replication.changes, takeArray(replication))
    case "typed":
      return yield* replication.changes.pipe(
        Table.changes([tableOf(workload)]),
        Stream.runForEachArray(takeArray(replication))
      )
    case "each":
      return yield* Stream.runForEach(replication.changes, (change) => {
        const done = see(change)
        if (done !== undefined) return Effect.promise(() => done)
        const next = nextLsn(change)
        if (next === undefined) return Effect.void
        handler.settle()
        return replication.acknowledge(next)
      })
    default:
      return yield* Stream.runForEachArray(replication.transactions, (transactions) =>
        Effect.suspend(() => {
          for (const transaction of transactions) for (const change of transaction.changes) void see(change)
          handler.settle()
          return replication.acknowledgeThrough(transactions.at(-1)!.nextLsn)
        })
      )
  }
}).pipe(
  Effect.provide(
    Replication.layer({ ...options, memory: { maxTransactionBytes: 2 ** 30 } }).pipe(Layer.provide(walSender))
  )
)

const withStream = withLogicalStream(
  options,
  Handler.arrays((changes) => Effect.sync(() => seeAll(changes)))
).pipe(Effect.provide(walSender))

await Effect.runPromise(mode === "withLogicalStream" ? withStream : withService)
