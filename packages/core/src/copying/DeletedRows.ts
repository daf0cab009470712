/**
 * Which rows are gone since an earlier snapshot, as the slot that is kept tells it: the first of the three steps of
 * `ResumePlan.ts`.
 *
 * The slot is read from its beginning to the seam and nothing is ever confirmed, so that it stands where it stood, and the
 * stream that comes later has all of it again. It is a stream as any other, with its watch over the connection, but for its
 * end. Only keys are handed over, in any order and as often as it takes: each that
 * is there again comes as a row afterwards. So nothing has to be remembered, however much was written.
 */
import { isReadonlyArrayNonEmpty, type NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import type { Begin, Change } from "../change/Change.ts"
import type { OutputPlugin } from "../change/OutputPlugin.ts"
import type { Relation } from "../change/Relation.ts"
import type { ReplicationError } from "../ReplicationError.ts"
import { openReplicationStream } from "../replication/OpenStream.ts"
import { readThrough } from "../replication/ReplicationStream.ts"
import type { StreamOptions } from "../replication/StreamOptions.ts"
import * as WalProgress from "../replication/WalProgress.ts"
import type { ReplicantConnection, WalSender } from "../server/WalSender.ts"
import type { SnapshotResumed, SnapshotRowDeleted } from "../snapshot/SnapshotChange.ts"
import { query } from "../snapshot/SnapshotSession.ts"
import { isVisible, type TransactionSnapshot } from "../snapshot/TransactionSnapshot.ts"
import type { NewSnapshot } from "./ResumePlan.ts"

/** With what patience a copy streams. */
export type StreamPatience = Pick<StreamOptions, "timing" | "memory">

/** A table of which some pages have been copied. */
export interface PartialTable {
  readonly relation: Relation
  /** What was deleted up to this snapshot is known. */
  readonly deletedUpTo: TransactionSnapshot
}

/** Where to read, up to where, and for which tables. */
export interface DeletedRowsOptions extends NewSnapshot {
  readonly slot: string
  readonly plugin: OutputPlugin
  readonly streaming?: StreamPatience | undefined
  readonly keeper: ReplicantConnection
  /** By OID. */
  readonly tables: ReadonlyMap<number, PartialTable>
  readonly resumed: SnapshotResumed
}

/** The keys that `changes` delete or change, of transactions that the new snapshot sees and the table's own does not. */
export const deletedRows = (
  { resumed, snapshot, tables }: Pick<DeletedRowsOptions, "resumed" | "snapshot" | "tables">,
  changes: ReadonlyArray<Change>
): ReadonlyArray<SnapshotRowDeleted> => {
  let begin: Begin | undefined
  let isSeen = false
  return changes.flatMap((change) => {
    if ((change._tag !== "Delete" && change._tag !== "Update") || change.old === undefined) return []
    const table = tables.get(change.relation.oid)
    if (table === undefined) return []
    if (change.begin !== begin) {
      begin = change.begin
      isSeen = isVisible(snapshot, begin.xid)
    }
    if (!isSeen || isVisible(table.deletedUpTo, change.begin.xid)) return []
    return [{ _tag: "SnapshotRowDeleted", snapshot: resumed, relation: table.relation, old: change.old }]
  })
}

/** Hands over the keys of all rows that are gone by the new snapshot. */
export const handOverDeletedRows = Effect.fn("Replicant.handOverDeletedRows")(function* <E, R>(
  options: DeletedRowsOptions,
  handOver: (rows: NonEmptyReadonlyArray<SnapshotRowDeleted>) => Effect.Effect<unknown, E, R>
): Effect.fn.Return<void, ReplicationError | E, R | WalSender> {
  const { keeper, seam, slot, streaming } = options
  // Transactions in progress, and those prepared, tell of nothing that is gone.
  const { plain: plugin } = options.plugin
  // The walsender sends what is flushed, and on an idle server the end may not be: a transaction of ours, which nobody is
  // sent, has it flushed before long.
  yield* query(keeper, "SELECT pg_catalog.pg_current_xact_id()")
  const progress = yield* WalProgress.make
  return yield* Effect.scoped(
    Effect.gen(function* () {
      const opening = yield* openReplicationStream(
        progress,
        { ...streaming, slot, plugin, slotPolicy: { inUse: "fail" } },
        { confirm: "nothing" }
      )
      return yield* readThrough(yield* opening.start, seam, (changes) => {
        const rows = deletedRows(options, changes)
        return isReadonlyArrayNonEmpty(rows) ? handOver(rows) : Effect.void
      })
    })
  ) as Effect.Effect<void, ReplicationError | E, R | WalSender>
})
