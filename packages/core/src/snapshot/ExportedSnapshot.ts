/**
 * The seam: a set of connections that see the database as it was at one position of its WAL, and a slot from which
 * everything after that position comes.
 *
 * In this order, so that nothing falls between: what is published is listed; its tables are locked; a temporary slot is
 * made, which exports a snapshot; every connection takes that snapshot over; what is published is listed again, and must be
 * the same. The slot goes with its connection, so whatever fails before the end leaves nothing behind.
 *
 * Sources: https://www.postgresql.org/docs/current/logicaldecoding-explanation.html#LOGICALDECODING-EXPLANATION-EXPORTED-SNAPSHOTS
 * and https://www.postgresql.org/docs/current/sql-set-transaction.html
 */
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { OutputPlugin } from "../change/OutputPlugin.ts"
import type * as Lsn from "../Lsn.ts"
import { qualifiedName, quoteLiteral } from "../protocol/ReplicationCommand.ts"
import { ConnectionError, type ReplicationError, SlotCreationBlocked, SlotInUse } from "../ReplicationError.ts"
import * as Catalog from "../replication/Catalog.ts"
import { checkPublications } from "../replication/Publication.ts"
import { createReplicationSlot, getReplicationSlot } from "../replication/ReplicationSlot.ts"
import { type ReplicantConnection, WalSender } from "../replication/WalSender.ts"
import { lockCommand } from "./CopyCommand.ts"
import { isSameListing, type Listing, listPublishedTables, unreadable } from "./PublishedTables.ts"
import { SnapshotDisturbed, type SnapshotError, SnapshotLocked } from "./SnapshotError.ts"

/** What is to be exported, and by how many connections it will be read. */
export interface ExportOptions {
  /** The slot that will be: its name is what keeps a second snapshot for it from beginning. */
  readonly slot: string
  /** Whether it will be: then it must not be there yet. */
  readonly purpose: "stream" | "only"
  readonly plugin: OutputPlugin
  readonly connections: number
  /** Milliseconds. */
  readonly lockTimeout: number
}

/** The slot that is to be made is there already: whoever made it has what was before. */
export const slotExists: unique symbol = Symbol("slotExists")

/** A snapshot, held. */
export interface ExportedSnapshot {
  readonly listing: Listing
  readonly consistentPoint: Lsn.Lsn
  /** Each in a transaction that sees the snapshot. They hold the locks, and are closed with the scope they were opened in. */
  readonly readers: ReadonlyArray<ReplicantConnection>
  readonly slot: TemporarySlot
}

/** The slot at the seam, and the connection that it lives as long as. */
export interface TemporarySlot {
  readonly connection: ReplicantConnection
  readonly name: string
}

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

const beginReading = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

const query = (connection: ReplicantConnection, text: string) => Catalog.queryAt(connection, text, { stage: "Query" })

/** A session that nothing but its lock timeout limits, with values printed as the stream's are. */
export const connect = Effect.fnUntraced(function* (
  lockTimeout: number
): Effect.fn.Return<ReplicantConnection, ReplicationError, WalSender | Scope.Scope> {
  const connection = yield* (yield* WalSender).connect
  yield* Catalog.pinSession(connection)
  yield* query(connection, sessionSettings(connection.serverVersion, lockTimeout))
  return connection
})

/** Two that copy for one slot would fill one target twice. Held until the connection ends, whatever ends it. */
const excludeOthers = Effect.fnUntraced(function* (connection: ReplicantConnection, slot: string) {
  const key = quoteLiteral(`replicant snapshot ${slot}`)
  const [row] = yield* query(connection, `SELECT pg_try_advisory_lock(hashtextextended(${key}, 0)) AS locked`)
  if (row?.locked !== "t") return yield* new SlotInUse({ slot })
})

const hasState = (sqlState: string) => (error: ReplicationError) =>
  error._tag === "ServerError" && error.sqlState === sqlState

export const isLockTimeout = hasState("55P03")
const areSlotsExhausted = hasState("53400")
const isSlotMissing = hasState("42704")

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

/** Listed, checked and locked. */
const lockTables = Effect.fnUntraced(function* (
  [locker, other]: readonly [ReplicantConnection, ReplicantConnection],
  { lockTimeout, plugin }: ExportOptions
): Effect.fn.Return<Listing, SnapshotError> {
  // The size of a table, and the tree of its partitions, are not told without a lock either.
  const listing = yield* Effect.catchIf(listPublishedTables(other, plugin.publications), isLockTimeout, () =>
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

/**
 * Exports a snapshot of everything that the plugin's publications publish. `readers` is the scope of the connections that
 * read it; the slot and its connection go with the scope that this runs in.
 */
export const exportSnapshot = Effect.fn("Replicant.exportSnapshot")(function* (
  options: ExportOptions,
  openReaders: <A, E, R>(open: Effect.Effect<A, E, R | Scope.Scope>) => Effect.Effect<A, E, Exclude<R, Scope.Scope>>
): Effect.fn.Return<ExportedSnapshot | typeof slotExists, SnapshotError, WalSender | Scope.Scope> {
  const { connections, lockTimeout, plugin } = options
  const keeper = yield* connect(lockTimeout)
  const isThere = Effect.map(getReplicationSlot(keeper, options.slot), (slot) => slot !== undefined)
  if (options.purpose === "stream" && (yield* isThere)) return slotExists
  yield* Effect.fromResult(plugin.options(keeper.serverVersion))
  yield* excludeOthers(keeper, options.slot)
  // Whoever has just let go of that lock may have made it.
  if (options.purpose === "stream" && (yield* isThere)) return slotExists
  yield* checkPublications(keeper, plugin.publications)
  const readers = yield* openReaders(
    Effect.all(
      Array.from({ length: connections }, () => connect(lockTimeout)),
      { concurrency: "unbounded" }
    )
  )
  const listed = yield* lockTables([readers[0]!, keeper], options)
  const suffix = yield* Random.nextIntBetween(0, 2 ** 31)
  const name = `${options.slot.slice(0, 45)}_copy_${suffix.toString(36)}`
  // The wait for older transactions is bounded too: one of them may itself be waiting for our locks.
  const temporary = {
    slot: name,
    plugin: plugin.name,
    temporary: true,
    snapshot: "export",
    timeout: lockTimeout
  } as const
  const created = yield* createReplicationSlot(keeper, temporary).pipe(
    // The slot by the name that the user knows it by.
    Effect.catchTag("SlotCreationBlocked", ({ transactions }) =>
      Effect.fail(new SlotCreationBlocked({ slot: options.slot, transactions }))
    )
  )
  const snapshot = quoteLiteral(created.snapshotName ?? "")
  yield* Effect.forEach(
    readers,
    (reader, index) => query(reader, `${index === 0 ? "" : `${beginReading}; `}SET TRANSACTION SNAPSHOT ${snapshot}`),
    { concurrency: "unbounded" }
  )
  // From here on the readers hold the snapshot themselves, and the keeper may be asked again.
  const listing = yield* listPublishedTables(keeper, plugin.publications)
  if (!isSameListing(listed, listing)) return yield* new SnapshotDisturbed({ publications: plugin.publications })
  return {
    listing,
    consistentPoint: created.consistentPoint,
    readers,
    slot: { connection: keeper, name: created.name }
  }
})

/** Asked this often, in milliseconds, whether the slot's connection lives: nothing else is due on it while rows are copied. */
const pingInterval = 10_000
const pingTimeout = 30_000

/** Fails when the slot is lost, for then there is no seam. Never succeeds. */
export const watchSlot = ({ connection }: TemporarySlot): Effect.Effect<never, ReplicationError> =>
  Effect.forever(
    Effect.sleep(pingInterval).pipe(
      Effect.andThen(query(connection, "SELECT")),
      Effect.timeoutOrElse({
        duration: pingInterval + pingTimeout,
        orElse: () =>
          Effect.fail(
            new ConnectionError({ reason: "TimedOut", detail: "the connection of the snapshot's slot is silent" })
          )
      })
    )
  )

/**
 * Makes a permanent slot at the seam, as a copy of the temporary one. It needs room for one more slot: where there is none
 * this waits, since all that was copied would be in vain.
 *
 * On a connection of its own: an error on the keeper's would end the temporary slot with it (`WalSndErrorCleanup` in
 * src/backend/replication/walsender.c).
 */
export const makePermanent = Effect.fn("Replicant.makePermanent")(function* (
  { name }: TemporarySlot,
  slot: string
): Effect.fn.Return<void, ReplicationError, WalSender> {
  const text = `SELECT pg_catalog.pg_copy_logical_replication_slot(${quoteLiteral(name)}, ${quoteLiteral(slot)}, false)`
  const attempt = Effect.scoped(
    Effect.flatMap(connect(0), (connection) => Catalog.queryAt(connection, text, { stage: "CreateSlot", slot }))
  ).pipe(
    Effect.catchIf(isSlotMissing, () =>
      Effect.fail(new ConnectionError({ reason: "Closed", detail: "the snapshot's slot has gone with its connection" }))
    )
  )
  while (true) {
    const isMade = yield* Effect.catchIf(Effect.as(attempt, true), areSlotsExhausted, () => Effect.succeed(false))
    if (isMade) return
    yield* Effect.logWarning("the copied rows wait for a replication slot: drop one, or raise max_replication_slots")
    yield* Effect.sleep("1 second")
  }
})
