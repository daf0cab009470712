/**
 * One request to read a table anew: what was asked, how far it is, and what its holder may do about it. The reading itself
 * is in `Worker.ts`, its rows' place in the stream in `Control.ts`.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { ListedName } from "../snapshot/PublishedTables.ts"
import type { TableSnapshotCompleted } from "../snapshot/TableSnapshotChange.ts"
import type { TableName } from "../table/TableName.ts"
import { type ChunkOptions, ChunkPace } from "./ChunkPace.ts"
import { type End, enter, initial, next, type Phase, type PhaseEvent } from "./Phase.ts"
import { SnapshotCancelled, type SnapshotRequestError } from "./RequestError.ts"

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

/** A request from the inside. */
export interface SnapshotJob {
  readonly request: SnapshotRequest
  readonly pace: ChunkPace
  readonly outcome: Deferred.Deferred<TableSnapshotCompleted, SnapshotRequestError>
  /** Whatever its phase. */
  isPaused: boolean
  /** Changed by {@link advance} alone. */
  phase: Phase
}

/** Something has happened to a request. */
export const advance = (job: SnapshotJob, event: PhaseEvent): void => {
  const phase = next(job.phase, event)
  if (phase !== job.phase) job.phase = enter(phase)
}

/** Whom a job tells when something is to be done. */
export interface JobOwner {
  readonly wake: () => void
  /** It is over, and how. */
  readonly remove: (job: SnapshotJob, end: End) => void
}

const noProgress: SnapshotRequestProgress = {
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
  const progress = yield* SubscriptionRef.make(noProgress)
  const setPaused = (isPaused: boolean) =>
    Effect.suspend(() => {
      job.isPaused = isPaused
      // What is delivered meanwhile is not kept: it might be paused for days.
      if (isPaused) advance(job, { _tag: "Lost" })
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
    phase: initial
  }
  return job
})

export const updateJob = (job: SnapshotJob, change: Partial<SnapshotRequestProgress>): Effect.Effect<void> =>
  SubscriptionRef.update(job.request.progress, (current) => ({ ...current, ...change }))

/** Ends a job, unless it has ended: with its last element, or with what kept it from that. */
export const endJob = (job: SnapshotJob, owner: JobOwner, end: End): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (job.phase._tag === "Ended") return Effect.void
    advance(job, { _tag: "Ended", end })
    owner.remove(job, end)
    if (end._tag === "TableSnapshotCompleted") {
      return Effect.andThen(updateJob(job, { phase: "completed" }), Deferred.succeed(job.outcome, end))
    }
    const phase = end._tag === "SnapshotCancelled" ? "cancelled" : "failed"
    return Effect.andThen(updateJob(job, { phase }), Deferred.fail(job.outcome, end))
  })
