/**
 * Reads what is requested: one request at a time, one chunk at a time, on one connection that is there only while there is
 * something to read. It runs beside the stream, and meets it at the marks alone.
 *
 * A lost connection costs the chunk under way. What a request fails with is told to whoever awaits it, and the stream goes
 * on.
 */
import { isReadonlyArrayNonEmpty } from "effect/Array"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import type { OutputPlugin } from "../change/OutputPlugin.ts"
import type { CheckpointError } from "../checkpoint/CheckpointService.ts"
import type * as Lsn from "../Lsn.ts"
import { DecodeError, type ReplicationError } from "../ReplicationError.ts"
import * as Metrics from "../replication/Metrics.ts"
import type { WalSender } from "../server/WalSender.ts"
import { estimatedRows } from "../snapshot/PublishedTables.ts"
import type { SnapshotRow } from "../snapshot/SnapshotChange.ts"
import { SnapshotDecoder } from "../snapshot/SnapshotDecoder.ts"
import type { TableSnapshotCompleted } from "../snapshot/TableSnapshotChange.ts"
import { isVisible } from "../snapshot/TransactionSnapshot.ts"
import { awaitOlder } from "./AwaitOlder.ts"
import type { AtMark, ControlState, Mark } from "./Control.ts"
import { type Reading, resolve, type TableReading, type Tally } from "./Phase.ts"
import type { ReadingSession } from "./ReadingSession.ts"
import { advance, endJob, type SnapshotJob, type SnapshotRequestProgress, updateJob } from "./Request.ts"
import { SnapshotRefused, type SnapshotRequestError } from "./RequestError.ts"
import {
  type Chunk,
  commitWithMark,
  describeTarget,
  openReader,
  type ReaderTarget,
  readChunk,
  shapeOf,
  writeMark
} from "./TableReader.ts"
import { mostTouched, TouchedKeys } from "./TouchedKeys.ts"

/** What the worker of a stream needs to know of it. */
export interface WorkerOptions {
  readonly plugin: OutputPlugin
  /** Milliseconds. */
  readonly lockTimeout: number
}

/** The session is of no more use, and what was under way is tried again on another. */
class Again extends Data.TaggedError("Again") {}

/** Rows handed over at a time: see `CopyOut.ts`. */
const mostRows = 256

/** Keys that are read again with one chunk. */
const mostRereads = 200

/** Beginnings in a row without a chunk between. */
const mostDisturbed = 10

/** Between tries of what other transactions have to end first, in milliseconds. */
const settleDelay = 100

/** Between a session that was lost and the next one: nothing else says how long. */
const beforeNextSession: Effect.Effect<void> = Effect.sleep(1000)

const targetOf = ({ request }: SnapshotJob, { lockTimeout, plugin }: WorkerOptions): ReaderTarget => ({
  name: request.table,
  where: request.where,
  publications: plugin.tells.publications,
  lockTimeout
})

/**
 * Expects a mark, has it written, and waits until the stream has brought it. Where the connection is lost with the server's
 * answer, the mark may be on its way all the same: it counts if it has come, and else never will.
 */
const atMark = <A, E, R>(
  state: ControlState,
  take: Mark["take"],
  write: (content: string) => Effect.Effect<A, E, R>
): Effect.Effect<unknown, E, R> =>
  Effect.suspend(() => {
    const content = state.nextId()
    const arrived = Deferred.makeUnsafe<"handled" | "lost">()
    state.expect(content, { take, arrived })
    return write(content).pipe(
      Effect.catch((error) => (state.forget(content) ? Effect.fail(error) : Effect.void)),
      Effect.andThen(Deferred.await(arrived)),
      Effect.ensuring(Effect.sync(() => state.forget(content)))
    )
  })

const describe = Effect.fnUntraced(function* (
  session: ReadingSession,
  job: SnapshotJob,
  options: WorkerOptions
): Effect.fn.Return<TableReading, SnapshotRequestError> {
  const chunk = yield* describeTarget(session, targetOf(job, options))
  const decoder = new SnapshotDecoder(options.plugin, session.slices)
  const relation = yield* Effect.try({
    try: () => decoder.describe(chunk.table),
    catch: DecodeError.caught
  })
  return { chunk, decoder, relation }
})

/** Begins a table, or goes on with one that an earlier process had begun: says so at a place of the stream. */
const begin = Effect.fnUntraced(function* (
  state: ControlState,
  session: ReadingSession,
  job: SnapshotJob,
  options: WorkerOptions
): Effect.fn.Return<void, SnapshotRequestError> {
  const reading = yield* describe(session, job, options)
  const { chunk, relation } = reading
  const shape = shapeOf(chunk)
  const touched = new TouchedKeys({
    oid: relation.oid,
    keyColumns: chunk.key.map(({ name }) => name),
    maxBytes: mostTouched
  })
  const { id, where } = job.request
  const estimate = estimatedRows(reading.chunk.table)
  const take: Mark["take"] = ({ commitLsn }) => {
    const read = { id, relation, where, consistentPoint: commitLsn, estimatedRows: estimate }
    advance(job, { _tag: "Began", reading, shape, touched, read })
    const { phase } = job
    if (phase._tag !== "AwaitingOlder") return []
    const { reached, snapshot, tally } = phase
    if (snapshot._tag === "TableSnapshotStarted") state.ledger?.begin(job, commitLsn)
    begun = { attempt: tally.attempt, rows: reached.rows, bytes: reached.bytes }
    return [[snapshot]]
  }
  let begun: Partial<SnapshotRequestProgress> = {}
  yield* atMark(state, take, (content) => writeMark(session, content))
  yield* updateJob(job, { ...begun, estimatedRows: estimate })
})

/** What is handed over where a chunk's mark stands, and what is noted there. */
interface TakenChunk {
  readonly elements: AtMark
  readonly progress: Partial<SnapshotRequestProgress>
  /** The last element, where that is the table's end. */
  readonly completed: TableSnapshotCompleted | undefined
}

const takeChunk = (state: ControlState, job: SnapshotJob, chunk: Chunk, commitLsn: Lsn.Lsn): TakenChunk | undefined => {
  if (job.phase._tag !== "Reading") return undefined
  const { isLast, rows: resolved, settled } = resolve(job.phase, chunk)
  advance(job, { _tag: "Taken", chunk, rows: resolved.length })
  const { reached, snapshot, tally } = job.phase
  const { relation } = snapshot
  const { bytes, rows } = reached
  const elements: Array<AtMark[number]> = []
  for (let from = 0; from < resolved.length; from += mostRows) {
    const part = resolved
      .slice(from, from + mostRows)
      .map((row): SnapshotRow => ({ _tag: "SnapshotRow", snapshot, relation, row }))
    if (isReadonlyArrayNonEmpty(part)) elements.push(part)
  }
  const completed: TableSnapshotCompleted | undefined = isLast
    ? { _tag: "TableSnapshotCompleted", snapshot, relation, rows, bytes }
    : undefined
  if (completed !== undefined) elements.push([completed])
  state.ledger?.handedOver({ job, commitLsn, reached, settled, isLast })
  return { elements, progress: { phase: "reading", rows, bytes, chunks: tally.chunks }, completed }
}

/** Reads a chunk and has it handed over at its mark. */
const readOne = Effect.fnUntraced(function* (
  state: ControlState,
  session: ReadingSession,
  job: SnapshotJob,
  { reached, reading, touched }: Reading,
  options: WorkerOptions
): Effect.fn.Return<TableSnapshotCompleted | undefined, SnapshotRequestError | Again> {
  let chunk: Chunk | undefined
  let taken: TakenChunk | undefined
  const read = (mark: string) =>
    readChunk(session, {
      target: targetOf(job, options),
      ...reading,
      after: reached.after,
      pace: job.pace,
      onSnapshot: (snapshot) => {
        touched.read(snapshot)
        const settled = Array.from(touched.rereads).filter(([, { xid }]) => isVisible(snapshot, xid))
        return new Map(settled.slice(0, mostRereads).map(([key, { values }]) => [key, values]))
      }
    }).pipe(
      Effect.flatMap((whole): Effect.Effect<{ rows: number; bytes: number }, ReplicationError | Again> => {
        if (typeof whole !== "string") {
          // Before the mark is written: it may be back before the server's answer is.
          chunk = whole
          return Effect.as(commitWithMark(session, mark), { rows: whole.rows.size, bytes: whole.bytes })
        }
        if (whole === "reshaped") advance(job, { _tag: "Voided" })
        else job.pace.shrink()
        return Effect.fail(new Again())
      })
    )
  yield* atMark(
    state,
    ({ commitLsn }) => {
      taken = chunk === undefined ? undefined : takeChunk(state, job, chunk, commitLsn)
      return taken?.elements ?? []
    },
    (content) => job.pace.measure(read(content))
  )
  if (taken === undefined || chunk === undefined) {
    if (job.phase._tag === "Lost" && !job.isPaused) job.pace.shrink()
    return undefined
  }
  yield* Metric.update(Metrics.snapshotRows, chunk.rows.size)
  yield* Metric.update(Metrics.snapshotBytes, chunk.bytes)
  yield* updateJob(job, taken.progress)
  // What is left is for transactions to end.
  if (taken.completed === undefined && chunk.end === undefined) yield* Effect.sleep(settleDelay)
  return taken.completed
})

/** Counts a try to begin. An ALTER every now and then is borne, a table that never comes to its first chunk is not. */
const countTry = (job: SnapshotJob, { disturbed }: Tally): Effect.Effect<void, SnapshotRefused> =>
  Effect.suspend(() => {
    advance(job, { _tag: "Tried" })
    if (disturbed < mostDisturbed) return disturbed === 0 ? Effect.void : Effect.sleep(settleDelay)
    return Effect.fail(
      new SnapshotRefused({
        table: job.request.table,
        reason: "Disturbed",
        detail: `it was altered or missed changes ${mostDisturbed} times before a chunk of it was read`,
        remedy: "request it again when it is no longer being altered"
      })
    )
  })

/** The next step of a request; its last element, where that was it. */
const step = Effect.fnUntraced(function* (
  state: ControlState,
  session: ReadingSession,
  job: SnapshotJob,
  options: WorkerOptions
): Effect.fn.Return<TableSnapshotCompleted | undefined, SnapshotRequestError | Again> {
  const { phase } = job
  switch (phase._tag) {
    case "Idle":
    case "Kept":
      yield* countTry(job, phase.tally)
      yield* begin(state, session, job, options)
      return undefined
    case "Lost":
      yield* atMark(
        state,
        () => {
          advance(job, { _tag: "Followed" })
          return []
        },
        (content) => writeMark(session, content)
      )
      return undefined
    case "AwaitingOlder":
      yield* awaitOlder(session, job, options.lockTimeout)
      advance(job, { _tag: "Settled" })
      return undefined
    case "Reading":
      return yield* readOne(state, session, job, phase, options)
    case "Ended":
      return undefined
  }
})

const nextJob = (state: ControlState): SnapshotJob | undefined => state.jobs.find((job) => !job.isPaused)

/** A step, or the end of its request meanwhile: then what is under way is broken off, and the session with it. */
const stepOrEnd = (state: ControlState, session: ReadingSession, job: SnapshotJob, options: WorkerOptions) =>
  Effect.raceFirst(
    step(state, session, job, options),
    Effect.andThen(Effect.exit(Deferred.await(job.outcome)), Effect.fail(new Again()))
  )

const isWorthRetrying = (error: SnapshotRequestError): boolean =>
  (error._tag === "ServerError" && error.sqlState === "40P01") ||
  (error.isRetryable && error._tag !== "SnapshotBlocked" && error._tag !== "SnapshotRefused")

/** One session, for as long as it serves and there is something to read. */
const serve = Effect.fnUntraced(function* (
  state: ControlState,
  options: WorkerOptions
): Effect.fn.Return<void, CheckpointError, WalSender | Scope.Scope> {
  const scope = yield* Effect.acquireRelease(Scope.make(), (made, exit) => Scope.close(made, exit))
  const opened = yield* Effect.result(Scope.provide(openReader(options.lockTimeout), scope))
  let problem: SnapshotRequestError | undefined = Result.isFailure(opened) ? opened.failure : undefined
  let job = nextJob(state)
  if (Result.isSuccess(opened)) {
    while (job !== undefined) {
      const stepped = yield* Effect.result(stepOrEnd(state, opened.success, job, options))
      if (state.ledger !== undefined) yield* state.ledger.save
      if (Result.isFailure(stepped)) {
        if (stepped.failure._tag !== "Again") problem = stepped.failure
        break
      }
      if (stepped.success !== undefined) yield* endJob(job, state, stepped.success)
      job = nextJob(state)
    }
  }
  yield* Scope.close(scope, Exit.void)
  if (problem === undefined || job === undefined) return
  if (!isWorthRetrying(problem)) {
    return yield* endJob(job, state, problem)
  }
  yield* Effect.logWarning(`a table is read again from its last chunk after ${problem._tag}: ${problem.message}`)
  yield* beforeNextSession
}, Effect.scoped)

/** Serves a control's requests for as long as its stream runs. Fails when its store does. */
export const work = (state: ControlState, options: WorkerOptions): Effect.Effect<never, CheckpointError, WalSender> =>
  Effect.forever(
    Effect.gen(function* () {
      state.somethingToDo.closeUnsafe()
      if (state.ledger !== undefined) yield* state.ledger.save
      if (nextJob(state) === undefined) return yield* state.somethingToDo.await
      yield* serve(state, options)
    })
  )
