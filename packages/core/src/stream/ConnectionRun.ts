/**
 * A stream over one connection after the other: opened, handed to a handler that is made anew for each, and opened again
 * while what ended the last one may pass.
 *
 * The handler runs in a fiber of its own, so that losing the connection does not cancel what is under way: its result
 * counts, and only then is a new connection made. When the program is interrupted the handler gets `shutdownTimeout`.
 */
import type * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Ref from "effect/Ref"
import * as Schedule from "effect/Schedule"
import type { Change } from "../change/Change.ts"
import { monotonicMillis } from "../MonotonicTime.ts"
import type { ReplicationError } from "../ReplicationError.ts"
import type { ConnectionState } from "../replication/ConnectionState.ts"
import type { HeldLease } from "../replication/HeldLease.ts"
import * as Metrics from "../replication/Metrics.ts"
import { type ConnectionOptions, openReplicationStream } from "../replication/OpenStream.ts"
import type { ReadsAhead } from "../replication/ReadsAhead.ts"
import {
  Attempts,
  Final,
  isLoud,
  isStumble,
  locate,
  notGettingOn,
  provenMillis,
  type Retrying,
  retrying
} from "../replication/Reconnect.ts"
import { type ChangeArray, readAhead } from "../replication/ReplicationStream.ts"
import type { ResumeFrom } from "../replication/StartPosition.ts"
import * as WalProgress from "../replication/WalProgress.ts"
import type { WalSender } from "../server/WalSender.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"
import type { Consume, Handler, Session } from "./Handler.ts"
import type { Options } from "./LogicalStreamOptions.ts"
import type { Observer } from "./Observer.ts"

type Reads = ReadsAhead<ChangeArray, ReplicationError>

/** How one connection ends: by itself, or by what is not retried. */
type Ended<E> = ReplicationError | Final<E | SnapshotError>

/** Takes reads until the stream fails, or until it is told that it is over. */
const consumeReads = Effect.fnUntraced(function* <E, R>(
  reads: Reads,
  consume: Consume<Change, E, R>
): Effect.fn.Return<never, Ended<E>, R> {
  while (true) {
    const read = yield* reads.take
    // One span a read: the parent of whatever spans the handler opens.
    yield* Effect.withSpan(
      Effect.mapError(consume(read), (error) => new Final({ error })),
      "Replicant.handleChanges",
      { attributes: { changes: read.changes.length, bytes: read.bytes } }
    ) as Effect.Effect<void, Final<E | SnapshotError>, R>
  }
})

/** How often to look again whether a lease is ours, in milliseconds: in all likelihood we are interrupted before. */
const doubtInterval = 20

/** The handler, given nothing while the lease may be another's. */
export const whileHeld = <C, E, R>(lease: HeldLease | undefined, handler: Handler<C, E, R>): Handler<C, E, R> =>
  lease === undefined
    ? handler
    : {
        ...handler,
        make: (session) =>
          Effect.map(
            handler.make(session),
            (consume) => (read) =>
              Effect.andThen(
                Effect.repeat(lease.isCertain, {
                  until: (isCertain) => isCertain,
                  schedule: Schedule.spaced(doubtInterval)
                }),
                consume(read)
              )
          )
      }

/** Lets the running handler end, within its time; then the connection may say goodbye with its last acknowledgement. */
const leave = <A, E>(reads: Reads, consumer: Fiber.Fiber<A, E>, timeout: Duration.Input): Effect.Effect<void> =>
  reads.shutdown.pipe(
    Effect.andThen(Effect.timeoutOption(Fiber.await(consumer), timeout)),
    Effect.andThen(Fiber.interrupt(consumer))
  )

/** One connection: what it is opened with, and what is told once it streams. */
interface ConnectionRun {
  readonly progress: WalProgress.WalProgressRef
  readonly observer: Observer
  readonly options: Options
  readonly connection: ConnectionOptions
  readonly onStreaming: (resume: ResumeFrom) => Effect.Effect<void>
}

/** One connection, from opening to its failure. */
const runConnection = <E, R>(
  { connection, observer, onStreaming, options, progress }: ConnectionRun,
  handler: Handler<Change, E, R>
): Effect.Effect<never, Ended<E>, R | WalSender> =>
  Effect.scoped(
    Effect.gen(function* () {
      const opening = yield* openReplicationStream(progress, options, connection)
      let isOver = false
      const failed = yield* Deferred.make<never, Final<E | SnapshotError>>()
      const session = sessionOf<E>(options, {
        progress,
        observer,
        system: opening.system,
        isOver: () => isOver,
        fail: (error) => Effect.asVoid(Deferred.fail(failed, new Final({ error })))
      })
      // Where the server stumbles over a change, what came before it is handed over: each attempt would bring it anew.
      const onEnd = (cause: Cause.Cause<ReplicationError>) => {
        if (!isStumble(cause)) isOver = true
      }
      const reads = yield* readAhead(opening, { onStart: onStreaming(opening.system), onEnd })
      const consume = Effect.scoped(
        Effect.flatMap(
          Effect.mapError(handler.make(session), (error) => new Final({ error })),
          (taken) => Effect.raceFirst(consumeReads(reads, taken), Deferred.await(failed))
        )
      )
      return yield* Effect.uninterruptibleMask((restore) =>
        Effect.gen(function* () {
          const consumer = yield* Effect.forkChild(Effect.interruptible(consume), { startImmediately: true })
          const timeout = options.timing?.shutdownTimeout ?? "5 seconds"
          return yield* Effect.onInterrupt(restore(Fiber.join(consumer)), () => {
            isOver = true
            return leave(reads, consumer, timeout)
          })
        })
      )
    })
  ) as Effect.Effect<never, Ended<E>, R | WalSender>

/** What a stream knows of its slot, from one connection to the next; under a lease, from one run to the next. */
export interface Remembered {
  readonly progress: WalProgress.WalProgressRef
  /** Of the connection before; `undefined` for the first. */
  resume: ResumeFrom | undefined
}

/** Of a stream that has had no connection yet. */
export const makeRemembered: Effect.Effect<Remembered> = Effect.map(WalProgress.make, (progress) => ({
  progress,
  resume: undefined
}))

/** What outlives a connection: how far the stream is, which server it was, and how often it has failed. */
export interface Continuity {
  readonly progress: WalProgress.WalProgressRef
  readonly observer: Observer
  /** Of the connection before; `undefined` for the first. */
  readonly resume: () => ResumeFrom | undefined
  /** How many times as long the next attempt waits before it gives a silent walsender up without proof. */
  readonly patience: () => number
  /** Told when an attempt begins, and when it streams. */
  readonly onConnecting: Effect.Effect<void>
  readonly onStreaming: (resume: ResumeFrom) => Effect.Effect<void>
  /** How failures are retried. */
  readonly retry: Retrying<ReplicationError>
}

/** Of a run that is about to make its first connection. */
export const makeContinuity = (
  options: Options,
  observer: Observer,
  remembered: Remembered,
  onState: (state: ConnectionState) => Effect.Effect<void>
): Continuity => {
  const { progress } = remembered
  observer.begins(progress)
  const attempts = new Attempts()
  // Whoever has the slot now, it is no connection of ours.
  if (remembered.resume !== undefined) remembered.resume = { ...remembered.resume, pid: undefined }
  let streamingSince: number | undefined
  return {
    progress,
    observer,
    resume: () => remembered.resume,
    patience: () => attempts.patience,
    onConnecting: Effect.sync(() => {
      streamingSince = undefined
    }),
    onStreaming: Effect.fnUntraced(function* (system) {
      const { systemId, timeline } = system
      if (remembered.resume !== undefined) {
        yield* Metric.update(Metrics.reconnects, 1)
        yield* Effect.logInfo("streaming again")
      }
      remembered.resume = system
      streamingSince = yield* monotonicMillis
      yield* onState({ _tag: "Streaming", systemId, timeline })
    }),
    retry: {
      schedule: options.reconnect,
      decide: Effect.fnUntraced(function* (error) {
        const done = WalProgress.resumeLsn(yield* Ref.get(progress))
        if (!attempts.next(error, done)) return { _tag: "GiveUp", error: locate(error, done) }
        const hasGotOn = streamingSince !== undefined && (yield* monotonicMillis) - streamingSince >= provenMillis
        return { _tag: "Again", hasGotOn, attempt: attempts.count }
      }),
      onFailure: Effect.fnUntraced(function* (error, attempt) {
        yield* observer.retries(error, attempt)
        yield* onState({ _tag: "Reconnecting", attempt, cause: error })
        const done = WalProgress.resumeLsn(yield* Ref.get(progress))
        yield* isLoud(attempt)
          ? Effect.logError(notGettingOn(error, attempt, done))
          : Effect.logWarning(`reconnecting (${attempt}) after ${error._tag}: ${error.message}`)
      })
    }
  }
}

/** What a session needs of its connection. */
export interface SessionParts<E> extends Pick<Session<E>, "isOver" | "fail" | "system"> {
  readonly progress: WalProgress.WalProgressRef
  readonly observer: Observer
}

/** The session of a connection. */
export const sessionOf = <E>(
  { memory, plugin, slot }: Options,
  { fail, isOver, observer, progress, system }: SessionParts<E>
): Session<E> => ({
  slot,
  plugin,
  system,
  maxTransactionBytes: memory?.maxTransactionBytes,
  isOver,
  fail,
  durable: Effect.map(Ref.get(progress), ({ durable }) => durable),
  acknowledge: (unit) =>
    WalProgress.updateWalProgress(progress, (current) => {
      observer.acknowledging()
      return WalProgress.acknowledge(current, unit)
    }),
  acknowledgeThrough: (unit) =>
    WalProgress.updateWalProgress(progress, (current) => {
      observer.acknowledging()
      return WalProgress.acknowledgeThrough(current, unit)
    })
})

/** Connections one after the other, while what ended the last one may pass. */
export const runConnections = Effect.fnUntraced(function* <E, R>(
  options: Options,
  continuity: Continuity,
  handler: Handler<Change, E, R>,
  onState: (state: ConnectionState) => Effect.Effect<void>
): Effect.fn.Return<never, E | SnapshotError, R | WalSender> {
  const { observer, onConnecting, onStreaming, patience, progress, resume } = continuity
  const noted = observer.noted(handler)
  const connection = Effect.andThen(
    onConnecting,
    Effect.suspend(() => {
      const { vitals } = observer
      const opened = { resume: resume(), patience: patience(), inProgress: options.inProgress, onState, vitals }
      return runConnection({ progress, observer, options, connection: opened, onStreaming }, noted)
    })
  )
  return yield* retrying(connection, continuity.retry)
})
