/**
 * Keeps a snapshot from taking more of its source than it is allowed: so many rows or bytes a second, over all of its
 * connections. What is not read, TCP keeps the server from sending, so that it reads no further either.
 *
 * Each portion books the time that it takes at that rate, and waits until what was booked before is over. Nothing is saved
 * up while the consumer is slow, but for {@link slack}: there is no burst to follow.
 */
import * as Effect from "effect/Effect"
import { monotonicMillis } from "../MonotonicTime.ts"
import type { Portion } from "../snapshot/CopyOut.ts"

/** Whichever is reached first. Left out, there is no such limit. */
export interface RateLimit {
  /** Rows a second. */
  readonly rows?: number | undefined
  /** Bytes a second, in COPY's text format. */
  readonly bytes?: number | undefined
}

/** How far behind what is allowed one may fall and still catch up, in milliseconds: timers are late, and reads uneven. */
const slack = 100

/** Portions a second, at least: so a low rate comes evenly too. */
const portions = 10

/** What is wrong with a limit, if anything is. */
export const rateLimitProblem = ({ bytes, rows }: RateLimit): string | undefined =>
  [bytes, rows].every((rate) => rate === undefined || (Number.isFinite(rate) && rate > 0))
    ? undefined
    : "has a rate that is no number above 0"

/** One serves all connections of a snapshot. */
export class RateLimiter {
  /** What may be taken in one go. */
  readonly portion: Portion
  private readonly rows: number
  private readonly bytes: number
  /** When all that was booked is over, in milliseconds. */
  private booked: number

  constructor(limit: RateLimit, now: number) {
    this.rows = limit.rows ?? Number.POSITIVE_INFINITY
    this.bytes = limit.bytes ?? Number.POSITIVE_INFINITY
    this.booked = now
    this.portion = { rows: Math.max(1, Math.floor(this.rows / portions)), bytes: this.bytes / portions }
  }

  /** Waits until a portion's turn has come. Interrupted, it leaves its turn unused. */
  take(rows: number, bytes: number): Effect.Effect<void> {
    return Effect.flatMap(monotonicMillis, (now) => {
      const seconds = Math.max(rows / this.rows, bytes / this.bytes)
      const turn = Math.max(this.booked, now - slack)
      this.booked = turn + 1000 * seconds
      return turn > now ? Effect.sleep(turn - now) : Effect.void
    })
  }
}
