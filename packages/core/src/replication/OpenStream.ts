/**
 * From nothing to an open copy stream: connect, pin the session, check what is asked for, find or make the slot, and
 * START_REPLICATION. And back: the orderly farewell when the scope ends.
 *
 * What becomes of an open stream is in `ReplicationStream.ts`.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Ref from "effect/Ref"
import type * as Scope from "effect/Scope"
import type { InProgressMode, OutputPlugin } from "../change/OutputPlugin.ts"
import * as Lsn from "../Lsn.ts"
import * as FrontendMessage from "../protocol/FrontendMessage.ts"
import { startReplicationCommand } from "../protocol/ReplicationCommand.ts"
import { ConnectionError, type ReplicationError, type ServerMessage, SystemMismatch } from "../ReplicationError.ts"
import * as Catalog from "./Catalog.ts"
import { CopyData, type CopyRead, type StreamEnd } from "./CopyData.ts"
import * as GatheredTransactions from "./GatheredTransactions.ts"
import { type IdentifySystem, identifySystem } from "./IdentifySystem.ts"
import { type KeepAliveTimings, monotonicMillis, sendStatusUpdate, type WalReceiver } from "./KeepAlive.ts"
import { checkPublications } from "./Publication.ts"
import { RecentReads } from "./ReadPace.ts"
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

/** What the caller of one connection knows beside the stream's options. */
export interface ConnectionOptions {
  readonly resume?: ResumeFrom | undefined
  /** What becomes of transactions in progress, where the plugin streams them: gathered, unless told otherwise. */
  readonly inProgress?: InProgressMode | undefined
}

/** An open copy stream: the server has accepted START_REPLICATION. */
export interface ReplicationStream extends WalReceiver {
  readonly system: IdentifySystem
  readonly copyData: CopyData
  readonly maxReadWait: number
  /** Where transactions in progress are gathered, if they are. */
  readonly gathered: GatheredTransactions.GatheredTransactions | undefined
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
export const logNotice = (notice: ServerMessage): Effect.Effect<void> =>
  Effect.logWarning(`${notice.severity} ${notice.sqlState}: ${notice.message.replaceAll(/\p{Cc}/gu, " ")}`)

/** How an end that is not an error fails: somebody must notice that nothing comes any more. */
export const streamEnded = (end: StreamEnd): ReplicationError =>
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
  { inProgress = "gather", resume }: ConnectionOptions = {}
): Effect.fn.Return<ReplicationStream, ReplicationError, WalSender | Scope.Scope> {
  const { plugin, slot } = options
  const connection = yield* (yield* WalSender).connect
  const pluginOptions = yield* Effect.fromResult(plugin.options(connection.serverVersion))
  const isGathering = plugin.isStreaming === true && inProgress === "gather"
  const gathered = isGathering ? yield* GatheredTransactions.make : undefined
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
      inProgress,
      run: resumed.run,
      slices: connection.slices,
      context: { slot, publications: plugin.publications, plugin: plugin.name },
      serverLsn: system.xLogPos
    }),
    maxReadWait: millis(options.maxReadWait, 20),
    gathered,
    pace: { first: undefined, lastRead: yield* monotonicMillis, wait: 0, recent: new RecentReads(), isEnded: false }
  }
  yield* Effect.addFinalizer(() =>
    Effect.ignore(Effect.timeout(endReplicationStream(stream), millis(options.closeTimeout, 2000)))
  )
  yield* awaitStart(stream)
  return stream
})
