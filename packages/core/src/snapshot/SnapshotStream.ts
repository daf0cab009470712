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
import { InvalidOption, type ReplicationError } from "../ReplicationError.ts"
import {
  defaultReconnect,
  type Handled,
  type LogicalStreamOptions,
  withLogicalStream,
  withLogicalStreamArray
} from "../replication/LogicalStream.ts"
import type { WalSender } from "../replication/WalSender.ts"
import type { CheckpointStore } from "./CheckpointService.ts"
import { defaultPiecePages } from "./CopyCommand.ts"
import { attemptResumable, findFilter } from "./ResumableAttempt.ts"
import type { SeamFilter } from "./SeamFilter.ts"
import { type AttemptOptions, type Attempts, attemptWhole, type SnapshotDone } from "./SnapshotAttempt.ts"
import type { ChangeAfterSnapshot, SnapshotCompleted } from "./SnapshotChange.ts"
import type { SnapshotError } from "./SnapshotError.ts"
import { type ProgressRef, updateProgress } from "./SnapshotProgress.ts"
import type { Deliver } from "./SnapshotRun.ts"

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
  /** Told how far the snapshot is. */
  readonly progress?: ProgressRef | undefined
}

/** What becomes of it: only a snapshot by itself ever ends. */
export type Ended<Mode extends SnapshotMode> = Mode extends "only" ? SnapshotCompleted : never

const failOnOption = (option: string, problem: string) => Effect.fail(new InvalidOption({ option, problem }))

const validated = <Mode extends SnapshotMode>(
  options: SnapshotStreamOptions<Mode>
): Effect.Effect<AttemptOptions, InvalidOption> => {
  const { checkpoints, connections = 2, piecePages = defaultPiecePages, plugin, progress, slot, snapshot } = options
  if (!Number.isInteger(connections) || connections < 1) return failOnOption("connections", "is not a number from 1")
  if (!Number.isInteger(piecePages) || piecePages < 1) return failOnOption("piecePages", "is not a number from 1")
  if (plugin.name !== "pgoutput" || plugin.publications.length === 0) {
    return failOnOption("plugin", "a snapshot is of what publications publish, which only pgoutput has")
  }
  if (checkpoints !== undefined && snapshot === "only") {
    return failOnOption("checkpoints", "a snapshot by itself cannot go on: tables would be of different times")
  }
  const lockTimeout = Math.ceil(Duration.toMillis(Duration.fromInputUnsafe(options.lockTimeout ?? "10 seconds")))
  const purpose = snapshot === "only" ? "only" : "stream"
  return Effect.succeed({ slot, purpose, plugin, connections, lockTimeout, piecePages, progress })
}

/** A deadlock with somebody's DDL is over once our locks are gone. */
const isWorthRetrying = (error: SnapshotError): boolean =>
  error._tag === "ServerError" && error.sqlState === "40P01" ? true : error.isRetryable

/** Attempts one after the other, until one is whole. */
const runSnapshot = <Mode extends SnapshotMode, E, R>(
  options: SnapshotStreamOptions<Mode>,
  deliver: Deliver<E, R>
): Effect.Effect<SnapshotDone, SnapshotError | E, R | WalSender> => {
  const { checkpoints: store } = options
  const attempts: Attempts = { count: 0, hasDelivered: false, mayBeDone: false }
  const schedule = (options.reconnect ?? defaultReconnect) as Schedule.Schedule<unknown, unknown>
  const attempt = Effect.flatMap(validated(options), (valid) =>
    store === undefined
      ? attemptWhole(valid, attempts, deliver)
      : attemptResumable({ ...valid, store }, attempts, deliver)
  )
  const again = store === undefined ? "the snapshot begins anew" : "the snapshot is taken up again"
  return Effect.scoped(attempt).pipe(
    Effect.tapError((error) =>
      error._tag !== "HandlerFailed" && isWorthRetrying(error)
        ? Effect.logWarning(`${again} after ${error._tag}: ${error.message}`)
        : Effect.void
    ),
    Effect.retry({ while: (error) => error._tag !== "HandlerFailed" && isWorthRetrying(error), schedule }),
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

const nothingHandled: Effect.Effect<Handled> = Effect.succeed(undefined)

/** The snapshot that the mode asks for, and then the stream, if it does. */
const runWith = <Mode extends SnapshotMode, E, R>(
  options: SnapshotStreamOptions<Mode>,
  deliver: Deliver<E, R>,
  stream: (
    options: LogicalStreamOptions,
    filter: SeamFilter | undefined
  ) => Effect.Effect<never, ReplicationError | E, R | WalSender>
): Effect.Effect<Ended<Mode>, SnapshotError | E, R | WalSender> =>
  Effect.gen(function* () {
    const { completed, filter } = yield* options.snapshot === "never"
      ? doneBefore(options)
      : runSnapshot(options, deliver)
    if (options.snapshot === "only") return completed as Ended<Mode>
    yield* updateProgress(options.progress, (current) => ({ ...current, phase: "streaming" }))
    return yield* stream({ ...options, createSlot: undefined } as LogicalStreamOptions, filter)
  })

/**
 * Hands over every row that is published, and then every change since, each exactly where it belongs: a transaction is
 * either in the rows or in the changes. Rows first, between `SnapshotStarted` and `SnapshotCompleted`; then the stream, as
 * `withLogicalStream` has it. Where the slot exists already, the stream alone.
 *
 * What the handler returns for a row counts for nothing: all rows must be durable when it has ended `SnapshotCompleted`.
 * When it fails, or the program is interrupted before, no slot is left and the next run begins anew. So does this one after
 * a lost connection: with another `SnapshotStarted`, and what came before it is void.
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
    (streaming, filter) =>
      withLogicalStream<E, R>(
        streaming,
        filter === undefined
          ? handler
          : (change) => {
              const kept = filter.keep(change)
              return kept === undefined ? nothingHandled : handler(kept)
            }
      )
  )

/**
 * The same for a handler that takes many at a time: the rows of one read, all of one table, or the changes of one read. The
 * fastest way to fill a copy. `SnapshotStarted` and its kin come alone.
 */
export const withSnapshotStreamArray = <E, R, const Mode extends SnapshotMode>(
  options: SnapshotStreamOptions<Mode>,
  handler: (changes: NonEmptyReadonlyArray<ChangeAfterSnapshot>) => Effect.Effect<Handled, E, R>
): Effect.Effect<Ended<Mode>, SnapshotError | E, R | WalSender> =>
  runWith<Mode, E, R>(options, handler, (streaming, filter) =>
    withLogicalStreamArray<E, R>(
      streaming,
      filter === undefined
        ? handler
        : (changes) => {
            const kept = filter.keepAll(changes)
            return isReadonlyArrayNonEmpty(kept) ? handler(kept) : nothingHandled
          }
    )
  )
