import { NodeRuntime } from "@effect/platform-node"
import { type Change, nextLsn, Pgoutput, withLogicalStream } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { Console, Effect } from "effect"

const print = (change: Change) => {
  switch (change._tag) {
    case "Insert":
    case "Update":
      return Console.log(change._tag, change.relation.name, change.row)
    case "Delete":
      return Console.log(change._tag, change.relation.name, change.old.row)
    default:
      return Effect.void
  }
}

const program = withLogicalStream(
  { slot: "print_changes", plugin: Pgoutput.make({ publications: ["orders"] }), createSlot: "permanent" },
  (change) => print(change).pipe(Effect.as(nextLsn(change)))
)

program.pipe(Effect.provide(PgWalSender.layerConfig), NodeRuntime.runMain)
