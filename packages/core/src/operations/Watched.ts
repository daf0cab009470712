/** What is shown to whoever keeps a program running: a stream, or what has one, and what beside it its server can be asked. */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Doctor from "../doctor/Doctor.ts"
import type { SlotLease } from "../lease/SlotLease.ts"
import type { WalSender } from "../server/WalSender.ts"
import type * as Health from "../stream/Health.ts"
import type { Observation } from "../stream/Observation.ts"
import * as WalBudget from "./WalBudget.ts"

/** What is asked how it is: a `LogicalStream`, or whatever else has a slot and a health, as a `Copy` of `@replicant/node`. */
export interface Watched {
  readonly options: { readonly slot: string }
  readonly health: Effect.Effect<Health.Health>
  /** For the page alone; `undefined` while there is nothing to observe. */
  readonly observe?: Effect.Effect<Observation | undefined> | undefined
  /** For the page alone, and looked at only while somebody has it open: see {@link examined}. */
  readonly budget?: Stream.Stream<WalBudget.WalBudget> | undefined
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

/**
 * A stream of which the page also shows what its server keeps for the slot, and what a doctor finds of that plan when it is asked.
 * Both look over sessions of their own.
 *
 * @example
 * const routes = Layer.unwrap(
 *   Effect.map(Operations.examined(orders, { publications: ["orders"] }), (watched) =>
 *     Operations.layer({ streams: [watched] })
 *   )
 * )
 */
export const examined = (stream: Watched, plan: Doctor.Plan): Effect.Effect<Watched, never, WalSender> =>
  Effect.map(Effect.context<WalSender>(), (context) => {
    const { slot } = stream.options
    return {
      ...stream,
      // A slot that is not there yet is looked for again.
      budget: WalBudget.watch(slot).pipe(
        Stream.retry(Schedule.spaced("10 seconds")),
        Stream.orDie,
        Stream.provideContext(context)
      ),
      doctor: Effect.provideContext(Effect.orDie(Doctor.run({ slot, ...plan })), context)
    }
  })
