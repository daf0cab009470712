/**
 * Drops cached rows as soon as they change. The `Replication` service, kept retrying: the program is a connection long, and
 * begun anew with the next.
 *
 * The slot is temporary, so it costs no disk while we are away, and tells nothing of what happens then. Every connection
 * therefore begins with an empty cache. Rows are found by primary key: tables keep their default replica identity.
 */
import { NodeRuntime } from "@effect/platform-node"
import { type Change, nextLsn, Pgoutput, Relation, Replication, type Row } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { Effect, Stream } from "effect"

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
  yield* Stream.runForEachArray(changes, (read) => {
    read.forEach(invalidate)
    const done = read.map(nextLsn).findLast((next) => next !== undefined)
    return done === undefined ? Effect.void : acknowledgeThrough(done)
  })
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

program.pipe(Effect.provide(PgWalSender.layerConfig), NodeRuntime.runMain)
