/**
 * The service: what is there and then what changes, as one Stream, for as long as its Layer lives. For programs that
 * compose the stream by hand; `withSnapshotStream` is the shorter way, and begins again by itself. It is to that as
 * `Replication` is to `withLogicalStream`, and runs the same snapshot.
 *
 * A mark stands between the two: an element that says "all before me must be durable now". A handler says so by ending; a
 * stream cannot see what becomes of what it gave, so here the consumer says it.
 */
import { isReadonlyArrayNonEmpty, type NonEmptyReadonlyArray } from "effect/Array"
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Queue from "effect/Queue"
import * as Ref from "effect/Ref"
import type * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { type Change, nextLsn } from "../change/Change.ts"
import type { NextLsn } from "../change/NextLsn.ts"
import type { SeamFilter } from "../copying/SeamFilter.ts"
import { openReplicationStream } from "../replication/OpenStream.ts"
import { runOpening } from "../replication/ReplicationStream.ts"
import type { StreamOptions } from "../replication/StreamOptions.ts"
import * as WalProgress from "../replication/WalProgress.ts"
import type { WalSender } from "../server/WalSender.ts"
import type {
  ChangeAfterSnapshot,
  SnapshotChange,
  SnapshotCompleted,
  SnapshotRangeCompleted
} from "../snapshot/SnapshotChange.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"
import { makeProgress, type SnapshotProgress, updateProgress } from "../snapshot/SnapshotProgress.ts"
import { Source } from "./ChangeArrays.ts"
import type { Progress } from "./Replication.ts"
import { type SnapshotMode, type SnapshotStreamOptions, takeSnapshot } from "./SnapshotStream.ts"

/** A stream that may begin with a snapshot, over one run of connections: trying again is the program's. */
export interface SnapshotReplicationOptions
  extends Omit<
    SnapshotStreamOptions<SnapshotMode>,
    "reconnect" | "shutdownTimeout" | "state" | "maxTransactionBytes" | "control"
  > {}

/** An element before which everything must be durable: it is not brought again then, and nothing comes before that is said. */
export type SnapshotMark = SnapshotRangeCompleted | SnapshotCompleted

/** How far snapshot, stream and consumer are. */
export interface SnapshotReplicationProgress extends Progress {
  readonly snapshot: SnapshotProgress
}

/** One slot, from what was there when it was made. See {@link layer}. */
export class SnapshotReplication extends Context.Service<
  SnapshotReplication,
  {
    /**
     * The snapshot that the mode asks for, then every change since, each commit in one of the two. Arrays are kept whole:
     * rows of one read are one array, a mark is one by itself. Fails when a connection does, or the snapshot; ends after
     * `SnapshotCompleted` under `"only"`, and never otherwise. Can be run once.
     *
     * **Nothing comes after a mark until it is acknowledged**: `SnapshotCompleted`, and `SnapshotRangeCompleted` where
     * checkpoints are kept. So gather rows up to the next mark, or by time, and not by number alone.
     */
    readonly changes: Stream.Stream<ChangeAfterSnapshot, SnapshotError>
    /**
     * This element, and everything delivered before it, is durable: acknowledges the unit that it ends, or the mark that
     * it is, and nothing where it is neither. For a consumer that takes one at a time, or in order.
     */
    readonly acknowledgeChange: (change: Parameters<typeof nextLsn>[0]) => Effect.Effect<void>
    /** Everything delivered before this mark is durable: the slot may be made. One of another run is void. */
    readonly acknowledgeMark: (mark: SnapshotMark) => Effect.Effect<void>
    /** This unit of the stream is done. In any order, as `Replication.acknowledge` has it. */
    readonly acknowledge: (nextLsn: NextLsn) => Effect.Effect<void>
    /** This unit and every one delivered before it are done. */
    readonly acknowledgeThrough: (nextLsn: NextLsn) => Effect.Effect<void>
    readonly progress: Effect.Effect<SnapshotReplicationProgress>
  }
>()("@replicant/core/SnapshotReplication") {}

/** Marks that were handed over, and who waits for them to be durable. */
class Marks {
  private readonly open = new Map<object, Deferred.Deferred<void>>()

  /** Ends once `mark` is acknowledged. */
  wait(mark: SnapshotMark): Effect.Effect<void> {
    return Effect.flatMap(Deferred.make<void>(), (durable) => {
      this.open.set(mark, durable)
      return Effect.ensuring(
        Deferred.await(durable),
        Effect.sync(() => this.open.delete(mark))
      )
    })
  }

  acknowledge(element: object): Effect.Effect<void> {
    return Effect.suspend(() => {
      const durable = this.open.get(element)
      return durable === undefined ? Effect.void : Effect.asVoid(Deferred.succeed(durable, undefined))
    })
  }
}

/** Whether something is recorded once it is durable: of a snapshot by itself only where checkpoints are kept. */
const isWaitedFor = (change: SnapshotChange, { snapshot }: SnapshotReplicationOptions): change is SnapshotMark =>
  change._tag === "SnapshotRangeCompleted" ||
  (change._tag === "SnapshotCompleted" && (snapshot !== "only" || change.checkpoint !== undefined))

/** Builds the service: it is there once its first element is, or the stream has begun. The scope ends it in good order. */
export const make = Effect.fnUntraced(function* (options: SnapshotReplicationOptions) {
  const walProgress = yield* WalProgress.make
  const progress = options.progress ?? (yield* makeProgress)
  const elements = yield* Queue.bounded<NonEmptyReadonlyArray<ChangeAfterSnapshot>, SnapshotError | Cause.Done>(1)
  const begun = yield* Deferred.make<void, SnapshotError>()
  const hasBegun = Effect.asVoid(Deferred.succeed(begun, undefined))
  const marks = new Marks()

  const deliver = (changes: NonEmptyReadonlyArray<ChangeAfterSnapshot>) =>
    Effect.andThen(hasBegun, Queue.offer(elements, changes))
  const deliverSnapshot = Effect.fnUntraced(function* (changes: NonEmptyReadonlyArray<SnapshotChange>) {
    const [first] = changes
    // Waited for before it is handed over: the answer may come at once.
    yield* isWaitedFor(first, options)
      ? Effect.all([marks.wait(first), deliver(changes)], { concurrency: "unbounded", discard: true })
      : deliver(changes)
  })
  const stream = Effect.fnUntraced(function* (filter: SeamFilter | undefined) {
    yield* updateProgress(progress, (current) => ({ ...current, phase: "streaming" }))
    // A slot that is missing here was lost: it is never made without its snapshot.
    const opening = yield* openReplicationStream(walProgress, { ...options, createSlot: undefined } as StreamOptions)
    const deliverKept = (changes: NonEmptyReadonlyArray<Change>) => {
      const kept = filter === undefined ? changes : filter.keepAll(changes)
      return isReadonlyArrayNonEmpty(kept) ? deliver(kept) : Effect.void
    }
    return yield* runOpening(opening, deliverKept, hasBegun)
  })
  yield* Effect.gen(function* () {
    const { filter } = yield* takeSnapshot({ ...options, progress }, deliverSnapshot)
    if (options.snapshot !== "only") return yield* Effect.scoped(stream(filter))
    yield* Queue.end(elements)
    return undefined
  }).pipe(
    Effect.onError((cause) => Effect.andThen(Deferred.failCause(begun, cause), Queue.failCause(elements, cause))),
    Effect.provideService(Metric.CurrentMetricAttributes, { slot: options.slot }),
    Effect.annotateLogs({ slot: options.slot }),
    Effect.forkScoped({ startImmediately: true })
  )
  yield* Deferred.await(begun)

  const acknowledgeThrough = (unit: NextLsn) =>
    WalProgress.updateWalProgress(walProgress, (current) => WalProgress.acknowledgeThrough(current, unit))
  return SnapshotReplication.of({
    changes: new Source().stream(Queue.take(elements)),
    acknowledgeChange: (change) => {
      const unit = nextLsn(change)
      return unit === undefined ? marks.acknowledge(change) : acknowledgeThrough(unit)
    },
    acknowledgeMark: (mark) => marks.acknowledge(mark),
    acknowledge: (unit) =>
      WalProgress.updateWalProgress(walProgress, (current) => WalProgress.acknowledge(current, unit)),
    acknowledgeThrough,
    progress: Effect.map(
      Effect.all([Ref.get(walProgress), SubscriptionRef.get(progress)]),
      ([{ pending, received, reported }, snapshot]) => ({ received, flushed: reported, pending, snapshot })
    )
  })
})

/**
 * The service over a {@link WalSender}. Building it connects, and sets the snapshot up; it does not try again by itself.
 * A snapshot that breaks off leaves nothing: build the Layer anew, and it begins from its beginning.
 *
 * @example
 * const program = Effect.gen(function* () {
 *   const replication = yield* Snapshot.SnapshotReplication
 *   yield* replication.changes.pipe(
 *     Snapshot.changes([Orders]),
 *     Stream.runForEach((change) => Effect.andThen(store(change), replication.acknowledgeChange(change)))
 *   )
 * }).pipe(
 *   Effect.provide(Snapshot.layer({ slot: "orders", plugin, snapshot: "initial" })),
 *   Effect.retry({ while: (error) => error.isRetryable, schedule: defaultReconnect })
 * )
 */
export const layer = (
  options: SnapshotReplicationOptions
): Layer.Layer<SnapshotReplication, SnapshotError, WalSender> => Layer.effect(SnapshotReplication, make(options))
