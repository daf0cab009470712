/**
 * How a stream is, at one moment: what its metrics, its health, and whatever else is shown of it are made of. One pure function
 * makes it from what the stream has noted of itself and the time; nothing in it is as of some earlier read.
 *
 * Nobody can know from a stream how far the server's own WAL goes while a slow handler holds its socket back. So that end is
 * either known, by what came lately or because the server was asked, or it is absent with the time since when: it is never a
 * zero that nobody has seen.
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import { NextLsn } from "../change/NextLsn.ts"
import * as Lsn from "../Lsn.ts"
import type { Consumers } from "../replication/Consumers.ts"
import type { Parking } from "../replication/Parking.ts"
import { live, type Vitals } from "../replication/Vitals.ts"
import type { WalProgress } from "../replication/WalProgress.ts"
import type { StreamState } from "./StreamState.ts"

const optional = Schema.optionalKey

/** The first copy of a stream, while it is under way. */
export const CopyObservation = Schema.Struct({
  /** 1, and one more each time that it has begun anew or was taken up again. */
  attempt: Schema.Number,
  /** Read so far, of all tables. */
  rows: Schema.Number,
  bytes: Schema.Number,
  tables: Schema.Number,
  tablesDone: Schema.Number,
  /** By the planner's estimates; absent where a table has none. */
  estimatedRows: optional(Schema.Number),
  rowsPerSecond: optional(Schema.Number),
  remainingSeconds: optional(Schema.Number)
})

/** How a stream is, at one moment. Durations are seconds; of times of day there is one, `at`, from which they count back. */
export const Observation = Schema.Struct({
  slot: Schema.String,
  /** Milliseconds of Unix time, by our clock. */
  at: Schema.Number,
  state: Schema.Literals([
    "Idle",
    "Connecting",
    "Copying",
    "WaitingForSlot",
    "WaitingForGap",
    "Streaming",
    "Stalled",
    "Reconnecting",
    "Stopped"
  ]),
  /** How long it has been in that state. */
  stateSeconds: Schema.Number,
  /** A `Stopped` one had come to its end: a snapshot by itself. */
  hasEnded: Schema.Boolean,

  /** The furthest position that came. Positions are exclusive ends; `0/0` is none. */
  received: Lsn.LsnFromString,
  /** The end of the last unit whose handler has ended. */
  handled: Lsn.LsnFromString,
  /** Of the last that is acknowledged together with all before it. */
  acknowledged: Lsn.LsnFromString,
  /** What was last reported to the server as flushed. */
  flushed: Lsn.LsnFromString,
  /** The slot's `confirmed_flush_lsn`, by the server's last word or our last report, whichever is further. */
  confirmed: Lsn.LsnFromString,
  /** The end of the server's WAL; absent while it is not known. */
  server: optional(Lsn.LsnFromString),
  /** For how long it has not been known; 0 while it is. */
  serverUnknownSeconds: Schema.Number,

  /** From `confirmed` to `server`; absent with it. */
  lagBytes: optional(Schema.Number),
  /**
   * How long ago the oldest commit was made that is not acknowledged. Where none is known, though there may be one: the time
   * since all was known to be done, which is no less. 0 where all is done.
   */
  lagSeconds: Schema.Number,
  /** Units delivered and not acknowledged, or behind one that is not. */
  pending: Schema.Number,
  /** How long ago the oldest of them was committed. */
  oldestUnacknowledgedSeconds: optional(Schema.Number),

  /** How long the handler has been at what it was given; absent while it has nothing. */
  handlingSeconds: optional(Schema.Number),
  /** How long ago it last ended; absent before it has. */
  sinceHandledSeconds: optional(Schema.Number),
  /** How long the server has said nothing, though it is listened to; absent while nobody listens. */
  silentSeconds: optional(Schema.Number),
  /** How long ago the connection was lost whose changes are still handled. */
  lostSeconds: optional(Schema.Number),

  /** What holds the stream back at the server: the state `Stalled`. */
  stall: optional(Schema.Struct({ reason: Schema.String, remedy: Schema.String })),
  /** Failures since the position last moved. */
  attempts: Schema.Number,
  /** The last failure that another attempt followed, with its cure where one is known. */
  lastFailure: optional(
    Schema.Struct({
      tag: Schema.String,
      message: Schema.String,
      remedy: optional(Schema.String),
      agoSeconds: Schema.Number
    })
  ),
  /** Bytes of transactions in progress that are in files. */
  spillBytes: Schema.Number,
  /** What `Handler.park` keeps of this slot; absent where it is not used, and before it has looked. */
  parked: optional(
    Schema.Struct({
      letters: Schema.Number,
      /** How long ago the oldest was parked. */
      oldestSeconds: optional(Schema.Number),
      /** For how long nothing more is parked, as too much was. */
      stoppedSeconds: optional(Schema.Number)
    })
  ),
  /** Of a handler that is a broadcast: each consumer, in the order in which they were given. */
  consumers: optional(
    Schema.Array(
      Schema.Struct({
        name: Schema.String,
        isRequired: Schema.Boolean,
        /** `lagging` was left behind, and is to begin anew; `ended` has failed, and is given nothing more. */
        state: Schema.Literals(["following", "lagging", "ended"]),
        stateSeconds: Schema.Number,
        /** The kind of error that it has ended with. */
        failure: optional(Schema.String),
        /** Everything before this it has done, of what this process has given it. */
        done: Lsn.LsnFromString
      })
    )
  ),
  copy: optional(CopyObservation)
})
export interface Observation extends Schema.Schema.Type<typeof Observation> {}

/** What an observation is made from. Times are monotonic milliseconds, but for `at`. */
export interface Facts {
  readonly slot: string
  readonly now: number
  /** The same moment in Unix time. */
  readonly at: number
  readonly state: StreamState
  readonly stateSince: number
  readonly hasEnded: boolean
  readonly vitals: Readonly<Vitals>
  readonly parking?: Readonly<Parking> | undefined
  readonly consumers?: Consumers | undefined
  readonly progress: WalProgress
  /** When it was run, or made. */
  readonly begunAt: number
  /** When it was last seen to follow, and when all was last seen to be done. */
  readonly followedAt: number | undefined
  readonly caughtUpAt: number | undefined
  readonly lastFailure:
    | { readonly tag: string; readonly message: string; readonly remedy?: string | undefined; readonly at: number }
    | undefined
}

/** For how long the server's answer is taken for its end: it is asked anew well before, while that is needed. */
export const answerHolds = 15_000

/** Whether there is a connection on which a stream is, or is about to be; so the server can be asked over another. */
export const isConnected = ({ _tag }: StreamState): boolean =>
  _tag === "Streaming" || _tag === "Stalled" || _tag === "WaitingForGap"

const isListenedTo = ({ state, vitals }: Facts): boolean =>
  (state._tag === "Streaming" || state._tag === "Stalled") && vitals.lostAt === undefined

/**
 * Whether the stream brings what the server has as soon as it has it, as far as a stream can tell: it is read, has not been
 * silent for long, brings no backlog, and has come to where the server was last seen to be.
 */
export const isFollowing = (facts: Facts): boolean => {
  const { now, progress, state, vitals } = facts
  const { behindMillis, heardAt, quietLimit, reading, server } = vitals
  return (
    state._tag === "Streaming" &&
    isListenedTo(facts) &&
    reading.since !== undefined &&
    !progress.isOpen &&
    behindMillis < live &&
    (quietLimit === undefined || (heardAt !== undefined && now - heardAt < quietLimit)) &&
    (server === undefined || progress.received >= server.end)
  )
}

/** Whether nothing is left to be done, as far as anybody can tell. */
export const isCaughtUp = (facts: Facts): boolean => facts.progress.pending === 0 && isFollowing(facts)

/** The last time by which that is proven: silence proves nothing, until it is broken. */
export const provenAt = ({ now, vitals: { heardAt, server } }: Facts): number =>
  heardAt === undefined && server === undefined ? now : Math.max(heardAt ?? 0, server?.at ?? 0)

/** Since when the server's end is not known; `undefined` while it is. */
const serverUnknownSince = (facts: Facts): number | undefined => {
  const { begunAt, followedAt, now, vitals } = facts
  const askedAt = vitals.server?.at
  // Of a server that is lost an answer says nothing, however young.
  if (isConnected(facts.state) && askedAt !== undefined && now - askedAt < answerHolds) return undefined
  if (isFollowing(facts)) return undefined
  return Math.max(begunAt, followedAt ?? begunAt, askedAt ?? begunAt)
}

const seconds = (millis: number): number => Math.max(0, millis) / 1000

const copyOf = (state: StreamState): (typeof CopyObservation)["Type"] | undefined => {
  if (state._tag !== "Copying") return undefined
  const { attempt, remaining, rowsPerSecond, tables } = state
  const estimates = tables.map(({ estimatedRows }) => estimatedRows)
  const sum = (values: ReadonlyArray<number>) => values.reduce((total, value) => total + value, 0)
  return {
    attempt,
    rows: sum(tables.map(({ rows }) => rows)),
    bytes: sum(tables.map(({ bytes }) => bytes)),
    tables: tables.length,
    tablesDone: tables.filter(({ isDone }) => isDone).length,
    ...(estimates.every((estimate) => estimate !== undefined) ? { estimatedRows: sum(estimates) } : {}),
    ...(rowsPerSecond === undefined ? {} : { rowsPerSecond }),
    ...(remaining === undefined ? {} : { remainingSeconds: Duration.toSeconds(remaining) })
  }
}

/** The age of the oldest commit that is not acknowledged: known by itself, or by when all was last done. */
const lagMillis = (facts: Facts, oldest: number | undefined): number => {
  if (isCaughtUp(facts)) return 0
  if (oldest !== undefined) return oldest
  const { begunAt, caughtUpAt, now, vitals } = facts
  const sinceDone = vitals.clock.since(vitals.doneCommittedAt, now)
  if (caughtUpAt === undefined) return sinceDone ?? now - begunAt
  return sinceDone === undefined ? now - caughtUpAt : Math.min(now - caughtUpAt, sinceDone)
}

/** What there is, without what there is not. */
const present = <A extends object>(fields: A): { [K in keyof A]?: Exclude<A[K], undefined> } =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof A]?: Exclude<A[K], undefined>
  }

const parkedOf = ({ at, parking }: Facts): Observation["parked"] | undefined => {
  if (parking?.letters === undefined) return undefined
  const { letters, since, stoppedSince } = parking
  return {
    letters,
    ...(since === undefined ? {} : { oldestSeconds: seconds(at - since) }),
    ...(stoppedSince === undefined ? {} : { stoppedSeconds: seconds(at - stoppedSince) })
  }
}

const consumersOf = ({ at, consumers }: Facts): Observation["consumers"] | undefined =>
  consumers === undefined || consumers.size === 0
    ? undefined
    : Array.from(consumers, ([name, { done, failure, isRequired, since, state }]) => ({
        name,
        isRequired,
        state,
        stateSeconds: seconds(at - since),
        ...(failure === undefined ? {} : { failure }),
        done
      }))

/** How a stream is, by its facts. */
export const observationOf = (facts: Facts): Observation => {
  const { at, hasEnded, lastFailure, now, progress, slot, state, stateSince, vitals } = facts
  const { clock, handledAt, handlingSince, heardAt, lostAt, reading, server } = vitals
  const ago = (time: number | undefined) => (time === undefined ? undefined : seconds(now - time))
  const unknownSince = serverUnknownSince(facts)
  const confirmed = Lsn.max(progress.reported, server?.confirmed ?? Lsn.zero)
  const end =
    unknownSince === undefined ? Lsn.max(Lsn.max(progress.received, server?.end ?? Lsn.zero), confirmed) : undefined
  const oldest = progress.first === undefined ? undefined : clock.since(NextLsn.committedAt(progress.first), now)
  return {
    slot,
    at,
    state: state._tag,
    stateSeconds: seconds(now - stateSince),
    hasEnded,
    received: progress.received,
    handled: vitals.handled,
    acknowledged: progress.durable,
    flushed: progress.reported,
    confirmed,
    serverUnknownSeconds: unknownSince === undefined ? 0 : seconds(now - unknownSince),
    lagSeconds: seconds(lagMillis(facts, oldest)),
    pending: progress.pending,
    attempts: vitals.attempts,
    spillBytes: vitals.spillBytes,
    ...present({
      server: end,
      lagBytes: end === undefined ? undefined : Number(Lsn.sub(end, confirmed)),
      oldestUnacknowledgedSeconds: oldest === undefined ? undefined : seconds(oldest),
      handlingSeconds: ago(handlingSince),
      sinceHandledSeconds: ago(handledAt),
      silentSeconds: isListenedTo(facts) && reading.since !== undefined ? ago(heardAt) : undefined,
      lostSeconds: state._tag === "Streaming" || state._tag === "Stalled" ? ago(lostAt) : undefined,
      stall: state._tag === "Stalled" ? { reason: state.reason, remedy: state.remedy } : undefined,
      lastFailure:
        lastFailure === undefined
          ? undefined
          : {
              tag: lastFailure.tag,
              message: lastFailure.message,
              ...(lastFailure.remedy === undefined ? {} : { remedy: lastFailure.remedy }),
              agoSeconds: seconds(now - lastFailure.at)
            },
      parked: parkedOf(facts),
      consumers: consumersOf(facts),
      copy: copyOf(state)
    })
  }
}
