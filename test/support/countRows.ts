/**
 * A process of its own that counts the rows of one transaction and says so, in JSON on standard output: for tests that
 * limit its memory. Its arguments are a URL, a slot, a publication and how it is to take the transaction.
 */
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

const program = Effect.gen(function* () {
  const done = yield* Deferred.make<void>()
  const end = Effect.as(Deferred.succeed(done, undefined), undefined)
  const count = (id: unknown): undefined => {
    rows++
    sum += Number(id)
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
process.stdout.write(JSON.stringify({ rows, sum, blocks, overIdleMegabytes: Math.round(overIdle / 1e6) }))
