/**
 * One limit over all of a handshake: looking up the name, TCP, TLS, authentication, and what core asks before it streams.
 *
 * It counts the time in which answers could have been taken. While the event loop was blocked, or the machine slept, they
 * may have come and lie unread: that time is ours, and no peer is given up for it.
 */
import { ConnectionError } from "@replicant/core"
import type { ConnectTimeout } from "@replicant/core/driver"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { PgConfig } from "./PgConfig.ts"
import { address } from "./PgServerError.ts"

/** Into how many pieces the limit is cut. A piece that ends late was not attended. */
const pieces = 10

/** A timer may be this late, in milliseconds, on a machine that is merely busy. */
const usualDelay = 250

const nanosPerMilli = 1_000_000

const monotonicMillis = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos) / nanosPerMilli)

/** Makes the limit of one attempt. */
export const make = ({
  connectTimeout,
  ...server
}: Pick<PgConfig, "connectTimeout" | "host" | "port">): ConnectTimeout => {
  if (connectTimeout === undefined) return (step) => step
  const limit = Duration.toMillis(connectTimeout)
  let left = limit

  const spendPiece = Effect.gen(function* () {
    const began = yield* monotonicMillis
    const length = Math.min(left, limit / pieces)
    const spend = Effect.map(monotonicMillis, (now) => {
      if (now - began < length + usualDelay) left -= Math.min(now - began, length)
    })
    // Also when the step ends within the piece.
    yield* Effect.ensuring(Effect.sleep(length), spend)
  })

  const spendAll: Effect.Effect<never, ConnectionError> = Effect.gen(function* () {
    while (left > 0) yield* spendPiece
    return yield* new ConnectionError({
      reason: "TimedOut",
      detail: `connection to ${address(server)}: no session after ${Duration.format(connectTimeout)}`
    })
  })
  return (step) => Effect.raceFirst(step, spendAll)
}
