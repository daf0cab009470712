/**
 * The gauges of a slot's WAL budget in Effect's registry, for as long as somebody watches it. A budget is what a look has seen, so one
 * gauge tells how old that is, computed when it is read; what cannot be known is taken out, since a number would pass for one.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"
import { millisOf } from "../MonotonicTime.ts"
import * as Metrics from "../replication/Metrics.ts"
import type { WalBudget } from "./Budget.ts"
import { levels } from "./BudgetLevel.ts"

/** Until the slot is lost or the disk full, whichever is first, in seconds; `undefined` where neither is foreseen. */
export const secondsLeft = ({ millisUntilDiskFull, millisUntilLost }: WalBudget): number | undefined => {
  const known = [millisUntilLost, millisUntilDiskFull].filter((each) => each !== undefined)
  return known.length === 0 ? undefined : Math.min(...known) / 1000
}

/** What was last seen is not what is, once the server cannot be looked at. */
const whileSeen =
  (of: (budget: WalBudget) => number | undefined) =>
  (budget: WalBudget): number | undefined =>
    budget.unseenMillis > 0 ? undefined : of(budget)

/** What each says of a budget, and by how much that moves with each second that has passed since. */
const gauges: ReadonlyArray<readonly [Metric.Gauge<number>, (budget: WalBudget) => number | undefined, number]> = [
  [Metrics.walLevel, ({ level }) => levels.indexOf(level), 0],
  [Metrics.walRetainedBytes, whileSeen(({ retainedBytes }) => retainedBytes), 0],
  [Metrics.walSafeBytes, whileSeen(({ safeBytes }) => safeBytes), 0],
  [Metrics.walGrowth, whileSeen(({ growthPerSecond }) => growthPerSecond), 0],
  [Metrics.walLeftSeconds, whileSeen(secondsLeft), -1],
  [Metrics.walUnseenSeconds, ({ unseenMillis }) => unseenMillis / 1000, 1]
]

const noUpdate = { update: () => {}, modify: () => {} }

/**
 * Makes what tells each budget of a slot to the registry. They are gone with the scope: nobody looks any more. Of two who watch one slot
 * the last to look is heard.
 */
export const make = Effect.fnUntraced(function* (
  slot: string
): Effect.fn.Return<(budget: WalBudget) => Effect.Effect<void>, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const labels = yield* Metric.CurrentMetricAttributes
  const context = yield* Effect.provideService(Effect.context<never>(), Metric.CurrentMetricAttributes, {
    ...labels,
    slot
  })
  let registered: ReadonlyArray<Metric.Registration> = []
  const remove = () => {
    for (const each of registered) each.remove()
    registered = []
  }
  yield* Effect.addFinalizer(() => Effect.sync(remove))
  return (budget) =>
    Effect.sync(() => {
      const toldAt = millisOf(clock)
      remove()
      registered = gauges.flatMap(([metric, of, perSecond]) => {
        const value = of(budget)
        if (value === undefined) return []
        // No time is left that is below none. Other numbers may be, and these stand until the next look.
        const now = () =>
          perSecond === 0 ? value : Math.max(0, value + (perSecond * (millisOf(clock) - toldAt)) / 1000)
        const get = () => ({ value: now() })
        return [Metric.registerUnsafe(metric, context, { get, ...noUpdate })]
      })
    })
})
