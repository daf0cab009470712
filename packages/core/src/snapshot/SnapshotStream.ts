/**
 * What is there, then what changes: a snapshot of everything published, and from the same position of the WAL the stream,
 * with no gap between them and no overlap. Docs: docs/snapshots.md.
 *
 * A snapshot is whole or it is nothing. Until its last row has been handled the slot is a temporary one, so whatever fails
 * before leaves no slot behind, and the next attempt begins anew. From then on this is `withLogicalStream`.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import * as Queue from "effect/Queue"
import type * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { InvalidOption, type ReplicationError, SlotAlreadyExists } from "../ReplicationError.ts"
import {
  defaultReconnect,
  type Handled,
  type LogicalStreamOptions,
  withLogicalStream,
  withLogicalStreamArray
} from "../replication/LogicalStream.ts"
import type { WalSender } from "../replication/WalSender.ts"
import type { CheckpointStore } from "./CheckpointService.ts"
import { copyProgress, copyTables, describeTables, snapshotTable } from "./CopyTables.ts"
import { exportSnapshot, makePermanent, slotExists, watchSlot } from "./ExportedSnapshot.ts"
import type { ChangeAfterSnapshot, SnapshotChange, SnapshotCompleted, SnapshotStarted } from "./SnapshotChange.ts"
import { SnapshotDecoder } from "./SnapshotDecoder.ts"
import type { SnapshotError } from "./SnapshotError.ts"
import { type ProgressRef, updateProgress } from "./SnapshotProgress.ts"

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

type Deliver<E, R> = (changes: NonEmptyReadonlyArray<SnapshotChange>) => Effect.Effect<unknown, E, R>

/** The handler's own failure on its way past our retries. */
class HandlerFailed<E> extends Data.TaggedError("HandlerFailed")<{ readonly error: E }> {}

/** What outlives an attempt. */
interface Attempts {
  count: number
  /** The handler has been given something that a slot made by others would not stand for. */
  hasDelivered: boolean
  /** All is handled, and the slot may have been made though nobody could tell us. */
  mayBeDone: boolean
}

const failOnOption = (option: string, problem: string) => Effect.fail(new InvalidOption({ option, problem }))

const validated = <Mode extends SnapshotMode>(
  options: SnapshotStreamOptions<Mode>
): Effect.Effect<{ readonly connections: number; readonly lockTimeout: number }, InvalidOption> => {
  const connections = options.connections ?? 2
  if (!Number.isInteger(connections) || connections < 1) return failOnOption("connections", "is not a number from 1")
  if (options.plugin.name !== "pgoutput" || options.plugin.publications.length === 0) {
    return failOnOption("plugin", "a snapshot is of what publications publish, which only pgoutput has")
  }
  const lockTimeout = Math.ceil(Duration.toMillis(Duration.fromInputUnsafe(options.lockTimeout ?? "10 seconds")))
  return Effect.succeed({ connections, lockTimeout })
}

/** One snapshot, from its first connection to its slot. `undefined` when the slot is there already. */
const attemptSnapshot = Effect.fnUntraced(function* <Mode extends SnapshotMode, E, R>(
  options: SnapshotStreamOptions<Mode>,
  attempts: Attempts,
  deliver: Deliver<E, R>
): Effect.fn.Return<SnapshotCompleted | undefined, SnapshotError | HandlerFailed<E>, R | WalSender | Scope.Scope> {
  const { plugin, slot } = options
  const { connections, lockTimeout } = yield* validated(options)
  const readersScope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
  const exported = yield* exportSnapshot(
    { slot, plugin, connections, lockTimeout, purpose: options.snapshot === "only" ? "only" : "stream" },
    (open) => Scope.provide(open, readersScope)
  )
  if (exported === slotExists) {
    return attempts.hasDelivered && !attempts.mayBeDone ? yield* new SlotAlreadyExists({ slot }) : undefined
  }
  const decoder = new SnapshotDecoder(plugin, exported.slot.connection.slices)
  const tables = yield* describeTables(exported.listing.tables, decoder)
  attempts.count += 1
  attempts.mayBeDone = false
  const snapshot: SnapshotStarted = {
    _tag: "SnapshotStarted",
    attempt: attempts.count,
    consistentPoint: exported.consistentPoint,
    tables: tables.map(snapshotTable)
  }
  yield* updateProgress(options.progress, () => ({
    phase: "copying",
    attempt: attempts.count,
    tables: copyProgress(tables)
  }))

  const queue = yield* Queue.bounded<NonEmptyReadonlyArray<SnapshotChange>, SnapshotError>(1)
  let isOver = false
  const handOver = (changes: NonEmptyReadonlyArray<SnapshotChange>) => Queue.offer(queue, changes)
  const copying = copyTables(
    { snapshot, tables, decoder, handOver, progress: options.progress },
    exported.readers
  ).pipe(
    // What comes after the last row needs neither lock nor snapshot.
    Effect.andThen(Scope.close(readersScope, Exit.void)),
    Effect.andThen(
      Effect.suspend(() => {
        const sum = (key: "rows" | "bytes") => tables.reduce((total, table) => total + table[key], 0)
        return handOver([{ _tag: "SnapshotCompleted", snapshot, rows: sum("rows"), bytes: sum("bytes") }])
      })
    ),
    Effect.andThen(Effect.never)
  )
  yield* Effect.raceFirst(copying, watchSlot(exported.slot)).pipe(
    Effect.onError((cause) => {
      isOver = true
      return Queue.failCause(queue, cause)
    }),
    Effect.forkScoped({ startImmediately: true })
  )

  const handle = (changes: NonEmptyReadonlyArray<SnapshotChange>) =>
    Effect.mapError(deliver(changes), (error) => new HandlerFailed({ error }))
  attempts.hasDelivered = true
  yield* handle([snapshot])
  while (true) {
    const changes = yield* Queue.take(queue)
    // What is left in the queue of a snapshot that has failed is nobody's.
    if (isOver) continue
    yield* handle(changes)
    const [first] = changes
    if (first._tag !== "SnapshotCompleted") continue
    if (options.snapshot !== "only") {
      attempts.mayBeDone = true
      yield* makePermanent(exported.slot, slot)
    }
    yield* updateProgress(options.progress, (current) => ({ ...current, phase: "completed" }))
    return first
  }
})

/** A deadlock with somebody's DDL is over once our locks are gone. */
const isWorthRetrying = (error: SnapshotError): boolean =>
  error._tag === "ServerError" && error.sqlState === "40P01" ? true : error.isRetryable

/** Snapshots one after the other, until one is whole. */
const runSnapshot = <Mode extends SnapshotMode, E, R>(
  options: SnapshotStreamOptions<Mode>,
  deliver: Deliver<E, R>
): Effect.Effect<SnapshotCompleted | undefined, SnapshotError | E, R | WalSender> => {
  const attempts: Attempts = { count: 0, hasDelivered: false, mayBeDone: false }
  const schedule = (options.reconnect ?? defaultReconnect) as Schedule.Schedule<unknown, unknown>
  return Effect.scoped(attemptSnapshot(options, attempts, deliver)).pipe(
    Effect.tapError((error) =>
      error._tag !== "HandlerFailed" && isWorthRetrying(error)
        ? Effect.logWarning(`the snapshot begins anew after ${error._tag}: ${error.message}`)
        : Effect.void
    ),
    Effect.retry({ while: (error) => error._tag !== "HandlerFailed" && isWorthRetrying(error), schedule }),
    Effect.catchTag("HandlerFailed", (failed) => Effect.fail(failed.error as E)),
    Effect.annotateLogs({ slot: options.slot }),
    Effect.provideService(Metric.CurrentMetricAttributes, { slot: options.slot })
  ) as Effect.Effect<SnapshotCompleted | undefined, SnapshotError | E, R | WalSender>
}

/** The snapshot that the mode asks for, and then the stream, if it does. */
const runWith = <Mode extends SnapshotMode, E, R>(
  options: SnapshotStreamOptions<Mode>,
  deliver: Deliver<E, R>,
  stream: (options: LogicalStreamOptions) => Effect.Effect<never, ReplicationError | E, R | WalSender>
): Effect.Effect<Ended<Mode>, SnapshotError | E, R | WalSender> =>
  Effect.gen(function* () {
    const completed = options.snapshot === "never" ? undefined : yield* runSnapshot(options, deliver)
    if (options.snapshot === "only") return completed as Ended<Mode>
    yield* updateProgress(options.progress, (current) => ({ ...current, phase: "streaming" }))
    return yield* stream({ ...options, createSlot: undefined } as LogicalStreamOptions)
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
    (streaming) => withLogicalStream<E, R>(streaming, handler)
  )

/**
 * The same for a handler that takes many at a time: the rows of one read, all of one table, or the changes of one read. The
 * fastest way to fill a copy. `SnapshotStarted` and its kin come alone.
 */
export const withSnapshotStreamArray = <E, R, const Mode extends SnapshotMode>(
  options: SnapshotStreamOptions<Mode>,
  handler: (changes: NonEmptyReadonlyArray<ChangeAfterSnapshot>) => Effect.Effect<Handled, E, R>
): Effect.Effect<Ended<Mode>, SnapshotError | E, R | WalSender> =>
  runWith<Mode, E, R>(options, handler, (streaming) => withLogicalStreamArray<E, R>(streaming, handler))
