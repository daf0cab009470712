/**
 * One request to read a table anew: what was asked, how far it is, and what its holder may do about it. The reading itself
 * is in `Worker.ts`, its rows' place in the stream in `Control.ts`.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { Relation } from "../change/Relation.ts"
import type { ListedName } from "../snapshot/PublishedTables.ts"
import type { SnapshotDecoder } from "../snapshot/SnapshotDecoder.ts"
import type { TableSnapshot, TableSnapshotCompleted } from "../snapshot/TableSnapshotChange.ts"
import type { TableName } from "../table/TableName.ts"
import type { ChunkTable, KeyPosition } from "./Chunk.ts"
import { type ChunkOptions, ChunkPace } from "./ChunkPace.ts"
import { SnapshotCancelled, type SnapshotRequestError } from "./RequestError.ts"
import type { TouchedKeys } from "./TouchedKeys.ts"

/** What is to be read. */
export interface SnapshotRequestOptions {
  /** The table as the stream names it: `public.orders`, or its names apart. It must be published by then. */
  readonly table: TableName
  /**
   * A condition over the table's columns, as SQL after WHERE. It is put into a query as it stands, so it must come from
   * nobody but yourself; functions and operators that are not PostgreSQL's own bear their schema, as the search path is
   * empty. Without one, all rows.
   */
  readonly where?: string | undefined
  /** How large chunks may get. */
  readonly chunk?: ChunkOptions | undefined
  /** A name of your own. Of an id that is known already the request is returned as it is, also one of an earlier process. */
  readonly id?: string | undefined
}

/** How far a request is. */
export interface SnapshotRequestProgress {
  /** `waiting` until it is its turn, and until transactions have ended that were running then. */
  readonly phase: "waiting" | "reading" | "completed" | "failed" | "cancelled"
  readonly isPaused: boolean
  /** Rows and bytes handed over since it last began. */
  readonly rows: number
  readonly bytes: number
  readonly chunks: number
  /** How often it has begun anew, and once. */
  readonly attempt: number
  /** The planner's estimate, once it is known. */
  readonly estimatedRows: number | undefined
}

/** A request that was made. */
export interface SnapshotRequest {
  readonly id: string
  readonly table: ListedName
  readonly where: string | undefined
  /** Ends when the handler has ended the request's `TableSnapshotCompleted`, or fails with what kept it from that. */
  readonly await: Effect.Effect<TableSnapshotCompleted, SnapshotRequestError>
  /** Reads no more until it is resumed; the stream goes on. What lies read is not handed over. */
  readonly pause: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  /** Ends it: `await` fails with `SnapshotCancelled`. What it has brought stays where it is. */
  readonly cancel: Effect.Effect<void>
  /** To be watched with `SubscriptionRef.changes`. */
  readonly progress: SubscriptionRef.SubscriptionRef<SnapshotRequestProgress>
}

/** What a table is read by, as it was described when the reading began. */
export interface TableReading {
  readonly chunk: ChunkTable
  readonly relation: Relation
  readonly decoder: SnapshotDecoder
}

/** A request from the inside. */
export interface SnapshotJob {
  readonly request: SnapshotRequest
  readonly pace: ChunkPace
  readonly outcome: Deferred.Deferred<TableSnapshotCompleted, SnapshotRequestError>
  isPaused: boolean
  attempt: number
  /** Handed over since it last began. */
  rows: number
  bytes: number
  chunks: number
  /** Times that it began anew in a row, without a chunk between. */
  disturbed: number
  /** Whether transactions may be running that were so when `touched` began to follow. */
  awaitsOlder: boolean
  /** What the stream says of its table, from its beginning on. */
  touched: TouchedKeys | undefined
  /** Everything up to this key has been handed over. */
  after: KeyPosition | undefined
  /** Of the table when `after` was reached, to be compared with what it is: see `shapeOf`. */
  shape: string | undefined
  /** In this process; an earlier one may have left the rest. */
  reading: TableReading | undefined
  /** What its rows bear, once the place where it begins has come. */
  snapshot: TableSnapshot | undefined
}

/** Whom a job tells when something is to be done. */
export interface JobOwner {
  readonly wake: () => void
  /** It is over, and how. */
  readonly remove: (job: SnapshotJob, end: TableSnapshotCompleted | SnapshotRequestError) => void
}

const initial: SnapshotRequestProgress = {
  phase: "waiting",
  isPaused: false,
  rows: 0,
  bytes: 0,
  chunks: 0,
  attempt: 0,
  estimatedRows: undefined
}

/** A job for a request that has been found sound. */
export const makeJob = Effect.fnUntraced(function* (
  { chunk, id, name, where }: { id: string; name: ListedName } & Pick<SnapshotRequestOptions, "where" | "chunk">,
  owner: JobOwner
): Effect.fn.Return<SnapshotJob> {
  const outcome = yield* Deferred.make<TableSnapshotCompleted, SnapshotRequestError>()
  const progress = yield* SubscriptionRef.make(initial)
  const setPaused = (isPaused: boolean) =>
    Effect.suspend(() => {
      job.isPaused = isPaused
      // What is delivered meanwhile is not kept: it might be paused for days.
      if (isPaused) job.touched?.lose()
      owner.wake()
      return SubscriptionRef.update(progress, (current) => ({ ...current, isPaused }))
    })
  const request: SnapshotRequest = {
    id,
    table: name,
    where,
    await: Deferred.await(outcome),
    pause: setPaused(true),
    resume: setPaused(false),
    cancel: Effect.suspend(() => endJob(job, owner, new SnapshotCancelled({ id, table: name }))),
    progress
  }
  const job: SnapshotJob = {
    request,
    pace: new ChunkPace(chunk),
    outcome,
    isPaused: false,
    attempt: 0,
    rows: 0,
    bytes: 0,
    chunks: 0,
    disturbed: 0,
    awaitsOlder: true,
    touched: undefined,
    after: undefined,
    shape: undefined,
    reading: undefined,
    snapshot: undefined
  }
  return job
})

export const updateJob = (job: SnapshotJob, change: Partial<SnapshotRequestProgress>): Effect.Effect<void> =>
  SubscriptionRef.update(job.request.progress, (current) => ({ ...current, ...change }))

/** Ends a job, unless it has ended: with its last element, or with what kept it from that. */
export const endJob = (
  job: SnapshotJob,
  owner: JobOwner,
  end: TableSnapshotCompleted | SnapshotRequestError
): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (Deferred.isDoneUnsafe(job.outcome)) return Effect.void
    owner.remove(job, end)
    if (end._tag === "TableSnapshotCompleted") {
      return Effect.andThen(updateJob(job, { phase: "completed" }), Deferred.succeed(job.outcome, end))
    }
    const phase = end._tag === "SnapshotCancelled" ? "cancelled" : "failed"
    return Effect.andThen(updateJob(job, { phase }), Deferred.fail(job.outcome, end))
  })
