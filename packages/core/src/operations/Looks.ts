/**
 * To look at a server again and again, whatever becomes of it: the same question at a steady pace. An ordinary session is enough, and
 * takes none of `max_wal_senders`; it is kept while the pace is quick, and made for each look where it is slow.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as RcRef from "effect/RcRef"
import type * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import type { ReplicationError } from "../ReplicationError.ts"
import * as Catalog from "../server/Catalog.ts"
import { type SqlSession, WalSender } from "../server/WalSender.ts"

/** A session that is set for questions. */
const open = Effect.gen(function* () {
  const session = yield* (yield* WalSender).openSession
  yield* Catalog.pinSession(session)
  return session
})

/** For so long a session that nobody asks is kept. */
const idleTimeToLive = "6 seconds"

/** Asks once, in a session of its own. */
export const once = <A, E>(
  ask: (session: SqlSession) => Effect.Effect<A, E>
): Effect.Effect<A, E | ReplicationError, WalSender> => Effect.scoped(Effect.flatMap(open, ask))

/**
 * Asks now, and again so long after each answer. Never fails and never ends: a failure is an element, and the next look is in a new
 * session.
 */
export const every = <A, E>(
  ask: (session: SqlSession) => Effect.Effect<A, E>,
  interval: Duration.Input
): Stream.Stream<Result.Result<A, E | ReplicationError>, never, WalSender> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const kept = yield* RcRef.make({ acquire: open, idleTimeToLive })
      const look = Effect.scoped(Effect.flatMap(RcRef.get(kept), ask)).pipe(
        Effect.tapError(() => RcRef.invalidate(kept)),
        Effect.result
      )
      return Stream.fromEffectSchedule(look, Schedule.spaced(interval))
    })
  )
