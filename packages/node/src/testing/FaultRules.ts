/**
 * The rules of a fault proxy: which are in force, and what they mean for the next piece that goes one way. It moves no
 * bytes and ends no connection: that is `FaultProxy`.
 */
import * as Latch from "effect/Latch"

/** `toServer` is what the client sends, `toClient` what the server sends. */
export type Direction = "toServer" | "toClient"

/**
 * How a connection ends, towards both sides: `fin` in order, after what was sent; `rst` breaks off; `silence` not at all:
 * both sockets stay open, take what is written to them, and nothing comes through any more, neither byte nor end.
 */
export type Ending = "fin" | "rst" | "silence"

/** Which of the connections to come are cut, and where. */
export interface CutPlan {
  /** How many bytes the n-th connection from now may pass, the first being 1; `undefined` spares it. */
  readonly after: (ordinal: number) => number | undefined
  readonly ending: Ending
  /** Whose bytes are counted: those that go `toClient`, unless told otherwise. */
  readonly direction?: Direction | undefined
}

export const bothWays: ReadonlyArray<Direction> = ["toServer", "toClient"]

/** A throttled direction gets this much of its second at a time. */
const throttleStep = 0.02

/** A cut to come. */
export interface Cut {
  bytesLeft: number
  readonly ending: Ending
  readonly direction: Direction
}

/** What the rules look at of a connection. */
interface FaultyConnection {
  /** From the plan that was in force when it came. */
  readonly cut: Cut | undefined
}

/** The rules in force, for the pumps to ask at each piece. */
export class FaultRules {
  /** Shut while that direction is stalled. */
  readonly gates = { toServer: Latch.makeUnsafe(true), toClient: Latch.makeUnsafe(true) }
  /** Swallowed on connections to come. */
  readonly silent = new Set<Direction>()
  cut: Cut | undefined
  plan: CutPlan | undefined
  planned = 0
  latency = 0
  bytesPerSecond = Number.POSITIVE_INFINITY
  slice: { readonly bytes: number; readonly pause: number } | undefined

  /** No rule is in force. */
  clear(): void {
    this.silent.clear()
    this.cut = undefined
    this.plan = undefined
    this.latency = 0
    this.bytesPerSecond = Number.POSITIVE_INFINITY
    this.slice = undefined
    for (const direction of bothWays) this.gates[direction].openUnsafe()
  }

  /** The cut that the next connection comes with. */
  nextCut(): Cut | undefined {
    const bytesLeft = this.plan?.after(++this.planned)
    if (this.plan === undefined || bytesLeft === undefined) return undefined
    return { bytesLeft, ending: this.plan.ending, direction: this.plan.direction ?? "toClient" }
  }

  /** The cuts that a piece going this way counts towards. */
  cutsOf(connection: FaultyConnection, direction: Direction): ReadonlyArray<Cut> {
    return [connection.cut, this.cut].filter((cut) => cut !== undefined && cut.direction === direction) as Array<Cut>
  }

  /** How much of `length` bytes goes next. */
  pieceLength(connection: FaultyConnection, direction: Direction, length: number): number {
    const { bytesPerSecond, slice } = this
    return Math.min(
      length,
      direction === "toClient" && slice !== undefined ? slice.bytes : length,
      Math.max(1, Math.ceil(bytesPerSecond * throttleStep)),
      ...this.cutsOf(connection, direction).map((cut) => cut.bytesLeft)
    )
  }
}
