/**
 * The lease that is held by whoever runs a stream, told by context to what lies below: who holds it is the one that may stream.
 * So such a stream takes its slot over where another connection still streams from it, hands nothing over once the lease may
 * be another's, and goes on, in a later run in the same process, where the last has ended.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"

export interface HeldLease {
  readonly slot: string
  /**
   * Whether it is ours for certain, by the clock: a process that was frozen learns so that it may have lost it, before anybody
   * could tell.
   */
  readonly isCertain: Effect.Effect<boolean>
}

/** `undefined` where no lease is held. */
export const HeldLease: Context.Reference<HeldLease | undefined> = Context.Reference("@replicant/core/HeldLease", {
  defaultValue: (): HeldLease | undefined => undefined
})

/** The lease that is held of that slot, in this context. */
export const heldLeaseOf = (slot: string): Effect.Effect<HeldLease | undefined> =>
  Effect.map(HeldLease, (held) => (held?.slot === slot ? held : undefined))
