/**
 * A function of a handler that parks what cannot be handled, and waits where it is no fault of the change. Which of the two an error
 * tells of, only the program knows.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Schedule from "effect/Schedule"
import { nextLsn } from "../change/Change.ts"
import type { Handled } from "../change/NextLsn.ts"
import * as Metrics from "../replication/Metrics.ts"
import { CurrentParking } from "../replication/Parking.ts"
import { defaultReconnect } from "../replication/Reconnect.ts"
import type { Any } from "../table/Table.ts"
import type { RowMismatch } from "../table/TableError.ts"
import { Breaker, type BreakerOptions } from "./Breaker.ts"
import { bare, isOfRow, type KeyOf, keysBy } from "./ChangeKey.ts"
import { type DeadLetter, type DeadLettersError, letterId, subjectOf } from "./Letter.ts"
import { LetterForm, mismatchOf } from "./LetterForm.ts"
import { DeadLetters } from "./LetterStore.ts"
import { logged, messageOf, tagOf } from "./Retry.ts"

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
  /**
   * The declared tables that changes are of, where they stand behind `Table.handler` with `onMismatch: "untyped"`. A row that does
   * not fit its Schema is parked then, without being given to the function, and read by the Schema of the day when it is tried again.
   * Stores need them, too, to keep values that a Schema makes.
   */
  readonly tables?: ReadonlyArray<Any> | undefined
}

interface Failure<E> {
  readonly error: E | RowMismatch
  readonly attempts: number
}

/** What became of a letter that was tried again: it is gone, or it stays. */
export type Outcome = "handled" | "failed"

/** A function that parks. */
export interface Parked<in C, out A, out E, out R> {
  (change: C): Effect.Effect<A | Handled, E | DeadLettersError, R | DeadLetters>
  /** Tries a letter again, and writes down what became of it. See `Handler.retryParked`. */
  readonly again: (letter: DeadLetter) => Effect.Effect<Outcome, E | DeadLettersError, R | DeadLetters>
}

/** What a function is given where misfits are parked. */
export type FittingOf<C> = Exclude<C, { readonly _tag: "Untyped" | "UntypedSnapshotRow" }>

/** What is parked is of rows that are known, or a message, which has none. */
const parkableKeys = <C>(change: C, keysOf: (change: C) => ReadonlyArray<string> | undefined) =>
  isOfRow(change) ? keysOf(change) : bare(change)._tag === "Message" ? [] : undefined

const follows: DeadLetter["cause"] = { tag: "Follows", message: "an earlier change of the same row is parked" }

/** How many there are, for whoever watches the stream. */
export const tellLetters = Effect.gen(function* () {
  const parking = yield* CurrentParking
  const { letters, since } = yield* (yield* DeadLetters).census(parking.slot)
  parking.letters = letters
  parking.since = since
})

/** The function, and what tries its letters again. */
class Parking<C, A, E, R> {
  private readonly isPoison: (error: E) => boolean
  private readonly outage: Schedule.Schedule<unknown>
  private readonly schedule: Schedule.Schedule<unknown, E>
  private readonly keysOf: (change: C) => ReadonlyArray<string> | undefined
  private readonly breaker: Breaker
  private readonly form: LetterForm
  private readonly parksMisfits: boolean
  private readonly handle: (change: C) => Effect.Effect<A, E, R>

  constructor(options: ParkOptions<C, E>, handle: (change: C) => Effect.Effect<A, E, R>) {
    this.isPoison = options.isPoison
    this.outage = options.outage ?? defaultReconnect
    this.schedule = options.schedule ?? Schedule.recurs(0)
    this.keysOf = keysBy(options.key)
    this.breaker = new Breaker(options.breaker)
    this.form = new LetterForm(options.tables)
    this.parksMisfits = options.tables !== undefined
    this.handle = handle
  }

  private stored<B>(asked: Effect.Effect<B, DeadLettersError, DeadLetters>) {
    return asked.pipe(
      Effect.tapError((error) => Effect.logWarning(`dead letters are out of reach: ${error.message}`)),
      Effect.retry({ schedule: this.outage, while: ({ isRetryable }) => isRetryable })
    )
  }

  /** The change, tried as often as that may help. Fails with poison, or with what no schedule helps. */
  private tried(change: C, onAttempt: () => void): Effect.Effect<A, E | RowMismatch, R> {
    const misfit = this.parksMisfits ? mismatchOf(change) : undefined
    if (misfit !== undefined) {
      onAttempt()
      return Effect.fail(misfit)
    }
    return Effect.suspend(() => {
      onAttempt()
      return this.handle(change)
    }).pipe(
      logged("handling failed"),
      Effect.retry({ schedule: this.outage, while: (error) => !this.isPoison(error) }),
      Effect.retry({ schedule: this.schedule, while: this.isPoison })
    )
  }

  private isFault(change: C, error: E | RowMismatch): boolean {
    return (this.parksMisfits && error === mismatchOf(change)) || this.isPoison(error as E)
  }

  private readonly put = Effect.fnUntraced(
    { self: this },
    function* (change: C, id: string, keys: ReadonlyArray<string>, failure?: Failure<E>) {
      const letters = yield* DeadLetters
      const { slot } = yield* CurrentParking
      const now = yield* Clock.currentTimeMillis
      const cause = failure === undefined ? follows : { tag: tagOf(failure.error), message: messageOf(failure.error) }
      const attempts = failure?.attempts ?? 0
      const letter: DeadLetter = {
        slot,
        id,
        state: failure === undefined ? "waiting" : "failed",
        ...subjectOf(change),
        keys,
        cause,
        attempts,
        firstAt: now,
        lastAt: now,
        change: yield* this.form.put(change)
      }
      yield* this.stored(letters.park(letter))
      yield* Metric.update(Metrics.parked, 1)
      yield* tellLetters
      yield* Effect.logError(`${letter.kind} ${id} is parked after ${attempts} attempts: ${cause.tag}`)
      return nextLsn(bare(change) as Parameters<typeof nextLsn>[0])
    }
  )

  readonly run = Effect.fnUntraced({ self: this }, function* (change: C): Effect.fn.Return<
    A | Handled,
    E | DeadLettersError,
    R | DeadLetters
  > {
    let attempts = 0
    const tried = this.tried(change, () => void attempts++)
    const keys = parkableKeys(change, this.keysOf)
    // Nobody can tell what comes after it.
    if (keys === undefined) return yield* tried as Effect.Effect<A, E, R>
    const letters = yield* DeadLetters
    const parking = yield* CurrentParking
    if (parking.letters === undefined) yield* tellLetters
    if (keys.length > 0 && !(yield* letters.isEmpty)) {
      const id = letterId(change, keys)
      if (yield* letters.holds({ slot: parking.slot, id }, keys)) return yield* this.put(change, id, keys)
    }
    const { breaker } = this
    let wasHeld = false
    const isHeld = (error: E | RowMismatch) => {
      if (!this.isFault(change, error) || !breaker.isOpen()) return false
      wasHeld = true
      return true
    }
    const held = Effect.tap(Effect.retry(tried, { schedule: this.outage, while: isHeld }), () =>
      wasHeld ? breaker.handled : Effect.void
    )
    return yield* Effect.catch(
      held,
      (error): Effect.Effect<Handled, E | DeadLettersError, DeadLetters> =>
        this.isFault(change, error) && !breaker.isOpen()
          ? Effect.tap(this.put(change, letterId(change, keys), keys, { error, attempts }), () => breaker.parked)
          : Effect.fail(error as E)
    )
  })

  readonly again = Effect.fnUntraced({ self: this }, function* (letter: DeadLetter): Effect.fn.Return<
    Outcome,
    E | DeadLettersError,
    R | DeadLetters
  > {
    const letters = yield* DeadLetters
    let attempts = 0
    const { change: _, ...head } = letter
    const stays = Effect.fnUntraced({ self: this }, function* (error: unknown) {
      const lastAt = yield* Clock.currentTimeMillis
      const cause = { tag: tagOf(error), message: messageOf(error) }
      const kept = { ...head, state: "failed", cause, attempts: head.attempts + attempts, lastAt } as const
      yield* this.stored(letters.failed(kept))
      yield* Effect.logError(`${head.kind} ${head.id} was tried again, and stays parked: ${cause.tag}`)
      return "failed" as const
    })
    const taken = yield* Effect.result(this.form.take(letter.change))
    if (taken._tag === "Failure") return yield* stays(taken.failure)
    const change = taken.success as C
    const tried = yield* Effect.result(this.tried(change, () => void attempts++))
    if (tried._tag === "Failure") {
      return yield* this.isFault(change, tried.failure) ? stays(tried.failure) : Effect.fail(tried.failure as E)
    }
    yield* this.stored(letters.handled(head))
    yield* Effect.logInfo(`${head.kind} ${head.id} is handled, and parked no more`)
    return "handled"
  })
}

/**
 * A function of one change that parks in {@link DeadLetters} what cannot be handled. Whether an error is the change's fault
 * `isPoison` tells; everything else is an outage, which is retried in place, holds the stream back, and parks nothing.
 *
 * A parked change counts as handled once its letter is stored, and not before. Later changes of its row are parked behind it
 * without being tried, until its letters are gone. Too many letters in a short time are an outage, too: see `breaker`. Rows and
 * messages are parked; whatever else is poison, a `Truncate` or a mark, fails the stream, since nobody can tell what comes after it.
 *
 * Letters are tried again by {@link retryParked}.
 *
 * @example
 * withLogicalStream(options, Handler.byKey({ concurrency: 8 },
 *   Handler.park({ isPoison: () => false, schedule: Schedule.recurs(3) }, (change) => store(change))
 * )).pipe(Effect.provide(DeadLetters.memory))
 */
export const park: {
  <C, A, E = never, R = never>(
    options: ParkOptions<C, E> & { readonly tables: ReadonlyArray<Any> },
    handle: (change: FittingOf<C>) => Effect.Effect<A, E, R>
  ): Parked<C, A, E, R>
  <C, A, E = never, R = never>(
    options: ParkOptions<C, E>,
    handle: (change: C) => Effect.Effect<A, E, R>
  ): Parked<C, A, E, R>
} = <C, A, E, R>(options: ParkOptions<C, E>, handle: (change: C) => Effect.Effect<A, E, R>): Parked<C, A, E, R> => {
  const { again, run } = new Parking(options, handle)
  return Object.assign((change: C) => run(change), { again })
}
