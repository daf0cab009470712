/** Waiting for something that happens elsewhere: a condition with a deadline, never a sleep. */
import { Data, type Duration, Effect, Result } from "effect"

/** The condition did not come true in time; `last` is what the last check gave, or failed with. */
export class NeverHappened extends Data.TaggedError("NeverHappened")<{
  readonly what: string
  readonly last: unknown
}> {
  override get message(): string {
    return `${this.what}; last seen: ${JSON.stringify(this.last, (_, value) => (typeof value === "bigint" ? `${value}` : value))}`
  }
}

/**
 * How long to wait for what is to come. It is there to end what hangs: on a slow machine things take their time, and what
 * never happens fails all the same. No test is told by it whether something was quick.
 */
export const patience = "2 minutes"

export interface EventuallyOptions {
  /** {@link patience} unless told otherwise: shorter only where something else would come later, and must not be it. */
  readonly deadline?: Duration.Input | undefined
  /** What was waited for, in words for the one who reads the failure. */
  readonly what?: string | undefined
}

/**
 * Checks every 20 ms until the check gives something other than `false` or `undefined`, and gives that. A check that
 * fails counts as "not yet".
 *
 * @example
 * yield* eventually(Effect.map(workspace.slot, (slot) => slot?.active === true), { what: "the slot is in use" })
 */
export const eventually = <A, E, R>(
  check: Effect.Effect<A, E, R>,
  options: EventuallyOptions = {}
): Effect.Effect<Exclude<A, false | undefined>, NeverHappened, R> => {
  let last: unknown
  return Effect.gen(function* () {
    while (true) {
      const result = yield* Effect.result(check)
      last = Result.merge(result)
      if (Result.isSuccess(result) && result.success !== false && result.success !== undefined) {
        return result.success as Exclude<A, false | undefined>
      }
      yield* Effect.sleep("20 millis")
    }
  }).pipe(
    Effect.timeoutOrElse({
      duration: options.deadline ?? patience,
      orElse: () => Effect.fail(new NeverHappened({ what: options.what ?? "the condition never held", last }))
    })
  )
}
