/**
 * Appends every transaction to a file, one JSON line each, and acknowledges it once the line is on disk.
 *
 * A crash between fsync and acknowledgement makes a line appear twice. `endLsn` tells: it names one transaction for ever,
 * and sorts as text in commit order.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Handler, Lsn, Pgoutput, PgTimestamp, type Transaction, withLogicalStream } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { Config, Effect, FileSystem } from "effect"

/** What the file keeps of a change; nothing of those that touch no row. */
const entry = (change: Transaction["changes"][number]): object | undefined => {
  switch (change._tag) {
    case "Insert":
      return { insert: change.relation.name, row: change.row }
    case "Update":
      return { update: change.relation.name, row: change.row, old: change.old?.row, unchanged: change.unchanged }
    case "Delete":
      return { delete: change.relation.name, old: change.old.row }
    case "Truncate":
      return { truncate: change.relations.map((relation) => relation.name) }
    default:
      return undefined
  }
}

/** JSON has no word for a bigint and none for bytes. */
const plain = (_key: string, value: unknown) =>
  typeof value === "bigint" ? String(value) : value instanceof Uint8Array ? Buffer.from(value).toString("hex") : value

const line = ({ begin, changes, endLsn }: Transaction) => {
  const committed = begin === undefined ? undefined : PgTimestamp.format(begin.commitTime)
  const entries = changes.map(entry).filter((kept) => kept !== undefined)
  const record = { endLsn: Lsn.formatSortable(endLsn), xid: begin?.xid, committed, entries }
  return `${JSON.stringify(record, plain)}\n`
}

const program = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Config.String("AUDIT_LOG").pipe(Config.withDefault("audit.jsonl"))
  const file = yield* fs.open(path, { flag: "a" })
  const append = (text: string) => Effect.andThen(file.writeAll(new TextEncoder().encode(text)), file.sync)
  // A crash may have left half a line behind: the first of ours must not be joined to it.
  yield* append("\n")
  return yield* withLogicalStream(
    { slot: "audit_log", plugin: Pgoutput.make({ publications: ["orders"] }), createSlot: "permanent" },
    Handler.transactions((transaction) => append(line(transaction)))
  )
})

program.pipe(Effect.scoped, Effect.provide([PgWalSender.layerConfig, NodeServices.layer]), NodeRuntime.runMain)
