/**
 * What a stream delivers of transactions that are not committed yet, to who asks to see them as they come.
 *
 * The server sends a large transaction in blocks while it runs; blocks of several take turns, and committed transactions
 * stand between them. Each change of a block is wrapped in a `Streamed`, so that it cannot be taken for a committed one.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-logical-replication.html
 */
import type * as Lsn from "../Lsn.ts"
import type { PgTimestamp } from "../PgTimestamp.ts"
import type { Change, TransactionChange } from "./Change.ts"
import type { StreamCommit, StreamPrepare } from "./StreamedEnd.ts"

export type { StreamCommit, StreamPrepare } from "./StreamedEnd.ts"

/** Opens a block of a transaction in progress. */
export interface StreamStart {
  readonly _tag: "StreamStart"
  readonly xid: number
  /**
   * The first block that this connection brings of it: the blocks that an earlier connection brought are void. Not what it
   * told as prepared and you acknowledged: the server may send blocks of that again, and then only what became of it.
   */
  readonly isFirst: boolean
}

/** Closes the block. The transaction goes on. */
export interface StreamStop {
  readonly _tag: "StreamStop"
  readonly xid: number
}

type Uncommitted<C> = C extends unknown ? Omit<C, "begin" | "nextLsn"> : never

/** A change without its `Begin`: neither its place in commit order nor whether it will have one is known. */
export type UncommittedChange = Uncommitted<TransactionChange>

/** A change of a transaction in progress. It counts once `StreamCommit` comes, unless its `subxid` was aborted. */
export interface Streamed {
  readonly _tag: "Streamed"
  /** The transaction whose block this is. */
  readonly xid: number
  /** Who made the change: a subtransaction (savepoint), or the transaction itself. */
  readonly subxid: number
  readonly change: UncommittedChange
}

/** Changes made by `subxid` are undone; all of the transaction's where it is the transaction itself. */
export interface StreamAbort {
  readonly _tag: "StreamAbort"
  readonly xid: number
  readonly subxid: number
  /** Told under `streaming: "parallel"` only, as is `abortTime`. */
  readonly abortLsn: Lsn.Lsn | undefined
  readonly abortTime: PgTimestamp | undefined
}

/** What only a stream of transactions in progress delivers. */
export type StreamedChange = StreamStart | Streamed | StreamStop | StreamCommit | StreamAbort | StreamPrepare

/** Everything that a stream of transactions in progress delivers. Small transactions come whole, as ever. */
export type ChangeInProgress = Change | StreamedChange
