/**
 * No question waits for ever, and none is given up for being long. Watches one connection: where an answer is due and nothing
 * moves for a while, another connection asks what the server is doing about it.
 *
 * Silence alone proves nothing: a slot waits for old transactions, a lock for its holder, a COPY for the first row that its
 * filter lets through. A backend that waits for its client has answered, or never got the question; one that is gone will not
 * answer; and where the server cannot be reached at all, nor can the answer. Then the connection is closed, and whoever waits
 * on it fails. What the watch sees are bytes and waits, whoever asks: nobody has to remember a time limit.
 */
import { ConnectionError } from "@replicant/core"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

/**
 * What another connection was told of a backend.
 *
 * - `Working`: on the question, or waiting for something else than us.
 * - `Waiting`: for us, who wait for it.
 * - `Gone`: there is no such backend any more.
 * - `Unreachable`: nobody answers there.
 * - `Unknown`: somebody does, and would not tell.
 */
export type Standing = "Working" | "Waiting" | "Gone" | "Unreachable" | "Unknown"

/** A connection, as the watch sees it. */
export interface Watched {
  /** As errors write it. */
  readonly address: string
  /** Whether an answer is due. */
  readonly isWaiting: () => boolean
  /** Another text after each byte that came or went, and each new question. */
  readonly moved: () => string
  readonly askStanding: Effect.Effect<Standing>
  readonly giveUp: (error: ConnectionError) => void
}

/** Into how many pieces the limit is cut. A piece that ends late was not attended: the answer may lie there unread. */
const pieces = 10

/** A timer may be this late, in milliseconds, on a machine that is merely busy. */
const usualDelay = 250

/** Where nobody would tell, this many limits pass in silence before it counts as dead. */
const mostUnknown = 10

const monotonicMillis = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos) / 1_000_000)

const reasons = {
  Waiting: "the server waits for us: the connection is broken",
  Gone: "its backend is gone",
  Unreachable: "the server cannot be reached",
  Unknown: "what the server is doing could not be asked"
} as const

/** Watches for as long as the connection lives. `limit` is milliseconds. */
export const watchAnswers = Effect.fnUntraced(function* (
  { address, askStanding, giveUp, isWaiting, moved }: Watched,
  limit: number
): Effect.fn.Return<void> {
  const piece = limit / pieces
  let at = yield* monotonicMillis
  let mark = ""
  let silent = 0
  let total = 0
  let unknown = 0
  while (true) {
    yield* Effect.sleep(piece)
    const now = yield* monotonicMillis
    const passed = now - at
    at = now
    const isSilent = () => isWaiting() && moved() === mark
    if (!isSilent()) {
      mark = moved()
      silent = total = unknown = 0
      continue
    }
    if (passed >= piece + usualDelay) continue
    silent += passed
    total += passed
    if (silent < limit) continue
    silent = 0
    const standing = yield* askStanding
    // What was under way may have come meanwhile.
    if (!isSilent()) continue
    yield* Effect.logDebug(`${address}: no answer for ${Math.round(total)} ms, and the server is ${standing}`)
    unknown = standing === "Unknown" ? unknown + 1 : 0
    if (standing === "Working" || (standing === "Unknown" && unknown < mostUnknown)) continue
    const detail = `connection to ${address}: no answer for ${Math.round(total)} ms, and ${reasons[standing]}`
    return giveUp(new ConnectionError({ reason: "TimedOut", detail }))
  }
})
