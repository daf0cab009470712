/** What a stream is doing, for whoever watches it: the `state` of every stream, a `SubscriptionRef`. */
import type * as Effect from "effect/Effect"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { ConnectionState } from "../replication/ConnectionState.ts"
import type { CopyProgress } from "../snapshot/CopyProgress.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"

export type { ConnectionState } from "../replication/ConnectionState.ts"
export type { CopyProgress, TableProgress } from "../snapshot/CopyProgress.ts"

/** The first copy is under way. */
export interface Copying extends CopyProgress {
  readonly _tag: "Copying"
}

/**
 * - `Idle`: it has not been run yet.
 * - `Connecting`: the first attempt is under way.
 * - `Copying`: rows are copied, so far.
 * - `WaitingForSlot`: another connection, of that pid, streams from the slot.
 * - `WaitingForGap`: a `Gap` is delivered and not acknowledged: nothing else comes.
 * - `Streaming`: the server has accepted.
 * - `Stalled`: the server has accepted, and holds the stream back for that reason: standbys that it waits for are down. Nothing
 *   is lost; it is `Streaming` again once something comes.
 * - `Reconnecting`: for that cause. `attempt` counts the failures since the position last moved, however long it streamed
 *   in between: one that grows is a stream that does not get on.
 * - `Stopped`: it has failed, or has ended, or was interrupted; the program's own exit says how.
 */
export type StreamState = { readonly _tag: "Idle" } | ConnectionState | Copying | Retrying

/** An attempt has failed, of the stream or of the first copy, and another will be made. */
export interface Retrying {
  readonly _tag: "Reconnecting"
  readonly attempt: number
  readonly cause: SnapshotError
}

export type StreamStateRef = SubscriptionRef.SubscriptionRef<StreamState>

/** @internal Of a stream that nobody has run. */
export const make: Effect.Effect<StreamStateRef> = SubscriptionRef.make<StreamState>({ _tag: "Idle" })

const notYet: CopyProgress = { attempt: 0, isCompleted: false, tables: [] }

/** @internal Tells how far the copy is. */
export const updateCopying =
  (state: StreamStateRef) =>
  (change: (current: CopyProgress) => CopyProgress): Effect.Effect<void> =>
    SubscriptionRef.update(state, (current): StreamState => {
      const { attempt, isCompleted, remaining, rowsPerSecond, tables } = change(
        current._tag === "Copying" ? current : notYet
      )
      return { _tag: "Copying", attempt, isCompleted, tables, rowsPerSecond, remaining }
    })
