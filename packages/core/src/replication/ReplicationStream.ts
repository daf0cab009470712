/**
 * One copy stream under way: the two fibers and what they share.
 *
 * The copy-data fiber reads, decodes and hands on; the keep-alive fiber reports. They run under `Effect.raceFirst`:
 * neither can succeed, so whichever fails first decides, and the other is interrupted. For a consumer that keeps its own
 * position a third stores idle positions before they are reported.
 */
import { isReadonlyArrayNonEmpty, type NonEmptyReadonlyArray } from "effect/Array"
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Ref from "effect/Ref"
import type { Change } from "../change/Change.ts"
import type { NextLsn } from "../change/NextLsn.ts"
import type * as Lsn from "../Lsn.ts"
import { millisOf, monotonicMillis } from "../MonotonicTime.ts"
import type { ReplicationError } from "../ReplicationError.ts"
import type { WalSender } from "../server/WalSender.ts"
import type { CopyRead } from "./CopyData.ts"
import type { GatheredTransactions, OnChanges } from "./GatheredTransactions.ts"
import { hasGotOn, heedWarning, refineMissing, release } from "./HeldStream.ts"
import { keepAliveHandler, sendStatusUpdate, slowestLook } from "./KeepAlive.ts"
import * as Measures from "./Measures.ts"
import { logNotice, type Opening, openReplicationStream, type ReplicationStream, streamEnded } from "./OpenStream.ts"
import { waitMillis } from "./ReadPace.ts"
import { ReadsAhead } from "./ReadsAhead.ts"
import { isLoud } from "./Reconnect.ts"
import type { StreamOptions } from "./StreamOptions.ts"
import * as WalProgress from "./WalProgress.ts"

const markEnded = (stream: ReplicationStream): Effect.Effect<void> =>
  Effect.sync(() => {
    stream.pace.isEnded = true
  })

/** Decodes what was pulled, and says how long to wait before the next pull, which began at `now`. */
const decode = ({ copyData, maxReadWait, pace }: ReplicationStream, bytes: Uint8Array, now: number): CopyRead => {
  const read = copyData.decode(bytes)
  const { behindMillis } = copyData
  const recent = pace.recent.next(bytes.length, read.batch.changes.length, now - pace.lastRead)
  pace.wait = waitMillis({ ...recent, behindMillis }, maxReadWait)
  pace.lastRead = now
  return read
}

/**
 * Takes in one decoded read: progress first, so that no idle position overtakes what is about to be handed on. One step,
 * as there may be thousands of reads a second.
 */
const receive = (stream: ReplicationStream, read: CopyRead, now: number): Effect.Effect<void> =>
  Effect.contextWith((context) => {
    const { batch, isOpen } = read
    const { copyData, vitals } = stream
    const progress = WalProgress.receiveWal(Ref.getUnsafe(stream.progress), {
      received: read.received,
      isOpen,
      delivered: batch.delivered
    })
    vitals.hear(now, copyData.sentAt, copyData.behindMillis)
    // What is read beside the stream, and comes there again, is not counted twice.
    if (progress.confirm !== "nothing") {
      const { changes, delivered } = batch
      Measures.received(context, { bytes: read.bytes, changes: changes.length, transactions: delivered.length })
    }
    return Ref.set(stream.progress, progress)
  })

const demand = ({ demanded, demands }: ReplicationStream): Effect.Effect<unknown> =>
  Effect.suspend(() => {
    demanded.isSo = true
    return Queue.offer(demands, undefined)
  })

/** What a read says beside changes. */
const heed = (stream: ReplicationStream, read: CopyRead): Effect.Effect<void> =>
  Effect.andThen(
    read.replyRequested ? demand(stream) : Effect.void,
    Effect.forEach(read.notices, logNotice, { discard: true })
  )

/** What one read brought, with the transactions that were gathered in their places: decoded as they are handed on. */
const handOverGathered = Effect.fnUntraced(function* <E, R>(
  gathered: GatheredTransactions,
  { batch, bytes }: CopyRead,
  onChanges: OnChanges<E, R>
): Effect.fn.Return<void, ReplicationError | E, R> {
  const last = batch.delivered.at(-1)
  let from = 0
  for (const { index, replay } of batch.gathered) {
    const before = batch.changes.slice(from, index)
    if (isReadonlyArrayNonEmpty(before)) yield* onChanges(before, 0)
    yield* gathered.replay(replay, onChanges)
    from = index
  }
  const rest = batch.changes.slice(from)
  if (isReadonlyArrayNonEmpty(rest)) yield* onChanges(rest, bytes, last)
})

/** How long the last report may take on a connection that has failed: its peer may take nothing any more. */
const lastReportMillis = 2000

/** Reads, decodes and hands on: for ever, or until everything before a position has been handed on. */
const copyOutData = Effect.fnUntraced(function* <E, R>(
  stream: ReplicationStream,
  onChanges: OnChanges<E, R>,
  through?: Lsn.Lsn | undefined
): Effect.fn.Return<void, ReplicationError | E, R> {
  const { copy, copyData, gathered, pace, reading } = stream
  const clock = yield* Clock.Clock
  const pull = Effect.tapError(copy.pull, () => markEnded(stream))
  const fail = Effect.fnUntraced(function* (error: ReplicationError): Effect.fn.Return<never, ReplicationError> {
    // What is done is reported even so, though nothing of this connection is read any more.
    yield* Effect.ignore(Effect.timeout(sendStatusUpdate(stream), lastReportMillis))
    stream.pace.isEnded = true
    return yield* Effect.fail(yield* refineMissing(stream, error))
  })
  const isPrompt = stream.timings.acknowledgeDelay < slowestLook
  let rest: Uint8Array | undefined
  while (true) {
    let read = pace.first
    pace.first = undefined
    if (rest !== undefined) {
      read = copyData.decode(rest)
      rest = undefined
    } else if (read === undefined) {
      let now = millisOf(clock)
      const wait = pace.lastRead + pace.wait - now
      if (wait > 0) {
        yield* Effect.sleep(wait)
        now = millisOf(clock)
      }
      reading.since = now
      const bytes = yield* pull
      reading.since = undefined
      read = decode(stream, bytes, now)
    }
    yield* receive(stream, read, millisOf(clock))
    if (hasGotOn(stream, read)) yield* release(stream)
    // Who acknowledges at once is to be heard at once.
    if (isPrompt && read.batch.delivered.length > 0) yield* Queue.offer(stream.demands, undefined)
    if (read.replyRequested || read.notices.length > 0) yield* heed(stream, read)
    const { changes } = read.batch
    if (gathered !== undefined && read.batch.gathered.length > 0) yield* handOverGathered(gathered, read, onChanges)
    else if (isReadonlyArrayNonEmpty(changes)) yield* onChanges(changes, read.bytes, read.batch.delivered.at(-1))
    if (gathered !== undefined) yield* gathered.settle(copyData.gathering)
    if (read.warning !== undefined) {
      yield* Effect.catch(heedWarning(stream, read.warning, read.received), fail)
      rest = read.warning.rest
      continue
    }
    if (read.end === undefined) {
      if (through !== undefined && read.received >= through && !read.isOpen) return
      continue
    }
    if (read.end._tag === "Failed") return yield* fail(read.end.error)
    return yield* Effect.fail(streamEnded(read.end))
  }
})

/**
 * Reads, decodes and hands on, for ever. `onChanges` is awaited: until it is done nothing more is read, which is how a
 * slow consumer holds the walsender back.
 */
export const handleCopyOutData = <E, R>(
  stream: ReplicationStream,
  onChanges: OnChanges<E, R>
): Effect.Effect<never, ReplicationError | E, R> => Effect.andThen(copyOutData(stream, onChanges), Effect.never)

/** The longest that storing an idle position waits before it is tried again, in milliseconds. */
const mostStorePause = 60_000

const notStored = (failures: number): string =>
  `an idle position could not be stored${failures === 1 ? "" : `, ${failures} times now`}, and is not confirmed: the slot stands still`

/**
 * Has idle positions stored before they may be reported. It has a fiber of its own: a store that hangs holds back idle
 * positions, and nothing else.
 */
const storeIdleHandler = Effect.fnUntraced(function* (stream: ReplicationStream): Effect.fn.Return<never> {
  const { progress, storeIdleFlush, timings } = stream
  if (storeIdleFlush === undefined) return yield* Effect.never
  let failures = 0
  while (true) {
    const pause = Math.max(slowestLook, timings.acknowledgeDelay)
    yield* Effect.sleep(failures === 0 ? pause : Math.min(mostStorePause, Math.max(pause, 1000) * 2 ** failures))
    const idle = WalProgress.beyondIdleLimit(yield* Ref.get(progress))
    if (idle === undefined) continue
    // Its cause may hold anything: it stays out of our log.
    const isStored = yield* Effect.matchCause(storeIdleFlush(idle), { onFailure: () => false, onSuccess: () => true })
    if (!isStored) {
      failures++
      if (failures === 1 || isLoud(failures)) yield* Effect.logWarning(notStored(failures))
      continue
    }
    if (failures > 0) yield* Effect.logInfo("idle positions are stored again")
    failures = 0
    yield* WalProgress.updateWalProgress(progress, (current) => WalProgress.allowIdle(current, idle))
  }
})

/** Runs the fibers over an open stream until one fails, or the one that reads ends. */
const runFibers = <A, E, R>(
  stream: ReplicationStream,
  reading: Effect.Effect<A, E, R>
): Effect.Effect<A, ReplicationError | E, R> => {
  // Who does not answer hears no goodbye either: to wait for a reply to it would only hold up the next attempt.
  const keepAlive = Effect.tapError(keepAliveHandler(stream), () => markEnded(stream))
  const lost = Effect.map(monotonicMillis, (now) => stream.vitals.lost(now))
  const both = Effect.raceFirst(reading, keepAlive)
  const run = Effect.ensuring(stream.promoted === undefined ? both : Effect.raceFirst(both, stream.promoted), lost)
  return stream.storeIdleFlush === undefined ? run : Effect.raceFirst(run, storeIdleHandler(stream))
}

/** Runs an open stream until it fails. */
export const runReplicationStream = <E, R>(
  stream: ReplicationStream,
  onChanges: OnChanges<E, R>
): Effect.Effect<never, ReplicationError | E, R> => runFibers(stream, handleCopyOutData(stream, onChanges))

/** Runs an open stream until all that was committed before `lsn` has been handed on. */
export const readThrough = <E, R>(
  stream: ReplicationStream,
  lsn: Lsn.Lsn,
  onChanges: OnChanges<E, R>
): Effect.Effect<void, ReplicationError | E, R> => runFibers(stream, copyOutData(stream, onChanges, lsn))

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
  /** The last unit that ends in it, where one does and it was not gathered. */
  readonly last?: NextLsn | undefined
}

/** What to tell of a stream that runs ahead of its consumer. */
export interface ReadAheadOptions {
  /** The server has accepted. */
  readonly onStart?: Effect.Effect<void> | undefined
  /** The stream has failed so, though a read may still be held. */
  readonly onEnd?: ((cause: Cause.Cause<ReplicationError>) => void) | undefined
}

/**
 * Runs a stream one read ahead of the consumer, which keeps the decoder busy; a read may hold some thousand changes. Who
 * takes fails as the stream does, once what is held is taken; `onEnd` is told at once.
 */
export const readAhead = Effect.fnUntraced(function* (opening: Opening, options: ReadAheadOptions = {}) {
  const reads = new ReadsAhead<ChangeArray, ReplicationError>()
  const { onEnd = () => {}, onStart = Effect.void } = options
  yield* runOpening(opening, (changes, bytes, last) => reads.offer({ changes, bytes, last }), onStart).pipe(
    Effect.onError((cause) => {
      onEnd(cause)
      return reads.fail(cause)
    }),
    Effect.forkScoped({ startImmediately: true })
  )
  return reads
})

/**
 * Streams changes into `onChanges` until the connection or the handler fails.
 *
 * Every end of a copy stream, clean or not, is a failure; so reconnecting is to run this again.
 */
export const startReplicationStream = <E, R>(
  progress: WalProgress.WalProgressRef,
  options: StreamOptions,
  onChanges: OnChanges<E, R>
): Effect.Effect<never, ReplicationError | E, R | WalSender> =>
  Effect.scoped(
    Effect.flatMap(openReplicationStream(progress, options), (opening) => runOpening(opening, onChanges, Effect.void))
  ) as Effect.Effect<never, ReplicationError | E, R | WalSender>
