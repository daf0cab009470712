/** What a request to read a table anew fails with. The stream that it belongs to goes on. */
import * as Schema from "effect/Schema"
import { qualifiedName } from "../protocol/ReplicationCommand.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"

const Name = Schema.Struct({ schema: Schema.String, name: Schema.String })

/**
 * The table cannot be read in chunks beside the stream: it has no key (`NoKey`), or one whose values cannot be compared
 * (`KeyColumn`); the server is a standby, which takes no marks (`Standby`); or it is altered again and again (`Disturbed`).
 */
export class SnapshotRefused extends Schema.TaggedError<SnapshotRefused>("@replicant/core/SnapshotRefused")(
  "SnapshotRefused",
  {
    table: Name,
    reason: Schema.Literals(["NoKey", "KeyColumn", "Standby", "Disturbed"]),
    detail: Schema.String,
    remedy: Schema.String
  }
) {
  get isRetryable(): boolean {
    return this.reason === "Disturbed"
  }
  override get message(): string {
    return `${qualifiedName(this.table)} cannot be read beside the stream: ${this.detail}`
  }
}

/**
 * Transactions that had begun before the reading did are not done within `lockTimeout`. What they have written may have
 * been delivered before, though no reader sees it yet: so no row is read before they have ended.
 */
export class SnapshotBlocked extends Schema.TaggedError<SnapshotBlocked>("@replicant/core/SnapshotBlocked")(
  "SnapshotBlocked",
  {
    table: Name,
    /** Of the transactions, as `pg_current_snapshot()` has them. */
    xids: Schema.Array(Schema.String),
    /** The sessions that run them, as far as our role may know. */
    pids: Schema.Array(Schema.Number),
    /** The gids of those that are prepared. */
    gids: Schema.Array(Schema.String),
    /** Milliseconds. */
    lockTimeout: Schema.Number
  }
) {
  get remedy(): string {
    const [gid] = this.gids
    const [pid] = this.pids
    if (gid !== undefined) return "commit or roll back what is prepared: COMMIT PREPARED, ROLLBACK PREPARED"
    return pid === undefined
      ? "wait, or raise lockTimeout; GRANT pg_read_all_stats lets this error name the sessions"
      : `wait, raise lockTimeout, or end the other session: SELECT pg_terminate_backend(${pid})`
  }
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    const named = [
      ...(this.pids.length === 0 ? [] : [`pid ${this.pids.join(", ")}`]),
      ...(this.gids.length === 0 ? [] : [`prepared ${this.gids.join(", ")}`])
    ]
    const by = named.length === 0 ? "" : ` (${named.join("; ")})`
    return `${qualifiedName(this.table)} waits for ${this.xids.length} older transactions, not done within ${this.lockTimeout} ms${by}`
  }
}

/** The request was cancelled before its end. */
export class SnapshotCancelled extends Schema.TaggedError<SnapshotCancelled>("@replicant/core/SnapshotCancelled")(
  "SnapshotCancelled",
  { id: Schema.String, table: Name }
) {
  readonly remedy = "request it again: it begins from the first row"
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `request ${this.id}, of ${qualifiedName(this.table)}, was cancelled`
  }
}

/** Every way a request fails: those of a snapshot, and three of its own. */
export type SnapshotRequestError = SnapshotError | SnapshotRefused | SnapshotBlocked | SnapshotCancelled
