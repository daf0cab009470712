/**
 * What a stream that reconnects is doing, for whoever watches it: a `SubscriptionRef` that the program makes and hands to
 * the stream as its option `state`. Whoever subscribes sees every change of it.
 */
import type * as Effect from "effect/Effect"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type * as Lsn from "../Lsn.ts"
import type { ReplicationError } from "../ReplicationError.ts"

/**
 * - `Connecting`: the first attempt is under way.
 * - `WaitingForSlot`: another connection, of that pid, streams from the slot.
 * - `WaitingForGap`: a `Gap` is delivered and not acknowledged: nothing else comes.
 * - `Streaming`: the server has accepted.
 * - `Reconnecting`: for that cause. `attempt` counts the failures since the position last moved, however long it streamed
 *   in between: one that grows is a stream that does not get on.
 * - `Stopped`: it has failed, or was interrupted; the program's own exit says how.
 */
export type StreamState =
  | { readonly _tag: "Connecting" }
  | { readonly _tag: "WaitingForSlot"; readonly activePid: number }
  | { readonly _tag: "WaitingForGap"; readonly reason: string; readonly consistentPoint: Lsn.Lsn }
  | { readonly _tag: "Streaming"; readonly systemId: string; readonly timeline: number }
  | { readonly _tag: "Reconnecting"; readonly attempt: number; readonly cause: ReplicationError }
  | { readonly _tag: "Stopped" }

/** Where a stream tells its state. */
export type StreamStateRef = SubscriptionRef.SubscriptionRef<StreamState>

/**
 * A state to hand to one stream.
 *
 * @example
 * const state = yield* makeStreamState
 * yield* SubscriptionRef.changes(state).pipe(Stream.runForEach((now) => Effect.logInfo(now)), Effect.forkScoped)
 * yield* withLogicalStream({ ...options, state }, handler)
 */
export const makeStreamState: Effect.Effect<StreamStateRef> = SubscriptionRef.make<StreamState>({ _tag: "Connecting" })
