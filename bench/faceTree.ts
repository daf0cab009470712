/**
 * A checkout as `face.ts` measures it: recorded bytes through its own `withLogicalStream`, in each of the ways that a program
 * may take changes. Checkouts from before decision 19 have other names for them, which are known here.
 */
import { createRequire } from "node:module"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import type * as Core from "@replicant/core"
import type * as Driver from "@replicant/core/driver"
import type { Effect as EffectModule, Layer as LayerModule, Schema } from "effect"
import * as CannedWalSender from "./CannedWalSender.ts"
import { readsOf, shapes, write } from "./pgoutputBytes.ts"

/** The ways to take changes. */
export const ways = ["arrays", "one at a time, a declared table", "whole transactions"] as const
export type Way = (typeof ways)[number]

/** One pass over the bytes. */
export interface Pass {
  readonly rowsPerSecond: number
  /** Of processor time. */
  readonly secondsPerMillion: number
}

/** What is taken of a checkout, by what it exports. */
interface Tree {
  // Two checkouts have two types for one thing, and the older one has other names: nothing here is more than a name.
  readonly core: Record<string, never> & typeof Core
  readonly driver: typeof Driver
  readonly slices: Driver.TextSlices
  readonly effect: {
    readonly Effect: typeof EffectModule
    readonly Layer: typeof LayerModule
    readonly Schema: typeof Schema
  }
}

const importFirst = async (...paths: ReadonlyArray<string>): Promise<never> => {
  let last: unknown
  for (const path of paths) {
    try {
      return (await import(pathToFileURL(path).href)) as never
    } catch (error) {
      last = error
    }
  }
  throw last
}

const load = async (root: string): Promise<Tree> => {
  const core = await importFirst(join(root, "packages/core/src/index.ts"))
  const driver = await importFirst(join(root, "packages/core/src/driver.ts"), join(root, "packages/core/src/index.ts"))
  const { nodeText } = (await importFirst(
    join(root, "packages/node/src/pg/NodeText.ts"),
    join(root, "packages/node/src/NodeText.ts")
  )) as { readonly nodeText: Driver.TextSlices }
  const effect = await importFirst(createRequire(join(root, "package.json")).resolve("effect"))
  return { core, driver, slices: nodeText, effect }
}

/** The handlers of a checkout, and the verbs that take them. */
const face = ({ core, effect: { Effect, Schema } }: Tree, see: (count: number) => void) => {
  const Orders = core.Table.make(
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
  const arrays = (changes: ReadonlyArray<Core.Change>) =>
    Effect.sync(() => {
      let count = 0
      for (const change of changes) if (change._tag === "Insert") count++
      see(count)
      return changes.findLast((change) => change._tag === "Commit")?.nextLsn
    })
  const one = (change: { readonly _tag: string; readonly nextLsn?: Core.NextLsn }) =>
    Effect.sync(() => {
      if (change._tag === "Insert") see(1)
      return change._tag === "Commit" ? change.nextLsn : undefined
    })
  const transaction = ({ changes }: Core.Transaction) =>
    Effect.sync(() => {
      let count = 0
      for (const change of changes) if (change._tag === "Insert") count++
      see(count)
    })
  const typed = core.Table.handler([Orders], one as never)
  const verbs = core as unknown as Record<
    string,
    (options: unknown, handler: unknown) => EffectModule.Effect<never, Error>
  >
  const isNew = "Handler" in core
  const runs: Readonly<Record<Way, (options: unknown) => EffectModule.Effect<never, Error>>> = {
    arrays: (options) =>
      isNew
        ? verbs.withLogicalStream!(options, core.Handler.arrays(arrays))
        : verbs.withLogicalStreamArray!(options, arrays),
    "one at a time, a declared table": (options) => verbs.withLogicalStream!(options, typed),
    "whole transactions": (options) =>
      isNew
        ? verbs.withLogicalStream!(options, core.Handler.transactions(transaction))
        : verbs.withTransactionStream!(options, transaction)
  }
  return runs
}

/** A checkout, ready to be measured: passes over the same bytes. */
export const open = async (root: string, rows: number): Promise<(way: Way) => Promise<Pass>> => {
  const tree = await load(root)
  const { Effect, Layer } = tree.effect
  const workload = write({ ...shapes[0]!, rows })
  const reads = [workload.relations, ...readsOf(workload.bytes)]
  const { WalSender } = tree.driver
  // Nothing that another connection would mend; and not before all is handled, as what is read ahead then would be dropped.
  const over = new tree.core.InvalidOption({ option: "bench", problem: "all has been said" })
  let seen = 0
  let finish = () => {}
  let finished = Promise.resolve()
  const hangUp = Effect.suspend(() =>
    Effect.andThen(
      Effect.promise(() => finished),
      Effect.fail(over)
    )
  )
  const connect = Effect.sync(() => CannedWalSender.connection(reads, { hangUp, slices: tree.slices }))
  const sender = Layer.succeed(WalSender, WalSender.of({ connect, openSession: connect }))
  const runs = face(tree, (count) => {
    seen += count
    if (seen === workload.rows) finish()
  })
  const options = { slot: "bench", plugin: tree.core.Pgoutput.make({ publications: ["bench"] }) }
  return async (way) => {
    seen = 0
    finished = new Promise((done) => {
      finish = done
    })
    const cpu = process.cpuUsage()
    const from = performance.now()
    const ended = await runs[way](options).pipe(
      Effect.flip,
      Effect.timeout("5 minutes"),
      Effect.provide(sender),
      Effect.runPromise
    )
    const seconds = (performance.now() - from) / 1000
    const { system, user } = process.cpuUsage(cpu)
    if (seen !== workload.rows) throw new Error(`${way}: ${seen} of ${workload.rows} rows came`, { cause: ended })
    return { rowsPerSecond: rows / seconds, secondsPerMillion: (user + system) / rows }
  }
}
