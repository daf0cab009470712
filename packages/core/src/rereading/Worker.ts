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
import type { WalSender } from "../server/WalSender.ts"
import * as CopyProgress from "../snapshot/CopyProgress.ts"
import { estimatedRows } from "../snapshot/PublishedTables.ts"
import type { SnapshotRow } from "../snapshot/SnapshotChange.ts"
import { SnapshotDecoder } from "../snapshot/SnapshotDecoder.ts"
import type { TableSnapshotCompleted } from "../snapshot/TableSnapshotChange.ts"
import { isVisible } from "../snapshot/TransactionSnapshot.ts"
import { awaitOlder } from "./AwaitOlder.ts"
import type { AtMark, ControlState, Mark } from "./Control.ts"
import type { ReadingSession } from "./ReadingSession.ts"
import { endJob, type SnapshotJob, type TableReading, updateJob } from "./Request.ts"
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

/** Beginnings in a row without a chunk between: an ALTER every now and then is borne. */
const mostDisturbed = 10

/** Between tries: of a lost connection, and of what other transactions have to end first. In milliseconds. */
const reconnectDelay = 1000
const settleDelay = 100

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
  const shape = shapeOf(reading.chunk)
  const { relation } = reading
  const isResumed =
    job.touched !== undefined && !job.touched.isVoid && job.snapshot === undefined && job.shape === shape
  const touched =
    (isResumed ? job.touched : undefined) ??
    new TouchedKeys({
      oid: relation.oid,
      keyColumns: reading.chunk.key.map(({ name }) => name),
      maxBytes: mostTouched
    })
  const { id, where } = job.request
  const estimate = estimatedRows(reading.chunk.table)
  job.touched = touched
  if (!isResumed) {
    // Nothing of what was read before holds, also if this is not the last try to begin.
    job.reading = undefined
    job.snapshot = undefined
    job.shape = undefined
  }
  yield* atMark(
    state,
    ({ commitLsn }) => {
      const read = { id, relation, where, consistentPoint: commitLsn, estimatedRows: estimate }
      touched.follow()
      touched.expect(relation)
      job.awaitsOlder = true
      job.reading = reading
      job.shape = shape
      if (isResumed) {
        job.snapshot = { _tag: "TableSnapshotResumed", ...read, rows: job.rows }
      } else {
        job.attempt += 1
        job.after = undefined
        job.rows = 0
        job.bytes = 0
        job.snapshot = { _tag: "TableSnapshotStarted", ...read, attempt: job.attempt }
        state.ledger?.begin(job, commitLsn)
      }
      return [[job.snapshot]]
    },
    (content) => writeMark(session, content)
  )
  yield* updateJob(job, { attempt: job.attempt, rows: job.rows, bytes: job.bytes, estimatedRows: estimate })
})

/** The rows that are handed over where a chunk's mark stands, and what is noted there. */
const takeChunk = (state: ControlState, job: SnapshotJob, chunk: Chunk, commitLsn: Lsn.Lsn): AtMark | undefined => {
  const { snapshot, touched } = job
  if (touched === undefined || touched.isLost || touched.isVoid || job.isPaused || snapshot === undefined)
    return undefined
  const rereads = Array.from(touched.rereads)
  const now = touched.resolve(chunk.snapshot, chunk.rows, chunk.asked)
  const settled = rereads.flatMap(([key, reread]) => (touched.rereads.has(key) ? [] : [reread]))
  const { relation } = snapshot
  const rows = Array.from(now.values(), (row): SnapshotRow => ({ _tag: "SnapshotRow", snapshot, relation, row }))
  job.after = chunk.end ?? job.after
  job.rows += rows.length
  job.bytes += chunk.bytes
  job.chunks += 1
  job.disturbed = 0
  const isLast = chunk.end === undefined && touched.rereads.size === 0
  const elements: Array<AtMark[number]> = []
  for (let from = 0; from < rows.length; from += mostRows) {
    const part = rows.slice(from, from + mostRows)
    if (isReadonlyArrayNonEmpty(part)) elements.push(part)
  }
  if (isLast) elements.push([{ _tag: "TableSnapshotCompleted", snapshot, relation, rows: job.rows, bytes: job.bytes }])
  const { after, bytes, rows: count } = job
  state.ledger?.handedOver({
    job,
    commitLsn,
    reached: { after, bytes, rows: count },
    settled,
    isLast
  })
  return elements
}

/** Reads a chunk and has it handed over at its mark. */
const readOne = Effect.fnUntraced(function* (
  state: ControlState,
  session: ReadingSession,
  job: SnapshotJob,
  options: WorkerOptions
): Effect.fn.Return<TableSnapshotCompleted | undefined, SnapshotRequestError | Again> {
  const touched = job.touched!
  const reading = job.reading!
  let chunk: Chunk | undefined
  let taken: AtMark | undefined
  const read = (mark: string) =>
    readChunk(session, {
      target: targetOf(job, options),
      ...reading,
      after: job.after,
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
        if (whole === "reshaped") touched.isVoid = true
        else job.pace.shrink()
        return Effect.fail(new Again())
      })
    )
  yield* atMark(
    state,
    ({ commitLsn }) => {
      taken = chunk === undefined ? undefined : takeChunk(state, job, chunk, commitLsn)
      return taken ?? []
    },
    (content) => job.pace.measure(read(content))
  )
  if (taken === undefined || chunk === undefined) {
    if (touched.isLost && !job.isPaused) job.pace.shrink()
    return undefined
  }
  const { bytes, chunks, rows } = job
  yield* Metric.update(CopyProgress.rows, chunk.rows.size)
  yield* Metric.update(CopyProgress.bytes, chunk.bytes)
  yield* updateJob(job, { phase: "reading", rows, bytes, chunks })
  const last = taken.at(-1)?.[0]
  if (last?._tag === "TableSnapshotCompleted") return last
  // What is left is for transactions to end.
  if (chunk.end === undefined) yield* Effect.sleep(settleDelay)
  return undefined
})

/** The next step of a request; its last element, where that was it. */
const step = Effect.fnUntraced(function* (
  state: ControlState,
  session: ReadingSession,
  job: SnapshotJob,
  options: WorkerOptions
): Effect.fn.Return<TableSnapshotCompleted | undefined, SnapshotRequestError | Again> {
  const { touched } = job
  if (touched === undefined || touched.isVoid || job.reading === undefined) {
    job.disturbed += 1
    if (job.disturbed > mostDisturbed) {
      return yield* new SnapshotRefused({
        table: job.request.table,
        reason: "Disturbed",
        detail: `it was altered or missed changes ${mostDisturbed} times before a chunk of it was read`,
        remedy: "request it again when it is no longer being altered"
      })
    }
    if (job.disturbed > 1) yield* Effect.sleep(settleDelay)
    yield* begin(state, session, job, options)
    return undefined
  }
  if (touched.isLost) {
    const follow = () => {
      touched.follow()
      job.awaitsOlder = true
      return []
    }
    yield* atMark(state, follow, (content) => writeMark(session, content))
    return undefined
  }
  if (job.awaitsOlder) {
    yield* awaitOlder(session, job, options.lockTimeout)
    job.awaitsOlder = touched.isLost || touched.isVoid
    return undefined
  }
  return yield* readOne(state, session, job, options)
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
  yield* Effect.sleep(reconnectDelay)
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
