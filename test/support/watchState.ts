/** What becomes of a stream, as its program sees it. */
import type { LogicalStream } from "@replicant/core"
import { Effect, Stream, SubscriptionRef } from "effect"

/** The states that a stream goes through, in order, from the one it is in. */
export const watchState = Effect.fnUntraced(function* (
  state: LogicalStream.LogicalStream<LogicalStream.Options>["state"]
) {
  const states: Array<LogicalStream.StreamState> = []
  yield* Effect.forkScoped(
    Stream.runForEach(SubscriptionRef.changes(state), (now) => Effect.sync(() => states.push(now))),
    { startImmediately: true }
  )
  return states
})
