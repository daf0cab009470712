/**
 * The slot whose lease is held by whoever runs a stream, told by context to what lies below: who holds it is the one that may
 * stream. So such a stream takes its slot over where another connection still streams from it, and a later run of it in the
 * same process goes on where the last has ended.
 */
import * as Context from "effect/Context"

/** A slot's name; `undefined` where no lease is held. */
export const HeldLease: Context.Reference<string | undefined> = Context.Reference("@replicant/core/HeldLease", {
  defaultValue: (): string | undefined => undefined
})
