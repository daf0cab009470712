/** The clock that measures how long something takes: it never jumps, and says nothing of the time of day. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

export const nanosPerMilli = 1_000_000

/** The clock's own reading, without an Effect: for what is asked at each read. */
export const millisOf = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / nanosPerMilli

/** Milliseconds of a clock that never jumps. */
export const monotonicMillis: Effect.Effect<number> = Effect.map(
  Clock.monotonicTimeNanos,
  (nanos) => Number(nanos) / nanosPerMilli
)
