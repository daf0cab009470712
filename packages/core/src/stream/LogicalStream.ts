/**
 * The whole of it in one call: connect, find or create the slot, stream, hand over, acknowledge what the handler says is
 * durable, reconnect while that helps, and leave in good order.
 *
 * The handler runs in a fiber of its own, so that losing the connection does not cancel what is under way: its result
 * counts, and only then is a new connection made. When the program is interrupted the handler gets `shutdownTimeout`.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import type * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Ref from "effect/Ref"
import type * as Schedule from "effect/Schedule"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { Change } from "../change/Change.ts"
import type { ChangeInProgress } from "../change/InProgress.ts"
import type { Handled, NextLsn } from "../change/NextLsn.ts"
import type { InProgressMode } from "../change/OutputPlugin.ts"
import { type Transaction, TransactionFold, wholeTransactions } from "../change/Transaction.ts"
import { monotonicMillis } from "../MonotonicTime.ts"
import type { ReplicationError } from "../ReplicationError.ts"
import * as Metrics from "../replication/Metrics.ts"
import { type ConnectionOptions, openReplicationStream } from "../replication/OpenStream.ts"
import type { ReadsAhead } from "../replication/ReadsAhead.ts"
import {
  Attempts,
  defaultReconnect,
  isLoud,
  isStumble,
  locate,
  notGettingOn,
  provenMillis
} from "../replication/Reconnect.ts"
import { type ChangeArray, readAhead } from "../replication/ReplicationStream.ts"
import type { ResumeFrom } from "../replication/StartPosition.ts"
import type { StreamState, StreamStateRef } from "../replication/StreamState.ts"
import * as WalProgress from "../replication/WalProgress.ts"
import type { WalSender } from "../server/WalSender.ts"
import type { ReplicationOptions } from "./Replication.ts"

export type { Handled } from "../change/NextLsn.ts"
export { defaultReconnect } from "../replication/Reconnect.ts"
export type { Checkpoint, CheckpointOptions } from "../replication/StartPosition.ts"
export { makeStreamState, type StreamState, type StreamStateRef } from "../replication/StreamState.ts"
export type { SlotPolicy } from "../server/SlotSetup.ts"

/** A stream that reconnects by itself: when it does, and how it ends. */
export interface LogicalStreamOptions extends ReplicationOptions {
  /**
   * When to try again after a failure that may pass. Left out: within 250 ms, doubled with jitter up to 10 s, for ever,
   * and from the beginning again once a connection has streamed for 30 s. What is tried again and again at one position is
   * told in the log, as an error: after 3 attempts, and after twice as many each time.
   */
  readonly reconnect?: Schedule.Schedule<unknown, ReplicationError> | undefined
  /** How long the running handler may take to end when the program is interrupted: 5 s. Then it is interrupted. */
  readonly shutdownTimeout?: Duration.Input | undefined
  /** Told every change of state: whether it streams, waits, or reconnects and why. {@link makeStreamState} makes one. */
  readonly state?: StreamStateRef | undefined
}

/** A failure on its way past our retries: the handler's own, or one that no other connection mends. */
class Final<E> extends Data.TaggedError("Final")<{ readonly error: E }> {}

/** What the consumer needs to know of its connection. */
interface Session {
  /** Hand nothing more over: the connection is lost, or the program is leaving. */
  isOver: boolean
  readonly acknowledge: (nextLsn: NextLsn) => Effect.Effect<void>
}

type Reads = ReadsAhead<ChangeArray, ReplicationError>

/** Takes what one read brought. Made anew for each connection, with whatever it keeps between reads. */
type Consume<E, R> = (read: ChangeArray) => Effect.Effect<void, E | ReplicationError, R>
type MakeConsume<E, R> = (session: Session) => Consume<E, R>

/** Takes reads until the stream fails, or until it is told that it is over. */
const consumeReads = Effect.fnUntraced(function* <E, R>(
  reads: Reads,
  consume: Consume<E, R>
): Effect.fn.Return<never, ReplicationError | Final<E | ReplicationError>, R> {
  while (true) {
    const read = yield* reads.take
    // One span a read: the parent of whatever spans the handler opens.
    yield* Effect.withSpan(
      Effect.mapError(consume(read), (error) => new Final({ error })),
      "Replicant.handleChanges",
      { attributes: { changes: read.changes.length, bytes: read.bytes } }
    ) as Effect.Effect<void, Final<E | ReplicationError>, R>
  }
})

/** Lets the running handler end, within its time; then the connection may say goodbye with its last acknowledgement. */
const leave = <A, E>(reads: Reads, consumer: Fiber.Fiber<A, E>, timeout: Duration.Input): Effect.Effect<void> =>
  reads.shutdown.pipe(
    Effect.andThen(Effect.timeoutOption(Fiber.await(consumer), timeout)),
    Effect.andThen(Fiber.interrupt(consumer))
  )

/** One connection: what it is opened with, and what is told once it streams. */
interface SessionOptions {
  readonly progress: WalProgress.WalProgressRef
  readonly options: LogicalStreamOptions
  readonly connection: ConnectionOptions
  readonly onStreaming: (resume: ResumeFrom) => Effect.Effect<void>
}

/** One connection, from opening to its failure. */
const runSession = <E, R>(
  { connection, onStreaming, options, progress }: SessionOptions,
  makeConsume: MakeConsume<E, R>
): Effect.Effect<never, ReplicationError | Final<E | ReplicationError>, R | WalSender> =>
  Effect.scoped(
    Effect.gen(function* () {
      const opening = yield* openReplicationStream(progress, options, connection)
      const session: Session = {
        isOver: false,
        acknowledge: (nextLsn) =>
          WalProgress.updateWalProgress(progress, (current) => WalProgress.acknowledgeThrough(current, nextLsn))
      }
      const leaveOff = () => {
        session.isOver = true
      }
      // Where the server stumbles over a change, what came before it is handed over: each attempt would bring it anew.
      const onEnd = (cause: Cause.Cause<ReplicationError>) => {
        if (!isStumble(cause)) leaveOff()
      }
      const reads = yield* readAhead(opening, { onStart: onStreaming(opening.system), onEnd })
      return yield* Effect.uninterruptibleMask((restore) =>
        Effect.gen(function* () {
          const consume = consumeReads(reads, makeConsume(session))
          const consumer = yield* Effect.forkChild(Effect.interruptible(consume), { startImmediately: true })
          const timeout = options.shutdownTimeout ?? "5 seconds"
          return yield* Effect.onInterrupt(restore(Fiber.join(consumer)), () => {
            leaveOff()
            return leave(reads, consumer, timeout)
          })
        })
      )
    })
  ) as Effect.Effect<never, ReplicationError | Final<E | ReplicationError>, R | WalSender>

/** Sessions one after the other, while what ended the last one may pass. */
const runForever = Effect.fnUntraced(function* <E, R>(
  options: LogicalStreamOptions,
  makeConsume: MakeConsume<E, R>,
  inProgress: InProgressMode = "gather"
): Effect.fn.Return<never, ReplicationError | E, R | WalSender> {
  const progress = yield* WalProgress.make
  const attempts = new Attempts()
  let resume: ResumeFrom | undefined
  let streamingSince: number | undefined
  const onState = (state: StreamState): Effect.Effect<void> =>
    options.state === undefined ? Effect.void : SubscriptionRef.set(options.state, state)
  const onStreaming = Effect.fnUntraced(function* ({ pid, systemId, timeline }: ResumeFrom) {
    if (resume !== undefined) {
      yield* Metric.update(Metrics.reconnects, 1)
      yield* Effect.logInfo("streaming again")
    }
    resume = { systemId, timeline, pid }
    streamingSince = yield* monotonicMillis
    yield* onState({ _tag: "Streaming", systemId, timeline })
  })
  const session = Effect.suspend(() => {
    streamingSince = undefined
    const connection = { resume, inProgress, onState, patience: attempts.patience }
    return runSession({ progress, options, connection, onStreaming }, makeConsume)
  })
  const attempt = Effect.catch(session, (error) =>
    Effect.gen(function* () {
      if (error._tag === "Final") return yield* error
      const done = WalProgress.resumeLsn(yield* Ref.get(progress))
      if (!attempts.next(error, done)) return yield* new Final({ error: locate(error, done) })
      const { count } = attempts
      yield* onState({ _tag: "Reconnecting", attempt: count, cause: error })
      yield* Metric.update(Metrics.attempts, count)
      yield* isLoud(count)
        ? Effect.logError(notGettingOn(error, count, done))
        : Effect.logWarning(`reconnecting (${count}) after ${error._tag}: ${error.message}`)
      const proven = streamingSince !== undefined && (yield* monotonicMillis) - streamingSince >= provenMillis
      // Success starts the schedule from its beginning.
      return proven ? undefined : yield* Effect.fail(error)
    })
  )
  const schedule = options.reconnect ?? defaultReconnect
  return yield* Effect.forever(
    Effect.retry(attempt, {
      while: (error) => error._tag !== "Final",
      schedule: schedule as Schedule.Schedule<unknown, ReplicationError | Final<unknown>>
    })
  ).pipe(
    Effect.catchTag("Final", (final) => Effect.fail(final.error as E | ReplicationError)),
    Effect.ensuring(onState({ _tag: "Stopped" })),
    Effect.annotateLogs({ slot: options.slot }),
    Effect.provideService(Metric.CurrentMetricAttributes, { slot: options.slot })
  ) as Effect.Effect<never, ReplicationError | E, R | WalSender>
})

/** Hands each change to the handler, and acknowledges what it returns. The stream's mode says which changes there are. */
const oneByOne =
  <C extends ChangeInProgress, E, R>(handler: (change: C) => Effect.Effect<Handled, E, R>): MakeConsume<E, R> =>
  (session) =>
    Effect.fnUntraced(function* ({ changes }) {
      for (const change of changes as ReadonlyArray<ChangeInProgress> as ReadonlyArray<C>) {
        if (session.isOver) return
        const done = yield* handler(change)
        if (done !== undefined) yield* session.acknowledge(done)
      }
    })

/**
 * Streams every change of a slot through `handler`, one after the other, and acknowledges what it returns: mostly
 * `nextLsn(change)` once the change is stored, or `undefined` for "nothing durable yet". Returning one covers everything
 * delivered before it, so a handler may gather several transactions and return the last one's.
 *
 * Delivery is at least once and in commit order. The handler's own failure ends the stream, is never retried here, and
 * acknowledges nothing. Runs until it fails or is interrupted.
 *
 * @example
 * withLogicalStream(
 *   { slot: "orders", plugin: Pgoutput.make({ publications: ["orders"] }), createSlot: "permanent" },
 *   (change) => store(change).pipe(Effect.as(nextLsn(change)))
 * )
 */
export const withLogicalStream = <E, R>(
  options: LogicalStreamOptions,
  handler: (change: Change) => Effect.Effect<Handled, E, R>
): Effect.Effect<never, ReplicationError | E, R | WalSender> => runForever<E, R>(options, oneByOne(handler))

/**
 * The same for a handler that takes many changes at a time: those of one read, in order, whatever transactions they
 * belong to. The fastest way to consume a stream. It returns the `nextLsn` of the last unit that is durable.
 */
export const withLogicalStreamArray = <E, R>(
  options: LogicalStreamOptions,
  handler: (changes: NonEmptyReadonlyArray<Change>) => Effect.Effect<Handled, E, R>
): Effect.Effect<never, ReplicationError | E, R | WalSender> =>
  runForever<E, R>(options, (session) =>
    Effect.fnUntraced(function* ({ changes }) {
      if (session.isOver) return
      const done = yield* handler(changes)
      if (done !== undefined) yield* session.acknowledge(done)
    })
  )

/**
 * The same with transactions in progress as they come, for a plugin that is `streaming`: each change of one is a
 * `Streamed`, and counts once its `StreamCommit` comes. Nothing is gathered, so however large a transaction is, memory
 * stays flat; what is to become of it until then is the handler's. After a reconnection each begins anew.
 *
 * @example
 * const plugin = Pgoutput.make({ publications: ["orders"], streaming: "parallel" })
 * withInProgressStream({ slot: "orders", plugin }, (change) => stage(change).pipe(Effect.as(nextLsn(change))))
 */
export const withInProgressStream = <E, R>(
  options: LogicalStreamOptions,
  handler: (change: ChangeInProgress) => Effect.Effect<Handled, E, R>
): Effect.Effect<never, ReplicationError | E, R | WalSender> => runForever<E, R>(options, oneByOne(handler), "deliver")

/**
 * The same by whole transactions. What the handler finishes is acknowledged, nothing else need be said. A transaction
 * beyond `maxTransactionBytes` fails with `TransactionTooLarge` before it fills memory.
 */
export const withTransactionStream = <E, R>(
  options: LogicalStreamOptions,
  handler: (transaction: Transaction) => Effect.Effect<unknown, E, R>
): Effect.Effect<never, ReplicationError | E, R | WalSender> =>
  Effect.andThen(
    Effect.fromResult(wholeTransactions(options.plugin)),
    runForever<E, R>(options, (session) => {
      const fold = new TransactionFold(options.maxTransactionBytes)
      return Effect.fnUntraced(function* ({ bytes, changes }) {
        const transactions = fold.fold(changes, bytes)
        if (!Array.isArray(transactions)) return yield* transactions
        for (const transaction of transactions) {
          if (session.isOver) return
          yield* handler(transaction)
          yield* session.acknowledge(transaction.nextLsn)
        }
      })
    })
  )
