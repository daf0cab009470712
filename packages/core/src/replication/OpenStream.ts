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
import type { Gap } from "../change/Change.ts"
import type { InProgressMode } from "../change/OutputPlugin.ts"
import { type Starting, warningsAtStart } from "../doctor/AtStart.ts"
import { resolve } from "../doctor/Plan.ts"
import * as Lsn from "../Lsn.ts"
import { monotonicMillis } from "../MonotonicTime.ts"
import { defaultMaxFrameLength } from "../protocol/Frames.ts"
import * as FrontendMessage from "../protocol/FrontendMessage.ts"
import { startReplicationCommand } from "../protocol/ReplicationCommand.ts"
import {
  ConnectionError,
  InvalidOption,
  logText,
  PublicationMismatch,
  type ReplicationError,
  type ServerMessage
} from "../ReplicationError.ts"
import * as Catalog from "../server/Catalog.ts"
import { type IdentifySystem, identifySystem } from "../server/IdentifySystem.ts"
import { checkPublications } from "../server/Publication.ts"
import { type ConnectTimeout, WalSender } from "../server/WalSender.ts"
import type { DeclarationMismatch } from "../table/DeclarationMismatch.ts"
import type { ConnectionState } from "./ConnectionState.ts"
import { CopyData, type CopyRead, type StreamEnd } from "./CopyData.ts"
import * as GatheredTransactions from "./GatheredTransactions.ts"
import { askTimeout, type KeepAliveTimings, sendStatusUpdate, type WalReceiver } from "./KeepAlive.ts"
import { awaitPromotion } from "./Promotion.ts"
import { RecentReads } from "./ReadPace.ts"
import { enterGap, readySlot } from "./ReadySlot.ts"
import { awaitHandled } from "./SlotGap.ts"
import { askFindings, type Findings, type Stall } from "./Stall.ts"
import { type CheckpointOptions, checkSlotPosition, type ResumeFrom, resumeProgress } from "./StartPosition.ts"
import type { StreamOptions } from "./StreamOptions.ts"
import { Vitals } from "./Vitals.ts"
import * as WalProgress from "./WalProgress.ts"
import { askStanding } from "./WalSenderStanding.ts"

/** What the caller of one connection knows beside the stream's options. */
export interface ConnectionOptions {
  readonly resume?: ResumeFrom | undefined
  /** What the server is told to be done: what is; or nothing, so that the slot stays where it stands. */
  readonly confirm?: WalProgress.WalProgress["confirm"] | undefined
  /** What becomes of transactions in progress, where the plugin streams them: gathered, unless told otherwise. */
  readonly inProgress?: InProgressMode | undefined
  /** How many times as long as usual to wait before a silent walsender is given up without proof. */
  readonly patience?: number | undefined
  /** Told what the opening waits for. */
  readonly onState?: ((state: ConnectionState) => Effect.Effect<void>) | undefined
  /** Where the stream notes how it is; left out for one that nobody observes. */
  readonly vitals?: Vitals | undefined
}

/** A connection with its slot ready. */
export interface Opening {
  readonly system: ResumeFrom & IdentifySystem & { readonly isInRecovery: boolean }
  /** Must be handled, and acknowledged, before anything else comes. */
  readonly gap: Gap | undefined
  /** The stream; where there is a gap, once that is acknowledged. Taken once. */
  readonly start: Effect.Effect<ReplicationStream, ReplicationError>
}

/** An open copy stream: the server has accepted START_REPLICATION. */
export interface ReplicationStream extends WalReceiver {
  readonly system: IdentifySystem
  readonly copyData: CopyData
  readonly maxReadWait: number
  readonly storeIdleFlush: CheckpointOptions["storeIdleFlush"]
  /** Where transactions in progress are gathered, if they are. */
  readonly gathered: GatheredTransactions.GatheredTransactions | undefined
  /** What is streamed, and what is asked of the catalog about it when the server warns. */
  readonly publications: ReadonlyArray<string>
  readonly askFindings: Effect.Effect<Findings>
  /** Fails once the standby that is streamed from is none any more; `undefined` of a primary. */
  readonly promoted: Effect.Effect<never, ReplicationError> | undefined
  /** Why the server holds the stream back, and how far it had come by then. */
  readonly held: { by: (Stall & { readonly at: Lsn.Lsn }) | undefined }
  readonly onState: (state: ConnectionState) => Effect.Effect<void>
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

/** The longest that patience grows to, in milliseconds. */
const mostPatience = 3_600_000

/**
 * By default an answer may take as long as the server itself has patience with us: one that decodes reads our ping after
 * half of that.
 */
const timings = (options: StreamOptions, walSenderTimeout: number, patience: number): KeepAliveTimings => {
  const receiverTimeout = millis(options.timing?.receiverTimeout, 30_000)
  const half = receiverTimeout / 2
  const answerTimeout = options.timing?.receiverTimeout === undefined ? Math.max(half, walSenderTimeout) : half
  return {
    statusInterval: millis(
      options.timing?.statusInterval,
      walSenderTimeout === 0 ? 10_000 : Math.min(10_000, Math.floor(walSenderTimeout / 3))
    ),
    acknowledgeDelay: millis(
      options.timing?.acknowledgeDelay,
      Math.min(1000, walSenderTimeout === 0 ? 1000 : walSenderTimeout / 3)
    ),
    receiverTimeout,
    answerTimeout: Math.max(answerTimeout, Math.min(answerTimeout * patience, mostPatience))
  }
}

/** The walsender's notices are somebody's text: control characters stay out of our log. */
export const logNotice = (notice: ServerMessage): Effect.Effect<void> =>
  Effect.logWarning(logText(`${notice.severity} ${notice.sqlState}: ${notice.message}`))

/** How an end that is not an error fails: somebody must notice that nothing comes any more. */
export const streamEnded = (end: StreamEnd): ReplicationError =>
  end._tag === "Failed"
    ? end.error
    : new ConnectionError({ reason: "Closed", detail: "the walsender ended the stream: the server is stopping" })

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

/** No row of any use fits a shorter one. */
const leastFrameLength = 1024

/** A limit that is no number would be none. */
const checkedFrameLength = ({ memory }: StreamOptions): Effect.Effect<number, InvalidOption> => {
  const { maxFrameLength = defaultMaxFrameLength } = memory ?? {}
  return Number.isSafeInteger(maxFrameLength) &&
    maxFrameLength >= leastFrameLength &&
    maxFrameLength <= defaultMaxFrameLength
    ? Effect.succeed(maxFrameLength)
    : Effect.fail(
        new InvalidOption({
          option: "maxFrameLength",
          problem: `must be a whole number of bytes, from ${leastFrameLength} to ${defaultMaxFrameLength}`
        })
      )
}

/** Says what a doctor makes of what is known by now. */
const warn = Effect.fnUntraced(function* (
  { plugin, slot, timing }: StreamOptions,
  known: Omit<Starting, "asked">
): Effect.fn.Return<void, ReplicationError> {
  const { publications } = plugin.tells
  const asked = yield* resolve({ slot, plugin: plugin.name, publications, statusInterval: timing?.statusInterval })
  yield* Effect.forEach(warningsAtStart({ ...known, asked }), (text) => Effect.logWarning(text), { discard: true })
})

const withoutLimit: ConnectTimeout = (step) => step

const misfit = ({ problems, publications, remedy }: DeclarationMismatch): Effect.Effect<never, PublicationMismatch> => {
  const details = problems.map(({ detail }) => detail).join("; ")
  const problem = `does not fit the declared tables: ${details}`
  return Effect.fail(new PublicationMismatch({ publication: publications.join('", "'), problem, remedy }))
}

/**
 * Connects, pins the session, checks publications and slot, and starts replication, unless there is a gap to be handled
 * first. The scope that it runs in ends the stream in good order and closes the socket.
 */
export const openReplicationStream = Effect.fn("Replicant.openReplicationStream")(function* (
  progress: WalProgress.WalProgressRef,
  options: StreamOptions,
  {
    confirm = "done",
    inProgress = "gather",
    onState = () => Effect.void,
    patience = 1,
    resume,
    vitals = new Vitals()
  }: ConnectionOptions = {}
): Effect.fn.Return<Opening, ReplicationError, WalSender | Scope.Scope> {
  const { plugin, slot } = options
  const { publications } = plugin.tells
  const maxFrameLength = yield* checkedFrameLength(options)
  const walSender = yield* WalSender
  const connection = yield* walSender.connect
  const pluginOptions = yield* Effect.fromResult(plugin.options(connection.serverVersion))
  const isGathering = plugin.tells.inProgress && inProgress === "gather"
  const gathered = isGathering ? yield* GatheredTransactions.make(vitals) : undefined
  const inTime = connection.inConnectTimeout ?? withoutLimit
  yield* inTime(Catalog.pinSession(connection))
  const identified = yield* inTime(identifySystem(connection))
  const settings = yield* inTime(Catalog.serverSettings(connection))
  const { isInRecovery, pid, serverStart, walSenderTimeout } = settings
  const system = { ...identified, pid, serverStart, isInRecovery }
  const known = { progress: yield* Ref.get(progress), resume, options }
  const resumed = { ...(yield* resumeProgress(connection, system, known)), confirm, onDone: vitals.done }
  yield* inTime(checkPublications(connection, publications))
  if (options.check !== undefined) yield* Effect.catchTag(options.check(connection), "DeclarationMismatch", misfit)
  const ready = yield* readySlot({ connection, options, database: system.database, resume, onState })
  if (ready._tag === "Slot") yield* checkSlotPosition(ready.slot, known)
  yield* Ref.set(progress, resumed)
  const limits = timings(options, walSenderTimeout, patience)
  vitals.connected(
    {
      at: yield* monotonicMillis,
      end: system.xLogPos,
      confirmed: ready._tag === "Slot" ? (ready.slot.confirmedFlushLsn ?? Lsn.zero) : Lsn.zero
    },
    limits
  )
  const gap = ready._tag === "Lost" ? yield* enterGap(progress, slot, ready) : undefined

  let opened: ReplicationStream | undefined
  yield* Effect.addFinalizer(() =>
    opened === undefined
      ? Effect.void
      : Effect.ignore(Effect.timeout(endReplicationStream(opened), millis(options.timing?.closeTimeout, 2000)))
  )
  const start = Effect.gen(function* () {
    const startLsn = WalProgress.resumeLsn(yield* Ref.get(progress))
    const command = yield* Effect.fromResult(startReplicationCommand({ slot, startLsn, options: pluginOptions }))
    const copyData = new CopyData({
      plugin,
      inProgress,
      run: resumed.run,
      slices: connection.slices,
      context: { slot, publications, plugin: plugin.name },
      serverLsn: Lsn.max(system.xLogPos, startLsn),
      maxFrameLength
    })
    // Its transactions would have no place to be gathered in, and pass unseen.
    if (copyData.gathering !== undefined && gathered === undefined) {
      return yield* new InvalidOption({
        option: "plugin",
        problem: "gathers transactions, but is not said to stream them"
      })
    }
    opened = {
      copy: yield* inTime(connection.copyBoth(command, { mayBeSilent: true })),
      progress,
      demands: yield* Queue.sliding<void>(1),
      demanded: { isSo: false },
      timings: limits,
      askStanding: Effect.provideService(
        askStanding({ slot, pid, serverStart }, askTimeout(limits)),
        WalSender,
        walSender
      ),
      startLsn,
      reading: vitals.reading,
      vitals,
      storeIdleFlush: options.storeIdleFlush,
      system,
      copyData,
      maxReadWait: millis(options.timing?.maxReadWait, 20),
      gathered,
      publications,
      askFindings: Effect.provideService(askFindings({ slot, publications }, askTimeout(limits)), WalSender, walSender),
      promoted: isInRecovery
        ? Effect.provideService(awaitPromotion(serverStart, askTimeout(limits)), WalSender, walSender)
        : undefined,
      held: { by: undefined },
      onState,
      pace: { first: undefined, lastRead: yield* monotonicMillis, wait: 0, recent: new RecentReads(), isEnded: false }
    }
    yield* inTime(awaitStart(opened))
    // Once: a connection that comes after another would say the same.
    if (resume === undefined && confirm === "done" && ready._tag === "Slot") {
      yield* warn(options, { settings, slot: ready.slot, serverVersion: connection.serverVersion })
    }
    return opened
  })
  if (gap === undefined || ready._tag !== "Lost") {
    const stream = yield* start
    return { system, gap: undefined, start: Effect.succeed(stream) }
  }
  const { consistentPoint, reason } = gap
  const startAfterGap = Effect.gen(function* () {
    yield* onState({ _tag: "WaitingForGap", reason, consistentPoint })
    yield* awaitHandled(connection, gap)
    yield* ready.standIn.adopt
    return yield* start
  })
  return { system, gap, start: startAfterGap }
})
