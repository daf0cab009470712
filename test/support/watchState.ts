/** What becomes of a stream, as its program sees it. */
import { makeStreamState, type StreamState } from "@replicant/core"
import { Effect, Stream, SubscriptionRef } from "effect"

/** The option `state` of a stream, and the states that it goes through, in order. */
export const watchState = Effect.gen(function* () {
  const state = yield* makeStreamState
  const states: Array<StreamState> = []
  yield* Effect.forkScoped(
    Stream.runForEach(SubscriptionRef.changes(state), (now) => Effect.sync(() => states.push(now))),
    { startImmediately: true }
  )
  return { state, states }
})
