/**
 * Letters that are to be tried again, tried by the handler that parked them: beside what the stream brings, each row's in order.
 *
 * Whoever decides marks letters, in another process maybe. So the store is looked at when a connection begins, and now and then while
 * it lasts.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { CurrentParking } from "../replication/Parking.ts"
import type { Handler, Session } from "../stream/Handler.ts"
import { DeadLettersError, type Letter } from "./Letter.ts"
import { Walk } from "./LetterBook.ts"
import { DeadLetters } from "./LetterStore.ts"
import { type Parked, tellLetters } from "./Park.ts"

/** How often letters are looked for. */
export interface RetryParkedOptions {
  /** Between the end of one look and the next: 5 seconds. */
  readonly every?: Duration.Input | undefined
}

/** One letter, if it is there still and may be tried still. */
const tryOne = <E, R>(parked: Parked<never, unknown, E, R>, walk: Walk, seen: Letter) =>
  Effect.gen(function* () {
    const letters = yield* DeadLetters
    return yield* letters.whileTried(
      seen,
      Effect.fnUntraced(function* (letter) {
        if (!walk.may(letter)) return walk.leave(letter)
        const found = yield* letters.read(letter)
        if (found === undefined) return
        if ((yield* parked.again({ ...letter, ...found })) === "failed") walk.leave(letter)
        yield* tellLetters
      })
    )
  })

/** All letters of this slot that may be tried now, one after the other. */
const tryAll = Effect.fnUntraced(function* <E, R>(session: Session<E>, parked: Parked<never, unknown, E, R>) {
  const letters = yield* DeadLetters
  yield* letters.refresh
  yield* tellLetters
  const walk = new Walk()
  const { slot } = yield* CurrentParking
  for (const letter of yield* letters.known(slot)) {
    if (session.isOver()) return
    yield* tryOne(parked, walk, letter)
  }
})

/**
 * A handler whose letters are tried again: those that were marked, by `DeadLetters.retry` or `replicant dead-letters retry`, and those
 * behind them. They are looked for when a connection begins, and every 5 seconds, and tried one at a time beside the stream, in order
 * of their rows. A letter whose change is handled is gone; one that fails again stays, with one attempt more.
 *
 * The handler is one within which the parking function stands.
 *
 * @example
 * const parked = Handler.park({ isPoison: () => true }, (change: Handler.HandedOf<Change>) => store(change))
 * withLogicalStream(options, Handler.retryParked(parked, Handler.byKey({ concurrency: 8 }, parked)))
 */
export const retryParked = <C, E, R, A, PE, PR>(
  parked: Parked<never, A, PE, PR>,
  handler: Handler<C, E, R>,
  { every = "5 seconds" }: RetryParkedOptions = {}
): Handler<C, E | PE | DeadLettersError, R | PR | DeadLetters> => ({
  ...handler,
  make: Effect.fnUntraced(function* (session) {
    const consume = yield* handler.make(session)
    const pause = Duration.fromInputUnsafe(every)
    const look = tryAll(session as Session<PE>, parked).pipe(
      Effect.catch((error) =>
        // Looked for again. What the function fails with is the stream's end, as where the change has just come.
        error instanceof DeadLettersError && error.isRetryable
          ? Effect.logWarning(`dead letters are out of reach: ${error.message}`)
          : session.fail(error)
      )
    )
    yield* Effect.andThen(look, Effect.sleep(pause)).pipe(Effect.forever, Effect.forkScoped)
    return consume
  })
})
