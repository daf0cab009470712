/**
 * The fiber that tells the walsender how far we are, whatever the consumer does, and notices when nobody answers.
 *
 * It reads nothing: what must be answered reaches it through `demands`. Status updates go out unasked, since a demand may
 * sit unread behind data while a slow consumer holds the socket back.
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
import * as Measures from "./Measures.ts"
import * as WalProgress from "./WalProgress.ts"

/** All times in milliseconds. A time of 0 means off. */
export interface KeepAliveTimings {
  /** A status update at least this often: a third of `wal_sender_timeout`, 10 s at most. */
  readonly statusInterval: number
  /** How long an acknowledgement may wait for others to be reported with it. */
  readonly acknowledgeDelay: number
  /** Silence while we are reading, after which the connection is given up; a reply is asked for at half of it. */
  readonly receiverTimeout: number
}

/** Replies are merged: a server that is stopping asks in a tight loop. */
export const minReplyInterval = 100

/**
 * Who wakes later than this past the time it meant to has slept through part of the silence: bytes may be waiting to be
 * read. Reading gets as much time again before there is a verdict.
 */
export const grace = 250

/** What the two fibers of one copy stream share. */
export interface WalReceiver {
  readonly copy: CopyBoth
  readonly progress: WalProgress.WalProgressRef
  /** The walsender wants a status update now. */
  readonly demands: Queue.Queue<void>
  readonly timings: KeepAliveTimings
  /** Since when the copy fiber waits for bytes, in monotonic milliseconds; `undefined` while it is not reading. */
  readonly reading: { since: number | undefined }
}

/** What the keep-alive fiber knows when it wakes. Times are monotonic milliseconds. */
export interface KeepAliveState {
  readonly now: number
  readonly lastSent: number
  readonly isDemanded: boolean
  /** There is an acknowledgement, or an idle position, that the server has not been told. */
  readonly hasAdvanced: boolean
  readonly quietSince: number | undefined
  readonly lastPing: number | undefined
  /** How long after the time it meant to the fiber woke: its event loop was blocked, or the process suspended. */
  readonly late: number
}

/** What to do now, or how many milliseconds to wait unless a demand comes first. */
export type KeepAliveAction =
  | { readonly _tag: "Report" }
  | { readonly _tag: "Ping" }
  | { readonly _tag: "TimedOut" }
  | { readonly _tag: "Wait"; readonly millis: number }

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
      if (now >= limit && state.late < grace) return { _tag: "TimedOut" }
      waits.push(now >= limit ? grace : limit - now)
    }
  } else if (timings.receiverTimeout > 0) {
    waits.push(timings.receiverTimeout / 2)
  }
  if (timings.statusInterval > 0 && reportAt(timings.statusInterval)) return { _tag: "Report" }
  // Acknowledgements do not wake the fiber, which would cost one wake each; it looks for them this often.
  if (!state.hasAdvanced) waits.push(timings.acknowledgeDelay)
  return { _tag: "Wait", millis: Math.max(1, Math.min(...waits)) }
}

/** What a status update asks for. */
export interface StatusOptions {
  /** Asks the walsender for a keep-alive in return. */
  readonly ping?: boolean | undefined
}

/** Sends one status update, from the shared progress and nothing else. */
export const sendStatusUpdate = Effect.fnUntraced(function* (
  receiver: Pick<WalReceiver, "copy" | "progress">,
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
  yield* Measures.reported(flushed)
  return flushed
})

/** A peer that takes nothing for as long as it may be silent is as good as silent, and must not stop the watch over it. */
const sendInTime = (receiver: WalReceiver, options: StatusOptions): Effect.Effect<Lsn.Lsn, ReplicationError> => {
  const { receiverTimeout } = receiver.timings
  if (receiverTimeout === 0) return sendStatusUpdate(receiver, options)
  const detail = `the walsender took nothing of what it was told for ${receiverTimeout} ms`
  return Effect.timeoutOrElse(sendStatusUpdate(receiver, options), {
    duration: receiverTimeout,
    orElse: () => Effect.fail(new ConnectionError({ reason: "TimedOut", detail }))
  })
}

/** Reports and watches until the connection fails. Succeeds never. */
export const keepAliveHandler = Effect.fnUntraced(function* (
  receiver: WalReceiver
): Effect.fn.Return<never, ReplicationError> {
  let lastSent = yield* monotonicMillis
  let lastPing: number | undefined
  let isDemanded = false
  let wakeAt = lastSent
  while (true) {
    const now = yield* monotonicMillis
    const progress = yield* Ref.get(receiver.progress)
    const hasAdvanced = WalProgress.flushed(progress) > progress.reported
    const quietSince = receiver.reading.since
    const late = now - wakeAt
    const state = { now, lastSent, isDemanded, hasAdvanced, quietSince, lastPing, late }
    const action = keepAliveTiming(state, receiver.timings)
    wakeAt = action._tag === "Wait" ? now + action.millis : now
    switch (action._tag) {
      case "TimedOut":
        return yield* new WalReceiverTimeout({ receiverTimeout: receiver.timings.receiverTimeout })
      case "Wait":
        isDemanded =
          (yield* Effect.timeoutOption(Queue.take(receiver.demands), action.millis))._tag === "Some" || isDemanded
        break
      default:
        yield* sendInTime(receiver, { ping: action._tag === "Ping" })
        lastSent = now
        isDemanded = false
        if (action._tag === "Ping") lastPing = now
    }
  }
})
