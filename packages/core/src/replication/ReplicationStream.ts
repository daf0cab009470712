/**
 * One copy stream, from START_REPLICATION to its end: the two fibers, what they share, and the orderly farewell.
 *
 * The copy-data fiber reads, decodes and hands on; the keep-alive fiber reports. They run under `Effect.raceFirst`:
 * neither can succeed, so whichever fails first decides, and the other is interrupted.
 */
import { isReadonlyArrayNonEmpty, type NonEmptyReadonlyArray } from "effect/Array"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Ref from "effect/Ref"
import type * as Scope from "effect/Scope"
import type { Change } from "../change/Change.ts"
import type { OutputPlugin } from "../change/OutputPlugin.ts"
import * as Lsn from "../Lsn.ts"
import * as FrontendMessage from "../protocol/FrontendMessage.ts"
import { startReplicationCommand } from "../protocol/ReplicationCommand.ts"
import { ConnectionError, type ReplicationError, type ServerMessage, SystemMismatch } from "../ReplicationError.ts"
import * as Catalog from "./Catalog.ts"
import { CopyData, type CopyRead, type StreamEnd } from "./CopyData.ts"
import { type IdentifySystem, identifySystem } from "./IdentifySystem.ts"
import {
  type KeepAliveTimings,
  keepAliveHandler,
  monotonicMillis,
  sendStatusUpdate,
  type WalReceiver
} from "./KeepAlive.ts"
import * as Metrics from "./Metrics.ts"
import { checkPublications } from "./Publication.ts"
import { RecentReads, waitMillis } from "./ReadPace.ts"
import { setupReplicationSlot } from "./ReplicationSlot.ts"
import * as WalProgress from "./WalProgress.ts"
import { WalSender } from "./WalSender.ts"

/** Which slot is streamed, by which plugin, and with what patience. */
export interface StreamOptions {
  readonly slot: string
  readonly plugin: OutputPlugin
  /** Makes the slot when there is none. Left out, a missing slot is a failure: what it stood for is lost. */
  readonly createSlot?: "permanent" | "temporary" | undefined
  /** How long to wait while another connection streams from the slot: 5 minutes. 0 fails at once. */
  readonly slotInUseTimeout?: Duration.Input | undefined
  /** A status update at least this often: a third of the server's `wal_sender_timeout`, 10 s at most. */
  readonly statusInterval?: Duration.Input | undefined
  /** Silence while reading after which the connection is given up: 30 s; a ping goes out at half. 0 turns it off. */
  readonly receiverTimeout?: Duration.Input | undefined
  /** How long an acknowledgement may wait to be reported together with others: 1 s. */
  readonly acknowledgeDelay?: Duration.Input | undefined
  /** The longest the socket is left alone while the stream is behind, so that reads are large: 20 ms. 0 never waits. */
  readonly maxReadWait?: Duration.Input | undefined
  /** How long the walsender may take to end the stream in good order when we leave: 2 s. */
  readonly closeTimeout?: Duration.Input | undefined
}

/** What an earlier connection of this process saw: the next must lead to the same cluster. */
export interface ResumeFrom {
  readonly systemId: string
  readonly timeline: number
}

/** An open copy stream: the server has accepted START_REPLICATION. */
export interface ReplicationStream extends WalReceiver {
  readonly system: IdentifySystem
  readonly copyData: CopyData
  readonly maxReadWait: number
  /** The copy fiber's own. */
  readonly pace: Pace
}

/** Where the copy fiber stands between two reads. */
interface Pace {
  /** What came with the server's acceptance and is not handed on yet. */
  first: CopyRead | undefined
  /** When the last read began, and how long after it the next one may; both in milliseconds. */
  lastRead: number
  wait: number
  readonly recent: RecentReads
  /** Nothing more can be said or heard on this connection. */
  isEnded: boolean
}

const millis = (input: Duration.Input | undefined, fallback: number): number =>
  input === undefined ? fallback : Duration.toMillis(Duration.fromInputUnsafe(input))

const timings = (options: StreamOptions, walSenderTimeout: number): KeepAliveTimings => ({
  statusInterval: millis(
    options.statusInterval,
    walSenderTimeout === 0 ? 10_000 : Math.min(10_000, Math.floor(walSenderTimeout / 3))
  ),
  acknowledgeDelay: millis(
    options.acknowledgeDelay,
    Math.min(1000, walSenderTimeout === 0 ? 1000 : walSenderTimeout / 3)
  ),
  receiverTimeout: millis(options.receiverTimeout, 30_000)
})

/** The walsender's notices are somebody's text: control characters stay out of our log. */
const logNotice = (notice: ServerMessage): Effect.Effect<void> =>
  Effect.logWarning(`${notice.severity} ${notice.sqlState}: ${notice.message.replaceAll(/\p{Cc}/gu, " ")}`)

/** How an end that is not an error fails: somebody must notice that nothing comes any more. */
const streamEnded = (end: StreamEnd): ReplicationError =>
  end._tag === "Failed"
    ? end.error
    : new ConnectionError({ reason: "Closed", detail: "the walsender ended the stream: the server is stopping" })

/**
 * What of our progress holds on this connection. `0/0` lets the server go on from what it has confirmed. Within one
 * process we may know better: after a crash the server has forgotten acknowledgements since its last checkpoint, and our
 * own end LSN spares redelivery. Not on another timeline, whose WAL may differ from the one we know.
 */
const resumeProgress = (
  progress: WalProgress.WalProgress,
  system: IdentifySystem,
  resume: ResumeFrom | undefined
): Effect.Effect<WalProgress.WalProgress, SystemMismatch> => {
  if (resume === undefined) return Effect.succeed(WalProgress.initial())
  if (resume.systemId !== system.systemId) {
    return Effect.fail(new SystemMismatch({ property: "systemId", expected: resume.systemId, found: system.systemId }))
  }
  if (resume.timeline !== system.timeline) return Effect.succeed(WalProgress.initial())
  const done = WalProgress.resumeLsn(progress)
  return system.xLogPos < done
    ? Effect.fail(
        new SystemMismatch({ property: "position", expected: Lsn.format(done), found: Lsn.format(system.xLogPos) })
      )
    : Effect.succeed(WalProgress.restart(progress))
}

/**
 * Says goodbye: the last acknowledgement, CopyDone, and then reads until the server confirms, so that what was finished
 * is not sent again and the slot is free for the next. Whatever fails here was lost with the connection anyway.
 */
const endReplicationStream = (stream: ReplicationStream): Effect.Effect<void> =>
  Effect.gen(function* () {
    if (stream.pace.isEnded) return
    yield* sendStatusUpdate(stream)
    yield* stream.copy.send(FrontendMessage.copyDone)
    while (!stream.pace.isEnded) {
      const end = stream.copyData.skip(yield* stream.copy.pull)
      if (end !== undefined) stream.pace.isEnded = true
    }
  }).pipe(Effect.ignore)

/** Reads until the server has accepted the command, or refused it. */
const awaitStart = Effect.fnUntraced(function* (stream: ReplicationStream): Effect.fn.Return<void, ReplicationError> {
  while (!stream.copyData.isStreaming) {
    const read = stream.copyData.decode(yield* stream.copy.pull)
    yield* Effect.forEach(read.notices, logNotice, { discard: true })
    if (read.end !== undefined && !stream.copyData.isStreaming) {
      stream.pace.isEnded = true
      return yield* Effect.fail(streamEnded(read.end))
    }
    stream.pace.first = read
  }
})

/**
 * Connects, pins the session, checks publications and slot, and starts replication. The scope that it runs in ends the
 * stream in good order and closes the socket.
 */
export const openReplicationStream = Effect.fn("Replicant.openReplicationStream")(function* (
  progress: WalProgress.WalProgressRef,
  options: StreamOptions,
  resume?: ResumeFrom | undefined
): Effect.fn.Return<ReplicationStream, ReplicationError, WalSender | Scope.Scope> {
  const { plugin, slot } = options
  const connection = yield* (yield* WalSender).connect
  const pluginOptions = yield* Effect.fromResult(plugin.options(connection.serverVersion))
  yield* Catalog.pinSession(connection)
  const system = yield* identifySystem(connection)
  const { walSenderTimeout } = yield* Catalog.serverSettings(connection)
  const resumed = yield* resumeProgress(yield* Ref.get(progress), system, resume)
  yield* checkPublications(connection, plugin.publications)
  yield* setupReplicationSlot(connection, {
    slot,
    plugin: plugin.name,
    database: system.database,
    create: options.createSlot,
    inUseTimeout: millis(options.slotInUseTimeout, 300_000)
  })
  const startLsn = WalProgress.resumeLsn(resumed)
  const command = yield* Effect.fromResult(startReplicationCommand({ slot, startLsn, options: pluginOptions }))
  yield* Ref.set(progress, resumed)
  const stream: ReplicationStream = {
    copy: yield* connection.copyBoth(command),
    progress,
    demands: yield* Queue.sliding<void>(1),
    timings: timings(options, walSenderTimeout),
    reading: { since: undefined },
    system,
    copyData: new CopyData({
      plugin,
      run: resumed.run,
      slices: connection.slices,
      context: { slot, publications: plugin.publications, plugin: plugin.name },
      serverLsn: system.xLogPos
    }),
    maxReadWait: millis(options.maxReadWait, 20),
    pace: { first: undefined, lastRead: yield* monotonicMillis, wait: 0, recent: new RecentReads(), isEnded: false }
  }
  yield* Effect.addFinalizer(() =>
    Effect.ignore(Effect.timeout(endReplicationStream(stream), millis(options.closeTimeout, 2000)))
  )
  yield* awaitStart(stream)
  return stream
})

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

/**
 * Reads, decodes and hands on, for ever. `onChanges` is awaited: until it is done nothing more is read, which is how a
 * slow consumer holds the walsender back.
 */
export const handleCopyOutData = Effect.fnUntraced(function* <E, R>(
  stream: ReplicationStream,
  onChanges: OnChanges<E, R>
): Effect.fn.Return<never, ReplicationError | E, R> {
  while (true) {
    const read = yield* nextRead(stream)
    yield* receive(stream, read)
    if (isReadonlyArrayNonEmpty(read.batch.changes)) yield* onChanges(read.batch.changes, read.bytes)
    if (read.end === undefined) continue
    if (read.end._tag === "Failed") {
      // What is done is reported even so, though nothing of this connection is read any more.
      yield* Effect.ignore(sendStatusUpdate(stream))
      stream.pace.isEnded = true
    }
    return yield* Effect.fail(streamEnded(read.end))
  }
})

/** Runs both fibers over an open stream until one fails. */
export const runReplicationStream = <E, R>(
  stream: ReplicationStream,
  onChanges: OnChanges<E, R>
): Effect.Effect<never, ReplicationError | E, R> =>
  Effect.raceFirst(handleCopyOutData(stream, onChanges), keepAliveHandler(stream))

/** The changes of one read, and how many bytes it had. */
export interface ChangeArray {
  readonly changes: NonEmptyReadonlyArray<Change>
  readonly bytes: number
}

/** Reads decoded ahead of the consumer. One keeps the decoder busy; each may hold some thousand changes. */
const maxReadsAhead = 1

/**
 * Runs an open stream into a queue of the reads ahead of the consumer. The queue fails as the stream does, once what it
 * holds is taken; `onEnd` is told at once.
 */
export const readAhead = Effect.fnUntraced(function* (stream: ReplicationStream, onEnd: () => void = () => {}) {
  const queue = yield* Queue.bounded<ChangeArray, ReplicationError>(maxReadsAhead)
  yield* runReplicationStream(stream, (changes, bytes) => Queue.offer(queue, { changes, bytes })).pipe(
    Effect.onError((cause) => {
      onEnd()
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
    Effect.flatMap(openReplicationStream(progress, options), (stream) => runReplicationStream(stream, onChanges))
  ) as Effect.Effect<never, ReplicationError | E, R | WalSender>
