/**
 * The soak's consumer, a process of its own. For each transaction it appends a line to its ledger before it
 * acknowledges: `endLsn number rows`, where `number` is what the row in `commits` says and `rows` how many changes of
 * rows came before it. One slot is followed by whole transactions, the other change by change with transactions
 * streamed in progress.
 */
import { appendFileSync, existsSync } from "node:fs"
import { NodeFileSystem, NodeRuntime } from "@effect/platform-node"
import {
  type Change,
  Handler,
  Lsn,
  nextLsn,
  Pgoutput,
  type Transaction,
  TransactionSpill,
  withLogicalStream
} from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { Effect, Layer, Redacted, Schedule } from "effect"

/** What the program is told, as JSON. */
export interface SoakConsumerOptions {
  readonly url: string
  readonly host: string
  readonly port: number
  readonly slot: string
  readonly publication: string
  readonly ledger: string
  readonly by: "transactions" | "changes"
  /** While there is a file of this path, each transaction takes 10 ms. */
  readonly slowdown: string
}

const options = JSON.parse(process.argv[2] ?? "{}") as SoakConsumerOptions

/** What of a transaction goes to the ledger. */
class Tally {
  private rows = 0
  private number = ""

  add(change: Change): void {
    if (change._tag === "Begin") this.rows = 0
    else if (change._tag === "Insert" && change.relation.name === "commits") this.number = String(change.row.number)
    else if (change._tag === "Insert" || change._tag === "Update" || change._tag === "Delete") this.rows++
  }

  line(endLsn: Lsn.Lsn): string {
    const line = `${Lsn.format(endLsn)} ${this.number === "" ? "-" : this.number} ${this.rows}\n`
    this.number = ""
    this.rows = 0
    return line
  }
}

const store = (tally: Tally, endLsn: Lsn.Lsn) =>
  Effect.andThen(
    existsSync(options.slowdown) ? Effect.sleep("10 millis") : Effect.void,
    Effect.sync(() => appendFileSync(options.ledger, tally.line(endLsn)))
  )

const stream = {
  slot: options.slot,
  plugin: Pgoutput.make({
    publications: [options.publication],
    streaming: options.by === "changes" ? "on" : undefined
  }),
  reconnect: Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("1 second")]).pipe(Schedule.jittered),
  timing: { receiverTimeout: "2 seconds", acknowledgeDelay: "200 millis" }
} as const

const byTransactions = withLogicalStream(
  stream,
  Handler.transactions((transaction: Transaction) => {
    if (transaction.commit === undefined) return Effect.void
    const tally = new Tally()
    for (const change of transaction.changes) tally.add(change)
    return store(tally, transaction.endLsn)
  })
)

const tally = new Tally()
const byChanges = withLogicalStream(stream, (change) => {
  tally.add(change)
  const next = Effect.succeed(nextLsn(change))
  return change._tag === "Commit" ? Effect.andThen(store(tally, change.endLsn), next) : next
})

const walSender = PgWalSender.layer({
  url: Redacted.make(options.url),
  host: options.host,
  port: options.port,
  connectTimeout: "3 seconds",
  settings: { wal_sender_timeout: "3s", ...(options.by === "changes" ? { logical_decoding_work_mem: "64kB" } : {}) }
})

const spill = TransactionSpill.layer({ maxBytesInMemory: 1024 * 1024 }).pipe(Layer.provide(NodeFileSystem.layer))

NodeRuntime.runMain(
  (options.by === "transactions" ? byTransactions : byChanges).pipe(Effect.provide(Layer.merge(walSender, spill)))
)
