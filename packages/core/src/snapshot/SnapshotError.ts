/** Two ways to fail that only a snapshot knows. Others are its store's, and those of the stream: `ReplicationError.ts`. */
import * as Schema from "effect/Schema"
import { CheckpointError } from "../checkpoint/CheckpointService.ts"
import { isReplicationError } from "../isReplicationError.ts"
import type { ReplicationError } from "../ReplicationError.ts"

/**
 * Another session holds tables in a way that keeps everybody else out (ALTER TABLE, TRUNCATE, VACUUM FULL, LOCK TABLE) for
 * longer than `lockTimeout`. Nothing has been copied, and no slot was made.
 */
export class SnapshotLocked extends Schema.TaggedError<SnapshotLocked>("@replicant/core/SnapshotLocked")(
  "SnapshotLocked",
  {
    /** `"schema"."table"`; empty when the lock was gone by the time it was looked for. */
    relations: Schema.Array(Schema.String),
    /** The sessions that hold them. */
    pids: Schema.Array(Schema.Number),
    /** Milliseconds. */
    lockTimeout: Schema.Number
  }
) {
  get remedy(): string {
    const [pid] = this.pids
    return pid === undefined
      ? "try again when no session alters the tables"
      : `wait, raise lockTimeout, or end the other session: SELECT pg_terminate_backend(${pid})`
  }
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    const which = this.relations.length === 0 ? "tables" : this.relations.join(", ")
    const by = this.pids.length === 0 ? "" : `, held by pid ${this.pids.join(", ")}`
    return `no lock on ${which} within ${this.lockTimeout} ms${by}`
  }
}

/** Tables or publications were altered while the snapshot was being set up, again and again. Nothing has been copied. */
export class SnapshotDisturbed extends Schema.TaggedError<SnapshotDisturbed>("@replicant/core/SnapshotDisturbed")(
  "SnapshotDisturbed",
  { publications: Schema.Array(Schema.String) }
) {
  readonly remedy = "try again when publications and tables are no longer being altered"
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    const names = this.publications.map((name) => `"${name}"`).join(", ")
    return `what is published by ${names} changed while its snapshot was being set up`
  }
}

/** Every way a snapshot fails. A handler's own errors come beside it, untouched. */
export type SnapshotError = ReplicationError | SnapshotLocked | SnapshotDisturbed | CheckpointError

/** Whether a failure is one of a stream's, and none of a handler's own. */
export const isSnapshotError = (error: unknown): error is SnapshotError =>
  isReplicationError(error) ||
  error instanceof SnapshotLocked ||
  error instanceof SnapshotDisturbed ||
  error instanceof CheckpointError
