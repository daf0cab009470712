/**
 * Whether a stream is well: one word for a probe, with the reasons for whoever is woken by it. A pure function of an
 * `Observation` and of thresholds, so that what is shown and what is alerted on cannot differ.
 *
 * A reason has two thresholds, from which on the stream is degraded and failing. Most are times, and begin with what they are
 * about: a handler that was given something, a server that fell silent. So a stream is never well for longer than its threshold
 * while one of these lasts.
 */
import * as Schema from "effect/Schema"
import type { Observation } from "./Observation.ts"

/** How well a stream is, in one word. */
export const Status = Schema.Literals(["ok", "degraded", "failing"])
export type Status = typeof Status.Type

/** Of which things a stream can be ill. */
export const Code = Schema.Literals([
  "NotRun",
  "Stopped",
  "NotStreaming",
  "ConnectionLost",
  "WaitingForGap",
  "HandlerStuck",
  "Stalled",
  "Silent",
  "Behind",
  "NotGettingOn",
  "ServerUnknown",
  "Parked",
  "ParkingStopped",
  "ConsumerEnded",
  "ConsumerLagging",
  /** Of a stream by itself never: of one whose WAL budget is watched. See `Watched.ts`. */
  "WalBudget"
])
export type Code = typeof Code.Type

/** One thing that a stream is ill of. */
export const Reason = Schema.Struct({
  code: Code,
  status: Schema.Literals(["degraded", "failing"]),
  /** When it began: milliseconds of Unix time, by our clock. */
  since: Schema.Number,
  /** In words, with what was seen. */
  says: Schema.String
})
export interface Reason extends Schema.Schema.Type<typeof Reason> {}

/** How a stream is. */
export const Health = Schema.Struct({
  status: Status,
  /** When the oldest reason for this status began; of a stream that is well, since when it has been: Unix milliseconds. */
  since: Schema.Number,
  /** None of one that is `ok`; the worst first. */
  reasons: Schema.Array(Reason)
})
export interface Health extends Schema.Schema.Type<typeof Health> {}

/** From when on a stream is degraded and failing for one reason: seconds, but for counts and bytes. `Infinity` is never. */
export interface Threshold {
  readonly degraded: number
  readonly failing: number
}

/** Each reason's threshold, where it is not the usual one. What is not given is as in {@link defaultThresholds}. */
export interface Thresholds {
  /** Made and never run: at once, 60 s. */
  readonly notRun?: Partial<Threshold> | undefined
  /** No connection that streams, and no copy under way: at once, 60 s. */
  readonly notStreaming?: Partial<Threshold> | undefined
  /** A connection was lost, and the handler is still at what it brought: at once, 60 s. */
  readonly connectionLost?: Partial<Threshold> | undefined
  /** A `Gap` is delivered and not acknowledged: at once, 300 s. */
  readonly waitingForGap?: Partial<Threshold> | undefined
  /** The handler is at one thing: 30 s, 120 s. More for one that takes large batches. */
  readonly handlerStuck?: Partial<Threshold> | undefined
  /** The server holds the stream back: at once, 300 s. */
  readonly stalled?: Partial<Threshold> | undefined
  /** Nothing came, though the server was listened to, and pinged: 30 s, 120 s. */
  readonly silent?: Partial<Threshold> | undefined
  /** Seconds that the oldest commit waits for its acknowledgement: 60 s, 600 s. Of no account while rows are copied. */
  readonly behindSeconds?: Partial<Threshold> | undefined
  /** Bytes of WAL from the confirmed position to the server's end: never, unless set. */
  readonly behindBytes?: Partial<Threshold> | undefined
  /** Failures since the position last moved: 3, 10. */
  readonly attempts?: Partial<Threshold> | undefined
  /** Seconds that the end of the server's WAL has not been known for: 60 s, never. */
  readonly serverUnknown?: Partial<Threshold> | undefined
  /** Dead letters that wait for somebody: 1, never. */
  readonly parked?: Partial<Threshold> | undefined
  /** So many were parked that it is taken for an outage, and the stream waits: at once, 300 s. */
  readonly parkingStopped?: Partial<Threshold> | undefined
  /** An optional consumer of a broadcast has failed, and is given nothing more: at once, never. */
  readonly consumerEnded?: Partial<Threshold> | undefined
  /** An optional consumer was left behind, and has not begun anew: 30 s, never. */
  readonly consumerLagging?: Partial<Threshold> | undefined
}

/** A threshold for every reason. */
export type AllThresholds = { readonly [Key in keyof Thresholds]-?: Threshold }

/** What holds where nothing else is set. */
export const defaultThresholds: AllThresholds = {
  notRun: { degraded: 0, failing: 60 },
  notStreaming: { degraded: 0, failing: 60 },
  connectionLost: { degraded: 0, failing: 60 },
  waitingForGap: { degraded: 0, failing: 300 },
  handlerStuck: { degraded: 30, failing: 120 },
  stalled: { degraded: 0, failing: 300 },
  silent: { degraded: 30, failing: 120 },
  behindSeconds: { degraded: 60, failing: 600 },
  behindBytes: { degraded: Number.POSITIVE_INFINITY, failing: Number.POSITIVE_INFINITY },
  attempts: { degraded: 3, failing: 10 },
  serverUnknown: { degraded: 60, failing: Number.POSITIVE_INFINITY },
  parked: { degraded: 1, failing: Number.POSITIVE_INFINITY },
  parkingStopped: { degraded: 0, failing: 300 },
  consumerEnded: { degraded: 0, failing: Number.POSITIVE_INFINITY },
  consumerLagging: { degraded: 30, failing: Number.POSITIVE_INFINITY }
}

/** What may be wrong: how much of it there is, against what, since when, and in which words. */
interface Symptom {
  readonly code: Code
  /** `undefined` where there is nothing of it. */
  readonly amount: number | undefined
  readonly threshold: keyof AllThresholds
  /** How many seconds ago it began. */
  readonly forSeconds: number
  readonly says: string
}

const isConnecting = ({ state }: Observation): boolean =>
  state === "Connecting" || state === "WaitingForSlot" || state === "Reconnecting"

/** So long a connection has held, in seconds, that it is one as any other: the schedule of reconnecting begins anew then, too. */
const steadySeconds = 30

/**
 * Whether attempts at the present position have failed. Where all is done the position has nowhere to move: then a connection that
 * holds is what there is to get on to.
 */
const isNotGettingOn = ({ attempts, lagSeconds, state, stateSeconds }: Observation): boolean =>
  attempts > 0 && !(state === "Streaming" && lagSeconds === 0 && stateSeconds >= steadySeconds)

/** In words that do not change from second to second, so that a log that has said it once need not again. */
const notStreaming = ({ lastFailure, state }: Observation): string =>
  state !== "Reconnecting" || lastFailure === undefined
    ? `the stream is ${state}, and brings nothing`
    : `the connection was lost, and is made anew: ${lastFailure.tag}: ${lastFailure.message}`

const symptomsOf = (seen: Observation): ReadonlyArray<Symptom> => {
  const { attempts, handlingSeconds, lagBytes, lagSeconds, lostSeconds, silentSeconds, stall, state, stateSeconds } =
    seen
  const inState = (is: boolean) => (is ? stateSeconds : undefined)
  const isBehind = state !== "Idle" && state !== "Stopped" && state !== "Copying"
  const since = (code: Code, threshold: keyof AllThresholds, amount: number | undefined, says: string): Symptom => ({
    code,
    amount,
    threshold,
    forSeconds: amount ?? 0,
    says
  })
  return [
    since("NotRun", "notRun", inState(state === "Idle"), "the stream has not been run"),
    since("NotStreaming", "notStreaming", inState(isConnecting(seen)), notStreaming(seen)),
    since(
      "ConnectionLost",
      "connectionLost",
      lostSeconds,
      "the connection was lost, and a new one is made once the handler has ended what the last one brought"
    ),
    since(
      "WaitingForGap",
      "waitingForGap",
      inState(state === "WaitingForGap"),
      "a gap is delivered and not acknowledged: nothing else comes"
    ),
    since("HandlerStuck", "handlerStuck", handlingSeconds, "the handler has not ended what it was given"),
    since(
      "Stalled",
      "stalled",
      inState(stall !== undefined),
      `the server holds the stream back: ${stall?.reason ?? ""}`
    ),
    since("Silent", "silent", silentSeconds, "the server says nothing, though it is listened to"),
    since(
      "Behind",
      "behindSeconds",
      isBehind && lagSeconds > 0 ? lagSeconds : undefined,
      "commits wait to be acknowledged"
    ),
    { ...since("Behind", "behindBytes", lagBytes, "WAL waits to be acknowledged"), forSeconds: lagSeconds },
    {
      ...since(
        "NotGettingOn",
        "attempts",
        isNotGettingOn(seen) ? attempts : undefined,
        "attempts fail at one position"
      ),
      forSeconds: seen.lastFailure?.agoSeconds ?? 0
    },
    since(
      "ServerUnknown",
      "serverUnknown",
      isBehind && seen.serverUnknownSeconds > 0 ? seen.serverUnknownSeconds : undefined,
      "how far the server's WAL goes is not known"
    ),
    {
      ...since("Parked", "parked", seen.parked?.letters, "changes are parked as dead letters, and wait for somebody"),
      forSeconds: seen.parked?.oldestSeconds ?? 0
    },
    since(
      "ParkingStopped",
      "parkingStopped",
      seen.parked?.stoppedSeconds,
      "so many changes were parked that it is taken for an outage: the stream waits at what fails"
    ),
    ...(seen.consumers ?? []).flatMap(({ failure = "an error", isRequired, name, state, stateSeconds }) => {
      if (isRequired || state === "following") return []
      return state === "ended"
        ? since(
            "ConsumerEnded",
            "consumerEnded",
            stateSeconds,
            `the consumer ${name} has failed of ${failure}, and is given nothing more`
          )
        : since(
            "ConsumerLagging",
            "consumerLagging",
            stateSeconds,
            `the consumer ${name} was left behind, and has not begun anew`
          )
    })
  ]
}

const severity: { readonly [S in Status]: number } = { ok: 0, degraded: 1, failing: 2 }

/** 0 for `ok`, 1 for `degraded`, 2 for `failing`: what `replicant_health` says. */
export const toNumber = (status: Status): number => severity[status]

const reasonsOf = (seen: Observation, thresholds: Thresholds): ReadonlyArray<Reason> => {
  const { at, hasEnded, lastFailure, state, stateSeconds } = seen
  if (state === "Stopped") {
    // One that is stopped does not come back by itself, whatever else may be said of it.
    if (hasEnded) return []
    // One that it had recovered from is not why.
    const isWhy = lastFailure !== undefined && lastFailure.agoSeconds <= stateSeconds + 1
    const why = isWhy ? `, after ${lastFailure.tag}: ${lastFailure.message}` : ""
    const says = `the stream has stopped${why}: nothing is taken from the slot`
    return [{ code: "Stopped", status: "failing", since: Math.round(at - stateSeconds * 1000), says }]
  }
  return symptomsOf(seen).flatMap(({ amount, code, forSeconds, says, threshold }): Array<Reason> => {
    const { degraded, failing } = { ...defaultThresholds[threshold], ...thresholds[threshold] }
    if (amount === undefined || amount < Math.min(degraded, failing)) return []
    const status = amount >= failing ? "failing" : "degraded"
    return [{ code, status, since: Math.round(at - forSeconds * 1000), says }]
  })
}

/** The health that these reasons come to, the worst first; without one it has been `ok` since `okSince`, Unix time in milliseconds. */
export const fromReasons = (all: ReadonlyArray<Reason>, okSince: number): Health => {
  const reasons = all.toSorted((left, right) => severity[right.status] - severity[left.status])
  const status = reasons[0]?.status ?? "ok"
  const begun = reasons.filter((reason) => reason.status === status).map(({ since }) => since)
  return { status, since: status === "ok" ? okSince : Math.min(...begun), reasons }
}

/** The health that an observation tells of, by these thresholds; with `since` for the time that it has been `ok`. */
export const of = (seen: Observation, thresholds: Thresholds = {}, okSince: number = seen.at): Health =>
  fromReasons(reasonsOf(seen, thresholds), okSince)

/** The worst of several: of all streams of a program, for one probe. */
export const worst = (all: Iterable<Status>): Status => {
  let found: Status = "ok"
  for (const status of all) if (severity[status] > severity[found]) found = status
  return found
}
