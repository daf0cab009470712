/** Replication slots as a doctor asks for them: all of the cluster, with who uses them and what decoding them has cost. */
import * as Schema from "effect/Schema"
import * as Catalog from "../server/Catalog.ts"
import { isInvalidated } from "../server/SlotCatalog.ts"
import { jsonArray } from "../server/TablesSql.ts"
import * as Check from "./Check.ts"

const Slot = Schema.Struct({
  name: Schema.String,
  isLogical: Schema.Boolean,
  plugin: Schema.NullOr(Schema.String),
  database: Schema.NullOr(Schema.String),
  isTemporary: Schema.Boolean,
  activePid: Schema.NullOr(Schema.Number),
  /** Of whoever streams from it; null where the role may not see that. */
  application: Schema.NullOr(Schema.String),
  user: Schema.NullOr(Schema.String),
  walStatus: Schema.NullOr(Schema.String),
  /** Why it was given up; before PostgreSQL 17 only whether. */
  reason: Schema.NullOr(Schema.String),
  /** WAL that may still be written before it is in danger; null without a limit. */
  safeBytes: Schema.NullOr(Schema.Number),
  /** WAL that is kept for it, and that its consumer has not confirmed. */
  retainedBytes: Schema.NullOr(Schema.Number),
  behindBytes: Schema.NullOr(Schema.Number),
  /** Transactions since the one whose catalog rows it needs. */
  catalogAge: Schema.NullOr(Schema.Number),
  isTwoPhase: Schema.Boolean,
  isFailover: Schema.Boolean,
  isSynced: Schema.Boolean,
  inactiveSeconds: Schema.NullOr(Schema.Number),
  /** What was decoded, and what of it went through files as it did not fit `logical_decoding_work_mem`. */
  totalBytes: Schema.NullOr(Schema.Number),
  spilledTransactions: Schema.NullOr(Schema.Number),
  spilledBytes: Schema.NullOr(Schema.Number)
})

export type Slot = typeof Slot.Type

const selectSlots = (serverVersion: number): string => {
  const since17 = (column: string, otherwise: string) => (serverVersion >= 170_000 ? `s.${column}` : otherwise)
  return jsonArray(
    `json_build_object('name', s.slot_name, 'isLogical', s.slot_type = 'logical', 'plugin', s.plugin,
      'database', s.database, 'isTemporary', s.temporary, 'activePid', s.active_pid,
      'application', a.application_name, 'user', a.usename, 'walStatus', s.wal_status,
      'reason', ${since17("invalidation_reason", "NULL::text")}, 'safeBytes', s.safe_wal_size,
      'retainedBytes', greatest(0, pg_wal_lsn_diff(here.lsn, s.restart_lsn)),
      'behindBytes', greatest(0, pg_wal_lsn_diff(here.lsn, s.confirmed_flush_lsn)),
      'catalogAge', age(s.catalog_xmin), 'isTwoPhase', s.two_phase,
      'isFailover', ${since17("failover", "false")}, 'isSynced', ${since17("synced", "false")},
      'inactiveSeconds', extract(epoch FROM clock_timestamp() - ${since17("inactive_since", "NULL::timestamptz")}),
      'totalBytes', d.total_bytes, 'spilledTransactions', d.spill_txns, 'spilledBytes', d.spill_bytes)
      ORDER BY s.slot_name`,
    `FROM pg_replication_slots s
      CROSS JOIN (SELECT ${Catalog.walEnd} AS lsn) here
      LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
      LEFT JOIN pg_stat_replication_slots d ON d.slot_name = s.slot_name`
  )
}

/** Every slot of the cluster. */
export const slots: Check.Fact<ReadonlyArray<Slot>> = {
  name: "slots",
  what: "the replication slots",
  server: "source",
  read: ({ session }) =>
    Check.ask(session, "pg_replication_slots", Schema.Array(Slot), selectSlots(session.serverVersion))
}

/** The same of the standby. */
export const standbySlots: Check.Fact<ReadonlyArray<Slot>> = { ...slots, name: "standby-slots", server: "standby" }

/** Whether the server has given it up. */
export const isLost = ({ reason, walStatus }: Slot): boolean =>
  isInvalidated({ walStatus: walStatus ?? undefined, invalidationReason: reason ?? undefined })

/** The slots that are looked at: the one that is named, or every logical one of the database. */
export const wanted = (all: ReadonlyArray<Slot>, { asked, who }: Check.Context): ReadonlyArray<Slot> =>
  all.filter(({ database, isLogical, name }) =>
    asked.slot === undefined ? isLogical && database === who?.database : name === asked.slot
  )
