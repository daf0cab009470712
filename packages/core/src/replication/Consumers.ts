/**
 * How the consumers of a broadcast are, as the health of their stream tells it: written by `Handler.broadcast`, which knows of no stream
 * but by this.
 */
import * as Context from "effect/Context"
import type * as Lsn from "../Lsn.ts"

/** One of them, by its name. */
export interface ConsumerState {
  readonly isRequired: boolean
  /**
   * `following` takes what comes. `lagging` is left behind, and is to begin anew. `ended` has failed, and is given nothing more while
   * the program runs.
   */
  readonly state: "following" | "lagging" | "ended"
  /** Since when it is so: Unix milliseconds. */
  readonly since: number
  /** What it failed of, by the kind of error. */
  readonly failure: string | undefined
  /** Everything before this it has done, of what this program has given it. */
  readonly done: Lsn.Lsn
}

/** Of one stream. */
export type Consumers = Map<string, ConsumerState>

/** Of the stream that this runs in. */
export const CurrentConsumers: Context.Reference<Consumers> = Context.Reference("@replicant/core/CurrentConsumers", {
  defaultValue: (): Consumers => new Map()
})
