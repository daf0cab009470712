/**
 * A sink is a `Handler`: here one that appends every change of a row to a file, as a line of JSON. Each read of the socket is
 * one write and one fsync, and is acknowledged once it is on disk.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { type Change, Handler, nextLsn, Pgoutput, withLogicalStream } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { Config, Effect, FileSystem } from "effect"

/** JSON has no word for a bigint. */
const plain = (_key: string, value: unknown) => (typeof value === "bigint" ? String(value) : value)

const line = (change: Change): string => {
  if (change._tag !== "Insert" && change._tag !== "Update" && change._tag !== "Delete") return ""
  const row = change._tag === "Delete" ? change.old.row : change.row
  return `${JSON.stringify({ change: change._tag, table: change.relation.name, row }, plain)}\n`
}

const fileSink = (path: string) =>
  Handler.make((session) =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      // Of this connection's scope: closed when that has gone, and opened anew for the next.
      const file = yield* fs.open(path, { flag: "a" })
      const append = (text: string) => Effect.andThen(file.writeAll(new TextEncoder().encode(text)), file.sync)
      // A crash may have left half a line behind: the first of ours must not be joined to it.
      yield* append("\n")
      return ({ changes }: Handler.Read<Change>) => {
        const stored = append(changes.map(line).join(""))
        const done = changes.map(nextLsn).findLast((next) => next !== undefined)
        return done === undefined ? stored : Effect.andThen(stored, session.acknowledgeThrough(done))
      }
    })
  )

const program = Effect.gen(function* () {
  const sink = fileSink(yield* Config.String("SINK_FILE"))
  const plugin = Pgoutput.make({ publications: ["orders"] })
  return yield* withLogicalStream({ slot: "sink", plugin, createSlot: "permanent" }, sink)
})

program.pipe(Effect.provide([PgWalSender.layerConfig, NodeServices.layer]), NodeRuntime.runMain)
