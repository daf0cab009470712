/**
 * What a stream's handler has parked, as its health and its metrics tell it: written by `Handler.park`, which knows of no stream but
 * by this.
 */
import * as Context from "effect/Context"

export interface Parking {
  /** Of whose changes: empty where nothing is streamed, as in a test of a function. */
  readonly slot: string
  /** How many dead letters there are; `undefined` before anybody has looked. */
  letters: number | undefined
  /** Since when the oldest of them is parked: Unix milliseconds. */
  since: number | undefined
  /** Since when nothing more is parked, as too much was: Unix milliseconds. */
  stoppedSince: number | undefined
}

export const makeParking = (slot: string): Parking => ({
  slot,
  letters: undefined,
  since: undefined,
  stoppedSince: undefined
})

/** Of the stream that this runs in. */
export const CurrentParking: Context.Reference<Parking> = Context.Reference("@replicant/core/CurrentParking", {
  defaultValue: () => makeParking("")
})
