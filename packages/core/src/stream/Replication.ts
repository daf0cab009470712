/**
 * The service: one slot, streamed, as long as its Layer lives. For programs that compose the stream by hand;
 * `withLogicalStream` is the shorter way, and reconnects by itself.
 */
import * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Ref from "effect/Ref"
import * as Stream from "effect/Stream"
import type { Change } from "../change/Change.ts"
import type { NextLsn } from "../change/NextLsn.ts"
import type { InProgressMode } from "../change/OutputPlugin.ts"
import { type Transaction, TransactionFold, wholeTransactions } from "../change/Transaction.ts"
import type * as Lsn from "../Lsn.ts"
import type { ReplicationError } from "../ReplicationError.ts"
import { openReplicationStream } from "../replication/OpenStream.ts"
import type { ReadsAhead } from "../replication/ReadsAhead.ts"
import { type ChangeArray, readAhead } from "../replication/ReplicationStream.ts"
import type { StreamOptions } from "../replication/StreamOptions.ts"
import * as WalProgress from "../replication/WalProgress.ts"
import type { IdentifySystem } from "../server/IdentifySystem.ts"
import type { WalSender } from "../server/WalSender.ts"
import { Source } from "./ChangeArrays.ts"

/** A stream, and how much of one transaction may be gathered. */
export interface ReplicationOptions extends StreamOptions {
  /** What `transactions` may gather of one transaction, in bytes of WAL messages: 64 MiB. */
  readonly maxTransactionBytes?: number | undefined
}

/** How far the stream and its consumer are. */
export interface Progress {
  readonly received: Lsn.Lsn
  /** What the server has been told is flushed. */
  readonly flushed: Lsn.Lsn
  /** Units delivered and not acknowledged, or behind one that is not. */
  readonly pending: number
}

/** One slot, streamed: changes, acknowledgement, progress. See {@link layer}. */
export class Replication extends Context.Service<
  Replication,
  {
    /**
     * Every change, in commit order, at least once. The arrays of the source are kept whole. Fails when the connection
     * does; ends never. Can be run once: a second run would not see what the first had taken.
     */
    readonly changes: Stream.Stream<Change, ReplicationError>
    /** The same, gathered by transaction. Fails with `TransactionTooLarge` beyond `maxTransactionBytes`. */
    readonly transactions: Stream.Stream<Transaction, ReplicationError>
    /**
     * This unit is done. In any order: the server hears of the longest finished prefix. An acknowledgement of another
     * run is void, since what it covers is delivered again.
     */
    readonly acknowledge: (nextLsn: NextLsn) => Effect.Effect<void>
    /** This unit and every one delivered before it are done. For a consumer that takes one at a time, or in order. */
    readonly acknowledgeThrough: (nextLsn: NextLsn) => Effect.Effect<void>
    readonly progress: Effect.Effect<Progress>
    /** The cluster we stream from. */
    readonly system: IdentifySystem
  }
>()("@replicant/core/Replication") {}

/** The next whole transactions: reads that end none are taken in, and the next is waited for. */
const pullTransactions = Effect.fnUntraced(function* (
  reads: ReadsAhead<ChangeArray, ReplicationError>,
  fold: TransactionFold
): Effect.fn.Return<Arr.NonEmptyReadonlyArray<Transaction>, ReplicationError> {
  while (true) {
    const { bytes, changes } = yield* reads.take
    const transactions = fold.fold(changes, bytes)
    if (!Array.isArray(transactions)) return yield* transactions
    if (Arr.isReadonlyArrayNonEmpty(transactions)) return transactions
  }
})

/** Opens the stream. The scope ends it in good order. */
export const make = Effect.fnUntraced(function* (options: ReplicationOptions, inProgress: InProgressMode = "gather") {
  const progress = yield* WalProgress.make
  const opening = yield* openReplicationStream(progress, options, { inProgress })
  const reads = yield* readAhead(opening).pipe(
    Effect.provideService(Metric.CurrentMetricAttributes, { slot: options.slot }),
    Effect.annotateLogs({ slot: options.slot })
  )
  const source = new Source()
  const fold = new TransactionFold(options.maxTransactionBytes)
  return Replication.of({
    changes: source.stream(Effect.map(reads.take, ({ changes }) => changes)),
    transactions: Stream.unwrap(
      Effect.as(Effect.fromResult(wholeTransactions(options.plugin)), source.stream(pullTransactions(reads, fold)))
    ),
    acknowledge: (nextLsn) =>
      WalProgress.updateWalProgress(progress, (current) => WalProgress.acknowledge(current, nextLsn)),
    acknowledgeThrough: (nextLsn) =>
      WalProgress.updateWalProgress(progress, (current) => WalProgress.acknowledgeThrough(current, nextLsn)),
    progress: Effect.map(Ref.get(progress), ({ pending, received, reported }) => ({
      received,
      flushed: reported,
      pending
    })),
    system: opening.system
  })
})

/** The service over a {@link WalSender}. Building it connects; its errors are the connection's. */
export const layer = (options: ReplicationOptions): Layer.Layer<Replication, ReplicationError, WalSender> =>
  Layer.effect(Replication, make(options))
