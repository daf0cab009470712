/**
 * Replication slots as the server's catalog has them: found, listed, watched.
 *
 * A slot's row in `pg_replication_slots` is asked before START_REPLICATION, since the SQLSTATEs of that command do not
 * tell one refusal from another (55000 is a dozen conditions).
 *
 * Source: https://www.postgresql.org/docs/current/view-pg-replication-slots.html
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Lsn from "../Lsn.ts"
import { quoteLiteral, slotName } from "../protocol/ReplicationCommand.ts"
import { type ReplicationError, SlotNotFound } from "../ReplicationError.ts"
import * as Catalog from "./Catalog.ts"
import { type ReplicantConnection, WalSender } from "./WalSender.ts"

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
  greatest(0, pg_catalog.pg_wal_lsn_diff(${Catalog.walEnd}, restart_lsn)) AS retained
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

/** Whether the server has given the slot up: nothing can be streamed from it any more. */
export const isInvalidated = ({
  invalidationReason,
  walStatus
}: Pick<ReplicationSlot, "invalidationReason" | "walStatus">): boolean =>
  walStatus === "lost" || invalidationReason !== undefined

const look = (slot: string): Effect.Effect<ReplicationSlot, ReplicationError, WalSender> =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* (yield* WalSender).connect
      yield* Catalog.pinSession(connection)
      const found = yield* getReplicationSlot(connection, slot)
      return found ?? (yield* new SlotNotFound({ slot }))
    })
  )

/**
 * The slot's row now, and again each time its `walStatus` changes: a warning before the slot is lost. `extended` means
 * that it holds WAL beyond `max_wal_size`; `unreserved`, that the next checkpoint may remove WAL it needs; `lost`, that
 * this has happened. Run it beside the stream: it looks over a connection of its own, made for each look, and passes over
 * what keeps it from looking for a while. Ends never; fails when there is no such slot.
 *
 * @example
 * ReplicationSlot.walStatusChanges("orders").pipe(
 *   Stream.runForEach((slot) => Effect.logWarning(`slot ${slot.name} is ${slot.walStatus}`))
 * )
 */
export const walStatusChanges = (
  slot: string,
  options: {
    /** How often to look: every minute. */
    readonly interval?: Duration.Input | undefined
  } = {}
): Stream.Stream<ReplicationSlot, ReplicationError, WalSender> => {
  const looked = Effect.catchIf(
    look(slot),
    (error) => error.isRetryable,
    (error) => Effect.as(Effect.logDebug(`cannot look at slot ${slot}: ${error.message}`), undefined)
  )
  return Stream.fromEffectSchedule(looked, Schedule.spaced(options.interval ?? "1 minute")).pipe(
    Stream.filter((found) => found !== undefined),
    Stream.changesWith((before, after) => before.walStatus === after.walStatus)
  )
}
