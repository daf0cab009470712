/**
 * The fiber that tells the walsender how far we are, whatever the consumer does, and notices when nobody answers.
 *
 * It reads nothing: what must be answered reaches it through `demands`. Status updates go out unasked, since a demand may
 * sit unread behind data while a slow consumer holds the socket back. Nor does it give anybody up for being slow: before a
 * verdict it has another connection ask whether the walsender is at work (`WalSenderStanding.ts`).
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Ref from "effect/Ref"
import type * as Lsn from "../Lsn.ts"
import { monotonicMillis } from "../MonotonicTime.ts"
import * as PgTimestamp from "../PgTimestamp.ts"
import * as FrontendMessage from "../protocol/FrontendMessage.ts"
import { encodeStandbyStatusUpdate } from "../protocol/ReplicationMessage.ts"
import { ConnectionError, type ReplicationError, WalReceiverTimeout } from "../ReplicationError.ts"
import type { CopyBoth } from "../server/WalSender.ts"
import { isLoud } from "./Reconnect.ts"
import type { Vitals } from "./Vitals.ts"
import * as WalProgress from "./WalProgress.ts"
import type { Standing } from "./WalSenderStanding.ts"

/** All times in milliseconds. A time of 0 means off. */
export interface KeepAliveTimings {
  /** A status update at least this often: a third of `wal_sender_timeout`, 10 s at most. */
  readonly statusInterval: number
  /** How long an acknowledgement may wait for others to be reported with it. */
  readonly acknowledgeDelay: number
  /**
   * Silence while we are reading, after which another connection asks what the walsender is doing; a reply is asked for
   * at half of it.
   */
  readonly receiverTimeout: number
  /** How long that reply may take before the connection is given up without proof: where nobody can be asked. */
  readonly answerTimeout: number
}

/** Replies are merged: a server that is stopping asks in a tight loop. */
export const minReplyInterval = 100

/**
 * Who wakes later than this past the time it meant to has slept through part of the silence: bytes may be waiting to be
 * read. Reading gets as much time again before there is a verdict.
 */
export const grace = 250

/** How long to ask what the walsender is doing: as long again as it had to answer, within these limits. */
export const askTimeout = ({ receiverTimeout }: Pick<KeepAliveTimings, "receiverTimeout">): number =>
  Math.min(10_000, Math.max(2000, receiverTimeout / 2))

/** While it is being asked, the fiber looks this often for the answer. */
const askInterval = 50

/**
 * How often to look at least for what was acknowledged, in milliseconds, however soon it is to be reported: who looks each
 * millisecond burns a tenth of a processor for nothing. Just after something was delivered it looks as often as it may.
 */
export const slowestLook = 100

/** Acknowledgements that take long may wait this part of that time longer. */
const lookShare = 8

/** What the two fibers of one copy stream share. */
export interface WalReceiver {
  readonly copy: CopyBoth
  readonly progress: WalProgress.WalProgressRef
  /** Wakes the fiber that reports: for a demand, or since something was delivered that may soon be acknowledged. */
  readonly demands: Queue.Queue<void>
  /** Whether the walsender wants a status update now. */
  readonly demanded: { isSo: boolean }
  readonly timings: KeepAliveTimings
  /** Asks over another connection what the walsender is doing. */
  readonly askStanding: Effect.Effect<Standing>
  /** Where the stream began: the position has moved once more than this is reported. */
  readonly startLsn: Lsn.Lsn
  /** Since when the copy fiber waits for bytes, in monotonic milliseconds; `undefined` while it is not reading. */
  readonly reading: { since: number | undefined }
  readonly vitals: Vitals
}

/** One question about the walsender, and its answer once there is one. */
export interface Inquiry {
  readonly askedAt: number
  readonly answer?: { readonly standing: Standing; readonly at: number } | undefined
}

/** What the keep-alive fiber knows when it wakes. Times are monotonic milliseconds. */
export interface KeepAliveState {
  readonly now: number
  readonly lastSent: number
  readonly isDemanded: boolean
  /** There is an acknowledgement, or an idle position, that the server has not been told. */
  readonly hasAdvanced: boolean
  /** When the fiber was last woken, or last reported: what is acknowledged, is likely so soon after it. */
  readonly stirredAt: number
  readonly quietSince: number | undefined
  readonly lastPing: number | undefined
  /** How long after the time it meant to the fiber woke: its event loop was blocked, or the process suspended. */
  readonly late: number
  /** The last one; it says nothing of a silence that began later. */
  readonly inquiry: Inquiry | undefined
}

/** What to do now, or how many milliseconds to wait unless a demand comes first. */
export type KeepAliveAction =
  | { readonly _tag: "Report" }
  | { readonly _tag: "Ping" }
  | { readonly _tag: "Ask" }
  | { readonly _tag: "TimedOut"; readonly after: number; readonly standing: Exclude<Standing, "Working"> }
  | { readonly _tag: "Wait"; readonly millis: number }

/** Who was at work is asked about again after as long a silence, but not sooner than this; milliseconds. */
const leastAskAgain = 1000

/** What to do about a ping that went unanswered for as long as is usual. */
const unanswered = (
  { inquiry, now }: KeepAliveState,
  lastPing: number,
  { answerTimeout, receiverTimeout }: KeepAliveTimings
): KeepAliveAction => {
  if (inquiry === undefined || inquiry.askedAt < lastPing) return { _tag: "Ask" }
  if (inquiry.answer === undefined) return { _tag: "Wait", millis: askInterval }
  const { at, standing } = inquiry.answer
  if (standing === "Waiting" || standing === "Gone") return { _tag: "TimedOut", after: receiverTimeout, standing }
  const left = standing === "Unknown" ? lastPing + answerTimeout - now : Number.POSITIVE_INFINITY
  if (left <= 0) return { _tag: "TimedOut", after: receiverTimeout / 2 + answerTimeout, standing: "Unknown" }
  const again = at + Math.max(leastAskAgain, receiverTimeout) - now
  return again <= 0 ? { _tag: "Ask" } : { _tag: "Wait", millis: Math.min(left, again) }
}

const lookPause = (still: number): number => Math.min(slowestLook, still / lookShare)

/** Decides; the fiber carries it out. */
export const keepAliveTiming = (state: KeepAliveState, timings: KeepAliveTimings): KeepAliveAction => {
  const { now, quietSince } = state
  const waits: Array<number> = []
  const reportAt = (interval: number): boolean => {
    waits.push(state.lastSent + interval - now)
    return now - state.lastSent >= interval
  }
  if (state.isDemanded && reportAt(minReplyInterval)) return { _tag: "Report" }
  if (state.hasAdvanced && reportAt(timings.acknowledgeDelay)) return { _tag: "Report" }
  if (timings.receiverTimeout > 0 && quietSince !== undefined) {
    const half = timings.receiverTimeout / 2
    if (state.lastPing === undefined || state.lastPing <= quietSince) {
      if (now - quietSince >= half) return { _tag: "Ping" }
      waits.push(quietSince + half - now)
    } else {
      // Counted from our own ping: a sleep of ours must not pass for the server's silence.
      const limit = state.lastPing + half
      if (now < limit) waits.push(limit - now)
      else if (state.late >= grace) waits.push(grace)
      else {
        const action = unanswered(state, state.lastPing, timings)
        if (action._tag !== "Wait") return action
        waits.push(action.millis)
      }
    }
  } else if (timings.receiverTimeout > 0) {
    waits.push(timings.receiverTimeout / 2)
  }
  if (timings.statusInterval > 0 && reportAt(timings.statusInterval)) return { _tag: "Report" }
  // Acknowledgements do not wake the fiber, which would cost one wake each; it looks for them this often.
  if (!state.hasAdvanced) waits.push(Math.max(timings.acknowledgeDelay, lookPause(now - state.stirredAt)))
  return { _tag: "Wait", millis: Math.max(1, Math.min(...waits)) }
}

/** What a status update asks for. */
export interface StatusOptions {
  /** Asks the walsender for a keep-alive in return. */
  readonly ping?: boolean | undefined
}

/** Sends one status update, from the shared progress and nothing else. */
export const sendStatusUpdate = Effect.fnUntraced(function* (
  receiver: Pick<WalReceiver, "copy" | "progress" | "startLsn" | "vitals">,
  options: StatusOptions = {}
): Effect.fn.Return<Lsn.Lsn, ReplicationError> {
  const progress = yield* Ref.get(receiver.progress)
  const flushed = WalProgress.flushed(progress)
  const sendTime = PgTimestamp.fromMillis(yield* Clock.currentTimeMillis)
  yield* receiver.copy.send(
    FrontendMessage.copyData(
      encodeStandbyStatusUpdate({
        written: progress.received,
        flushed,
        applied: flushed,
        sendTime,
        replyRequested: options.ping === true
      })
    )
  )
  yield* WalProgress.updateWalProgress(receiver.progress, (current) => WalProgress.reportFlushed(current, flushed))
  if (flushed > receiver.startLsn) receiver.vitals.attempts = 0
  return flushed
})

/** A peer that takes nothing for as long as it may be silent is as good as silent, and must not stop the watch over it. */
const sendInTime = (receiver: WalReceiver, options: StatusOptions): Effect.Effect<Lsn.Lsn, ReplicationError> => {
  const { answerTimeout, receiverTimeout } = receiver.timings
  if (receiverTimeout === 0) return sendStatusUpdate(receiver, options)
  const limit = receiverTimeout / 2 + answerTimeout
  const detail = `the walsender took nothing of what it was told for ${limit} ms`
  return Effect.timeoutOrElse(sendStatusUpdate(receiver, options), {
    duration: limit,
    orElse: () => Effect.fail(new ConnectionError({ reason: "TimedOut", detail }))
  })
}

/** Has the question asked meanwhile: reports go on, since the walsender may be alive and count on them. */
const ask = Effect.fnUntraced(function* (
  { askStanding }: WalReceiver,
  onAnswer: (inquiry: Inquiry) => void
): Effect.fn.Return<Inquiry> {
  const inquiry: Inquiry = { askedAt: yield* monotonicMillis }
  yield* askStanding.pipe(
    Effect.flatMap((standing) =>
      Effect.map(monotonicMillis, (at) => onAnswer({ ...inquiry, answer: { standing, at } }))
    ),
    Effect.forkChild
  )
  return inquiry
})

/** Whether it was found so in the silence in which that ping was sent. */
const wasAtWork = (inquiry: Inquiry | undefined, lastPing: number): boolean =>
  inquiry?.answer?.standing === "Working" && inquiry.askedAt >= lastPing

/** Says that a silent walsender is waited for, louder as it lasts. */
const logWork = (silence: number, count: number): Effect.Effect<void> => {
  const text = `the walsender is at work and has said nothing for ${Math.round(silence / 1000)} s: it decodes what is not published, or much at once`
  if (isLoud(count)) return Effect.logWarning(text)
  return count === 1 ? Effect.logInfo(text) : Effect.void
}

/** Reports and watches until the connection fails. Succeeds never. */
export const keepAliveHandler = Effect.fnUntraced(function* (
  receiver: WalReceiver
): Effect.fn.Return<never, ReplicationError> {
  let lastSent = yield* monotonicMillis
  let lastPing: number | undefined
  let wakeAt = lastSent
  let stirredAt = lastSent
  let inquiry: Inquiry | undefined
  let worked = 0
  while (true) {
    const now = yield* monotonicMillis
    const progress = yield* Ref.get(receiver.progress)
    const hasAdvanced = WalProgress.flushed(progress) > progress.reported
    const quietSince = receiver.reading.since
    const late = now - wakeAt
    const isDemanded = receiver.demanded.isSo
    const state = { now, lastSent, isDemanded, hasAdvanced, stirredAt, quietSince, lastPing, late, inquiry }
    const action = keepAliveTiming(state, receiver.timings)
    wakeAt = action._tag === "Wait" ? now + action.millis : now
    switch (action._tag) {
      case "TimedOut":
        return yield* new WalReceiverTimeout({ receiverTimeout: action.after, walSender: action.standing })
      case "Ask":
        worked = lastPing !== undefined && wasAtWork(inquiry, lastPing) ? worked + 1 : 0
        if (worked > 0) yield* logWork(now - (quietSince ?? now), worked)
        inquiry = yield* ask(receiver, (answered) => {
          if (inquiry?.askedAt === answered.askedAt) inquiry = answered
        })
        break
      case "Wait":
        if ((yield* Effect.timeoutOption(Queue.take(receiver.demands), action.millis))._tag === "Some") {
          stirredAt = yield* monotonicMillis
        }
        break
      default:
        receiver.demanded.isSo = false
        yield* sendInTime(receiver, { ping: action._tag === "Ping" })
        lastSent = now
        if (action._tag === "Report" && hasAdvanced) stirredAt = now
        if (action._tag === "Ping") lastPing = now
    }
  }
})
