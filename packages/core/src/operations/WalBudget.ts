/**
 * The public module `WalBudget`: what the server keeps for a slot, how much more it may, how long that lasts, and what to do when it
 * gets short. For who is called before a slot is lost or a disk full, and not after.
 *
 * Source: https://www.postgresql.org/docs/current/runtime-config-replication.html#GUC-MAX-SLOT-WAL-KEEP-SIZE
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { errorId } from "../ErrorForm.ts"
import { monotonicMillis } from "../MonotonicTime.ts"
import { slotName } from "../protocol/ReplicationCommand.ts"
import { type ReplicationError, SlotNotFound } from "../ReplicationError.ts"
import type { WalSender } from "../server/WalSender.ts"
import { type BudgetHistory, type BudgetOptions, next, unseen, type WalBudget } from "./Budget.ts"
import * as BudgetGauges from "./BudgetGauges.ts"
import { isAtLeast, Level } from "./BudgetLevel.ts"
import { describe } from "./BudgetText.ts"
import * as Looks from "./Looks.ts"
import { lookAtSlots, type SlotLook, sampleOf } from "./SlotLook.ts"

export { type BudgetHistory, type BudgetOptions, next, unseen, WalBudget } from "./Budget.ts"
export { isAtLeast, Level, Reason, type Threshold, type Thresholds } from "./BudgetLevel.ts"
export { describe } from "./BudgetText.ts"
export type { WalSample } from "./WalForecast.ts"

/** A budget got as short as somebody said it must not. Nothing is lost by it: the slot is where it was. */
export class WalBudgetExceeded extends Schema.TaggedError<WalBudgetExceeded>(errorId("WalBudgetExceeded"))(
  "WalBudgetExceeded",
  { slot: Schema.String, level: Level, problem: Schema.String }
) {
  get remedy(): string {
    return this.level === "lost"
      ? "take a new snapshot with a new slot: what the slot had yet to send is gone"
      : `let its consumer catch up; or raise max_slot_wal_keep_size, or the room for pg_wal; or give the slot up: SELECT pg_drop_replication_slot('${this.slot}')`
  }
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return this.problem
  }
}

/** How a slot is watched. */
export interface WatchOptions extends BudgetOptions {
  /** How often to look: every 10 seconds. */
  readonly interval?: Duration.Input | undefined
  /** Bytes free where `pg_wal` is, asked at each look: no SQL tells. Left out, a full disk is not forecast. */
  readonly freeBytes?: Effect.Effect<number | undefined> | undefined
}

/**
 * A slot's budget now and at each look. It looks beside the stream, in a session of its own; while it cannot, the last budget
 * comes again, with its age in `unseenMillis`. Before the first look has come about nothing does. Ends never; fails when there is no
 * such slot, or with what no later look mends. No right is needed but to connect. While it runs the slot's `replicant_wal_` metrics
 * say the same.
 *
 * @example
 * const paged = WalBudget.watch("orders", { critical: { timeLeft: "2 hours" } }).pipe(
 *   Stream.changesWith((before, after) => before.level === after.level),
 *   Stream.runForEach((budget) => Effect.logWarning(budget.level, WalBudget.describe(budget)))
 * )
 */
export const watch = (
  slot: string,
  options: WatchOptions = {}
): Stream.Stream<WalBudget, ReplicationError, WalSender> => {
  const { freeBytes = Effect.succeed(undefined), interval = "10 seconds" } = options
  const after = Effect.fnUntraced(function* (
    before: BudgetHistory | undefined,
    looked: Result.Result<SlotLook, ReplicationError>
  ): Effect.fn.Return<BudgetHistory | undefined, ReplicationError> {
    const at = yield* monotonicMillis
    if (Result.isFailure(looked)) {
      if (!looked.failure.isRetryable) return yield* looked.failure
      yield* Effect.logDebug(`cannot look at slot ${slot}: ${looked.failure.message}`)
      return before === undefined ? undefined : unseen(before, at, options)
    }
    const [row] = looked.success.slots
    if (row === undefined) return yield* new SlotNotFound({ slot })
    return next(before, slot, sampleOf(looked.success, row, { at, freeBytes: yield* freeBytes }), options)
  })
  return Stream.unwrap(
    Effect.gen(function* () {
      const name = yield* Effect.fromResult(slotName(slot))
      const tell = yield* BudgetGauges.make(slot)
      return Looks.every((session) => lookAtSlots(session, name), interval).pipe(
        Stream.mapAccumEffect(
          (): BudgetHistory | undefined => undefined,
          (before, looked) =>
            Effect.map(after(before, looked), (history) => [history, history === undefined ? [] : [history.budget]])
        ),
        Stream.tap(tell)
      )
    })
  )
}

/** What is done when a level is reached, and when it is left. */
export interface Act<E, R> {
  readonly enter: (budget: WalBudget) => Effect.Effect<unknown, E, R>
  /** Nothing, when left out. */
  readonly leave?: ((budget: WalBudget) => Effect.Effect<unknown, E, R>) | undefined
}

/**
 * Acts once a level or a worse one is reached, and once it is left again: pages somebody, or pauses a table that is read anew. The
 * budgets pass.
 *
 * @example
 * const spared = (request: Snapshot.Request) =>
 *   WalBudget.watch("orders").pipe(
 *     WalBudget.onLevel("warning", { enter: () => request.pause, leave: () => request.resume }),
 *     Stream.runDrain
 *   )
 */
export const onLevel =
  <E, R>(level: Level, { enter, leave }: Act<E, R>) =>
  <E2, R2>(budgets: Stream.Stream<WalBudget, E2, R2>): Stream.Stream<WalBudget, E | E2, R | R2> =>
    Stream.mapAccumEffect(
      budgets,
      () => false,
      Effect.fnUntraced(function* (wasReached, budget) {
        const isReached = isAtLeast(budget.level, level)
        if (isReached && !wasReached) yield* enter(budget)
        if (!isReached && wasReached && leave !== undefined) yield* leave(budget)
        return [isReached, [budget]]
      })
    )

/**
 * Fails with `WalBudgetExceeded` once a level or a worse one is reached, as where a stream is rather ended, and its slot dropped,
 * than the server's disk filled.
 *
 * @example
 * const guarded = <E, R>(stream: Effect.Effect<never, E, R>) =>
 *   Effect.raceFirst(stream, WalBudget.watch("orders").pipe(WalBudget.failAt("critical"), Stream.runDrain))
 */
export const failAt =
  (level: Level) =>
  <E, R>(budgets: Stream.Stream<WalBudget, E, R>): Stream.Stream<WalBudget, E | WalBudgetExceeded, R> =>
    Stream.mapEffect(budgets, (budget) =>
      isAtLeast(budget.level, level)
        ? Effect.fail(new WalBudgetExceeded({ slot: budget.slot, level: budget.level, problem: describe(budget) }))
        : Effect.succeed(budget)
    )
