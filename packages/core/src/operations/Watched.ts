/** What is shown to whoever keeps a program running: a stream, or what has one, and what beside it its server can be asked. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Doctor from "../doctor/Doctor.ts"
import type { SlotLease } from "../lease/SlotLease.ts"
import type { WalSender } from "../server/WalSender.ts"
import * as Health from "../stream/Health.ts"
import type { Observation } from "../stream/Observation.ts"
import * as WalBudget from "./WalBudget.ts"

/** What is asked how it is: a `LogicalStream`, or whatever else has a slot and a health, as a `Copy` of `@replicant/node`. */
export interface Watched {
  readonly options: { readonly slot: string }
  readonly health: Effect.Effect<Health.Health>
  /** For the page alone; `undefined` while there is nothing to observe. */
  readonly observe?: Effect.Effect<Observation | undefined> | undefined
  /** For the page, and watched for as long as the routes are served: see {@link examined}. */
  readonly budget?: Stream.Stream<WalBudget.WalBudget> | undefined
  /** For the page alone, and looked at only when it is asked for. */
  readonly doctor?: Effect.Effect<Doctor.Report> | undefined
}

/**
 * A stream that runs under a lease: well also while it waits for that, since standing by is what it is there for.
 *
 * @example
 * const lease = yield* SlotLease.make({ slot: "orders" })
 * const routes = Operations.layer({ streams: [Operations.leased(orders, lease)] })
 */
export const leased = (stream: Watched, lease: Pick<SlotLease, "state">): Watched => ({
  ...stream,
  health: Effect.gen(function* () {
    const health = yield* stream.health
    const { _tag } = yield* SubscriptionRef.get(lease.state)
    return _tag === "Waiting" ? { ...health, status: "ok", reasons: [] } : health
  })
})

/** A budget as a reason to be ill; none of one that is ok, or of which nothing is known but that the server is away. */
const reasonOf = (budget: WalBudget.WalBudget, since: number): ReadonlyArray<Health.Reason> => {
  if (budget.level === "ok" || budget.reasons.every((reason) => reason === "Unseen")) return []
  const status = budget.level === "warning" ? "degraded" : "failing"
  return [{ code: "WalBudget", status, since, says: WalBudget.describe(budget) }]
}

/**
 * A stream of which is also watched what its server keeps for the slot, and of which the page shows what a doctor finds of that plan
 * when it is asked. Both look over sessions of their own; the budget every ten seconds, for as long as the routes are served.
 *
 * A budget that is a `warning` makes it degraded, and one that is worse failing, by the thresholds of `options`: of that the stream by
 * itself knows nothing. It is among the metrics as well.
 *
 * @example
 * const routes = Layer.unwrap(
 *   Effect.map(Operations.examined(orders, { publications: ["orders"] }), (watched) =>
 *     Operations.layer({ streams: [watched] })
 *   )
 * )
 */
export const examined = (
  stream: Watched,
  plan: Doctor.Plan,
  options: WalBudget.WatchOptions = {}
): Effect.Effect<Watched, never, WalSender> =>
  Effect.map(Effect.context<WalSender>(), (context) => {
    const { slot } = stream.options
    let last: { readonly budget: WalBudget.WalBudget; readonly since: number } | undefined
    const note = (budget: WalBudget.WalBudget) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        last = { budget, since: last?.budget.level === budget.level ? last.since : now }
      })
    const forget = Effect.sync(() => {
      last = undefined
    })
    return {
      ...stream,
      health: Effect.map(stream.health, (told) =>
        last === undefined
          ? told
          : Health.fromReasons([...told.reasons, ...reasonOf(last.budget, last.since)], told.since)
      ),
      // A slot that is not there yet is looked for again.
      budget: WalBudget.watch(slot, options).pipe(
        Stream.tap(note),
        Stream.ensuring(forget),
        Stream.retry(Schedule.spaced("10 seconds")),
        Stream.orDie,
        Stream.provideContext(context)
      ),
      doctor: Effect.provideContext(Effect.orDie(Doctor.run({ slot, ...plan })), context)
    }
  })
