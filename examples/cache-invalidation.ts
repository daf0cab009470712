/**
 * Drops cached rows as soon as they change. The `Replication` service, kept retrying: the program is a connection long, and
 * begun anew with the next.
 *
 * The slot is temporary, so it costs no disk while we are away, and tells nothing of what happens then. Every connection
 * therefore begins with an empty cache. Rows are found by primary key: tables keep their default replica identity.
 */
import { NodeRuntime } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { type Change, nextLsn, Pgoutput, Relation, Replication, type Row, Table } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { Config, Effect, Layer, Stream } from "effect"

const cache = new Map<string, unknown>()

const keyOf = (relation: Relation.Relation, row: Row) =>
  JSON.stringify([relation.schema, relation.name, ...Relation.keyColumns(relation).map((name) => String(row[name]))])

const invalidate = (change: Change): void => {
  switch (change._tag) {
    case "Update":
      cache.delete(keyOf(change.relation, change.row))
      // The key itself changed: the row is no longer where it was.
      if (change.old !== undefined) cache.delete(keyOf(change.relation, change.old.row))
      break
    case "Delete":
      cache.delete(keyOf(change.relation, change.old.row))
      break
    // Behind a gap the slot is a new one: of what changed before nobody was told.
    case "Gap":
    case "Truncate":
      cache.clear()
  }
}

const program = Effect.gen(function* () {
  const { acknowledgeThrough, changes } = yield* Replication.Replication
  // The slot is there: whatever commits from here on comes.
  cache.clear()
  yield* Stream.runForEachArray(
    changes,
    Effect.fnUntraced(function* (read) {
      // A commit comes a moment before others can see it: who fills the cache in between would fill it with what was.
      yield* Table.untilVisible(
        new Set(read.flatMap((change) => ("begin" in change && change.begin ? [change.begin.xid] : [])))
      )
      read.forEach(invalidate)
      const done = read.map(nextLsn).findLast((next) => next !== undefined)
      if (done !== undefined) yield* acknowledgeThrough(done)
    })
  )
}).pipe(
  // Without a connection nothing is told of what changes: then there is no cache, either.
  Effect.ensuring(Effect.sync(() => cache.clear())),
  Replication.retrying({
    slot: "cache_invalidation",
    plugin: Pgoutput.make({ publications: ["orders"] }),
    createSlot: "temporary",
    slotPolicy: { missing: "recreate" }
  }),
  Effect.tapErrorTag("PublicationNotFound", (error) => Effect.logError(error.message, `cure: ${error.remedy}`))
)

const services = Layer.mergeAll(PgWalSender.layerConfig, PgClient.layerConfig({ url: Config.Redacted("DATABASE_URL") }))

program.pipe(Effect.provide(services), NodeRuntime.runMain)
