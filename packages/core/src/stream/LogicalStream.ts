/**
 * A slot that is followed, as a value: connect, find or create the slot, copy what is there where that is asked for, stream,
 * hand over, acknowledge what the handler says is durable, reconnect while that helps, and leave in good order.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Random from "effect/Random"
import * as Ref from "effect/Ref"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { Change } from "../change/Change.ts"
import { CheckpointStore } from "../checkpoint/CheckpointService.ts"
import { CopyRetry, isDeadlock } from "../copying/CopyRetry.ts"
import { isReplicationError } from "../isReplicationError.ts"
import type { Lsn } from "../Lsn.ts"
import { InvalidOption } from "../ReplicationError.ts"
import { CurrentConsumers } from "../replication/Consumers.ts"
import { heldLeaseOf } from "../replication/HeldLease.ts"
import { CurrentParking } from "../replication/Parking.ts"
import { Final, type Retrying, retrying } from "../replication/Reconnect.ts"
import { checkNotAhead } from "../replication/StartPosition.ts"
import { unfit } from "../rereading/Attachment.ts"
import * as Control from "../rereading/Control.ts"
import { ControlState } from "../rereading/Control.ts"
import type { SnapshotRequest, SnapshotRequestOptions } from "../rereading/Request.ts"
import type { WalSender } from "../server/WalSender.ts"
import type { SnapshotChange } from "../snapshot/SnapshotChange.ts"
import { isSnapshotError, type SnapshotError } from "../snapshot/SnapshotError.ts"
import type { TableSnapshotChange } from "../snapshot/TableSnapshotChange.ts"
import { awaitLsn, type LsnTimeout } from "./AwaitLsn.ts"
import { makeContinuity, makeRemembered, type Remembered, runConnections, whileHeld } from "./ConnectionRun.ts"
import * as Delivery from "./Delivery.ts"
import { copyVerdict, coverageOf, doneBefore, runFirstCopy } from "./FirstCopy.ts"
import { from, type Handler, type Input } from "./Handler.ts"
import type { Health } from "./Health.ts"
import type { Delivered, End, Failure, Options } from "./LogicalStreamOptions.ts"
import type { Observation } from "./Observation.ts"
import { Observer } from "./Observer.ts"
import { withRowsBeside } from "./RowsBeside.ts"
import * as StreamState from "./StreamState.ts"

export type { RateLimit } from "../copying/RateLimit.ts"
export { defaultReconnect, type Retrying, retrying, type Verdict } from "../replication/Reconnect.ts"
export type { Checkpoint } from "../replication/StartPosition.ts"
export type { Memory, Timing } from "../replication/StreamOptions.ts"
export type { SlotPolicy } from "../server/SlotSetup.ts"
export { LsnTimeout } from "./AwaitLsn.ts"
export type { Delivery, Progress, SnapshotMark } from "./Delivery.ts"
export type { CopyOptions, Delivered, End, Failure, Options, SnapshotMode } from "./LogicalStreamOptions.ts"
export * as ReadYourWrites from "./ReadYourWrites.ts"
export type { CopyProgress, StreamState, TableProgress } from "./StreamState.ts"

/** A slot to be followed. Nothing is opened yet. */
export interface LogicalStream<O extends Options> {
  readonly options: O
  /**
   * Follows it: connects, hands over, acknowledges, reconnects, leaves in good order. One run at a time: a second fails with
   * `InvalidOption`.
   */
  readonly run: <E = never, R = never>(
    handler: Input<Delivered<O>, E, R>
  ) => Effect.Effect<End<O>, Failure<O> | E, R | WalSender>
  /** One connection, by hand: the scope ends it in good order. What fails is not tried again. */
  readonly open: Effect.Effect<Delivery.DeliveryOf<O>, Failure<O>, WalSender | Scope.Scope>
  /**
   * The same, opened again when the connection is lost, as often as `run` would: for a program that composes the stream by
   * hand. `use` is interrupted when its connection ends, also where it consumes in fibers of its own, and begun anew with the
   * next; it ends the stream by ending. Its own failures are never retried.
   *
   * @example
   * yield* orders.follow(({ acknowledgeChange, changes }) =>
   *   Stream.runForEach(changes, (change) => Effect.andThen(store(change), acknowledgeChange(change))))
   */
  readonly follow: <A, E, R>(
    use: (delivery: Delivery.DeliveryOf<O>) => Effect.Effect<A, E, R>
  ) => Effect.Effect<A, Failure<O> | E, R | WalSender>
  /** What it is doing. To be watched with `SubscriptionRef.changes`. */
  readonly state: SubscriptionRef.SubscriptionRef<StreamState.StreamState>
  /**
   * How it is at this moment: positions, how far behind, how long the handler has been at what it was given. Where the stream
   * cannot tell by itself how far the server's WAL goes, the server is asked over another connection, for two seconds at most;
   * where nobody answers that is absent. `Observation` of `@replicant/core/operations` has every field.
   *
   * @example
   * const { lagBytes, lagSeconds, pending } = yield* orders.observe
   */
  readonly observe: Effect.Effect<Observation>
  /**
   * Whether it is well: `ok`, `degraded` or `failing`, with the reasons and since when, by the option `health`. Asks nobody, so
   * that a probe is answered at once, whatever stands still.
   *
   * @example
   * const { status, reasons } = yield* orders.health
   */
  readonly health: Effect.Effect<Health>
  /**
   * Waits until the handler is done with all that was committed before this position, as `pg_current_wal_lsn()` tells it after a
   * commit: what was delivered is acknowledged, and nothing else of it is still to come. Fails with `LsnTimeout` where that is not
   * so in time. May be asked before the stream runs. See `ReadYourWrites`.
   *
   * @example
   * yield* orders.awaitLsn(Lsn.fromString("0/1928F70")!, "5 seconds")
   */
  readonly awaitLsn: (lsn: Lsn, within: Duration.Input) => Effect.Effect<void, LsnTimeout>
  /**
   * Reads a published table anew, from the first row or where a condition holds, while the stream goes on. Only where
   * `snapshot` is given, if as `never`: else no handler expects rows. Needs pgoutput with its messages, and neither `twoPhase`
   * nor transactions delivered while they are in progress.
   *
   * One request is read at a time, in the order in which they were made; a paused one lets the next go on. Requests may be
   * made before the stream runs, and outlive a lost connection; with a `CheckpointStore` they outlive the process. What the
   * server refuses, the request's `await` tells.
   *
   * @example
   * const request = yield* orders.request({ table: "public.orders", where: "placed_at > '2026-01-01'" })
   * yield* request.await
   */
  readonly request: Requesting<O, (options: SnapshotRequestOptions) => Effect.Effect<SnapshotRequest, InvalidOption>>
  /** Those that have not ended, also what an earlier process left, once the stream runs. */
  readonly requests: Requesting<O, Effect.Effect<ReadonlyArray<SnapshotRequest>>>
}

/** What only a stream with a `snapshot` has. */
type Requesting<O, A> = O extends { readonly snapshot: "initial" | "never" } ? A : never

/** Everything that any stream delivers. */
type Anything = Change | SnapshotChange | TableSnapshotChange

/** The store that a stream keeps its checkpoints in, if the program has one. */
const checkpointStore: Effect.Effect<CheckpointStore["Service"] | undefined> = Effect.map(
  Effect.context<never>(),
  (context) => Context.getOrUndefined(context, CheckpointStore)
)

/** Where the stream starts by the handler's own store, where it has one. */
const startOf = <E, R>(
  options: Options,
  handler: Handler<Anything, E, R>
): Effect.Effect<Options, InvalidOption | E, R> => {
  if (handler.position === undefined) return Effect.succeed(options)
  if (options.checkpoint !== undefined || options.storeIdleFlush !== undefined) {
    const problem = "is kept by the handler: leave it out, and storeIdleFlush"
    return Effect.fail(new InvalidOption({ option: "checkpoint", problem }))
  }
  return Effect.map(handler.position(options.slot), (position) => ({ ...options, ...position }))
}

/** The rows that are asked for, then the stream. */
const runAll = Effect.fnUntraced(function* <E, R>(
  opening: Delivery.Opening,
  handler: Handler<Anything, E, R>
): Effect.fn.Return<unknown, SnapshotError | E, R | WalSender> {
  const { continuity, copy, lease, onState } = opening
  const { options } = copy
  const { plugin, snapshot } = options
  const unfitness = handler.unfit?.(plugin)
  if (unfitness !== undefined) return yield* unfitness
  const isWithout = snapshot === undefined || snapshot === "never"
  const { observer } = continuity
  const { completed, filter } = yield* isWithout
    ? doneBefore(copy)
    : runFirstCopy(copy, observer.noted(whileHeld(lease, handler)))
  if (snapshot === "only") return completed
  return yield* withRowsBeside(opening, filter, handler, (kept, checked) =>
    // After the rows: where they were copied, they are where it starts.
    Effect.gen(function* () {
      const started = yield* startOf(checked, handler)
      // A later run goes on from what it remembers: a store that was put back meanwhile does not know of that any more.
      const isLater = handler.position !== undefined && continuity.resume() !== undefined
      if (isLater) yield* checkNotAhead(started.slot, started, (yield* Ref.get(continuity.progress)).durable)
      return yield* runConnections(started, continuity, whileHeld(lease, kept), onState)
    })
  )
})

/** One connection after the other by hand, as often as one is lost. */
const followAll = <A, E, R>(
  opening: Delivery.Opening,
  use: (delivery: Delivery.AnyDelivery) => Effect.Effect<A, E, R>
): Effect.Effect<A, SnapshotError | E, R | WalSender> => {
  const { decide, ...retry } = opening.continuity.retry
  const copies = new CopyRetry()
  // The program's own failure is told from the connection's by which of them has failed: it may be of the same kind.
  const ownOrLost = (error: E, hasEnded: boolean) => (hasEnded && isSnapshotError(error) ? error : new Final({ error }))
  const connection = Effect.flatMap(Delivery.open(opening), ({ delivery, hasEnded }) => {
    const used = Effect.catch(use(delivery), (error) =>
      Effect.flatMap(hasEnded, (isOver) => Effect.fail(ownOrLost(error, isOver)))
    )
    return Effect.raceFirst(used, delivery.ended)
  })
  return retrying(Effect.scoped(connection) as Effect.Effect<A, SnapshotError | Final<E>, R | WalSender>, {
    ...(retry as Retrying<SnapshotError>),
    decide: (error) => {
      // Retried as one of the stream's, or as one of the copy's.
      const isOfCopy = !isReplicationError(error) || error._tag === "SlotCreationBlocked" || isDeadlock(error)
      return isOfCopy ? Effect.succeed(copyVerdict(copies, error)) : decide(error)
    }
  })
}

const runsAlready = new InvalidOption({
  option: "run",
  problem: "this stream is running already: make another for another slot, or a handler that broadcasts"
})

/**
 * A stream as a value: to be run with a handler, or opened by hand; watched; and asked to read a table anew.
 *
 * @example
 * const orders = yield* LogicalStream.make({ slot: "orders", plugin, snapshot: "initial" })
 * yield* orders.run(handler).pipe(Effect.forkScoped)
 * yield* SubscriptionRef.changes(orders.state).pipe(Stream.runForEach((now) => Effect.logInfo(now)), Effect.forkScoped)
 * const request = yield* orders.request({ table: "public.orders" })
 */
export const make = <const O extends Options>(options: O): Effect.Effect<LogicalStream<O>> =>
  Effect.gen(function* () {
    const state = yield* StreamState.make
    const requests = new ControlState((yield* Random.nextIntBetween(0, 2 ** 48)).toString(36))
    const unfitness = unfit(options)
    /** Of all runs under a lease. */
    const leased = yield* makeRemembered
    const observer = new Observer(options, yield* Clock.Clock, () => SubscriptionRef.getUnsafe(state))
    const onState = (now: StreamState.StreamState) =>
      Effect.andThen(
        SubscriptionRef.set(state, now),
        Effect.sync(() => observer.entered(now))
      )
    const tellProgress = StreamState.updateCopying(state)
    let remembered: Remembered | undefined
    const opening = Effect.gen(function* () {
      const store = yield* checkpointStore
      const lease = yield* heldLeaseOf(options.slot)
      remembered = lease === undefined ? yield* makeRemembered : leased
      return {
        copy: {
          options,
          store,
          coverage: coverageOf({ options, store }),
          tellProgress: (change: Parameters<typeof tellProgress>[0]) =>
            Effect.andThen(
              tellProgress(change),
              Effect.sync(() => observer.entered(SubscriptionRef.getUnsafe(state)))
            ),
          onFailure: (cause: SnapshotError, attempt: number) =>
            Effect.andThen(observer.retries(cause, attempt), onState({ _tag: "Reconnecting", attempt, cause }))
        },
        control: options.snapshot === undefined ? undefined : (unfitness ?? requests),
        isStreaming: SubscriptionRef.changes(state).pipe(
          Stream.filter(({ _tag }) => _tag === "Streaming" || _tag === "Stalled"),
          Stream.runHead
        ),
        continuity: makeContinuity(options, observer, remembered, onState),
        lease,
        onState
      }
    })
    let isRunning = false
    /** For as long as the scope lives nobody else runs it. */
    const claim = Effect.acquireRelease(
      Effect.suspend(() => {
        if (isRunning) return Effect.fail(runsAlready)
        isRunning = true
        return onState({ _tag: "Connecting" })
      }),
      () => {
        isRunning = false
        return onState({ _tag: "Stopped" })
      }
    )
    /** The program's own labels stay. */
    const labelled = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
      Effect.flatMap(Metric.CurrentMetricAttributes, (labels) =>
        Effect.provideService(effect, Metric.CurrentMetricAttributes, { ...labels, slot: options.slot })
      ).pipe(
        Effect.annotateLogs({ slot: options.slot }),
        Effect.provideService(CurrentParking, observer.parking),
        Effect.provideService(CurrentConsumers, observer.consumers)
      )
    /** For as long as the scope lives nobody else runs it, and it is observed. */
    const opened = Effect.andThen(claim, Effect.tap(opening, observer.running))
    const failing = Effect.tapError(observer.fails)
    const run = (handler: Input<Anything, unknown, unknown>) =>
      Effect.flatMap(opened, (opening) => Effect.tap(runAll(opening, from(handler)), observer.ends)).pipe(
        failing,
        Effect.scoped,
        labelled
      )
    const open = labelled(failing(Effect.map(Effect.flatMap(opened, Delivery.open), ({ delivery }) => delivery)))
    const follow = <A, E, R>(use: (delivery: Delivery.AnyDelivery) => Effect.Effect<A, E, R>) =>
      Effect.flatMap(opened, (opening) => followAll(opening, use)).pipe(failing, Effect.scoped, labelled)
    const request = (wanted: SnapshotRequestOptions) =>
      unfitness === undefined ? Control.request(requests, wanted) : Effect.fail(unfitness)
    const { health, observe } = observer
    const requested = Control.requestsOf(requests)
    const waited = {
      progress: () => remembered?.progress,
      state: Effect.map(SubscriptionRef.get(state), ({ _tag }) => _tag)
    }
    const awaited = (lsn: Lsn, within: Duration.Input) => awaitLsn(waited, lsn, within)
    const made = { options, run, open, follow, state, observe, health, awaitLsn: awaited, request, requests: requested }
    // What its options make of it is not known inside, where they may be any.
    return made as unknown as LogicalStream<O>
  })

/**
 * Streams every change of a slot through a handler, and acknowledges what it says is durable: one change after the other
 * for a plain function, which returns `nextLsn(change)` once the change is stored, or `undefined` for "nothing durable yet";
 * otherwise as the {@link Handler} has it. With a `snapshot` the rows that are there come first, each exactly where it belongs:
 * a transaction is either in the rows or in the changes.
 *
 * Delivery is at least once and in commit order. The handler's own failure ends the stream, is never retried here, and
 * acknowledges nothing. Runs until it fails or is interrupted; a snapshot by itself (`only`) ends with it.
 *
 * What a handler returns for a row of a snapshot counts for nothing: all rows must be durable when it has ended
 * `SnapshotCompleted`. When it fails before, no slot is left and the next run begins anew; so does this one after a lost
 * connection, with another `SnapshotStarted`. With a `CheckpointStore` both go on where they stood, with `SnapshotResumed`,
 * and what is durable when the handler has ended `SnapshotRangeCompleted` stays.
 *
 * @example
 * withLogicalStream(
 *   { slot: "orders", plugin: Pgoutput.make({ publications: ["orders"] }), createSlot: "permanent" },
 *   (change) => store(change).pipe(Effect.as(nextLsn(change)))
 * )
 */
export const withLogicalStream = <const O extends Options, E = never, R = never>(
  options: O,
  handler: Input<Delivered<O>, E, R>
): Effect.Effect<End<O>, Failure<O> | E, R | WalSender> =>
  Effect.flatMap(make(options), (stream) => stream.run(handler))
