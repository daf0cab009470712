/**
 * Replication slots: found, made, dropped and waited for, over a replication connection.
 *
 * A slot's row in `pg_replication_slots` is asked before START_REPLICATION, since the SQLSTATEs of that command do not
 * tell one refusal from another (55000 is a dozen conditions).
 *
 * Source: https://www.postgresql.org/docs/current/view-pg-replication-slots.html
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Lsn from "../Lsn.ts"
import {
  type CreateReplicationSlot,
  createReplicationSlotCommand,
  dropReplicationSlotCommand,
  quoteLiteral,
  slotName
} from "../protocol/ReplicationCommand.ts"
import {
  LogicalDecodingDisabled,
  type ReplicationError,
  SlotInUse,
  SlotInvalidated,
  SlotMismatch,
  SlotNotFound
} from "../ReplicationError.ts"
import * as Catalog from "./Catalog.ts"
import type { ReplicantConnection } from "./WalSender.ts"

/** A slot as `pg_replication_slots` has it. */
export interface ReplicationSlot {
  readonly name: string
  readonly type: "logical" | "physical"
  /** `undefined` for a physical slot, as is `database`. */
  readonly plugin: string | undefined
  readonly database: string | undefined
  readonly isTemporary: boolean
  /** The backend that streams from it now. */
  readonly activePid: number | undefined
  /** WAL from here on is kept for it. */
  readonly restartLsn: Lsn.Lsn | undefined
  /** What its consumer has acknowledged; streaming goes on from here. */
  readonly confirmedFlushLsn: Lsn.Lsn | undefined
  /** `reserved`, `extended`, `unreserved` or `lost`. */
  readonly walStatus: string | undefined
  /** Why it was given up; before PostgreSQL 17 only whether. */
  readonly invalidationReason: string | undefined
  /** WAL bytes the server keeps for it. */
  readonly retainedBytes: bigint | undefined
}

const SlotRow = Schema.Struct({
  slot_name: Schema.String,
  slot_type: Schema.Literals(["logical", "physical"]),
  plugin: Schema.NullOr(Schema.String),
  database: Schema.NullOr(Schema.String),
  temporary: Catalog.BooleanFromText,
  active_pid: Schema.NullOr(Schema.NumberFromString),
  restart_lsn: Schema.NullOr(Lsn.LsnFromString),
  confirmed_flush_lsn: Schema.NullOr(Lsn.LsnFromString),
  wal_status: Schema.NullOr(Schema.String),
  invalidation_reason: Schema.NullOr(Schema.String),
  retained: Schema.NullOr(Schema.BigIntFromString)
})

const selectSlots = (serverVersion: number): string =>
  `SELECT slot_name, slot_type, plugin, database, temporary, active_pid, restart_lsn, confirmed_flush_lsn, wal_status, ${
    serverVersion >= 170_000 ? "invalidation_reason" : "NULL::text"
  } AS invalidation_reason,
  greatest(0, pg_catalog.pg_wal_lsn_diff(CASE WHEN pg_catalog.pg_is_in_recovery()
    THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END, restart_lsn)) AS retained
  FROM pg_catalog.pg_replication_slots`

const fromRow = (row: typeof SlotRow.Type): ReplicationSlot => ({
  name: row.slot_name,
  type: row.slot_type,
  plugin: row.plugin ?? undefined,
  database: row.database ?? undefined,
  isTemporary: row.temporary,
  activePid: row.active_pid ?? undefined,
  restartLsn: row.restart_lsn ?? undefined,
  confirmedFlushLsn: row.confirmed_flush_lsn ?? undefined,
  walStatus: row.wal_status ?? undefined,
  invalidationReason: row.invalidation_reason ?? undefined,
  retainedBytes: row.retained ?? undefined
})

/** Every slot of the cluster, other databases' too, by name. */
export const listReplicationSlots = Effect.fn("Replicant.listReplicationSlots")(function* (
  connection: ReplicantConnection
): Effect.fn.Return<ReadonlyArray<ReplicationSlot>, ReplicationError> {
  const text = `${selectSlots(connection.serverVersion)} ORDER BY slot_name`
  const rows = yield* Catalog.queryAt(connection, text, { stage: "Query" })
  return yield* Effect.forEach(rows, (row) =>
    Effect.map(Catalog.decodeRow(SlotRow, row, "pg_replication_slots"), fromRow)
  )
})

/** The slot of that name, or `undefined`. */
export const getReplicationSlot = Effect.fn("Replicant.getReplicationSlot")(function* (
  connection: ReplicantConnection,
  slot: string
): Effect.fn.Return<ReplicationSlot | undefined, ReplicationError> {
  const name = yield* Effect.fromResult(slotName(slot))
  const text = `${selectSlots(connection.serverVersion)} WHERE slot_name = ${quoteLiteral(name)}`
  const rows = yield* Catalog.queryAt(connection, text, { stage: "Query", slot })
  return rows.length === 0 ? undefined : fromRow(yield* Catalog.decodeRow(SlotRow, rows[0], "pg_replication_slots"))
})

/** What CREATE_REPLICATION_SLOT answers. */
export interface CreatedSlot {
  readonly name: string
  /** Changes of transactions that commit from here on are in the slot. */
  readonly consistentPoint: Lsn.Lsn
  /** With `snapshot: "export"`: to be imported elsewhere, until the next command on this connection. */
  readonly snapshotName: string | undefined
}

const CreatedRow = Schema.Struct({
  slot_name: Schema.String,
  consistent_point: Lsn.LsnFromString,
  snapshot_name: Schema.NullOr(Schema.String)
})

/**
 * Makes a slot. The server first waits for every transaction that is running, so a forgotten session can hold it up; a
 * `lock_timeout` among the connection's settings cuts that wait with 55P03. Interrupted meanwhile, this ends at once, but
 * the server goes on until that transaction ends: the slot is there and active till then, and may stay.
 */
export const createReplicationSlot = Effect.fn("Replicant.createReplicationSlot")(function* (
  connection: ReplicantConnection,
  options: CreateReplicationSlot
): Effect.fn.Return<CreatedSlot, ReplicationError> {
  const command = yield* Effect.fromResult(createReplicationSlotCommand(options, connection.serverVersion))
  const { walLevel } = yield* Catalog.serverSettings(connection)
  // From PostgreSQL 19 the first logical slot itself raises the effective level from `replica`.
  if (walLevel !== "logical" && (connection.serverVersion < 190_000 || walLevel === "minimal")) {
    return yield* new LogicalDecodingDisabled({ walLevel })
  }
  const rows = yield* Catalog.queryAt(connection, command, {
    stage: "CreateSlot",
    slot: options.slot,
    plugin: options.plugin
  })
  const row = yield* Catalog.decodeRow(CreatedRow, rows[0], "CREATE_REPLICATION_SLOT")
  return {
    name: row.slot_name,
    consistentPoint: row.consistent_point,
    snapshotName: row.snapshot_name ?? undefined
  }
})

/** Drops a slot. Fails with `SlotInUse` while someone streams from it, unless `wait` is asked for. */
export const dropReplicationSlot = Effect.fn("Replicant.dropReplicationSlot")(function* (
  connection: ReplicantConnection,
  slot: string,
  options: { readonly wait?: boolean | undefined } = {}
): Effect.fn.Return<void, ReplicationError> {
  const command = yield* Effect.fromResult(dropReplicationSlotCommand({ slot, wait: options.wait }))
  yield* Catalog.queryAt(connection, command, { stage: "DropSlot", slot })
})

/** The slot that is wanted, and what may be done to have it. */
export interface SetupSlot {
  readonly slot: string
  readonly plugin: string
  /** The database we are connected to. */
  readonly database: string
  /** Makes the slot when there is none; `undefined` never does: what it stood for would be lost without a word. */
  readonly create?: "permanent" | "temporary" | undefined
  /** How long to wait, in milliseconds, while another connection streams from it. */
  readonly inUseTimeout: number
}

/** Tries again while the slot is in use: after 100 ms, doubled up to 2 s. */
const inUsePace = (timeout: number) =>
  Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("2 seconds")]).pipe(
    Schedule.upTo({ duration: Duration.millis(timeout) })
  )

/** Whether this slot is ours to stream from. */
const checkSlot = (found: ReplicationSlot, wanted: SetupSlot): Effect.Effect<ReplicationSlot, ReplicationError> => {
  const { slot } = wanted
  const mismatch = (property: "type" | "database" | "plugin", expected: string, actual: string | undefined) =>
    new SlotMismatch({ slot, property, expected, found: actual ?? "none" })
  if (found.type !== "logical") return Effect.fail(mismatch("type", "logical", found.type))
  if (found.database !== wanted.database) return Effect.fail(mismatch("database", wanted.database, found.database))
  if (found.plugin !== wanted.plugin) return Effect.fail(mismatch("plugin", wanted.plugin, found.plugin))
  if (found.walStatus === "lost" || found.invalidationReason !== undefined) {
    return Effect.fail(new SlotInvalidated({ slot, reason: found.invalidationReason ?? "unknown" }))
  }
  if (found.activePid !== undefined) return Effect.fail(new SlotInUse({ slot, activePid: found.activePid }))
  return Effect.succeed(found)
}

/** Finds the slot, or makes it where that was asked for, and waits until it is free. */
export const setupReplicationSlot = Effect.fn("Replicant.setupReplicationSlot")(function* (
  connection: ReplicantConnection,
  options: SetupSlot
): Effect.fn.Return<ReplicationSlot, ReplicationError> {
  const { create, plugin, slot } = options
  const find = Effect.flatMap(getReplicationSlot(connection, slot), (found) =>
    found === undefined ? Effect.fail(new SlotNotFound({ slot })) : checkSlot(found, options)
  ).pipe(Effect.retry({ while: (error) => error._tag === "SlotInUse", schedule: inUsePace(options.inUseTimeout) }))
  if (create === undefined) return yield* find
  return yield* Effect.catchTag(find, "SlotNotFound", () =>
    createReplicationSlot(connection, { slot, plugin, temporary: create === "temporary", snapshot: "nothing" }).pipe(
      // Another process was quicker: the slot is there, which is all that was asked for.
      Effect.catchTag("SlotAlreadyExists", () => Effect.void),
      Effect.andThen(getReplicationSlot(connection, slot)),
      Effect.flatMap((made) => (made === undefined ? Effect.fail(new SlotNotFound({ slot })) : Effect.succeed(made)))
    )
  )
})
