/**
 * The seam: a set of connections that see the database as it was at one position of its WAL, and a slot from which
 * everything after that position comes. Or, for a copy that goes on, as it is now, and which transactions that takes in.
 *
 * In this order, so that nothing falls between: what is published is listed; every connection locks its tables; a temporary slot is
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
import * as Lsn from "../Lsn.ts"
import { quoteLiteral } from "../protocol/ReplicationCommand.ts"
import { DecodeError, SlotCreationBlocked } from "../ReplicationError.ts"
import * as Catalog from "../server/Catalog.ts"
import { createReplicationSlot } from "../server/ReplicationSlot.ts"
import type { ReplicantConnection, WalSender } from "../server/WalSender.ts"
import { isSameListing, type Listing, listPublishedTables } from "../snapshot/PublishedTables.ts"
import { SnapshotDisturbed, type SnapshotError } from "../snapshot/SnapshotError.ts"
import { connect, lockTables, query } from "../snapshot/SnapshotSession.ts"
import * as TransactionSnapshot from "../snapshot/TransactionSnapshot.ts"
import type { NewSnapshot } from "./ResumePlan.ts"

/** Opens in a scope that may end before the rest. */
export type OpenReaders = <A, E, R>(
  open: Effect.Effect<A, E, R | Scope.Scope>
) => Effect.Effect<A, E, Exclude<R, Scope.Scope>>

/** What is to be exported, and by how many connections it will be read. */
export interface ExportOptions {
  /** The slot that it is for. */
  readonly slot: string
  readonly plugin: OutputPlugin
  readonly connections: number
  /** Milliseconds. */
  readonly lockTimeout: number
  /** Opens the connections that read: those of the locks, and of the snapshot. */
  readonly openReaders: OpenReaders
}

/** A snapshot, held. */
export interface HeldSnapshot {
  readonly listing: Listing
  /** Each in a transaction that sees the snapshot and holds the locks. Closed with the scope they were opened in. */
  readonly readers: ReadonlyArray<ReplicantConnection>
}

/** A snapshot of the position that a slot begins at. */
export interface ExportedSnapshot extends HeldSnapshot {
  readonly consistentPoint: Lsn.Lsn
  /** Temporary, of the keeper's connection: it lives as long as that. */
  readonly temporarySlot: string
}

/** Opens the readers, and locks the tables on each of them. */
const openReaders = Effect.fnUntraced(function* (
  keeper: ReplicantConnection,
  { connections, lockTimeout, openReaders, plugin }: ExportOptions
): Effect.fn.Return<HeldSnapshot, SnapshotError, WalSender> {
  const readers = yield* openReaders(
    Effect.all(
      Array.from({ length: connections }, () => connect(lockTimeout)),
      { concurrency: "unbounded" }
    )
  )
  const listing = yield* lockTables(readers, keeper, { publications: plugin.tells.publications, lockTimeout })
  return { listing, readers }
})

/** Has readers take a snapshot over, each in the transaction that it has begun. */
const importSnapshot = (readers: ReadonlyArray<ReplicantConnection>, name: string) =>
  Effect.forEach(readers, (reader) => query(reader, `SET TRANSACTION SNAPSHOT ${quoteLiteral(name)}`), {
    concurrency: "unbounded",
    discard: true
  })

/** What is published must be what was locked: ALTER PUBLICATION and ATTACH PARTITION do not wait for locks of ours. */
const listAgain = Effect.fnUntraced(function* (
  keeper: ReplicantConnection,
  { tells: { publications } }: OutputPlugin,
  listed: Listing
): Effect.fn.Return<Listing, SnapshotError> {
  const listing = yield* listPublishedTables(keeper, publications)
  return isSameListing(listed, listing) ? listing : yield* new SnapshotDisturbed({ publications })
})

/** Exports a snapshot of everything that the plugin's publications publish, at the position of a new slot. */
export const exportSnapshot = Effect.fn("Replicant.exportSnapshot")(function* (
  keeper: ReplicantConnection,
  options: ExportOptions
): Effect.fn.Return<ExportedSnapshot, SnapshotError, WalSender> {
  const { lockTimeout, plugin } = options
  const { listing: listed, readers } = yield* openReaders(keeper, options)
  const suffix = yield* Random.nextIntBetween(0, 2 ** 31)
  // The wait for older transactions is bounded too: one of them may itself be waiting for our locks.
  const created = yield* createReplicationSlot(keeper, {
    slot: `${options.slot.slice(0, 45)}_copy_${suffix.toString(36)}`,
    plugin: plugin.name,
    temporary: true,
    snapshot: "export",
    timeout: lockTimeout
  }).pipe(
    // The slot by the name that its user knows it by.
    Effect.catchTag("SlotCreationBlocked", ({ transactions }) =>
      Effect.fail(new SlotCreationBlocked({ slot: options.slot, transactions }))
    )
  )
  yield* importSnapshot(readers, created.snapshotName ?? "")
  // From here on the readers hold the snapshot themselves, and the keeper may be asked again.
  const listing = yield* listAgain(keeper, plugin, listed)
  return { listing, readers, consistentPoint: created.consistentPoint, temporarySlot: created.name }
})

const SnapshotRow = Schema.Struct({ snapshot: Schema.String, seam: Lsn.LsnFromString })

/** Which transactions this reader's snapshot takes in, and a position of the WAL that all of them committed before. */
export const readSnapshot = Effect.fnUntraced(function* (
  reader: ReplicantConnection
): Effect.fn.Return<NewSnapshot, SnapshotError> {
  const rows = yield* query(
    reader,
    "SELECT pg_catalog.pg_current_snapshot()::text AS snapshot, pg_catalog.pg_current_wal_insert_lsn() AS seam"
  )
  const { seam, snapshot: text } = yield* Catalog.decodeRow(SnapshotRow, rows[0], "pg_current_snapshot")
  const snapshot = TransactionSnapshot.fromString(text)
  if (snapshot === undefined)
    return yield* new DecodeError({ problem: "pg_current_snapshot() is no snapshot", offset: 0 })
  return { snapshot, seam }
})

const ExportedRow = Schema.Struct({ name: Schema.String })

/** Takes a snapshot of everything that is published now, for a copy that goes on. It needs no slot. */
export const takeSnapshot = Effect.fn("Replicant.takeSnapshot")(function* (
  keeper: ReplicantConnection,
  options: ExportOptions
): Effect.fn.Return<HeldSnapshot & NewSnapshot, SnapshotError, WalSender> {
  const { listing: listed, readers } = yield* openReaders(keeper, options)
  const [exporter, ...others] = readers
  // The first statement after the locks: it takes the snapshot, and so sees all that was done to the tables before.
  const rows = yield* query(exporter!, "SELECT pg_catalog.pg_export_snapshot() AS name")
  const { name } = yield* Catalog.decodeRow(ExportedRow, rows[0], "pg_export_snapshot")
  yield* importSnapshot(others, name)
  const listing = yield* listAgain(keeper, options.plugin, listed)
  return { listing, readers, ...(yield* readSnapshot(exporter!)) }
})
