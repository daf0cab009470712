/**
 * One connection by hand: its changes as a Stream, what acknowledges them, and how far both are. For programs that compose the
 * stream themselves; `run` of the same `LogicalStream` is the shorter way, and reconnects.
 *
 * A mark stands between rows and changes: an element that says "all before me must be durable now". A handler says so by
 * ending; a stream cannot see what becomes of what it gave, so here the consumer says it.
 */

import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Ref from "effect/Ref"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type Change, nextLsn } from "../change/Change.ts"
import type { NextLsn } from "../change/NextLsn.ts"
import { type Transaction, TransactionFold, wholeTransactions } from "../change/Transaction.ts"
import type { SeamFilter } from "../copying/SeamFilter.ts"
import type * as Lsn from "../Lsn.ts"
import { InvalidOption, type ReplicationError } from "../ReplicationError.ts"
import type { ConnectionState } from "../replication/ConnectionState.ts"
import type { HeldLease } from "../replication/HeldLease.ts"
import { openReplicationStream } from "../replication/OpenStream.ts"
import { ReadsAhead } from "../replication/ReadsAhead.ts"
import { type ChangeArray, runOpening } from "../replication/ReplicationStream.ts"
import type { IdentifySystem } from "../server/IdentifySystem.ts"
import type { WalSender } from "../server/WalSender.ts"
import type { SnapshotChange, SnapshotCompleted, SnapshotRangeCompleted } from "../snapshot/SnapshotChange.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"
import type { TableSnapshotChange } from "../snapshot/TableSnapshotChange.ts"
import { type Continuity, sessionOf, whileHeld } from "./ConnectionRun.ts"
import { doneBefore, type FirstCopy, tryFirstCopy } from "./FirstCopy.ts"
import * as Handler from "./Handler.ts"
import type { Delivered, Failure, Options } from "./LogicalStreamOptions.ts"
import { type RowsBeside, withRowsBeside } from "./RowsBeside.ts"

/** How far the stream and its consumer are. */
export interface Progress {
  readonly received: Lsn.Lsn
  /** What the server has been told is flushed. */
  readonly flushed: Lsn.Lsn
  /** Units delivered and not acknowledged, or behind one that is not. */
  readonly pending: number
}

/** An element before which everything must be durable: it is not brought again then, and nothing comes before that is said. */
export type SnapshotMark = SnapshotRangeCompleted | SnapshotCompleted

/** One connection: what it brings, and what acknowledges that. */
export interface Delivery<C, E> {
  /**
   * Everything, in order, at least once. The arrays of the source are kept whole. Fails when the connection does; ends after
   * the `SnapshotCompleted` of a snapshot by itself, and never otherwise. Can be run once: a second run would not see what the
   * first had taken.
   *
   * **Nothing comes after a mark until it is acknowledged**: `SnapshotCompleted`, and `SnapshotRangeCompleted` where
   * checkpoints are kept. So gather rows up to the next mark, or by time, and not by number alone.
   */
  readonly changes: Stream.Stream<C, E>
  /**
   * This unit is done. In any order: the server hears of the longest finished prefix. An acknowledgement of another
   * connection is void, since what it covers is delivered again.
   */
  readonly acknowledge: (nextLsn: NextLsn) => Effect.Effect<void>
  /** This unit and every one delivered before it are done. For a consumer that takes one at a time, or in order. */
  readonly acknowledgeThrough: (nextLsn: NextLsn) => Effect.Effect<void>
  /**
   * This element, and everything delivered before it, is durable: acknowledges the unit that it ends, or the mark that
   * it is, and nothing where it is neither.
   */
  readonly acknowledgeChange: (change: Parameters<typeof nextLsn>[0]) => Effect.Effect<void>
  readonly progress: Effect.Effect<Progress>
  /** Fails when the connection does, whoever reads it; ends never. To be raced with what consumes in fibers of its own. */
  readonly ended: Effect.Effect<never, E>
}

/** A connection that brings committed changes and nothing else. */
export interface PlainDelivery<E> extends Delivery<Change, E> {
  /** The same changes, gathered by transaction. Fails with `TransactionTooLarge` beyond `memory.maxTransactionBytes`. */
  readonly transactions: Stream.Stream<Transaction, E>
  /** The cluster we stream from. */
  readonly system: IdentifySystem
}

/** What a stream of these options is, by hand. */
export type DeliveryOf<O> = [Delivered<O>] extends [Change]
  ? PlainDelivery<Failure<O>>
  : Delivery<Delivered<O>, Failure<O>>

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

/** What is waited for once it is handed over: after a snapshot by itself comes nothing that would have to wait. */
const isWaitedFor = (change: { readonly _tag: string }, { snapshot }: Options): change is SnapshotMark =>
  change._tag === "SnapshotRangeCompleted" || (change._tag === "SnapshotCompleted" && snapshot !== "only")

/** Everything that any stream delivers. */
type Anything = Change | SnapshotChange | TableSnapshotChange

type Arrays = Handler.Read<Anything>

/** Hands over to whoever takes from the queue; a mark once it is acknowledged. */
const feed = (reads: ReadsAhead<Arrays, SnapshotError | Cause.Done>, marks: Marks, copy: FirstCopy, session: Current) =>
  Handler.make<Anything>((made) =>
    Effect.sync(() => {
      session.current = made
      return (read) => {
        const [first] = read.changes
        // Waited for before it is handed over: the answer may come at once.
        return isWaitedFor(first, copy.options)
          ? Effect.all([marks.wait(first), reads.offer(read)], { concurrency: "unbounded", discard: true })
          : reads.offer(read)
      }
    })
  )

/** The session that acknowledgements go to: of the copy first, then of the stream. */
interface Current {
  current: Handler.Session | undefined
}

/** The next whole transactions: reads that end none are taken in, and the next is waited for. */
const pullTransactions = Effect.fnUntraced(function* <E>(
  take: Effect.Effect<Arrays, E>,
  fold: TransactionFold
): Effect.fn.Return<Arr.NonEmptyReadonlyArray<Transaction>, E | ReplicationError> {
  while (true) {
    const { bytes, changes } = yield* take
    const transactions = fold.fold(changes as ReadonlyArray<Change>, bytes)
    if (!Array.isArray(transactions)) return yield* transactions
    if (Arr.isReadonlyArrayNonEmpty(transactions)) return transactions
  }
})

/** What is delivered once, to one of the streams over it: a second would miss what the first had taken. */
const sourceOf = (): (<A, E>(
  pull: Effect.Effect<NonEmptyReadonlyArray<A>, E>
) => Stream.Stream<A, Exclude<E, Cause.Done> | InvalidOption>) => {
  let isTaken = false
  return (pull) =>
    Stream.fromPull(
      Effect.suspend(() => {
        if (isTaken) {
          const problem = "these changes have been consumed: open the stream anew to take them again"
          return Effect.fail(new InvalidOption({ option: "changes", problem }))
        }
        isTaken = true
        return Effect.succeed(pull)
      })
    )
}

/** A stream to be opened. */
export interface Opening extends RowsBeside {
  readonly continuity: Continuity
  /** Under which it runs, if it does. */
  readonly lease: HeldLease | undefined
  readonly onState: (state: ConnectionState) => Effect.Effect<void>
}

/** A connection of any options. */
export type AnyDelivery = Delivery<Anything, SnapshotError> & PlainDelivery<SnapshotError>

/** What {@link open} gives. */
export interface Opened {
  readonly delivery: AnyDelivery
  /** Before this is so, no failure is the connection's. */
  readonly hasEnded: Effect.Effect<boolean>
}

/** A read as the stream hands it over: it tells who notes it of the last unit, and nobody else. */
const readOf = (read: ChangeArray): Handler.Read<Change> => read

/** The stream, once the rows are handed over. */
const deliverChanges = Effect.fnUntraced(function* (
  opening: Opening,
  filter: SeamFilter | undefined,
  handler: Handler.Handler<Anything>,
  onBegun: (system: IdentifySystem) => Effect.Effect<unknown>
): Effect.fn.Return<never, SnapshotError, WalSender> {
  const { continuity, copy, lease, onState } = opening
  const { options } = copy
  const { observer, onConnecting, onStreaming, patience, progress, resume } = continuity
  const { vitals } = observer
  const stream = (kept: Handler.Handler<Change>, checked: Options) =>
    Effect.gen(function* () {
      yield* onConnecting
      const opened = { resume: resume(), patience: patience(), inProgress: options.inProgress, onState, vitals }
      const begun = yield* openReplicationStream(progress, checked, opened)
      yield* onBegun(begun.system)
      const session = sessionOf(options, { progress, observer, isOver: () => false, fail: () => Effect.void })
      const consume = yield* observer.noted(kept).make(session)
      return yield* runOpening(
        begun,
        (changes, bytes, last) => consume(readOf({ changes, bytes, last })),
        onStreaming(begun.system)
      )
    })
  return yield* withRowsBeside(opening, filter, handler, (kept, checked) =>
    Effect.scoped(stream(whileHeld(lease, kept), checked))
  )
})

/** Opens a stream: it is there once its first element is, or the stream has begun. The scope ends it in good order. */
export const open = Effect.fnUntraced(function* (
  opening: Opening
): Effect.fn.Return<Opened, SnapshotError, WalSender | Scope.Scope> {
  const { continuity, copy } = opening
  const { options } = copy
  const reads = new ReadsAhead<Arrays, SnapshotError | Cause.Done>()
  const begun = yield* Deferred.make<IdentifySystem | undefined, SnapshotError>()
  const ended = yield* Deferred.make<never, SnapshotError>()
  const marks = new Marks()
  const session: Current = { current: undefined }
  const handler = feed(reads, marks, copy, session)
  const hasRows = Deferred.succeed(begun, undefined)
  const rows: Handler.Handler<SnapshotChange> = {
    make: (made) => Effect.map(handler.make(made), (consume) => (read) => Effect.andThen(hasRows, consume(read)))
  }
  yield* Effect.gen(function* () {
    const { snapshot } = options
    const { filter } = yield* snapshot === "never" || snapshot === undefined
      ? doneBefore(copy)
      : tryFirstCopy(copy, continuity.observer.noted(whileHeld(opening.lease, rows)))
    if (snapshot === "only") return yield* reads.fail(Cause.fail(Cause.Done()))
    return yield* deliverChanges(opening, filter, handler, (system) => Deferred.succeed(begun, system))
  }).pipe(
    Effect.onError((cause) =>
      Effect.all([Deferred.failCause(begun, cause), Deferred.failCause(ended, cause), reads.fail(cause)])
    ),
    Effect.forkScoped({ startImmediately: true })
  )
  const system = yield* Deferred.await(begun)

  const source = sourceOf()
  /** What cannot be written down must not pass for acknowledged. */
  const acknowledging = (acknowledge: (session: Handler.Session) => Effect.Effect<void, SnapshotError>) =>
    Effect.suspend(() => (session.current === undefined ? Effect.void : acknowledge(session.current))).pipe(
      Effect.catchCause((cause) => Effect.andThen(Deferred.failCause(ended, cause), reads.fail(cause)))
    )
  const acknowledgeThrough = (unit: NextLsn) => acknowledging((current) => current.acknowledgeThrough(unit))
  const delivery = {
    changes: source(Effect.map(reads.take, ({ changes }) => changes)),
    transactions: Stream.unwrap(
      Effect.as(
        Effect.fromResult(wholeTransactions(options.plugin)),
        source(pullTransactions(reads.take, new TransactionFold(options.memory?.maxTransactionBytes)))
      )
    ),
    acknowledge: (unit) => acknowledging((current) => current.acknowledge(unit)),
    acknowledgeThrough,
    acknowledgeChange: (change) => {
      const unit = nextLsn(change)
      return unit === undefined ? marks.acknowledge(change) : acknowledgeThrough(unit)
    },
    progress: Effect.map(Ref.get(continuity.progress), ({ pending, received, reported }) => ({
      received,
      flushed: reported,
      pending
    })),
    ended: Deferred.await(ended),
    system: system as IdentifySystem
  } as AnyDelivery
  return { delivery, hasEnded: Deferred.isDone(ended) }
})
