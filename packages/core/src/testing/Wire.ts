/**
 * The way from the test's server to its client: bytes in order, late if asked, until it breaks, at a chosen byte if asked.
 *
 * What the server says waits here without limit, as in a socket buffer without end; the client reads as much at a time as
 * a read gives. Time is the `Clock`'s.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import { concat } from "../pgoutput/PgoutputBytes.ts"
import type { ReplicationError } from "../ReplicationError.ts"

/** How one network behaves, as its test may change it at any time. */
export interface Network {
  /** Milliseconds that bytes are under way. */
  delay: number
  /** After how many more bytes the connection breaks. */
  bytesLeft: number | undefined
  /** After how many more rows of copies the connection breaks that sends the last. */
  copyRowsLeft: number | undefined
  readonly maxReadBytes: number
}

interface Piece {
  readonly bytes: Uint8Array
  /** When it arrives, in milliseconds. */
  readonly at: number
}

export class Wire {
  private readonly network: Network
  private pieces: Array<Piece> = []
  private failure: ReplicationError | undefined
  private readonly latch = Latch.makeUnsafe(false)

  constructor(network: Network) {
    this.network = network
  }

  /** Sends at a time in milliseconds. False: the connection broke within these bytes, and the rest is lost. */
  push(bytes: Uint8Array, now: number): boolean {
    if (this.failure !== undefined) return true
    const { bytesLeft, delay } = this.network
    const isCut = bytesLeft !== undefined && bytes.length >= bytesLeft
    const sent = isCut ? bytes.subarray(0, bytesLeft) : bytes
    if (bytesLeft !== undefined) this.network.bytesLeft = isCut ? undefined : bytesLeft - bytes.length
    // Never before what was sent earlier, also when the delay has become shorter.
    const at = Math.max(now + delay, this.pieces.at(-1)?.at ?? 0)
    if (sent.length > 0) this.pieces.push({ bytes: sent, at })
    this.latch.openUnsafe()
    return !isCut
  }

  /** Nothing comes behind what is on its way. */
  end(failure: ReplicationError): void {
    this.failure ??= failure
    this.latch.openUnsafe()
  }

  /** The same, and what is on its way is lost. */
  break(failure: ReplicationError): void {
    this.pieces = []
    this.end(failure)
  }

  /** What has arrived by now, as much as a read gives. */
  private take(now: number): Uint8Array | undefined {
    const due = this.pieces.filter(({ at }) => at <= now).map(({ bytes }) => bytes)
    if (due.length === 0) return undefined
    const whole = concat(due)
    const rest = whole.subarray(this.network.maxReadBytes)
    const late = this.pieces.slice(due.length)
    this.pieces = rest.length === 0 ? late : [{ bytes: rest, at: now }, ...late]
    return whole.slice(0, this.network.maxReadBytes)
  }

  /** `CopyBoth.pull`. An interrupted one loses nothing: bytes are taken only when there is nothing left to wait for. */
  readonly pull: Effect.Effect<Uint8Array, ReplicationError> = Effect.gen({ self: this }, function* () {
    while (true) {
      const now = yield* Clock.currentTimeMillis
      const bytes = this.take(now)
      if (bytes !== undefined) return bytes
      const [next] = this.pieces
      if (next !== undefined) {
        yield* Effect.sleep(next.at - now)
      } else if (this.failure !== undefined) {
        return yield* Effect.fail(this.failure)
      } else {
        this.latch.closeUnsafe()
        yield* this.latch.await
      }
    }
  })
}
