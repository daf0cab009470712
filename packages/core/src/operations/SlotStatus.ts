/**
 * A slot as an operator sees it: its row in the catalog, the walsender that streams from it, what decoding it has come to, how far its
 * consumer is behind, and its WAL budget. Made of a look and of those before it.
 */
import * as Schema from "effect/Schema"
import * as Lsn from "../Lsn.ts"
import { isInvalidated } from "../server/SlotCatalog.ts"
import { type BudgetHistory, WalBudget } from "./Budget.ts"
import { FlagOrNull, NumberOrNull, orNull, TextOrNull } from "./OrNull.ts"
import type { SlotLook, SlotRow } from "./SlotLook.ts"
import { bytesBehind, ratesOver, timeBehind } from "./WalForecast.ts"

const LsnOrNull = orNull(Lsn.LsnFromString)

/** Schema of a {@link WalSenderStatus}. */
export const WalSenderStatus = Schema.Struct({
  pid: Schema.Finite,
  user: TextOrNull,
  applicationName: TextOrNull,
  /** `null` over a Unix socket, too. */
  clientAddress: TextOrNull,
  /** `startup`, `catchup` (it sends what is there already), `streaming`, `backup` or `stopping`. */
  state: TextOrNull,
  /** What it waits for: `WalSenderWaitForWal` is to have nothing to send, `WalSenderWriteData` a client that does not read. */
  waitEvent: TextOrNull,
  sentLsn: LsnOrNull,
  writeLsn: LsnOrNull,
  flushLsn: LsnOrNull,
  replayLsn: LsnOrNull,
  /** How long its client took to confirm, as the server has it; `null` where there was nothing to confirm lately. */
  writeLagMillis: NumberOrNull,
  flushLagMillis: NumberOrNull,
  replayLagMillis: NumberOrNull,
  syncState: TextOrNull,
  /** Milliseconds since 1970: when it was connected, and when its client last reported. */
  connectedAt: NumberOrNull,
  reportedAt: NumberOrNull
})

/** A backend that streams from a slot: its rows in `pg_stat_activity` and `pg_stat_replication`. */
export interface WalSenderStatus extends Schema.Schema.Type<typeof WalSenderStatus> {}

/** Schema of a {@link DecodingStatus}. */
export const DecodingStatus = Schema.Struct({
  spillTransactions: Schema.Finite,
  spillCount: Schema.Finite,
  spillBytes: Schema.Finite,
  streamTransactions: Schema.Finite,
  streamCount: Schema.Finite,
  streamBytes: Schema.Finite,
  totalTransactions: Schema.Finite,
  totalBytes: Schema.Finite
})

/**
 * A slot's row in `pg_stat_replication_slots`, since the statistics were reset: what outgrew `logical_decoding_work_mem` and was
 * spilled to the server's disk, or streamed before its commit, and what was decoded in all.
 */
export interface DecodingStatus extends Schema.Schema.Type<typeof DecodingStatus> {}

/** Schema of a {@link SlotStatus}. */
export const SlotStatus = Schema.Struct({
  name: Schema.String,
  type: Schema.Literals(["logical", "physical"]),
  /** `null` of a physical slot, as is `database`. */
  plugin: TextOrNull,
  database: TextOrNull,
  temporary: Schema.Boolean,
  /** The backend that streams from it now. */
  activePid: NumberOrNull,
  restartLsn: LsnOrNull,
  confirmedFlushLsn: LsnOrNull,
  walStatus: TextOrNull,
  /** Why it was given up; before PostgreSQL 17 only `walStatus` tells whether. */
  invalidationReason: TextOrNull,
  /** Whether it is kept on standbys, and whether it is a standby's copy: PostgreSQL 17. */
  failover: FlagOrNull,
  synced: FlagOrNull,
  /** Milliseconds since 1970 since when nobody streams from it, PostgreSQL 17. */
  inactiveSince: NumberOrNull,
  /** WAL bytes from what its consumer has confirmed to where WAL ends; of a physical slot, from `restartLsn`. */
  lagBytes: NumberOrNull,
  /** How long WAL has been there that is not confirmed: by what was looked at, or else by the server's own measure. */
  lagMillis: NumberOrNull,
  /** It is longer than `lagMillis`: what is not confirmed was there before the first look. */
  lagIsLonger: Schema.Boolean,
  /** WAL bytes a second that its consumer confirms, over the last 10 seconds. */
  confirmedPerSecond: NumberOrNull,
  walSender: orNull(WalSenderStatus),
  /** `null` of a physical slot. */
  decoding: orNull(DecodingStatus),
  budget: WalBudget
})

/** One slot: what it is, who streams from it, how far behind that is, what it costs. */
export interface SlotStatus extends Schema.Schema.Type<typeof SlotStatus> {}

const walSenderOf = (row: SlotRow): WalSenderStatus | undefined =>
  row.active_pid === undefined
    ? undefined
    : {
        pid: row.active_pid,
        user: row.user_name,
        applicationName: row.application_name,
        clientAddress: row.client_addr,
        state: row.state,
        waitEvent: row.wait_event,
        sentLsn: row.sent_lsn,
        writeLsn: row.write_lsn,
        flushLsn: row.flush_lsn,
        replayLsn: row.replay_lsn,
        writeLagMillis: row.write_lag,
        flushLagMillis: row.flush_lag,
        replayLagMillis: row.replay_lag,
        syncState: row.sync_state,
        connectedAt: row.backend_start,
        reportedAt: row.reply_time
      }

const decodingOf = (row: SlotRow): DecodingStatus | undefined =>
  row.total_bytes === undefined
    ? undefined
    : {
        spillTransactions: row.spill_txns ?? 0,
        spillCount: row.spill_count ?? 0,
        spillBytes: row.spill_bytes ?? 0,
        streamTransactions: row.stream_txns ?? 0,
        streamCount: row.stream_count ?? 0,
        streamBytes: row.stream_bytes ?? 0,
        totalTransactions: row.total_txns ?? 0,
        totalBytes: row.total_bytes
      }

type Lag = Pick<SlotStatus, "lagBytes" | "lagMillis" | "lagIsLonger">

/** A walsender that has no more than this to read has read all: it reads so much in some milliseconds. */
const unreadBytes = 1024 * 1024

/**
 * The server's own measure: how long the client took to confirm what it was sent. It has none once the client has confirmed all of
 * that; then what is not confirmed is WAL that nobody wants, as long as the walsender has read all.
 */
const measuredLag = (look: SlotLook, row: SlotRow): number | undefined => {
  if (row.flush_lag !== undefined) return row.flush_lag
  const unread = bytesBehind(look.walEnd, row.sent_lsn)
  return row.state === "streaming" && unread !== undefined && unread < unreadBytes ? 0 : undefined
}

/** By what was looked at where that reaches back far enough; else by what the server measured, or since when nobody streams. */
const lagOf = (look: SlotLook, row: SlotRow, { samples }: BudgetHistory): Lag => {
  const confirmed = row.confirmed_flush_lsn ?? row.restart_lsn
  if (confirmed === undefined || isInvalidated(samples.at(-1)!)) {
    return { lagBytes: undefined, lagMillis: undefined, lagIsLonger: false }
  }
  const lagBytes = bytesBehind(look.walEnd, confirmed)
  const seen = timeBehind(samples, confirmed)
  if (!seen.isAtLeast) return { lagBytes, lagMillis: Math.round(seen.millis), lagIsLonger: false }
  const measured = measuredLag(look, row)
  if (measured !== undefined) {
    return { lagBytes, lagMillis: Math.round(Math.max(measured, seen.millis)), lagIsLonger: false }
  }
  const idle =
    row.active_pid === undefined && row.inactive_since !== undefined ? look.serverTime - row.inactive_since : 0
  const millis = Math.round(Math.max(idle, seen.millis))
  return { lagBytes, lagMillis: millis > 0 ? millis : undefined, lagIsLonger: millis > 0 }
}

/** Over how many milliseconds a rate is taken that is shown as the present one. */
export const presentMillis = 10_000

/** A slot by a look at it and its history up to that look. */
export const slotStatusOf = (look: SlotLook, row: SlotRow, history: BudgetHistory): SlotStatus => ({
  name: row.slot_name,
  type: row.slot_type,
  plugin: row.plugin,
  database: row.database,
  temporary: row.temporary,
  activePid: row.active_pid,
  restartLsn: row.restart_lsn,
  confirmedFlushLsn: row.confirmed_flush_lsn,
  walStatus: row.wal_status,
  invalidationReason: row.invalidation_reason,
  failover: row.failover,
  synced: row.synced,
  inactiveSince: row.active_pid === undefined ? row.inactive_since : undefined,
  ...lagOf(look, row, history),
  confirmedPerSecond: ratesOver(history.samples, presentMillis)?.confirmed,
  walSender: walSenderOf(row),
  decoding: decodingOf(row),
  budget: history.budget
})
