/**
 * The public module `SlotOverview`: all slots of a server as one value, ours and others', with what streams from them, how far behind
 * that is, and how long their WAL lasts. For whoever shows or probes it; nothing of it changes anything at the server.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { monotonicMillis } from "../MonotonicTime.ts"
import type { ReplicationError } from "../ReplicationError.ts"
import type { WalSender } from "../server/WalSender.ts"
import * as Looks from "./Looks.ts"
import { next, type OverviewHistory, type Seen, type SlotOverview } from "./Overview.ts"
import { lookAtSlots } from "./SlotLook.ts"
import type { WatchOptions } from "./WalBudget.ts"

export { CopyStatus, SlotOverview } from "./Overview.ts"
export { DecodingStatus, SlotStatus, WalSenderStatus } from "./SlotStatus.ts"

const seenNow = (options: WatchOptions): Effect.Effect<Seen> =>
  Effect.all({
    time: Clock.currentTimeMillis,
    at: monotonicMillis,
    freeBytes: options.freeBytes ?? Effect.succeed(undefined)
  })

/**
 * One look, in a session of its own. Of what takes two looks, rates and what is forecast of them, it knows nothing.
 *
 * @example
 * const behind = Effect.map(SlotOverview.look(), ({ slots }) =>
 *   slots.filter(({ lagBytes }) => (lagBytes ?? 0) > 1024 ** 3).map(({ name }) => name)
 * )
 */
export const look = (options: WatchOptions = {}): Effect.Effect<SlotOverview, ReplicationError, WalSender> =>
  Effect.zipWith(
    Looks.once((session) => lookAtSlots(session)),
    seenNow(options),
    (looked, seen) => next(undefined, looked, seen, options).overview
  )

type Looked = Result.Result<SlotOverview, ReplicationError>

/**
 * A look now, and one after the other from there on: every 2 seconds, unless `interval` says otherwise. What keeps it from looking is
 * an element as well, so that nobody takes the last overview for the present one; it goes on looking. Never ends.
 *
 * @example
 * const shown = SlotOverview.watch({ interval: "5 seconds" }).pipe(
 *   Stream.runForEach(
 *     Result.match({
 *       onSuccess: ({ slots }) => Effect.logInfo(slots.length, "slots"),
 *       onFailure: (error) => Effect.logWarning("cannot look:", error.message)
 *     })
 *   )
 * )
 */
export const watch = (
  options: WatchOptions = {}
): Stream.Stream<Result.Result<SlotOverview, ReplicationError>, never, WalSender> => {
  const { interval = "2 seconds" } = options
  return Looks.every((session) => lookAtSlots(session), interval).pipe(
    Stream.mapAccumEffect(
      (): OverviewHistory | undefined => undefined,
      Effect.fnUntraced(function* (before, looked): Effect.fn.Return<
        readonly [OverviewHistory | undefined, ReadonlyArray<Looked>]
      > {
        if (Result.isFailure(looked)) return [before, [Result.fail(looked.failure)]]
        const after = next(before, looked.success, yield* seenNow(options), options)
        return [after, [Result.succeed(after.overview)]]
      })
    )
  )
}
