/**
 * The copy as a sink: a handler of rows and of changes. What it has begun at the target belongs to the connection that
 * brought it: where that is lost, or an attempt at the first copy, the scope undoes it before anything comes again.
 */
import { Handler, isSnapshotChange, type Snapshot } from "@replicant/core"
import * as Effect from "effect/Effect"
import { SnapshotWriter } from "./SnapshotWriter.ts"
import type { TargetWriter, WriteError } from "./TargetWriter.ts"
import { type StreamChange, type TransactionOptions, TransactionWriter } from "./TransactionWriter.ts"

type Change = Snapshot.ChangeAfterSnapshot

/** Of a table that is read beside the stream: that is part of the stream's transactions. */
const isOfStream = (change: Change): boolean =>
  change._tag === "SnapshotRow"
    ? change.snapshot._tag === "TableSnapshotStarted" || change.snapshot._tag === "TableSnapshotResumed"
    : change._tag.startsWith("TableSnapshot")

/** One read brings rows of the first copy or what the stream has, never both. */
const areRows = (changes: ReadonlyArray<Change>): changes is ReadonlyArray<Snapshot.Change> =>
  changes[0] !== undefined && isSnapshotChange(changes[0]) && !isOfStream(changes[0])

/** Writes at the target what a stream brings. */
export const copyHandler = (writer: TargetWriter, options: TransactionOptions): Handler.Handler<Change, WriteError> =>
  Handler.make((session) =>
    Effect.flatMap(writer.transaction, () => {
      writer.followed.reset()
      const rows = new SnapshotWriter(writer)
      const transactions = new TransactionWriter(writer, options)
      return Handler.arrays((changes: ReadonlyArray<Change>) =>
        areRows(changes) ? rows.handle(changes) : transactions.handle(changes as ReadonlyArray<StreamChange>)
      ).make(session)
    })
  )
