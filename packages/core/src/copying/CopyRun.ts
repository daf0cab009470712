/**
 * Copies under a snapshot that is held, and hands over: one fiber reads, this one handles, and a queue of one is between
 * them. So losing a connection does not cancel what is being handled.
 *
 * A checkpoint says nothing of rows before the handler has ended the element behind them: it is saved here, after that, and
 * nowhere else.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import type { Relation } from "../change/Relation.ts"
import type { ReplicantConnection, WalSender } from "../server/WalSender.ts"
import type { CopyPiece } from "../snapshot/CopyCommand.ts"
import type {
  SnapshotBeginning,
  SnapshotChange,
  SnapshotCompleted,
  SnapshotTableRestarted
} from "../snapshot/SnapshotChange.ts"
import type { SnapshotDecoder } from "../snapshot/SnapshotDecoder.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"
import type { ProgressRef } from "../snapshot/SnapshotProgress.ts"
import type { CopyRecord } from "./CopyRecord.ts"
import { copyTables, type HandOver, type TableCopy } from "./CopyTables.ts"
import type { RateLimit } from "./RateLimit.ts"
import { type WorkingSlot, watchSlot } from "./WorkingSlot.ts"

/** Gives elements to the handler. */
export type Deliver<E, R> = (changes: NonEmptyReadonlyArray<SnapshotChange>) => Effect.Effect<unknown, E, R>

/** The handler's own failure on its way past our retries. */
export class HandlerFailed<E> extends Data.TaggedError("HandlerFailed")<{ readonly error: E }> {}

/** All that there is to a copy once its snapshot stands. */
export interface SnapshotRun {
  readonly beginning: SnapshotBeginning
  /** What follows it at once. */
  readonly restarted: ReadonlyArray<SnapshotTableRestarted>
  /** What comes before the rows. */
  readonly handOverDeletedRows: ((handOver: HandOver) => Effect.Effect<void, SnapshotError, WalSender>) | undefined
  /** Those that are not complete. */
  readonly tables: ReadonlyArray<TableCopy>
  readonly decoder: SnapshotDecoder
  readonly readers: ReadonlyArray<ReplicantConnection>
  /** Lets locks and snapshot go. */
  readonly closeReaders: Effect.Effect<void>
  readonly slot: WorkingSlot
  readonly record: CopyRecord | undefined
  readonly progress: ProgressRef | undefined
  readonly rateLimit: RateLimit | undefined
}

/** What the reading fiber hands to the handling one. */
type Entry =
  | { readonly _tag: "Changes"; readonly changes: NonEmptyReadonlyArray<SnapshotChange> }
  | { readonly _tag: "Piece"; readonly piece: CopyPiece; readonly relation: Relation }
  | { readonly _tag: "End" }

/** Reads everything into the queue, and fails it when that cannot go on. */
const fillQueue = Effect.fnUntraced(function* (
  run: SnapshotRun,
  queue: Queue.Queue<Entry, SnapshotError>
): Effect.fn.Return<void, SnapshotError, WalSender> {
  const { beginning, decoder, progress, rateLimit, readers, tables } = run
  const handOver: HandOver = (changes) => Queue.offer(queue, { _tag: "Changes", changes })
  const onPiece = (piece: CopyPiece, { relation }: TableCopy) => Queue.offer(queue, { _tag: "Piece", piece, relation })
  if (run.handOverDeletedRows !== undefined) yield* run.handOverDeletedRows(handOver)
  const job = { snapshot: beginning, tables, decoder, handOver, progress, rateLimit }
  yield* copyTables(run.record === undefined ? job : { ...job, onPiece }, readers)
  // What comes after the last row needs neither lock nor snapshot.
  yield* run.closeReaders
  yield* Queue.offer(queue, { _tag: "End" })
})

const completed = ({ beginning, record, tables }: SnapshotRun): SnapshotCompleted => {
  const sum = (key: "rows" | "bytes") => tables.reduce((total, table) => total + table[key], 0)
  const checkpoint = record?.complete()
  return { _tag: "SnapshotCompleted", snapshot: beginning, rows: sum("rows"), bytes: sum("bytes"), checkpoint }
}

/** Hands everything over, and ends when the handler has ended `SnapshotCompleted` and the checkpoint says so. */
export const runSnapshot = Effect.fnUntraced(function* <E, R>(
  run: SnapshotRun,
  deliver: Deliver<E, R>
): Effect.fn.Return<SnapshotCompleted, SnapshotError | HandlerFailed<E>, R | WalSender | Scope.Scope> {
  const { beginning, record } = run
  const queue = yield* Queue.bounded<Entry, SnapshotError>(1)
  let isOver = false
  yield* Effect.raceFirst(Effect.andThen(fillQueue(run, queue), Effect.never), watchSlot(run.slot)).pipe(
    Effect.onError((cause) => {
      isOver = true
      return Queue.failCause(queue, cause)
    }),
    Effect.forkScoped({ startImmediately: true })
  )
  const handle = (changes: NonEmptyReadonlyArray<SnapshotChange>) =>
    Effect.mapError(deliver(changes), (error) => new HandlerFailed({ error }))
  yield* handle([beginning])
  for (const restarted of run.restarted) yield* handle([restarted])
  while (true) {
    const entry = yield* Queue.take(queue)
    // What is left in the queue of a snapshot that has failed is nobody's.
    if (isOver) continue
    switch (entry._tag) {
      case "Changes":
        yield* handle(entry.changes)
        break
      case "Piece": {
        const checkpoint = record?.enter(entry.piece)
        if (checkpoint === undefined) break
        const { relation } = entry
        yield* handle([{ _tag: "SnapshotRangeCompleted", snapshot: beginning, relation, checkpoint }])
        yield* record!.save(checkpoint)
        break
      }
      case "End": {
        const last = completed(run)
        yield* handle([last])
        if (last.checkpoint !== undefined) yield* record!.save(last.checkpoint)
        return last
      }
    }
  }
})
