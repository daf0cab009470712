/**
 * The connections of a snapshot, and the locks that it holds: nobody may rewrite, empty or drop a table while it is read.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { qualifiedName, quoteLiteral } from "../protocol/ReplicationCommand.ts"
import { type ReplicationError, SlotInUse } from "../ReplicationError.ts"
import * as Catalog from "../server/Catalog.ts"
import { type ReplicantConnection, WalSender } from "../server/WalSender.ts"
import { lockCommand } from "./CopyCommand.ts"
import { type Listing, listPublishedTables, unreadable } from "./PublishedTables.ts"
import { SnapshotDisturbed, type SnapshotError, SnapshotLocked } from "./SnapshotError.ts"

const sessionSettings = (lockTimeout: number): string =>
  [
    `SET lock_timeout = ${lockTimeout}`,
    // Rows that a policy would hide are an error then, and never left out.
    "SET row_security = off",
    "SET synchronize_seqscans = off"
  ].join("; ")

/** Begins a transaction that can take a snapshot over, as long as it has none. */
const beginReading = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

/** Asks. */
export const query = (connection: ReplicantConnection, text: string) =>
  Catalog.queryAt(connection, text, { stage: "Query" })

/** A connection whose session nothing but us ends. `lockTimeout` is milliseconds. */
export const connect = Effect.fnUntraced(function* (
  lockTimeout: number
): Effect.fn.Return<ReplicantConnection, ReplicationError, WalSender | Scope.Scope> {
  const connection = yield* (yield* WalSender).connect
  yield* Catalog.pinSession(connection)
  yield* query(connection, sessionSettings(lockTimeout))
  return connection
})

/** Two that copy for one slot would fill one target twice. Held until the connection ends, whatever ends it. */
export const excludeOthers = Effect.fnUntraced(function* (connection: ReplicantConnection, slot: string) {
  const key = quoteLiteral(`replicant snapshot ${slot}`)
  const [row] = yield* query(connection, `SELECT pg_try_advisory_lock(hashtextextended(${key}, 0)) AS locked`)
  if (row?.locked !== "t") return yield* new SlotInUse({ slot })
})

/** Somebody else holds a table for longer than `lock_timeout`. */
export const isLockTimeout = (error: ReplicationError): boolean =>
  error._tag === "ServerError" && error.sqlState === "55P03"

const LockRow = Schema.Struct({
  schema: Schema.String,
  name: Schema.String,
  pid: Schema.NumberFromString,
  granted: Catalog.BooleanFromText
})

/**
 * Who keeps us from locking tables: who has them, or waits for them, which lets nobody pass either. Asked on another connection than the one that holds what locks we have. `published` is
 * left out where not even a list of them was to be had.
 */
export const lockedBy = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  lockTimeout: number,
  published?: Listing | undefined
): Effect.fn.Return<never, SnapshotError> {
  const parts = published?.tables.flatMap((table) => table.parts.map((part) => part.oid))
  const rows = yield* query(
    connection,
    `SELECT n.nspname AS schema, c.relname AS name, l.pid, l.granted FROM pg_catalog.pg_locks l
     JOIN pg_catalog.pg_class c ON c.oid = l.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND c.relkind IN ('r', 'p')
     AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
     ${parts === undefined ? "" : `AND c.oid IN (${parts.join(", ")})`} ORDER BY 1, 2, 3`
  )
  const found = yield* Effect.forEach(rows, (row) => Catalog.decodeRow(LockRow, row, "pg_locks"))
  const granted = found.filter((lock) => lock.granted)
  const locks = granted.length > 0 ? granted : found
  return yield* new SnapshotLocked({
    relations: Array.from(new Set(locks.map(qualifiedName))),
    pids: Array.from(new Set(locks.map((lock) => lock.pid))),
    lockTimeout
  })
})

/** What is to be locked, and for how long to try. */
export interface LockOptions {
  readonly publications: ReadonlyArray<string>
  /** Milliseconds. */
  readonly lockTimeout: number
}

/**
 * Lists what is published, checks that it can be read, and locks it on every reader, in a transaction that has no snapshot
 * yet. `other` is asked meanwhile.
 *
 * Every reader: an ALTER TABLE that waits for the first one's lock lets nobody pass who has none, and so would hold up all
 * others until the copy fails. Once the first has its locks, nothing but such a one can be in the others' way: it waits
 * for us, so they do not wait for it, and all locks are let go.
 */
export const lockTables = Effect.fnUntraced(function* (
  readers: ReadonlyArray<ReplicantConnection>,
  other: ReplicantConnection,
  { lockTimeout, publications }: LockOptions
): Effect.fn.Return<Listing, SnapshotError> {
  const [first, ...others] = readers
  // The size of a table, and the tree of its partitions, are not told without a lock either.
  const listing = yield* Effect.catchIf(listPublishedTables(other, publications), isLockTimeout, () =>
    lockedBy(other, lockTimeout)
  )
  const problem = unreadable(listing)
  if (problem !== undefined) return yield* problem
  // LOCK takes no snapshot of its own, so that this transaction can still take one over.
  yield* Effect.forEach(readers, (reader) => query(reader, beginReading), { concurrency: "unbounded", discard: true })
  const lock = lockCommand(listing.tables)
  if (lock === undefined) return listing
  yield* Effect.catchIf(query(first!, lock), isLockTimeout, () => lockedBy(other, lockTimeout, listing))
  yield* Effect.forEach(others, (reader) => query(reader, `${lock} NOWAIT`), {
    concurrency: "unbounded",
    discard: true
  }).pipe(Effect.catchIf(isLockTimeout, () => Effect.fail(new SnapshotDisturbed({ publications }))))
  return listing
})
