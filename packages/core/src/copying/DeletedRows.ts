/**
 * Which rows are gone since an earlier snapshot, as the slot that is kept tells it: the first of the three steps of
 * `ResumePlan.ts`.
 *
 * The slot is read from its beginning to the seam and nothing is ever confirmed, so that it stands where it stood, and the
 * stream that comes later has all of it again. Only keys are handed over, in any order and as often as it takes: each that
 * is there again comes as a row afterwards. So nothing has to be remembered, however much was written.
 */
import { isReadonlyArrayNonEmpty, type NonEmptyReadonlyArray } from "effect/Array"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Begin, Change } from "../change/Change.ts"
import { Run } from "../change/NextLsn.ts"
import type { OutputPlugin } from "../change/OutputPlugin.ts"
import type { Relation } from "../change/Relation.ts"
import * as Lsn from "../Lsn.ts"
import * as PgTimestamp from "../PgTimestamp.ts"
import * as FrontendMessage from "../protocol/FrontendMessage.ts"
import { startReplicationCommand } from "../protocol/ReplicationCommand.ts"
import { encodeStandbyStatusUpdate } from "../protocol/ReplicationMessage.ts"
import type { ReplicationError } from "../ReplicationError.ts"
import { CopyData } from "../replication/CopyData.ts"
import { logNotice, streamEnded } from "../replication/OpenStream.ts"
import type { CopyBoth, ReplicantConnection, WalSender } from "../server/WalSender.ts"
import type { SnapshotResumed, SnapshotRowDeleted } from "../snapshot/SnapshotChange.ts"
import { connect, query } from "../snapshot/SnapshotSession.ts"
import { isVisible, type TransactionSnapshot } from "../snapshot/TransactionSnapshot.ts"
import type { NewSnapshot } from "./ResumePlan.ts"

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

/** Milliseconds: more often than any server gives a client up for being silent. */
const statusInterval = 5000

/** Says that we live, and nothing of how far we are: the slot stays where it is. */
const sayNothing = Effect.fnUntraced(function* (copy: CopyBoth): Effect.fn.Return<void, ReplicationError> {
  const sendTime = PgTimestamp.fromMillis(yield* Clock.currentTimeMillis)
  const status = { written: Lsn.zero, flushed: Lsn.zero, applied: Lsn.zero, sendTime, replyRequested: true }
  yield* copy.send(FrontendMessage.copyData(encodeStandbyStatusUpdate(status)))
})

const readTo = Effect.fnUntraced(function* <E, R>(
  copy: CopyBoth,
  copyData: CopyData,
  options: DeletedRowsOptions,
  handOver: (rows: NonEmptyReadonlyArray<SnapshotRowDeleted>) => Effect.Effect<unknown, E, R>
): Effect.fn.Return<void, ReplicationError | E, R> {
  while (true) {
    const read = copyData.decode(yield* copy.pull)
    yield* Effect.forEach(read.notices, logNotice, { discard: true })
    const rows = deletedRows(options, read.batch.changes)
    if (isReadonlyArrayNonEmpty(rows)) yield* handOver(rows)
    if (read.end !== undefined) return yield* Effect.fail(streamEnded(read.end))
    if (read.received >= options.seam && !read.isOpen) return
  }
})

/** Hands over the keys of all rows that are gone by the new snapshot. */
export const handOverDeletedRows = Effect.fn("Replicant.handOverDeletedRows")(function* <E, R>(
  options: DeletedRowsOptions,
  handOver: (rows: NonEmptyReadonlyArray<SnapshotRowDeleted>) => Effect.Effect<unknown, E, R>
): Effect.fn.Return<void, ReplicationError | E, R | WalSender> {
  const { keeper, seam, slot } = options
  // Transactions in progress, and those prepared, tell of nothing that is gone.
  const { plain: plugin } = options.plugin
  // The walsender sends what is flushed, and on an idle server the end may not be: a transaction of ours, which nobody is
  // sent, has it flushed before long.
  yield* query(keeper, "SELECT pg_catalog.pg_current_xact_id()")
  return yield* Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* connect(0)
      const pluginOptions = yield* Effect.fromResult(plugin.options(connection.serverVersion))
      const start = { slot, startLsn: Lsn.zero, options: pluginOptions }
      const copyData = new CopyData({
        plugin,
        run: new Run(),
        slices: connection.slices,
        context: { slot, publications: plugin.tells.publications, plugin: plugin.name },
        serverLsn: seam
      })
      const copy = yield* connection.copyBoth(yield* Effect.fromResult(startReplicationCommand(start)))
      const saying = Effect.forever(Effect.andThen(Effect.sleep(statusInterval), sayNothing(copy)))
      return yield* Effect.raceFirst(readTo(copy, copyData, options, handOver), saying)
    })
  ) as Effect.Effect<void, ReplicationError | E, R | WalSender>
})
