/**
 * One look at a server: what its catalog and its statistics say of its slots, all of them together, ours and others'. Nothing is
 * derived here. What the role may not see is `undefined`, and told of as a right that lacks.
 *
 * Source: https://www.postgresql.org/docs/current/monitoring-stats.html
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Lsn from "../Lsn.ts"
import { quoteLiteral } from "../protocol/ReplicationCommand.ts"
import type { ReplicationError } from "../ReplicationError.ts"
import * as Catalog from "../server/Catalog.ts"
import type { SqlSession } from "../server/WalSender.ts"
import { orNull, TextOrNull } from "./OrNull.ts"
import type { WalSample } from "./WalForecast.ts"

const mebi = 1024 * 1024

const Count = orNull(Schema.NumberFromString)
const Flag = orNull(Catalog.BooleanFromText)
const Position = orNull(Lsn.LsnFromString)

const ServerRow = Schema.Struct({
  server_start: Schema.String,
  now: Schema.NumberFromString,
  in_recovery: Catalog.BooleanFromText,
  wal_end: Lsn.LsnFromString,
  keep_size: Count,
  idle_timeout: Count,
  idle_unit: TextOrNull,
  most_slots: Count,
  reads_stats: Catalog.BooleanFromText,
  lists_wal: Catalog.BooleanFromText
})

const serverQuery = `SELECT ${Catalog.serverStart} AS server_start,
  extract(epoch FROM pg_catalog.clock_timestamp()) * 1000 AS now,
  pg_catalog.pg_is_in_recovery() AS in_recovery, ${Catalog.walEnd} AS wal_end,
  (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size') AS keep_size,
  (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'idle_replication_slot_timeout') AS idle_timeout,
  (SELECT unit FROM pg_catalog.pg_settings WHERE name = 'idle_replication_slot_timeout') AS idle_unit,
  (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'max_replication_slots') AS most_slots,
  pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS reads_stats,
  pg_catalog.has_function_privilege('pg_catalog.pg_ls_waldir()', 'EXECUTE') AS lists_wal`

/** A slot, the walsender that streams from it, and what decoding it has come to. Times are milliseconds, from 1970 or as a span. */
const SlotRow = Schema.Struct({
  slot_name: Schema.String,
  slot_type: Schema.Literals(["logical", "physical"]),
  plugin: TextOrNull,
  database: TextOrNull,
  temporary: Catalog.BooleanFromText,
  active_pid: Count,
  restart_lsn: Position,
  confirmed_flush_lsn: Position,
  wal_status: TextOrNull,
  safe_wal_size: Count,
  invalidation_reason: TextOrNull,
  failover: Flag,
  synced: Flag,
  inactive_since: Count,
  user_name: TextOrNull,
  application_name: TextOrNull,
  client_addr: TextOrNull,
  backend_start: Count,
  wait_event: TextOrNull,
  state: TextOrNull,
  sent_lsn: Position,
  write_lsn: Position,
  flush_lsn: Position,
  replay_lsn: Position,
  write_lag: Count,
  flush_lag: Count,
  replay_lag: Count,
  sync_state: TextOrNull,
  reply_time: Count,
  spill_txns: Count,
  spill_count: Count,
  spill_bytes: Count,
  stream_txns: Count,
  stream_count: Count,
  stream_bytes: Count,
  total_txns: Count,
  total_bytes: Count
})

export type SlotRow = typeof SlotRow.Type

const millis = (expression: string, name: string): string =>
  `round(extract(epoch FROM ${expression}) * 1000) AS ${name}`

const since = (serverVersion: number, first: number, expression: string, type: string): string =>
  serverVersion >= first ? expression : `NULL::${type}`

const slotsQuery = (serverVersion: number, slot: string | undefined): string =>
  `SELECT s.slot_name, s.slot_type, s.plugin, s.database, s.temporary, s.active_pid, s.restart_lsn, s.confirmed_flush_lsn,
  s.wal_status, s.safe_wal_size, ${since(serverVersion, 170_000, "s.invalidation_reason", "text")} AS invalidation_reason,
  ${since(serverVersion, 170_000, "s.failover", "bool")} AS failover, ${since(serverVersion, 170_000, "s.synced", "bool")} AS synced,
  ${millis(since(serverVersion, 170_000, "s.inactive_since", "timestamptz"), "inactive_since")},
  a.usename AS user_name, a.application_name, pg_catalog.host(a.client_addr) AS client_addr,
  ${millis("a.backend_start", "backend_start")}, a.wait_event,
  r.state, r.sent_lsn, r.write_lsn, r.flush_lsn, r.replay_lsn, ${millis("r.write_lag", "write_lag")},
  ${millis("r.flush_lag", "flush_lag")}, ${millis("r.replay_lag", "replay_lag")}, r.sync_state,
  ${millis("r.reply_time", "reply_time")},
  d.spill_txns, d.spill_count, d.spill_bytes, d.stream_txns, d.stream_count, d.stream_bytes, d.total_txns, d.total_bytes
  FROM pg_catalog.pg_replication_slots AS s
  LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = s.active_pid
  LEFT JOIN pg_catalog.pg_stat_replication AS r ON r.pid = s.active_pid
  LEFT JOIN pg_catalog.pg_stat_replication_slots AS d ON d.slot_name = s.slot_name
  ${slot === undefined ? "" : `WHERE s.slot_name = ${quoteLiteral(slot)} `}ORDER BY s.slot_name`

const CopyRow = Schema.Struct({
  pid: Schema.NumberFromString,
  database: TextOrNull,
  relation: TextOrNull,
  command: TextOrNull,
  bytes_processed: Count,
  bytes_total: Count,
  tuples_processed: Count,
  application_name: TextOrNull,
  started: Count
})

export type CopyRow = typeof CopyRow.Type

/** A COPY of a query, as that of a snapshot with a filter, is of no relation; of other databases only numbers are known. */
const copiesQuery = `SELECT p.pid, p.datname AS database,
  CASE WHEN p.relid <> 0 AND p.datname = pg_catalog.current_database() THEN p.relid::pg_catalog.regclass END AS relation,
  p.command, p.bytes_processed, p.bytes_total, p.tuples_processed, a.application_name,
  ${millis("a.query_start", "started")}
  FROM pg_catalog.pg_stat_progress_copy AS p LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = p.pid ORDER BY p.pid`

const WalDirectoryRow = Schema.Struct({ bytes: Count })

const walDirectoryQuery = "SELECT sum(size) AS bytes FROM pg_catalog.pg_ls_waldir()"

/** A right whose lack hides something: `GRANT pg_monitor` gives both. */
export const Right = Schema.Literals(["pg_read_all_stats", "pg_ls_waldir"])
export type Right = typeof Right.Type

/** What one look saw. */
export interface SlotLook {
  /** `server_version_num`. */
  readonly serverVersion: number
  readonly serverStart: string
  /** Milliseconds since 1970, by the server's clock. */
  readonly serverTime: number
  readonly isInRecovery: boolean
  /** Where WAL ends; of a standby, what it has received. */
  readonly walEnd: Lsn.Lsn
  /** `max_slot_wal_keep_size`; `undefined` for no limit. */
  readonly limitBytes: number | undefined
  /** `idle_replication_slot_timeout` of PostgreSQL 18; `undefined` for none. */
  readonly idleTimeoutMillis: number | undefined
  /** `max_replication_slots`. */
  readonly mostSlots: number | undefined
  /** Bytes that `pg_wal` takes. */
  readonly walDirectoryBytes: number | undefined
  readonly slots: ReadonlyArray<SlotRow>
  readonly copies: ReadonlyArray<CopyRow>
  readonly lackedRights: ReadonlyArray<Right>
}

/** In milliseconds, whichever unit this version keeps it in. */
const unitMillis: { readonly [unit: string]: number } = { ms: 1, s: 1000, min: 60_000 }

const ask = <A, I extends { readonly [column: string]: string | null }>(
  session: SqlSession,
  text: string,
  schema: Schema.Codec<A, I>,
  what: string
): Effect.Effect<ReadonlyArray<A>, ReplicationError> =>
  Effect.flatMap(Catalog.queryAt(session, text, { stage: "Query" }), (rows) =>
    Effect.forEach(rows, (row) => Catalog.decodeRow(schema, row, what))
  )

/**
 * Looks once: at all slots, or at one by its name, and then at nothing else that costs a right or a walk through a directory. The
 * session is one that {@link Catalog.pinSession} has set.
 */
export const lookAtSlots = Effect.fnUntraced(function* (
  session: SqlSession,
  slot?: string | undefined
): Effect.fn.Return<SlotLook, ReplicationError> {
  const { serverVersion } = session
  // Before where WAL ends is asked, so that no slot stands beyond that.
  const slots = yield* ask(session, slotsQuery(serverVersion, slot), SlotRow, "pg_replication_slots")
  const all = slot === undefined
  const copies = all ? yield* ask(session, copiesQuery, CopyRow, "pg_stat_progress_copy") : []
  const [found] = yield* ask(session, serverQuery, ServerRow, "pg_settings")
  const server = found ?? (yield* Catalog.decodeRow(ServerRow, undefined, "pg_settings"))
  const [directory] =
    all && server.lists_wal ? yield* ask(session, walDirectoryQuery, WalDirectoryRow, "pg_ls_waldir") : []
  const { idle_timeout, idle_unit, keep_size } = server
  return {
    serverVersion,
    serverStart: server.server_start,
    serverTime: server.now,
    isInRecovery: server.in_recovery,
    walEnd: server.wal_end,
    limitBytes: keep_size === undefined || keep_size < 0 ? undefined : keep_size * mebi,
    idleTimeoutMillis: idle_timeout ? idle_timeout * (unitMillis[idle_unit ?? ""] ?? 1000) : undefined,
    mostSlots: server.most_slots,
    walDirectoryBytes: directory?.bytes,
    slots,
    copies,
    lackedRights: [
      ...(server.reads_stats ? [] : (["pg_read_all_stats"] as const)),
      ...(!all || server.lists_wal ? [] : (["pg_ls_waldir"] as const))
    ]
  }
})

/** What of a look bears on how long a slot's WAL lasts. */
export const sampleOf = (
  look: SlotLook,
  slot: SlotRow,
  seen: { readonly at: number; readonly freeBytes: number | undefined }
): WalSample => ({
  ...seen,
  serverStart: look.serverStart,
  walEnd: look.walEnd,
  restartLsn: slot.restart_lsn,
  confirmedFlushLsn: slot.confirmed_flush_lsn,
  walStatus: slot.wal_status,
  invalidationReason: slot.invalidation_reason,
  // Of a slot that keeps nothing the server counts from the beginning of all WAL.
  safeBytes: slot.restart_lsn === undefined ? undefined : slot.safe_wal_size,
  limitBytes: look.limitBytes,
  idleMillis:
    slot.active_pid !== undefined || slot.inactive_since === undefined
      ? undefined
      : Math.max(0, look.serverTime - slot.inactive_since),
  // A standby's copy of a slot is nobody's to use, and not given up for that.
  idleTimeoutMillis: slot.synced === true ? undefined : look.idleTimeoutMillis
})
