/**
 * A function of a handler that tries again: for ever where what it needs is down, and a few times where it is the change that
 * cannot be handled. Which of the two an error tells of, only the program knows.
 */
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Schedule from "effect/Schedule"
import { nextLsn } from "../change/Change.ts"
import { changeId } from "../change/ChangeId.ts"
import type { Handled } from "../change/NextLsn.ts"
import * as Metrics from "../replication/Metrics.ts"
import { defaultReconnect } from "../replication/Reconnect.ts"
import { Breaker, type BreakerOptions } from "./Breaker.ts"
import { bare, isOfRow, type KeyOf, keysBy } from "./ChangeKey.ts"
import { type DeadLetter, DeadLetters, type DeadLettersError } from "./DeadLetters.ts"

/** Which changes are given up, and what is held back behind them. */
export interface ParkOptions<C, E> {
  /** The change itself is at fault, and would be for ever. Nothing else is ever parked. */
  readonly isPoison: (error: E) => boolean
  /** When to try again what is poison, before it is parked. Left out: it is tried once. */
  readonly schedule?: Schedule.Schedule<unknown, NoInfer<E>> | undefined
  /**
   * When to try again while it is no fault of the change, and to store a letter. Left out: within 250 ms, doubled with jitter
   * up to 10 s, for ever. When it ends, the stream fails.
   */
  readonly outage?: Schedule.Schedule<unknown> | undefined
  /**
   * After so many letters in so short a time what is poison is taken for an outage as well, until what fails then is handled: 100 within
   * a minute. A dependency that is down and answers as if the changes were at fault then parks no million rows.
   */
  readonly breaker?: BreakerOptions | undefined
  /** What later changes are told by, as in `byKey`, where it must be the same: the row unless told otherwise. */
  readonly key?: KeyOf<C> | undefined
}

interface Failure<E> {
  readonly error: E
  readonly attempts: number
}

const tagOf = (error: unknown): string => {
  const tag = (error as { readonly _tag?: unknown } | null | undefined)?._tag
  return typeof tag === "string" ? tag : error instanceof Error ? error.name : "Unknown"
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : "")

/** What an error says may hold values of a row: its kind alone is told. */
const logged =
  (what: string) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.tapError(self, (error) => Effect.logWarning(`${what}: ${tagOf(error)}`))

/**
 * A function that is tried again until it succeeds or the schedule ends; then it fails with the last error. The stream waits
 * meanwhile, and nothing is acknowledged.
 *
 * @example
 * withLogicalStream(options, Handler.durable(Handler.retry(Schedule.recurs(5))((changes) => store(changes))))
 */
export const retry =
  <E>(schedule: Schedule.Schedule<unknown, E>) =>
  <Args extends ReadonlyArray<unknown>, A, R>(
    handle: (...args: Args) => Effect.Effect<A, E, R>
  ): ((...args: Args) => Effect.Effect<A, E, R>) =>
  (...args) =>
    Effect.suspend(() => handle(...args)).pipe(logged("handling failed, and is tried again"), Effect.retry(schedule))

/** What is parked is of rows that are known, or a message, which has none. */
const parkableKeys = <C>(change: C, keysOf: (change: C) => ReadonlyArray<string> | undefined) =>
  isOfRow(change) ? keysOf(change) : bare(change)._tag === "Message" ? [] : undefined

const notParked: DeadLetter["cause"] = { tag: "Follows", message: "an earlier change of the same row is parked" }

/**
 * A function of one change that parks in {@link DeadLetters} what cannot be handled. Whether an error is the change's fault
 * `isPoison` tells; everything else is an outage, which is retried in place, holds the stream back, and parks nothing.
 *
 * A parked change counts as handled once its letter is stored, and not before. Later changes of its row are parked behind it
 * without being tried, until its letters are cleared. Too many letters in a short time are an outage, too: see `breaker`. Rows and messages are parked; whatever else is poison, a `Truncate` or a mark,
 * fails the stream, since nobody can tell what comes after it.
 *
 * @example
 * withLogicalStream(options, Handler.byKey({ concurrency: 8 },
 *   Handler.park({ isPoison: () => false, schedule: Schedule.recurs(3) }, (change) => store(change))
 * )).pipe(Effect.provide(DeadLetters.memory))
 */
export const park = <C, A, E = never, R = never>(
  options: ParkOptions<C, E>,
  handle: (change: C) => Effect.Effect<A, E, R>
): ((change: C) => Effect.Effect<A | Handled, E | DeadLettersError, R | DeadLetters>) => {
  const { isPoison, outage = defaultReconnect, schedule = Schedule.recurs(0) } = options
  const breaker = new Breaker(options.breaker)
  const keysOf = keysBy(options.key)
  const stored = <B>(asked: Effect.Effect<B, DeadLettersError>) =>
    asked.pipe(logged("dead letters are out of reach"), Effect.retry(outage))
  const put = Effect.fnUntraced(function* (change: C, keys: ReadonlyArray<string>, failure?: Failure<E>) {
    const letters = yield* DeadLetters
    const cause = failure === undefined ? notParked : { tag: tagOf(failure.error), message: messageOf(failure.error) }
    const id = changeId(bare(change))
    yield* stored(letters.park({ id, keys, cause, attempts: failure?.attempts ?? 0, change }))
    yield* Metric.update(Metrics.parked, 1)
    const what = `${bare(change)._tag}${id === undefined ? "" : ` ${id}`}`
    yield* Effect.logError(`${what} is parked after ${failure?.attempts ?? 0} attempts: ${cause.tag}`)
    return nextLsn(bare(change) as Parameters<typeof nextLsn>[0])
  })
  return Effect.fnUntraced(function* (change) {
    let attempts = 0
    const tried = Effect.suspend(() => {
      attempts++
      return handle(change)
    }).pipe(
      logged("handling failed"),
      Effect.retry({ schedule: outage, while: (error) => !isPoison(error) }),
      Effect.retry({ schedule, while: isPoison })
    )
    const keys = parkableKeys(change, keysOf)
    if (keys === undefined) return yield* tried
    const letters = yield* DeadLetters
    if (keys.length > 0 && (yield* stored(letters.holds(keys)))) return yield* put(change, keys)
    let wasHeld = false
    const isHeld = (error: E) => {
      if (!isPoison(error) || !breaker.isOpen()) return false
      wasHeld = true
      return true
    }
    const held = Effect.tap(Effect.retry(tried, { schedule: outage, while: isHeld }), () =>
      wasHeld ? breaker.handled : Effect.void
    )
    return yield* Effect.catch(
      held,
      (error): Effect.Effect<Handled, E | DeadLettersError, DeadLetters> =>
        isPoison(error) && !breaker.isOpen()
          ? Effect.tap(put(change, keys, { error, attempts }), () => breaker.parked)
          : Effect.fail(error)
    )
  })
}
