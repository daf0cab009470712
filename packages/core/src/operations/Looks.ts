/**
 * To look at a server again and again, whatever becomes of it: the same question at a steady pace, over a connection that is kept
 * while the pace is quick and made for each look where it is slow, as a connection holds one of `max_wal_senders`.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as RcRef from "effect/RcRef"
import type * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import type { ReplicationError } from "../ReplicationError.ts"
import * as Catalog from "../server/Catalog.ts"
import { type ReplicantConnection, WalSender } from "../server/WalSender.ts"

/** A connection that is set for questions. */
const connect = Effect.gen(function* () {
  const connection = yield* (yield* WalSender).connect
  yield* Catalog.pinSession(connection)
  return connection
})

/** For so long a connection that nobody asks over is kept. */
const idleTimeToLive = "6 seconds"

/** Asks once, over a connection of its own. */
export const once = <A, E>(
  ask: (connection: ReplicantConnection) => Effect.Effect<A, E>
): Effect.Effect<A, E | ReplicationError, WalSender> => Effect.scoped(Effect.flatMap(connect, ask))

/**
 * Asks now, and again so long after each answer. Never fails and never ends: a failure is an element, and the next look is on a new
 * connection.
 */
export const every = <A, E>(
  ask: (connection: ReplicantConnection) => Effect.Effect<A, E>,
  interval: Duration.Input
): Stream.Stream<Result.Result<A, E | ReplicationError>, never, WalSender> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const kept = yield* RcRef.make({ acquire: connect, idleTimeToLive })
      const look = Effect.scoped(Effect.flatMap(RcRef.get(kept), ask)).pipe(
        Effect.tapError(() => RcRef.invalidate(kept)),
        Effect.result
      )
      return Stream.fromEffectSchedule(look, Schedule.spaced(interval))
    })
  )
