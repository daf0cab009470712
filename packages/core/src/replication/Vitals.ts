/**
 * What a stream notes of itself while it runs: plain fields, written in one step a read or a unit, and read by whoever
 * observes it. Nothing here is derived: what the fields mean is in `stream/Observation.ts`.
 *
 * Times are monotonic milliseconds, but for those of the server's clock, which are microseconds of its own.
 */
import { NextLsn } from "../change/NextLsn.ts"
import * as Lsn from "../Lsn.ts"
import { boundaries } from "./Metrics.ts"

/** How often a time fell where. What Effect's histogram is, without its look-up for each value: there may be millions. */
export class Distribution {
  private readonly counts = new Array<number>(boundaries.length + 1).fill(0)
  private count = 0
  private sum = 0
  private min = Number.MAX_VALUE
  private max = -Number.MAX_VALUE

  /** So many seconds. What a clock makes negative is nothing. */
  add(seconds: number): void {
    const value = Math.max(0, seconds)
    let index = 0
    while (index < boundaries.length && value > boundaries[index]!) index++
    this.counts[index]!++
    this.count++
    this.sum += value
    if (value < this.min) this.min = value
    if (value > this.max) this.max = value
  }

  /** As Effect's exporters take it: of each boundary how many values are not above it. */
  get state() {
    let below = 0
    const buckets = boundaries.map((boundary, index): [number, number] => {
      below += this.counts[index]!
      return [boundary, below]
    })
    const { count, max, min, sum } = this
    return { buckets, count, min, max, sum }
  }
}

/**
 * The server's clock, by what it said last. A message that waited in a buffer was sent long before it is read, so the
 * shortest way that any has had is the best that is known, and the clock is never taken to be ahead of itself.
 */
export class ServerClock {
  /** Microseconds to be added to ours. */
  private offset: number | undefined

  /** A message that was sent then is read now. */
  hear(sentAt: number, now: number): void {
    const offset = sentAt - now * 1000
    if (this.offset === undefined || offset > this.offset) this.offset = offset
  }

  /** How many milliseconds ago that was; `undefined` before it has said anything. */
  since(time: number, now: number): number | undefined {
    return this.offset === undefined || Number.isNaN(time) ? undefined : Math.max(0, now + (this.offset - time) / 1000)
  }
}

/** What the server was found to have, over a connection of its own or when the stream was opened. */
export interface ServerFacts {
  readonly at: number
  /** The end of its WAL. */
  readonly end: Lsn.Lsn
  /** The slot's `confirmed_flush_lsn`. */
  readonly confirmed: Lsn.Lsn
}

/** What was sent so soon after its commit is no backlog: milliseconds. */
export const live = 1000

/** How long an answer may take to what is asked at half of `receiverTimeout`. */
const answerShare = 5000

/** The facts of one stream, over all of its connections. */
export class Vitals {
  /** Since when the copy fiber waits for bytes; `undefined` while it is held back, or there is none. */
  reading: { since: number | undefined } = { since: undefined }
  /** When the last read came. */
  heardAt: number | undefined
  clock = new ServerClock()
  /** Milliseconds from the commit of what came last to its being sent; 0 once that was a keep-alive. */
  behindMillis = 0
  /** When a change last came that was sent right after its commit: then the walsender stood at the end of the WAL. */
  liveAt: number | undefined
  /** How long the present connection may be silent before that means anything; `undefined` for as long as it likes. */
  quietLimit: number | undefined
  server: ServerFacts | undefined
  /** When the present connection failed, though what it brought may still be handled. */
  lostAt: number | undefined
  /** Since when the handler is at what it was given, and when it last ended. */
  handlingSince: number | undefined
  handledAt: number | undefined
  handled: Lsn.Lsn = Lsn.zero
  /** When the last unit that is done was committed, by the server's clock. */
  doneCommittedAt: number = Number.NaN
  spillBytes = 0
  /** Failures since the position last moved, and what the last one was. */
  attempts = 0
  readonly handlerSeconds = new Distribution()
  readonly commitToAcknowledged = new Distribution()
  /** Of the acknowledgement that is under way. */
  private acknowledgedAt = 0

  /** A connection begins: another server may answer, whose clock is another. */
  connected(server: ServerFacts, { receiverTimeout }: { readonly receiverTimeout: number }): void {
    this.reading = { since: undefined }
    this.clock = new ServerClock()
    this.heardAt = server.at
    this.liveAt = undefined
    this.behindMillis = 0
    this.quietLimit = receiverTimeout > 0 ? receiverTimeout / 2 + answerShare : undefined
    this.lostAt = undefined
    this.server = server
  }

  /** The connection is over: nobody is listened to any more. */
  lost(now: number): void {
    this.lostAt ??= now
    this.reading.since = undefined
    // Files go with the connection.
    this.spillBytes = 0
  }

  /** A read has come. */
  hear(now: number, sentAt: number | undefined, behindMillis: number): void {
    this.heardAt = now
    this.behindMillis = behindMillis
    if (behindMillis > 0 && behindMillis < live) this.liveAt = now
    if (sentAt !== undefined) this.clock.hear(sentAt, now)
  }

  /** Somebody acknowledges now: what is done by that follows. */
  acknowledging(now: number): void {
    this.acknowledgedAt = now
  }

  /** A unit is done, together with all before it. */
  readonly done = (unit: NextLsn): void => {
    const committedAt = NextLsn.committedAt(unit)
    if (!Number.isNaN(committedAt)) this.doneCommittedAt = committedAt
    const millis = this.clock.since(committedAt, this.acknowledgedAt)
    if (millis !== undefined) this.commitToAcknowledged.add(millis / 1000)
  }

  /** The handler is given something, or is being made. */
  handling(now: number): void {
    this.handlingSince = now
  }

  /** It has ended, in good order or not. */
  ended(now: number): void {
    if (this.handlingSince === undefined) return
    this.handlerSeconds.add((now - this.handlingSince) / 1000)
    this.handlingSince = undefined
    this.handledAt = now
  }

  /** All units up to here were handled. */
  handledThrough(unit: NextLsn | undefined): void {
    if (unit !== undefined) this.handled = unit.lsn
  }
}
