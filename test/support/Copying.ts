/** A copy under test: `Copy.run` in a fiber of its own, and when the target has all that the source has committed. */
import { Lsn } from "@replicant/core"
import { Copy } from "@replicant/node"
import { Effect, Fiber, Redacted, References, type Scope, Stream, SubscriptionRef } from "effect"
import { eventually, patience } from "./eventually.ts"
import type { Workspace } from "./Workspace.ts"

/** From one workspace to the other, making what is missing. */
export const copyOptions = (
  source: Workspace,
  target: Workspace,
  overrides: Partial<Copy.Options> = {}
): Copy.Options => ({
  from: { url: Redacted.make(source.url()) },
  to: { url: Redacted.make(target.url()) },
  publications: [source.publication],
  slot: source.slot,
  whenMissing: "create",
  ...overrides
})

/** What the target has stored of itself, `undefined` while there is nothing. */
export const positionOf = (target: Workspace, slot: string) =>
  Effect.map(
    target.sql(`SELECT state, end_lsn, snapshot FROM replicant.copy_position WHERE slot = '${slot}'`),
    ([row]) => row
  )

/** A table that every workspace of a copy has: what is written there last is the mark of the end. */
export const markTable = "CREATE TABLE end_mark (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)"

/** Waits until everything that the source has committed by now is in the target. */
export const caughtUp = Effect.fnUntraced(function* (source: Workspace, target: Workspace, slot = source.slot) {
  const last = Lsn.fromString(yield* source.currentWalLsn)!
  yield* source.sql("INSERT INTO end_mark DEFAULT VALUES")
  const hasAll = Effect.map(positionOf(target, slot), (row) => {
    const position = Lsn.fromString(String(row?.end_lsn))
    return row?.state !== "copying" && position !== undefined && position >= last
  })
  // A first copy is there before its slot is made to stay.
  yield* eventually(
    Effect.zipWith(hasAll, source.isStreaming(slot), (all, streams) => all && streams),
    { what: `all up to ${Lsn.format(last)} was applied` }
  )
})

/** Waits until a mark that is written now, with a number of its own, is in the target: for stores that both are. */
export const endMark = Effect.fnUntraced(function* (source: Workspace, target: Workspace, n: number) {
  yield* source.sql(`INSERT INTO end_mark OVERRIDING SYSTEM VALUE VALUES (${n})`)
  yield* eventually(
    Effect.map(target.sql(`SELECT FROM end_mark WHERE n = ${n}`), (rows) => rows.length === 1),
    { what: `mark ${n} was applied` }
  )
})

export interface Copying {
  readonly totals: Copy.CopyTotals
  /** What it has told of itself, one after the other. */
  readonly states: ReadonlyArray<Copy.State>
  /** Ends it as a program would. */
  readonly stop: Effect.Effect<void>
  /** What it failed with. */
  readonly failure: Effect.Effect<Copy.CopyError, unknown>
  /** Fails when the copy does. */
  readonly during: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | Copy.CopyError, R>
}

/** Starts a copy. */
export const startCopy = Effect.fnUntraced(function* (
  options: Copy.Options
): Effect.fn.Return<Copying, never, Scope.Scope> {
  const copy = yield* Copy.make(options)
  const states: Array<Copy.State> = []
  yield* SubscriptionRef.changes(copy.state).pipe(
    Stream.runForEach((state) => Effect.sync(() => states.push(state))),
    Effect.forkScoped({ startImmediately: true })
  )
  const fiber = yield* copy.run.pipe(Effect.provideService(References.MinimumLogLevel, "Warn"), Effect.forkScoped)
  return {
    totals: copy.totals,
    states,
    stop: Fiber.interrupt(fiber),
    failure: Effect.flip(Fiber.join(fiber)).pipe(Effect.timeout(patience)),
    during: (effect) => Effect.raceFirst(effect, Fiber.join(fiber))
  }
})
