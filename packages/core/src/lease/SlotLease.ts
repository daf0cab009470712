/**
 * A lease: of the processes that would follow a slot, the one that does. It is a lock in the slot's own database, in a session
 * of its own, with a term: whoever is killed loses it at once, whoever is frozen or cut off after the term. Whoever waits is in
 * the server's own queue and holds no walsender.
 *
 * The lease says who streams, and the slot is the fence: whoever has the lease takes the slot over, and the one before is cut
 * off with its walsender, so it acknowledges nothing any more. Docs: docs/high-availability.md.
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { slotName } from "../protocol/ReplicationCommand.ts"
import { InvalidOption, type ReplicationError } from "../ReplicationError.ts"
import { HeldLease } from "../replication/HeldLease.ts"
import * as Metrics from "../replication/Metrics.ts"
import { Final, retrying, retryOf } from "../replication/Reconnect.ts"
import type { WalSender } from "../server/WalSender.ts"
import * as LeaseLock from "./LeaseLock.ts"

export type { Owner } from "./LeaseLock.ts"

/** Which lease. */
export interface Options {
  /** The slot that it is of. It need not be there yet. */
  readonly slot: string
  /**
   * How long the server waits for a sign of life before it gives the lease to the next: 3 s. One that is short is lost to a
   * machine that is merely busy, one that is long keeps a slot from its next owner where this one is frozen or cut off.
   */
  readonly term?: Duration.Input | undefined
}

/**
 * - `Idle`: nobody has run anything under it.
 * - `Connecting`: its session is being opened.
 * - `Waiting`: `owner` has it; `undefined` where that has just let go.
 * - `Held`: ours, by the session of that pid.
 * - `Lost`: for that cause; what runs is told to end, and then waits for it again.
 * - `Reconnecting`: its session could not be opened, or broke while we waited. `attempt` counts the failures in a row.
 * - `Stopped`: what ran has ended.
 */
export type State =
  | { readonly _tag: "Idle" }
  | { readonly _tag: "Connecting" }
  | { readonly _tag: "Waiting"; readonly owner: LeaseLock.Owner | undefined }
  | { readonly _tag: "Held"; readonly pid: number }
  | { readonly _tag: "Lost"; readonly cause: ReplicationError }
  | { readonly _tag: "Reconnecting"; readonly attempt: number; readonly cause: ReplicationError }
  | { readonly _tag: "Stopped" }

/** A lease as a value. Nothing is opened yet. */
export interface SlotLease {
  readonly options: Options
  /**
   * Waits for the lease, runs `effect` for as long as it is held, and gives it back when that has ended. Where it is lost
   * `effect` is interrupted, which for a stream is to leave in good order; then it is waited for again, and `effect` is run
   * anew. What `effect` comes to is what this comes to.
   */
  readonly run: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | ReplicationError, R | WalSender>
  /** What it is doing. To be watched with `SubscriptionRef.changes`. */
  readonly state: SubscriptionRef.SubscriptionRef<State>
}

/** Shorter ones would be lost to a garbage collection, longer ones are none: milliseconds. */
const leastTerm = 500
const mostTerm = 3_600_000

const termMillis = ({ term = "3 seconds" }: Options): Effect.Effect<number, InvalidOption> => {
  const millis = Option.match(Duration.fromInput(term), { onNone: () => Number.NaN, onSome: Duration.toMillis })
  return millis >= leastTerm && millis <= mostTerm
    ? Effect.succeed(Math.round(millis))
    : Effect.fail(new InvalidOption({ option: "term", problem: "must be between half a second and an hour" }))
}

/** Whoever stands by looks again soon: up to 2 s, where a stream's own schedule goes to 10. */
const standby = Schedule.min([Schedule.exponential("200 millis"), Schedule.spaced("2 seconds")]).pipe(Schedule.jittered)

/** One term after the other, until what runs has ended or nothing helps any more. */
const terms = Effect.fnUntraced(function* <A, E, R>(
  options: Options,
  effect: Effect.Effect<A, E, R>,
  onState: (state: State) => Effect.Effect<void>
): Effect.fn.Return<A, E | ReplicationError, R | WalSender> {
  const slot = yield* Effect.fromResult(slotName(options.slot))
  const term = yield* termMillis(options)
  let hasHeld = false
  let isTold = false
  let failures = 0
  const onWaiting = Effect.fnUntraced(function* (owner: LeaseLock.Owner | undefined) {
    failures = 0
    yield* onState({ _tag: "Waiting", owner })
    if (isTold) return
    isTold = true
    yield* Effect.logInfo(`standing by: the lease of slot "${slot}" is held by ${LeaseLock.describeOwner(owner)}`)
  })
  const once = Effect.gen(function* () {
    hasHeld = false
    yield* onState({ _tag: "Connecting" })
    const lock = yield* LeaseLock.take({ slot, term, onWaiting })
    hasHeld = true
    isTold = false
    failures = 0
    const lost = yield* Deferred.make<never, ReplicationError>()
    // In a fiber of its own, which outlives an interruption: what leaves in good order still holds it.
    yield* LeaseLock.keep(lock).pipe(
      Effect.tapError((cause) =>
        Effect.andThen(
          onState({ _tag: "Lost", cause }),
          Effect.logWarning(`the lease of slot "${slot}" is lost: ${cause.message}`)
        )
      ),
      Effect.onExit((exit) => Deferred.done(lost, exit)),
      Effect.forkScoped
    )
    yield* onState({ _tag: "Held", pid: lock.pid })
    yield* Effect.logInfo(`holding the lease of slot "${slot}"`)
    const running = Effect.mapError(effect, (error) => new Final({ error })).pipe(
      Effect.provideService(HeldLease, { slot, isCertain: LeaseLock.isCertain(lock) })
    )
    return yield* Effect.raceFirst(running, Deferred.await(lost))
  }).pipe(Effect.scoped)
  return yield* retrying<A, ReplicationError, E, R | WalSender>(
    once as Effect.Effect<A, ReplicationError | Final<E>, R | WalSender>,
    {
      schedule: standby,
      decide: (error) =>
        Effect.sync(() => {
          if (retryOf(error) === "never") return { _tag: "GiveUp", error }
          if (!hasHeld) failures++
          return { _tag: "Again", hasGotOn: hasHeld, attempt: failures }
        }),
      onFailure: (cause, attempt) =>
        hasHeld
          ? Effect.void
          : Effect.andThen(
              onState({ _tag: "Reconnecting", attempt, cause }),
              Effect.logWarning(`cannot wait for the lease of slot "${slot}" (${attempt}): ${cause.message}`)
            )
    }
  )
})

/**
 * A lease as a value: to run something under, and to be watched.
 *
 * @example
 * const lease = yield* SlotLease.make({ slot: "orders" })
 * const orders = yield* LogicalStream.make({ slot: "orders", plugin })
 * yield* lease.run(orders.run(handler))
 */
export const make = (options: Options): Effect.Effect<SlotLease> =>
  Effect.map(SubscriptionRef.make<State>({ _tag: "Idle" }), (state) => {
    const onState = (now: State) =>
      Effect.andThen(Metric.update(Metrics.leaseHeld, now._tag === "Held" ? 1 : 0), SubscriptionRef.set(state, now))
    const run: SlotLease["run"] = (effect) =>
      Effect.flatMap(Metric.CurrentMetricAttributes, (labels) => {
        const labelled = { ...labels, slot: options.slot }
        const tell = (now: State) => Effect.provideService(onState(now), Metric.CurrentMetricAttributes, labelled)
        return terms(options, effect, tell).pipe(Effect.ensuring(tell({ _tag: "Stopped" })))
      })
    return { options, run, state }
  })

/**
 * Runs `effect` while the lease of that slot is held: of all processes that do so, in one. Mostly a stream of that slot, which
 * then needs no `slotPolicy`: it takes the slot over from an owner that was frozen or cut off, who cannot acknowledge from then
 * on. What such an owner has under way in a sink may still land there: a sink must bear that, as it must a repetition.
 *
 * Where the lease is lost, `effect` is interrupted and run again once it is held again. A stream that is made outside, by
 * `LogicalStream.make`, then goes on from where it stood itself, also over a failover of PostgreSQL.
 *
 * @example
 * const orders = yield* LogicalStream.make({ slot: "orders", plugin })
 * yield* SlotLease.withLease({ slot: "orders" }, orders.run(handler))
 */
export const withLease = <A, E, R>(
  options: Options,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E | ReplicationError, R | WalSender> => Effect.flatMap(make(options), ({ run }) => run(effect))
