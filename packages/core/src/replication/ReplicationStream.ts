/**
 * One copy stream under way: the two fibers and what they share.
 *
 * The copy-data fiber reads, decodes and hands on; the keep-alive fiber reports. They run under `Effect.raceFirst`:
 * neither can succeed, so whichever fails first decides, and the other is interrupted. For a consumer that keeps its own
 * position a third stores idle positions before they are reported.
 */
import { isReadonlyArrayNonEmpty, type NonEmptyReadonlyArray } from "effect/Array"
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Ref from "effect/Ref"
import type { Change } from "../change/Change.ts"
import type { ReplicationError } from "../ReplicationError.ts"
import type { CopyRead } from "./CopyData.ts"
import type { GatheredTransactions } from "./GatheredTransactions.ts"
import { keepAliveHandler, monotonicMillis, sendStatusUpdate } from "./KeepAlive.ts"
import * as Metrics from "./Metrics.ts"
import {
  logNotice,
  type Opening,
  openReplicationStream,
  type ReplicationStream,
  type StreamOptions,
  streamEnded
} from "./OpenStream.ts"
import { waitMillis } from "./ReadPace.ts"
import * as WalProgress from "./WalProgress.ts"
import type { WalSender } from "./WalSender.ts"

const markEnded = (stream: ReplicationStream): Effect.Effect<void> =>
  Effect.sync(() => {
    stream.pace.isEnded = true
  })

/** Reads and decodes once, not before it pays to read. */
const nextRead = Effect.fnUntraced(function* (stream: ReplicationStream): Effect.fn.Return<CopyRead, ReplicationError> {
  const { copy, copyData, pace, reading } = stream
  const { first } = pace
  if (first !== undefined) {
    pace.first = undefined
    return first
  }
  const idle = (yield* monotonicMillis) - pace.lastRead
  if (pace.wait > idle) yield* Effect.sleep(pace.wait - idle)
  const now = yield* monotonicMillis
  reading.since = now
  const bytes = yield* Effect.tapError(copy.pull, () => markEnded(stream))
  reading.since = undefined
  const read = copyData.decode(bytes)
  const { behindMillis } = copyData
  const recent = pace.recent.next(bytes.length, read.batch.changes.length, now - pace.lastRead)
  const last = { ...recent, bytes: bytes.length, behindMillis }
  pace.wait = waitMillis(last, stream.maxReadWait)
  pace.lastRead = now
  return read
})

/** Takes in one decoded read: progress first, so that no idle position overtakes what is about to be handed on. */
const receive = Effect.fnUntraced(function* (stream: ReplicationStream, read: CopyRead) {
  const { batch } = read
  yield* WalProgress.updateWalProgress(stream.progress, (progress) =>
    WalProgress.receiveWal(progress, { received: read.received, isOpen: read.isOpen, delivered: batch.delivered })
  )
  if (read.replyRequested) yield* Queue.offer(stream.demands, undefined)
  if (read.notices.length > 0) yield* Effect.forEach(read.notices, logNotice, { discard: true })
  const { received, reported } = yield* Ref.get(stream.progress)
  yield* Metrics.received({
    bytes: read.bytes,
    changes: batch.changes.length,
    transactions: batch.delivered.length,
    received,
    flushed: reported,
    lagMillis: stream.copyData.behindMillis
  })
})

/** Takes what one read decoded to, and how many bytes it had. */
export type OnChanges<E, R> = (changes: NonEmptyReadonlyArray<Change>, bytes: number) => Effect.Effect<unknown, E, R>

/** What one read brought, with the transactions that were gathered in their places: decoded as they are handed on. */
const handOverGathered = Effect.fnUntraced(function* <E, R>(
  gathered: GatheredTransactions,
  { batch, bytes }: CopyRead,
  onChanges: OnChanges<E, R>
): Effect.fn.Return<void, ReplicationError | E, R> {
  let from = 0
  for (const { index, replay } of batch.gathered) {
    const before = batch.changes.slice(from, index)
    if (isReadonlyArrayNonEmpty(before)) yield* onChanges(before, 0)
    yield* gathered.replay(replay, onChanges)
    from = index
  }
  const rest = batch.changes.slice(from)
  if (isReadonlyArrayNonEmpty(rest)) yield* onChanges(rest, bytes)
})

/** How long the last report may take on a connection that has failed: its peer may take nothing any more. */
const lastReportMillis = 2000

/**
 * Reads, decodes and hands on, for ever. `onChanges` is awaited: until it is done nothing more is read, which is how a
 * slow consumer holds the walsender back.
 */
export const handleCopyOutData = Effect.fnUntraced(function* <E, R>(
  stream: ReplicationStream,
  onChanges: OnChanges<E, R>
): Effect.fn.Return<never, ReplicationError | E, R> {
  const { copyData, gathered } = stream
  while (true) {
    const read = yield* nextRead(stream)
    yield* receive(stream, read)
    const { changes } = read.batch
    if (gathered !== undefined && read.batch.gathered.length > 0) yield* handOverGathered(gathered, read, onChanges)
    else if (isReadonlyArrayNonEmpty(changes)) yield* onChanges(changes, read.bytes)
    if (gathered !== undefined) yield* gathered.settle(copyData.gathering)
    if (read.end === undefined) continue
    if (read.end._tag === "Failed") {
      // What is done is reported even so, though nothing of this connection is read any more.
      yield* Effect.ignore(Effect.timeout(sendStatusUpdate(stream), lastReportMillis))
      stream.pace.isEnded = true
    }
    return yield* Effect.fail(streamEnded(read.end))
  }
})

/**
 * Has idle positions stored before they may be reported. It has a fiber of its own: a store that hangs holds back idle
 * positions, and nothing else.
 */
const storeIdleHandler = Effect.fnUntraced(function* (stream: ReplicationStream): Effect.fn.Return<never> {
  const { progress, storeIdleFlush, timings } = stream
  if (storeIdleFlush === undefined) return yield* Effect.never
  while (true) {
    yield* Effect.sleep(Math.max(1, timings.acknowledgeDelay))
    const idle = WalProgress.beyondIdleLimit(yield* Ref.get(progress))
    if (idle === undefined) continue
    yield* Effect.matchCauseEffect(storeIdleFlush(idle), {
      // Its cause may hold anything: it stays out of our log.
      onFailure: () => Effect.logWarning("an idle position could not be stored, and is not confirmed"),
      onSuccess: () => WalProgress.updateWalProgress(progress, (current) => WalProgress.allowIdle(current, idle))
    })
  }
})

/** Runs the fibers over an open stream until one fails. */
export const runReplicationStream = <E, R>(
  stream: ReplicationStream,
  onChanges: OnChanges<E, R>
): Effect.Effect<never, ReplicationError | E, R> => {
  // Who does not answer hears no goodbye either: to wait for a reply to it would only hold up the next attempt.
  const keepAlive = Effect.tapError(keepAliveHandler(stream), () => markEnded(stream))
  const run = Effect.raceFirst(handleCopyOutData(stream, onChanges), keepAlive)
  return stream.storeIdleFlush === undefined ? run : Effect.raceFirst(run, storeIdleHandler(stream))
}

/** Hands the gap over, where there is one, then starts the stream and runs it. */
export const runOpening = Effect.fnUntraced(function* <E, R>(
  opening: Opening,
  onChanges: OnChanges<E, R>,
  onStart: Effect.Effect<void>
): Effect.fn.Return<never, ReplicationError | E, R> {
  if (opening.gap !== undefined) yield* onChanges([opening.gap], 0)
  const stream = yield* opening.start
  yield* onStart
  return yield* runReplicationStream(stream, onChanges)
})

/** The changes of one read, and how many bytes it had. */
export interface ChangeArray {
  readonly changes: NonEmptyReadonlyArray<Change>
  readonly bytes: number
}

/** Reads decoded ahead of the consumer. One keeps the decoder busy; each may hold some thousand changes. */
const maxReadsAhead = 1

/** What to tell of a stream that runs into a queue. */
export interface ReadAheadOptions {
  /** The server has accepted. */
  readonly onStart?: Effect.Effect<void> | undefined
  /** The stream has failed so, though the queue may still hold something. */
  readonly onEnd?: ((cause: Cause.Cause<ReplicationError>) => void) | undefined
}

/**
 * Runs a stream into a queue of the reads ahead of the consumer. The queue fails as the stream does, once what it holds is
 * taken; `onEnd` is told at once.
 */
export const readAhead = Effect.fnUntraced(function* (opening: Opening, options: ReadAheadOptions = {}) {
  const queue = yield* Queue.bounded<ChangeArray, ReplicationError>(maxReadsAhead)
  const { onEnd = () => {}, onStart = Effect.void } = options
  yield* runOpening(opening, (changes, bytes) => Queue.offer(queue, { changes, bytes }), onStart).pipe(
    Effect.onError((cause) => {
      onEnd(cause)
      return Queue.failCause(queue, cause)
    }),
    Effect.forkScoped({ startImmediately: true })
  )
  return queue
})

/**
 * Streams changes into `onChanges` until the connection or the handler fails.
 *
 * Every end of a copy stream, clean or not, is a failure; so reconnecting is a plain `Effect.retry` around this.
 */
export const startReplicationStream = <E, R>(
  progress: WalProgress.WalProgressRef,
  options: StreamOptions,
  onChanges: OnChanges<E, R>
): Effect.Effect<never, ReplicationError | E, R | WalSender> =>
  Effect.scoped(
    Effect.flatMap(openReplicationStream(progress, options), (opening) => runOpening(opening, onChanges, Effect.void))
  ) as Effect.Effect<never, ReplicationError | E, R | WalSender>
