/** How a transaction that was delivered in progress comes to its end, where that end can be acknowledged. */
import type * as Lsn from "../Lsn.ts"
import type { PgTimestamp } from "../PgTimestamp.ts"
import type { NextLsn } from "./NextLsn.ts"

/** The transaction is committed: its changes, but for those of aborted subtransactions, count from here. */
export interface StreamCommit {
  readonly _tag: "StreamCommit"
  readonly xid: number
  readonly commitLsn: Lsn.Lsn
  readonly commitTime: PgTimestamp
  /** The byte after the commit record: what an acknowledgement reports. */
  readonly endLsn: Lsn.Lsn
  readonly nextLsn: NextLsn
}

/** The transaction is prepared: see `Prepare`. Its changes wait for `CommitPrepared` or `RollbackPrepared`. */
export interface StreamPrepare {
  readonly _tag: "StreamPrepare"
  readonly xid: number
  readonly gid: string
  readonly prepareLsn: Lsn.Lsn
  readonly prepareTime: PgTimestamp
  readonly endLsn: Lsn.Lsn
  readonly nextLsn: NextLsn
}
