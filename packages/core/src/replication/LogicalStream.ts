/**
 * The whole of it in one call: connect, find or create the slot, stream, hand over, acknowledge what the handler says is
 * durable, reconnect while that helps, and leave in good order.
 *
 * The handler runs in a fiber of its own, so that losing the connection does not cancel what is under way: its result
 * counts, and only then is a new connection made. When the program is interrupted the handler gets `shutdownTimeout`.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import type { Change } from "../change/Change.ts"
import type { ChangeInProgress } from "../change/InProgress.ts"
import type { NextLsn } from "../change/NextLsn.ts"
import type { InProgressMode } from "../change/OutputPlugin.ts"
import { type Transaction, TransactionFold, wholeTransactions } from "../change/Transaction.ts"
import type { ReplicationError } from "../ReplicationError.ts"
import { monotonicMillis } from "./KeepAlive.ts"
import * as Metrics from "./Metrics.ts"
import { type ConnectionOptions, openReplicationStream, type ResumeFrom } from "./OpenStream.ts"
import type { ReplicationOptions } from "./Replication.ts"
import { type ChangeArray, readAhead } from "./ReplicationStream.ts"
import * as WalProgress from "./WalProgress.ts"
import type { WalSender } from "./WalSender.ts"

/** A stream that reconnects by itself: when it does, and how it ends. */
export interface LogicalStreamOptions extends ReplicationOptions {
  /**
   * When to try again after a failure that may pass. Left out: within 250 ms, doubled with jitter up to 10 s, for ever,
   * and from the beginning again once a connection has streamed for 30 s.
   */
  readonly reconnect?: Schedule.Schedule<unknown, ReplicationError> | undefined
  /** How long the running handler may take to end when the program is interrupted: 5 s. Then it is interrupted. */
  readonly shutdownTimeout?: Duration.Input | undefined
}

/** What a handler says: the end of what is durable now, with everything delivered before it; or nothing yet. */
export type Handled = NextLsn | undefined

/** First within 250 ms, then doubled up to 10 s, with jitter, for ever. */
export const defaultReconnect: Schedule.Schedule<unknown, ReplicationError> = Schedule.min([
  Schedule.exponential("200 millis"),
  Schedule.spaced("10 seconds")
]).pipe(Schedule.jittered)

/** A connection that streamed this long, in milliseconds, has proved itself: the next failure counts as the first. */
const provenMillis = 30_000

/**
 * Whether another connection may fare better. A slot that stayed in use for all of `slotInUseTimeout`, which is when its
 * pid is known, will not be had by asking again.
 */
const isWorthRetrying = (error: ReplicationError): boolean =>
  error.isRetryable && !(error._tag === "SlotInUse" && error.activePid !== undefined)

/** The handler's own failure on its way past our retries. */
class HandlerFailed<E> extends Data.TaggedError("HandlerFailed")<{ readonly error: E }> {}

/** What the consumer needs to know of its connection. */
interface Session {
  /** Hand nothing more over: the connection is lost, or the program is leaving. */
  isOver: boolean
  readonly acknowledge: (nextLsn: NextLsn) => Effect.Effect<void>
}

type Reads = Queue.Queue<ChangeArray, ReplicationError>

/** Takes what one read brought. Made anew for each connection, with whatever it keeps between reads. */
type Consume<E, R> = (read: ChangeArray) => Effect.Effect<void, E | ReplicationError, R>
type MakeConsume<E, R> = (session: Session) => Consume<E, R>

/** Takes reads until the stream fails, or until it is told that it is over. */
const consumeQueue = Effect.fnUntraced(function* <E, R>(
  queue: Reads,
  consume: Consume<E, R>
): Effect.fn.Return<never, ReplicationError | HandlerFailed<E | ReplicationError>, R> {
  while (true) {
    const read = yield* Queue.take(queue)
    // One span a read: the parent of whatever spans the handler opens.
    yield* Effect.withSpan(
      Effect.mapError(consume(read), (error) => new HandlerFailed({ error })),
      "Replicant.handleChanges",
      { attributes: { changes: read.changes.length, bytes: read.bytes } }
    ) as Effect.Effect<void, HandlerFailed<E | ReplicationError>, R>
  }
})

/** Lets the running handler end, within its time; then the connection may say goodbye with its last acknowledgement. */
const leave = <A, E>(queue: Reads, consumer: Fiber.Fiber<A, E>, timeout: Duration.Input): Effect.Effect<void> =>
  Queue.shutdown(queue).pipe(
    Effect.andThen(Effect.timeoutOption(Fiber.await(consumer), timeout)),
    Effect.andThen(Fiber.interrupt(consumer))
  )

/** One connection, from opening to its failure. */
const runSession = <E, R>(
  progress: WalProgress.WalProgressRef,
  options: LogicalStreamOptions,
  connection: ConnectionOptions,
  onStreaming: (resume: ResumeFrom) => Effect.Effect<void>,
  makeConsume: MakeConsume<E, R>
): Effect.Effect<never, ReplicationError | HandlerFailed<E | ReplicationError>, R | WalSender> =>
  Effect.scoped(
    Effect.gen(function* () {
      // A slot that was there, also a temporary one, is never made anew: what was committed since would be lost.
      const createSlot = connection.resume === undefined ? options.createSlot : undefined
      const stream = yield* openReplicationStream(progress, { ...options, createSlot }, connection)
      yield* onStreaming(stream.system)
      const session: Session = {
        isOver: false,
        acknowledge: (nextLsn) =>
          WalProgress.updateWalProgress(progress, (current) => WalProgress.acknowledgeThrough(current, nextLsn))
      }
      const end = () => {
        session.isOver = true
      }
      const queue = yield* readAhead(stream, end)
      return yield* Effect.uninterruptibleMask((restore) =>
        Effect.gen(function* () {
          const consume = consumeQueue(queue, makeConsume(session))
          const consumer = yield* Effect.forkChild(Effect.interruptible(consume), { startImmediately: true })
          const timeout = options.shutdownTimeout ?? "5 seconds"
          return yield* Effect.onInterrupt(restore(Fiber.join(consumer)), () => {
            end()
            return leave(queue, consumer, timeout)
          })
        })
      )
    })
  ) as Effect.Effect<never, ReplicationError | HandlerFailed<E | ReplicationError>, R | WalSender>

/** Sessions one after the other, while what ended the last one may pass. */
const runForever = Effect.fnUntraced(function* <E, R>(
  options: LogicalStreamOptions,
  makeConsume: MakeConsume<E, R>,
  inProgress: InProgressMode = "gather"
): Effect.fn.Return<never, ReplicationError | E, R | WalSender> {
  const progress = yield* WalProgress.make
  let resume: ResumeFrom | undefined
  let streamingSince: number | undefined
  const onStreaming = Effect.fnUntraced(function* (from: ResumeFrom) {
    if (resume !== undefined) {
      yield* Metric.update(Metrics.reconnects, 1)
      yield* Effect.logInfo("streaming again")
    }
    resume = { systemId: from.systemId, timeline: from.timeline }
    streamingSince = yield* monotonicMillis
  })
  const session = Effect.suspend(() => {
    streamingSince = undefined
    return runSession(progress, options, { resume, inProgress }, onStreaming, makeConsume)
  })
  const attempt = Effect.catch(session, (error) => {
    if (error._tag === "HandlerFailed" || !isWorthRetrying(error)) return Effect.fail(error)
    return Effect.gen(function* () {
      yield* Effect.logWarning(`reconnecting after ${error._tag}: ${error.message}`)
      const proven = streamingSince !== undefined && (yield* monotonicMillis) - streamingSince >= provenMillis
      // Success starts the schedule from its beginning.
      return proven ? undefined : yield* Effect.fail(error)
    })
  })
  const schedule = options.reconnect ?? defaultReconnect
  return yield* Effect.forever(
    Effect.retry(attempt, {
      while: (error) => error._tag !== "HandlerFailed" && isWorthRetrying(error),
      schedule: schedule as Schedule.Schedule<unknown, ReplicationError | HandlerFailed<unknown>>
    })
  ).pipe(
    Effect.catchTag("HandlerFailed", (failed) => Effect.fail(failed.error as E | ReplicationError)),
    Effect.annotateLogs({ slot: options.slot }),
    Effect.provideService(Metric.CurrentMetricAttributes, { slot: options.slot })
  ) as Effect.Effect<never, ReplicationError | E, R | WalSender>
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
): Effect.Effect<never, ReplicationError | E, R | WalSender> =>
  runForever<E, R>(options, (session) =>
    Effect.fnUntraced(function* ({ changes }) {
      for (const change of changes) {
        if (session.isOver) return
        const done = yield* handler(change)
        if (done !== undefined) yield* session.acknowledge(done)
      }
    })
  )

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
): Effect.Effect<never, ReplicationError | E, R | WalSender> =>
  runForever<E, R>(
    options,
    (session) =>
      Effect.fnUntraced(function* ({ changes }) {
        for (const change of changes as NonEmptyReadonlyArray<ChangeInProgress>) {
          if (session.isOver) return
          const done = yield* handler(change)
          if (done !== undefined) yield* session.acknowledge(done)
        }
      }),
    "deliver"
  )

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
