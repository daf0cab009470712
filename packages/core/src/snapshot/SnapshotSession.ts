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
import { type SnapshotError, SnapshotLocked } from "./SnapshotError.ts"

/** No limit of the role's, the database's or the server's may end a session that waits for a slow consumer. */
const sessionSettings = (serverVersion: number, lockTimeout: number): string =>
  [
    "SET statement_timeout = 0",
    `SET lock_timeout = ${lockTimeout}`,
    "SET idle_in_transaction_session_timeout = 0",
    "SET idle_session_timeout = 0",
    ...(serverVersion < 170_000 ? [] : ["SET transaction_timeout = 0"]),
    // Rows that a policy would hide are an error then, and never left out.
    "SET row_security = off",
    "SET synchronize_seqscans = off"
  ].join("; ")

/** Begins a transaction that can take a snapshot over, as long as it has none. */
export const beginReading = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

/** Asks. */
export const query = (connection: ReplicantConnection, text: string) =>
  Catalog.queryAt(connection, text, { stage: "Query" })

/** A connection whose session nothing but us ends. `lockTimeout` is milliseconds. */
export const connect = Effect.fnUntraced(function* (
  lockTimeout: number
): Effect.fn.Return<ReplicantConnection, ReplicationError, WalSender | Scope.Scope> {
  const connection = yield* (yield* WalSender).connect
  yield* Catalog.pinSession(connection)
  yield* query(connection, sessionSettings(connection.serverVersion, lockTimeout))
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

const LockRow = Schema.Struct({ schema: Schema.String, name: Schema.String, pid: Schema.NumberFromString })

/**
 * Who keeps us from locking tables, asked on another connection than the one that holds what locks we have. `published` is
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
    `SELECT n.nspname AS schema, c.relname AS name, l.pid FROM pg_catalog.pg_locks l
     JOIN pg_catalog.pg_class c ON c.oid = l.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE l.locktype = 'relation' AND l.granted AND l.mode = 'AccessExclusiveLock' AND c.relkind IN ('r', 'p')
     AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
     ${parts === undefined ? "" : `AND c.oid IN (${parts.join(", ")})`} ORDER BY 1, 2, 3`
  )
  const locks = yield* Effect.forEach(rows, (row) => Catalog.decodeRow(LockRow, row, "pg_locks"))
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
 * Lists what is published, checks that it can be read, and locks it in a transaction on `locker` that has no snapshot yet.
 * `other` is asked meanwhile.
 */
export const lockTables = Effect.fnUntraced(function* (
  [locker, other]: readonly [ReplicantConnection, ReplicantConnection],
  { lockTimeout, publications }: LockOptions
): Effect.fn.Return<Listing, SnapshotError> {
  // The size of a table, and the tree of its partitions, are not told without a lock either.
  const listing = yield* Effect.catchIf(listPublishedTables(other, publications), isLockTimeout, () =>
    lockedBy(other, lockTimeout)
  )
  const problem = unreadable(listing)
  if (problem !== undefined) return yield* problem
  // LOCK takes no snapshot of its own, so that this transaction can still take one over.
  yield* query(locker, beginReading)
  const lock = lockCommand(listing.tables)
  if (lock !== undefined) {
    yield* Effect.catchIf(query(locker, lock), isLockTimeout, () => lockedBy(other, lockTimeout, listing))
  }
  return listing
})
