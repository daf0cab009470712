/** All slots of a server as one value, and what one more look makes of it. Pure: `SlotOverview.ts` asks the server. */
import * as Schema from "effect/Schema"
import * as Lsn from "../Lsn.ts"
import { type BudgetHistory, type BudgetOptions, next as nextBudget } from "./Budget.ts"
import { NumberOrNull, TextOrNull } from "./OrNull.ts"
import { type CopyRow, Right, type SlotLook, sampleOf } from "./SlotLook.ts"
import { presentMillis, SlotStatus, slotStatusOf } from "./SlotStatus.ts"
import { addSample, ratesOver, type WalSample } from "./WalForecast.ts"

/** Schema of a {@link CopyStatus}. */
export const CopyStatus = Schema.Struct({
  pid: Schema.Finite,
  database: TextOrNull,
  /** Not known of a COPY of a query, nor of another database's. */
  relation: TextOrNull,
  /** `COPY TO`, as a snapshot does, or `COPY FROM`. */
  command: TextOrNull,
  applicationName: TextOrNull,
  bytes: NumberOrNull,
  /** 0 where it is not known beforehand. */
  totalBytes: NumberOrNull,
  rows: NumberOrNull,
  /** Milliseconds since 1970. */
  startedAt: NumberOrNull
})

/** A COPY under way, be it of a snapshot or not: its row in `pg_stat_progress_copy`. */
export interface CopyStatus extends Schema.Schema.Type<typeof CopyStatus> {}

/** Schema of a {@link SlotOverview}: in JSON LSNs are PostgreSQL's text, and what is not known is null. */
export const SlotOverview = Schema.Struct({
  /** Milliseconds since 1970, by this program's clock: when it was seen. */
  at: Schema.Finite,
  /** `server_version_num`. */
  serverVersion: Schema.Finite,
  /** When the server was started, in milliseconds since 1970. */
  serverStartedAt: Schema.Finite,
  isInRecovery: Schema.Boolean,
  /** Where WAL ends; of a standby, what it has received. */
  walEnd: Lsn.LsnFromString,
  /** WAL bytes a second, over the last 10 seconds. */
  writtenPerSecond: NumberOrNull,
  /** What `pg_wal` takes; known with the right to `pg_ls_waldir`. */
  walDirectoryBytes: NumberOrNull,
  /** As handed in. */
  freeBytes: NumberOrNull,
  /** `max_slot_wal_keep_size`; not known for no limit. */
  limitBytes: NumberOrNull,
  /** `max_replication_slots`. */
  mostSlots: NumberOrNull,
  /** By name. */
  slots: Schema.Array(SlotStatus),
  copies: Schema.Array(CopyStatus),
  /** Rights that the role lacks, for which some of this is not known: `GRANT pg_monitor` gives them. */
  lackedRights: Schema.Array(Right)
})

/** All slots of one server, as seen at one time. */
export interface SlotOverview extends Schema.Schema.Type<typeof SlotOverview> {}

/** An overview with what rates and forecasts are made of. */
export interface OverviewHistory {
  readonly wal: ReadonlyArray<WalSample>
  readonly slots: ReadonlyMap<string, BudgetHistory>
  readonly overview: SlotOverview
}

/** When a look was, and what was handed in. */
export interface Seen {
  /** Milliseconds since 1970. */
  readonly time: number
  /** Milliseconds of a clock that never goes back. */
  readonly at: number
  readonly freeBytes: number | undefined
}

const copyOf = (row: CopyRow): CopyStatus => ({
  pid: row.pid,
  database: row.database,
  relation: row.relation,
  command: row.command,
  applicationName: row.application_name,
  bytes: row.bytes_processed,
  totalBytes: row.bytes_total,
  rows: row.tuples_processed,
  startedAt: row.started
})

/** Of the server itself, as a slot that keeps nothing. */
const walSample = (look: SlotLook, { at }: Seen): WalSample => ({
  at,
  serverStart: look.serverStart,
  walEnd: look.walEnd,
  restartLsn: undefined,
  confirmedFlushLsn: undefined,
  walStatus: undefined,
  invalidationReason: undefined,
  safeBytes: undefined,
  limitBytes: undefined,
  idleMillis: undefined,
  idleTimeoutMillis: undefined,
  freeBytes: undefined
})

/** The overview after one more look. */
export const next = (
  history: OverviewHistory | undefined,
  look: SlotLook,
  seen: Seen,
  options: BudgetOptions = {}
): OverviewHistory => {
  const { at, freeBytes, time } = seen
  const wal = addSample(history?.wal ?? [], walSample(look, seen), presentMillis)
  const slots = new Map<string, BudgetHistory>()
  const found = look.slots.map((row) => {
    const name = row.slot_name
    const after = nextBudget(history?.slots.get(name), name, sampleOf(look, row, { at, freeBytes }), options)
    slots.set(name, after)
    return slotStatusOf(look, row, after)
  })
  const overview: SlotOverview = {
    at: time,
    serverVersion: look.serverVersion,
    serverStartedAt: Math.round(Number(look.serverStart) * 1000),
    isInRecovery: look.isInRecovery,
    walEnd: look.walEnd,
    writtenPerSecond: ratesOver(wal, presentMillis)?.written,
    walDirectoryBytes: look.walDirectoryBytes,
    freeBytes,
    limitBytes: look.limitBytes,
    mostSlots: look.mostSlots,
    slots: found,
    copies: look.copies.map(copyOf),
    lackedRights: look.lackedRights
  }
  return { wal, slots, overview }
}
