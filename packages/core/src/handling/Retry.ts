/**
 * A function of a handler that tries again, and what is told of failures: their kind alone, for what an error says may hold values of
 * a row.
 */
import * as Effect from "effect/Effect"
import type * as Schedule from "effect/Schedule"

/** The kind of an error. */
export const tagOf = (error: unknown): string => {
  const tag = (error as { readonly _tag?: unknown } | null | undefined)?._tag
  return typeof tag === "string" ? tag : error instanceof Error ? error.name : "Unknown"
}

/** What it says. */
export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : "")

/** Tells that something failed, and by which kind of error. */
export const logged =
  (what: string) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.tapError(self, (error) => Effect.logWarning(`${what}: ${tagOf(error)}`))

/**
 * A function that is tried again until it succeeds or the schedule ends; then it fails with the last error. The stream waits
 * meanwhile, and nothing is acknowledged.
 *
 * @example
 * withLogicalStream(options, Handler.durable(Handler.retry(Schedule.recurs(5))((changes) => store(changes))))
 */
export const retry =
  <E>(schedule: Schedule.Schedule<unknown, E>) =>
  <Args extends ReadonlyArray<unknown>, A, R>(
    handle: (...args: Args) => Effect.Effect<A, E, R>
  ): ((...args: Args) => Effect.Effect<A, E, R>) =>
  (...args) =>
    Effect.suspend(() => handle(...args)).pipe(logged("handling failed, and is tried again"), Effect.retry(schedule))
