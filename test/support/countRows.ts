/**
 * A process of its own that counts the rows of one transaction and says so, in JSON on standard output: for tests that
 * limit its memory. Its arguments are a URL, a slot, a publication and how it is to take the transaction. What it holds is
 * looked at now and then, once all that can go is gone.
 */
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { NodeFileSystem } from "@effect/platform-node"
import { type Change, type InProgress, Pgoutput, TransactionSpill, withLogicalStream } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { Deferred, Effect, Layer, Redacted } from "effect"

const [url = "", slot = "", publication = "", mode = "gathered"] = process.argv.slice(2)

const plugin = Pgoutput.make({ publications: [publication], streaming: mode === "after its commit" ? undefined : "on" })

let rows = 0
let sum = 0
let blocks = 0

/** What the program holds by itself, before it is connected. */
const idleBytes = process.memoryUsage.rss()

setFlagsFromString("--expose-gc")
const collectGarbage = runInNewContext("gc") as () => void

/** Of each look, at so many rows, the bytes of objects and of buffers. */
const looks: Array<number> = []
const rowsPerLook = 20_000

const look = (): void => {
  collectGarbage()
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  looks.push(heapUsed + arrayBuffers)
}

const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((one, other) => one - other)[Math.floor(values.length / 2)] ?? Number.NaN

/** How much more was held at the last looks than at the first. */
const grownBytes = (): number => {
  const some = Math.ceil(looks.length / 5)
  return median(looks.slice(-some)) - median(looks.slice(0, some))
}

const program = Effect.gen(function* () {
  const done = yield* Deferred.make<void>()
  const end = Effect.as(Deferred.succeed(done, undefined), undefined)
  const count = (id: unknown): undefined => {
    rows++
    sum += Number(id)
    if (rows % rowsPerLook === 0) look()
  }
  const stream =
    mode !== "as it comes"
      ? withLogicalStream({ slot, plugin }, (change: Change) => {
          if (change._tag === "Insert") count(change.row.id)
          return change._tag === "Commit" ? end : Effect.undefined
        })
      : withLogicalStream({ slot, plugin, inProgress: "deliver" }, (change: InProgress.ChangeInProgress) => {
          if (change._tag === "Streamed" && change.change._tag === "Insert") count(change.change.row.id)
          if (change._tag === "StreamStart") blocks++
          return change._tag === "StreamCommit" ? end : Effect.undefined
        })
  yield* Effect.raceFirst(stream, Deferred.await(done))
}).pipe(
  Effect.provide(
    Layer.merge(
      PgWalSender.layer({ url: Redacted.make(url) }),
      TransactionSpill.layer({ maxBytesInMemory: 32 * 1024 * 1024 }).pipe(Layer.provide(NodeFileSystem.layer))
    )
  )
)

await Effect.runPromise(program)
const overIdle = process.resourceUsage().maxRSS * 1024 - idleBytes
const megabytes = { overIdleMegabytes: Math.round(overIdle / 1e6), grownMegabytes: grownBytes() / 1e6 }
process.stdout.write(JSON.stringify({ rows, sum, blocks, looks: looks.length, ...megabytes }))
