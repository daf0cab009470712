/** What a stream is asked for, and what follows from it in types: what it delivers, how it fails, and whether it ends. */
import type * as Duration from "effect/Duration"
import type * as Schedule from "effect/Schedule"
import type { Change } from "../change/Change.ts"
import type { StreamedChange } from "../change/InProgress.ts"
import type { InProgressMode } from "../change/OutputPlugin.ts"
import type { RateLimit } from "../copying/RateLimit.ts"
import type { ReplicationError } from "../ReplicationError.ts"
import type { StreamOptions } from "../replication/StreamOptions.ts"
import type { SnapshotChange, SnapshotCompleted } from "../snapshot/SnapshotChange.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"
import type { TableSnapshotChange } from "../snapshot/TableSnapshotChange.ts"
import type { Thresholds } from "./Health.ts"

/**
 * `initial`: a snapshot when the slot does not exist, then the stream. `never`: the stream alone, from a slot that exists,
 * whose tables may be read anew. `only`: a snapshot, whether or not there is a slot, and nothing after it.
 */
export type SnapshotMode = "initial" | "never" | "only"

/** How the rows that are there already are copied. */
export interface CopyOptions {
  /** How many connections copy at a time: 2. One more keeps the slot, and each takes one of `max_wal_senders`. */
  readonly connections?: number | undefined
  /** How long to wait for the tables' locks, and for transactions that are running when the slot is made: 10 s. */
  readonly lockTimeout?: Duration.Input | undefined
  /** Pages (mostly of 8 kB) that are copied at a time, and between two checkpoints: 2048, that is 16 MB. */
  readonly piecePages?: number | undefined
  /** Spares the source: no more than this a second, over all connections. Changes after the snapshot are not held back. */
  readonly rateLimit?: RateLimit | undefined
  /**
   * What becomes of a table that is published later, or otherwise than it was, where a `CheckpointStore` keeps which tables
   * are covered: `read` beside the stream, the default; or `ignore` it, and bring what is committed from then on.
   */
  readonly whenJoined?: "read" | "ignore" | undefined
}

/**
 * A stream of changes, and whether it begins with the rows that are there.
 *
 * Where a `CheckpointStore` is provided, a copy goes on where it stood after a lost connection or, with a store that outlives
 * the process, a restart; and so do tables that are read anew. Left out, they begin anew. Transactions in progress are gathered
 * where `TransactionSpill` says.
 */
export interface Options extends StreamOptions {
  /**
   * The rows that are there already, before the changes: see {@link SnapshotMode}. Left out: changes alone. With a snapshot
   * the slot is made by it and by nothing else, so `createSlot` is refused.
   */
  readonly snapshot?: SnapshotMode | undefined
  /** Of a `snapshot`. */
  readonly copy?: CopyOptions | undefined
  /**
   * What becomes of transactions in progress, for a plugin that is `streaming`: gathered until they commit, unless told
   * otherwise; or delivered as they come, each change as a `Streamed` that counts once its `StreamCommit` comes. After a
   * reconnection each begins anew.
   */
  readonly inProgress?: InProgressMode | undefined
  /**
   * When to try again after a failure that may pass. Left out: within 250 ms, doubled with jitter up to 10 s, for ever,
   * and from the beginning again once a connection has proved itself.
   */
  readonly reconnect?: Schedule.Schedule<unknown, ReplicationError> | undefined
  /** From when on its `health` is degraded and failing, where not as usual: `Health` of `@replicant/core/operations`. */
  readonly health?: Thresholds | undefined
}

/** What stands first is what is asked for; `undefined` is as if it were not there. */
type Asks<O, Key extends string> = O extends { readonly [K in Key]: infer V } ? V : undefined

type OfSnapshot<Mode> = [Mode] extends [undefined] ? never : SnapshotChange | TableSnapshotChange

type OfMode<Mode> = [Mode] extends [undefined | "gather"] ? never : StreamedChange

/** What a stream of these options delivers. */
export type Delivered<O> = Change | OfSnapshot<Asks<O, "snapshot">> | OfMode<Asks<O, "inProgress">>

/** How a stream of these options fails. */
export type Failure<O> = [Asks<O, "snapshot">] extends [undefined] ? ReplicationError : SnapshotError

/** What becomes of it in the end: only a snapshot by itself ever ends. */
export type End<O> = Asks<O, "snapshot"> extends "only" ? SnapshotCompleted : never
