/**
 * What is there, then what changes: a snapshot of everything published, and from the same position of the WAL the stream,
 * with no gap between them and no overlap. Docs: docs/snapshots.md.
 *
 * The slot is made when the last row has been handled, so that it stands for a whole copy. What fails before that begins
 * anew, or with a store for checkpoints goes on where it stood. From then on this is `withLogicalStream`.
 */
import { isReadonlyArrayNonEmpty, type NonEmptyReadonlyArray } from "effect/Array"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { Change } from "../change/Change.ts"
import type { CheckpointStore } from "../checkpoint/CheckpointService.ts"
import { type AttemptOptions, type Attempts, attemptWhole, type SnapshotDone } from "../copying/Attempt.ts"
import { SnapshotRetry } from "../copying/CopyRetry.ts"
import type { Deliver, HandlerFailed } from "../copying/CopyRun.ts"
import { type RateLimit, rateLimitProblem } from "../copying/RateLimit.ts"
import { attemptResumable, findFilter } from "../copying/ResumableAttempt.ts"
import type { SeamFilter } from "../copying/SeamFilter.ts"
import { InvalidOption } from "../ReplicationError.ts"
import { withControl } from "../rereading/Attachment.ts"
import { type ControlState, interceptArrays, interceptEach, type SnapshotControl } from "../rereading/Control.ts"
import type { WalSender } from "../server/WalSender.ts"
import { defaultPiecePages } from "../snapshot/CopyCommand.ts"
import type { ChangeAfterSnapshot, SnapshotCompleted } from "../snapshot/SnapshotChange.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"
import { type ProgressRef, updateProgress } from "../snapshot/SnapshotProgress.ts"
import {
  defaultReconnect,
  type Handled,
  type LogicalStreamOptions,
  withLogicalStream,
  withLogicalStreamArray
} from "./LogicalStream.ts"

/**
 * `initial`: a snapshot when the slot does not exist, then the stream. `never`: the stream alone, from a slot that exists.
 * `only`: a snapshot, whether or not there is a slot, and nothing after it.
 */
export type SnapshotMode = "initial" | "never" | "only"

/** A stream that may begin with a snapshot. The slot is made by the snapshot and by nothing else. */
export interface SnapshotStreamOptions<Mode extends SnapshotMode> extends Omit<LogicalStreamOptions, "createSlot"> {
  readonly snapshot: Mode
  /** How many connections copy at a time: 2. One more keeps the slot, and each takes one of `max_wal_senders`. */
  readonly connections?: number | undefined
  /** How long to wait for the tables' locks, and for transactions that are running when the slot is made: 10 s. */
  readonly lockTimeout?: Duration.Input | undefined
  /**
   * Keeps how far the copy is, so that it goes on where it stood after a lost connection or, with a store that outlives the
   * process, a restart. Left out, it begins anew. Only with `initial`; under the key `snapshot/` and the slot's name.
   *
   * @example
   * checkpoints: yield* CheckpointStore.CheckpointStore
   */
  readonly checkpoints?: CheckpointStore["Service"] | undefined
  /** Pages (mostly of 8 kB) that are copied at a time, and between two checkpoints: 2048, that is 16 MB. */
  readonly piecePages?: number | undefined
  /**
   * Lets published tables be read anew while the stream goes on: `Snapshot.makeControl` makes one. Needs pgoutput with its
   * messages, and is refused with `twoPhase`. With `checkpoints`, requests go on after a restart, under `tables/` and the
   * slot's name.
   */
  readonly control?: SnapshotControl | undefined
  /** Spares the source: no more than this a second, over all connections. Changes after the snapshot are not held back. */
  readonly rateLimit?: RateLimit | undefined
  /** Told how far the snapshot is. */
  readonly progress?: ProgressRef | undefined
}

/** What becomes of it: only a snapshot by itself ever ends. */
export type Ended<Mode extends SnapshotMode> = Mode extends "only" ? SnapshotCompleted : never

const lockMillis = (lockTimeout: Duration.Input = "10 seconds"): number =>
  Math.ceil(Duration.toMillis(Duration.fromInputUnsafe(lockTimeout)))

const failOnOption = (option: string, problem: string) => Effect.fail(new InvalidOption({ option, problem }))

const validated = <Mode extends SnapshotMode>(
  options: SnapshotStreamOptions<Mode>
): Effect.Effect<AttemptOptions, InvalidOption> => {
  const { checkpoints, connections = 2, piecePages = defaultPiecePages, plugin, progress, slot, snapshot } = options
  if (!Number.isInteger(connections) || connections < 1) return failOnOption("connections", "is not a number from 1")
  if (!Number.isInteger(piecePages) || piecePages < 1) return failOnOption("piecePages", "is not a number from 1")
  if (!plugin.tells.copiedRows || plugin.tells.publications.length === 0) {
    return failOnOption("plugin", `a snapshot is of what publications publish, and ${plugin.name} has none to copy`)
  }
  if (checkpoints !== undefined && snapshot === "only") {
    return failOnOption("checkpoints", "a snapshot by itself cannot go on: tables would be of different times")
  }
  const rateProblem = options.rateLimit === undefined ? undefined : rateLimitProblem(options.rateLimit)
  if (rateProblem !== undefined) return failOnOption("rateLimit", rateProblem)
  const lockTimeout = lockMillis(options.lockTimeout)
  const purpose = snapshot === "only" ? "only" : "stream"
  return Effect.succeed({
    slot,
    purpose,
    plugin,
    connections,
    lockTimeout,
    piecePages,
    progress,
    rateLimit: options.rateLimit
  })
}

/** One attempt, whole or taken up again. */
const attemptSnapshot = <Mode extends SnapshotMode, E, R>(
  options: SnapshotStreamOptions<Mode>,
  attempts: Attempts,
  deliver: Deliver<E, R>
): Effect.Effect<SnapshotDone, SnapshotError | HandlerFailed<E>, R | WalSender | Scope.Scope> => {
  const { checkpoints: store } = options
  return Effect.flatMap(validated(options), (valid) =>
    store === undefined
      ? attemptWhole(valid, attempts, deliver)
      : attemptResumable({ ...valid, store }, attempts, deliver)
  )
}

const noAttempts = (): Attempts => ({ count: 0, hasDelivered: false, mayBeDone: false })

/** Attempts one after the other, until one is whole. */
const runSnapshot = <Mode extends SnapshotMode, E, R>(
  options: SnapshotStreamOptions<Mode>,
  deliver: Deliver<E, R>
): Effect.Effect<SnapshotDone, SnapshotError | E, R | WalSender> => {
  const attempts = noAttempts()
  const schedule = (options.reconnect ?? defaultReconnect) as Schedule.Schedule<unknown, unknown>
  const again = options.checkpoints === undefined ? "the snapshot begins anew" : "the snapshot is taken up again"
  const retry = new SnapshotRetry()
  let isWorthRetrying = false
  return Effect.scoped(attemptSnapshot(options, attempts, deliver)).pipe(
    Effect.tapError((error) => {
      isWorthRetrying = error._tag !== "HandlerFailed" && retry.next(error)
      return isWorthRetrying ? Effect.logWarning(`${again} after ${error._tag}: ${error.message}`) : Effect.void
    }),
    Effect.retry({ while: () => isWorthRetrying, schedule }),
    Effect.catchTag("HandlerFailed", (failed) => Effect.fail(failed.error as E)),
    Effect.annotateLogs({ slot: options.slot }),
    Effect.provideService(Metric.CurrentMetricAttributes, { slot: options.slot })
  ) as Effect.Effect<SnapshotDone, SnapshotError | E, R | WalSender>
}

/** What the stream has to leave out, where there was no snapshot to tell. */
const doneBefore = <Mode extends SnapshotMode>({
  checkpoints,
  slot
}: SnapshotStreamOptions<Mode>): Effect.Effect<SnapshotDone, SnapshotError, WalSender> =>
  checkpoints === undefined
    ? Effect.succeed({ completed: undefined, filter: undefined })
    : Effect.map(findFilter(checkpoints, slot), (filter) => ({ completed: undefined, filter }))

/** What the mode asks for, in one attempt and no other where it fails: for who tries again by itself. */
export const takeSnapshot = <Mode extends SnapshotMode, R>(
  options: SnapshotStreamOptions<Mode>,
  deliver: Deliver<never, R>
): Effect.Effect<SnapshotDone, SnapshotError, R | WalSender> =>
  options.snapshot === "never"
    ? doneBefore(options)
    : (Effect.scoped(attemptSnapshot(options, noAttempts(), deliver)).pipe(
        Effect.catchTag("HandlerFailed", ({ error }) => Effect.die(error))
      ) as Effect.Effect<SnapshotDone, SnapshotError, R | WalSender>)

const nothingHandled: Effect.Effect<Handled> = Effect.succeed(undefined)

/** A handler that is not given what the snapshot has told already. */
const filterEach =
  <E, R>(
    filter: SeamFilter,
    handler: (change: Change) => Effect.Effect<Handled, E, R>
  ): ((change: Change) => Effect.Effect<Handled, E, R>) =>
  (change) => {
    const kept = filter.keep(change)
    return kept === undefined ? nothingHandled : handler(kept)
  }

/** The same for arrays. */
const filterArrays =
  <E, R>(
    filter: SeamFilter,
    handler: (changes: NonEmptyReadonlyArray<Change>) => Effect.Effect<Handled, E, R>
  ): ((changes: NonEmptyReadonlyArray<Change>) => Effect.Effect<Handled, E, R>) =>
  (changes) => {
    const kept = filter.keepAll(changes)
    return isReadonlyArrayNonEmpty(kept) ? handler(kept) : nothingHandled
  }

/** What stands between a stream and its handler. */
interface Between {
  readonly filter: SeamFilter | undefined
  readonly control: ControlState | undefined
}

/** The snapshot that the mode asks for, and then the stream, if it does. */
const runWith = <Mode extends SnapshotMode, E, R>(
  options: SnapshotStreamOptions<Mode>,
  deliver: Deliver<E, R>,
  stream: (options: LogicalStreamOptions, between: Between) => Effect.Effect<never, SnapshotError | E, R | WalSender>
): Effect.Effect<Ended<Mode>, SnapshotError | E, R | WalSender> =>
  Effect.gen(function* () {
    const { completed, filter } = yield* options.snapshot === "never"
      ? doneBefore(options)
      : runSnapshot(options, deliver)
    if (options.snapshot === "only") return completed as Ended<Mode>
    yield* updateProgress(options.progress, (current) => ({ ...current, phase: "streaming" }))
    const streaming: LogicalStreamOptions = { ...options, createSlot: undefined }
    if (options.control === undefined) return yield* stream(streaming, { filter, control: undefined })
    const attached = { ...options, lockTimeout: lockMillis(options.lockTimeout) }
    return yield* withControl(options.control, attached, (control) => stream(streaming, { filter, control }))
  })

/**
 * Hands over every row that is published, and then every change since, each exactly where it belongs: a transaction is
 * either in the rows or in the changes. Rows first, between `SnapshotStarted` and `SnapshotCompleted`; then the stream, as
 * `withLogicalStream` has it. Where the slot exists already, the stream alone.
 *
 * What the handler returns for a row counts for nothing: all rows must be durable when it has ended `SnapshotCompleted`.
 * When it fails, or the program is interrupted before, no slot is left and the next run begins anew. So does this one after
 * a lost connection: with another `SnapshotStarted`, and what came before it is void. With `checkpoints` both go on where
 * they stood, with `SnapshotResumed`, and what is durable when the handler has ended `SnapshotRangeCompleted` stays.
 *
 * The role must be able to read every table: SELECT, and no row-level security. Fails with `SnapshotLocked` when another
 * session keeps a table locked.
 *
 * @example
 * Snapshot.withSnapshotStream(
 *   { slot: "orders", plugin: Pgoutput.make({ publications: ["orders"] }), snapshot: "initial" },
 *   (change) => store(change).pipe(Effect.as(nextLsn(change)))
 * )
 */
export const withSnapshotStream = <E, R, const Mode extends SnapshotMode>(
  options: SnapshotStreamOptions<Mode>,
  handler: (change: ChangeAfterSnapshot) => Effect.Effect<Handled, E, R>
): Effect.Effect<Ended<Mode>, SnapshotError | E, R | WalSender> =>
  runWith<Mode, E, R>(
    options,
    (changes) => Effect.forEach(changes, handler, { discard: true }),
    (streaming, { control, filter }) => {
      const each = control === undefined ? handler : interceptEach(control, handler)
      return withLogicalStream(streaming, filter === undefined ? each : filterEach(filter, each))
    }
  )

/**
 * The same for a handler that takes many at a time: the rows of one read, all of one table, or the changes of one read. The
 * fastest way to fill a copy. `SnapshotStarted` and its kin come alone.
 */
export const withSnapshotStreamArray = <E, R, const Mode extends SnapshotMode>(
  options: SnapshotStreamOptions<Mode>,
  handler: (changes: NonEmptyReadonlyArray<ChangeAfterSnapshot>) => Effect.Effect<Handled, E, R>
): Effect.Effect<Ended<Mode>, SnapshotError | E, R | WalSender> =>
  runWith<Mode, E, R>(options, handler, (streaming, { control, filter }) => {
    const arrays = control === undefined ? handler : interceptArrays(control, handler)
    return withLogicalStreamArray(streaming, filter === undefined ? arrays : filterArrays(filter, arrays))
  })
