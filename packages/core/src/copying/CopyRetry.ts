/** Which failures of a snapshot another attempt may mend. Decisions; `stream/FirstCopy.ts` carries them out. */
import type { SlotCreationBlocked } from "../ReplicationError.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"

const blockers = ({ transactions }: SlotCreationBlocked): ReadonlyArray<string> =>
  transactions.map(({ gid, pid, since }) => JSON.stringify([pid, gid, since]))

/** With somebody's DDL: it is over once our locks are gone. */
export const isDeadlock = (error: SnapshotError): boolean => error._tag === "ServerError" && error.sqlState === "40P01"

/**
 * Remembers who held an attempt up. A transaction that runs while we wait for it may itself wait for our locks, so they are
 * let go and all is tried again; one that is still there then was not waiting for us, and to go on would only keep locking
 * the tables again and again.
 */
export class CopyRetry {
  /** How often it has failed. */
  count = 0
  private blockedBy: ReadonlyArray<string> = []

  /** Whether to try again after `error`. */
  next(error: SnapshotError): boolean {
    this.count += 1
    if (isDeadlock(error)) return true
    if (error._tag !== "SlotCreationBlocked") return error.isRetryable
    const before = this.blockedBy
    this.blockedBy = blockers(error)
    return !this.blockedBy.some((blocker) => before.includes(blocker))
  }
}
