/**
 * What a change costs by each of the handlers that compose, over recorded bytes through `withLogicalStream`, without a socket and with
 * nothing to do for a change: what is left is the handler's own. How to read the figures is in README.md.
 *
 * node bench/handlers.ts [--rounds 7] [--rows 100000] [--json FILE]
 */
import { writeFileSync } from "node:fs"
import { parseArgs } from "node:util"
import {
  type Change,
  DeadLetters,
  Handler,
  InvalidOption,
  Pgoutput,
  Table,
  WalSender,
  withLogicalStream
} from "@replicant/core"
import { Effect, Layer, Logger, Schedule, Schema } from "effect"
import { nodeText } from "../packages/node/src/pg/NodeText.ts"
import * as CannedWalSender from "./CannedWalSender.ts"
import { line, median } from "./Clients.ts"
import { readsOf, shapes, write } from "./pgoutputBytes.ts"

const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "7" },
    rows: { type: "string", default: "100000" },
    json: { type: "string" }
  }
})
const rounds = Number(flags.rounds)
const workload = write({ ...shapes[0]!, rows: Number(flags.rows) })
const reads = [workload.relations, ...readsOf(workload.bytes)]

const Orders = Table.make(
  "public.orders_0",
  Schema.Struct({
    id: Schema.BigInt,
    account: Schema.Number,
    amount: Schema.String,
    status: Schema.String,
    is_open: Schema.Boolean,
    created_at: Schema.String
  }),
  { key: ["id"] }
)

let seen = 0
let finish = () => {}

/** One change is one, but for what frames it. */
const count = (change: { readonly _tag: string }) => {
  if (change._tag === "Insert" && ++seen === workload.rows) finish()
}
const one = (change: { readonly _tag: string }) => Effect.sync(() => count(change))
const many = (changes: ReadonlyArray<{ readonly _tag: string }>) => Effect.sync(() => changes.forEach(count))

type Taken = Handler.Handler<Change, unknown, DeadLetters.DeadLetters>

/** A second consumer, which counts nothing. */
const other = Handler.durable<Change>(() => Effect.void)

const handlers: { readonly [name: string]: () => Taken } = {
  "durable, arrays": () => Handler.durable<Change>(many),
  "each, one at a time": () => Handler.each<Change>((change) => Effect.as(one(change), undefined)),
  "batch of 1,000": () => Handler.batch<Change>({ rows: 1000, within: "1 second" }, many),
  "batch of 1,000, compact": () => Handler.batch<Change>({ rows: 1000, within: "1 second", compact: true }, many),
  "byKey, 8 at a time": () => Handler.byKey<Change>({ concurrency: 8 }, one),
  "byKey and retry": () => Handler.byKey<Change, unknown>({ concurrency: 8 }, Handler.retry(Schedule.recurs(3))(one)),
  "byKey and park, nothing parked": () =>
    Handler.byKey<Change, DeadLetters.DeadLettersError, DeadLetters.DeadLetters>(
      { concurrency: 8 },
      Handler.park({ isPoison: () => true, schedule: Schedule.recurs(3) }, one)
    ),
  "broadcast to two": () =>
    Handler.broadcast({
      first: Handler.required(Handler.durable<Change>(many)),
      second: Handler.required(other)
    }) as unknown as Taken,
  "a declared table, arrays": () =>
    Table.handler(
      [Orders],
      Handler.durable((changes) => many(changes))
    ),
  "the same, Table.applyTo a Map": () => {
    const keep = Table.applyTo(Orders, Table.inMap(new Map<string, Table.Row<typeof Orders>>()))
    return Table.handler(
      [Orders],
      Handler.durable((changes) => Effect.andThen(keep(changes), many(changes)))
    )
  }
}

const over = new InvalidOption({ option: "bench", problem: "all has been said" })

/** Processor microseconds a row, of one pass. */
const pass = async (handler: Taken): Promise<number> => {
  seen = 0
  const finished = new Promise<void>((done) => {
    finish = done
  })
  const hangUp = Effect.andThen(
    Effect.promise(() => finished),
    Effect.fail(over)
  )
  const connect = Effect.sync(() => CannedWalSender.connection(reads, { hangUp, slices: nodeText }))
  const sender = Layer.succeed(WalSender, { connect, openSession: connect })
  const from = process.cpuUsage()
  await withLogicalStream({ slot: "bench", plugin: Pgoutput.make({ publications: ["bench"] }) }, handler).pipe(
    Effect.flip,
    Effect.timeout("2 minutes"),
    Effect.provide([sender, DeadLetters.memory, Logger.layer([])]),
    Effect.runPromise
  )
  const { system, user } = process.cpuUsage(from)
  if (seen !== workload.rows) throw new Error(`${seen} of ${workload.rows} rows came`)
  return (system + user) / workload.rows
}

const names = Object.keys(handlers)
const figures = new Map(names.map((name): [string, Array<number>] => [name, []]))
for (let round = 0; round <= rounds; round++) {
  for (const name of names) {
    const micros = await pass(handlers[name]!())
    if (round > 0) figures.get(name)!.push(micros)
  }
}
console.log(line("CPU a change", "µs", "least", "most", "over durable"))
const base = median(figures.get(names[0]!)!)
for (const [name, values] of figures) {
  const cells = [median(values), Math.min(...values), Math.max(...values), median(values) - base]
  console.log(line(name, ...cells.map((value) => value.toFixed(2))))
}
if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(Object.fromEntries(figures), null, 2)}\n`)
