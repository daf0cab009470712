/**
 * Every metric there is: its name, kind, unit and meaning, and which label it has beside `slot`. The page `docs/metrics.md` is
 * made from here. Counters are moved where something happens, at the grain of a read; gauges and the two histograms are
 * computed when they are read, from the same `Observation` that health is made of, and are moved by nobody; but for gauges of what
 * no stream knows of itself.
 *
 * The unit stands among the attributes, where Effect's OTLP exporter looks for it and its Prometheus exporter leaves it out.
 */
import * as Metric from "effect/Metric"

/** What there is to know of a metric beside its values. */
export interface Declared {
  /** What it counts or measures. */
  readonly unit: "By" | "By/s" | "s" | "1" | "rows/s" | "lsn"
  /** The label it has beside `slot`. */
  readonly label?: "state" | "cause" | "consumer" | undefined
  /** Not there while it cannot be known: absent, rather than a number that would pass for one. */
  readonly mayBeAbsent?: true | undefined
  readonly says: string
}

const declared = new Map<string, Declared & { readonly kind: Metric.Metric.Type }>()

/** Every metric by its name, with what there is to know of it. */
export const table: ReadonlyMap<string, Declared & { readonly kind: Metric.Metric.Type }> = declared

const declare = <M extends Metric.Metric<never, unknown>>(metric: M, about: Declared): M => {
  declared.set(metric.id, { ...about, kind: metric.type })
  return metric
}

/** What is exported of the unit: an LSN is a position, of no unit that a collector knows. */
const attributesOf = ({ unit }: Declared) => (unit === "lsn" ? {} : { unit })

const counter = (id: string, about: Declared) =>
  declare(Metric.counter(id, { description: about.says, incremental: true, attributes: attributesOf(about) }), about)

const gauge = (id: string, about: Declared) =>
  declare(Metric.gauge(id, { description: about.says, attributes: attributesOf(about) }), about)

const position = (id: string, says: string, mayBeAbsent?: true) => {
  const about = { unit: "lsn", says, mayBeAbsent } as const
  return declare(Metric.gauge(id, { description: says, bigint: true }), about)
}

/** Seconds, from a millisecond to an hour: what an upper bound of a bucket may be. */
export const boundaries: ReadonlyArray<number> = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600
]

const histogram = (id: string, says: string) => {
  const about = { unit: "s", says } as const
  return declare(Metric.histogram(id, { description: says, boundaries, attributes: attributesOf(about) }), about)
}

// Moved where it happens.

/** Changes delivered, of all kinds. */
export const changes = counter("replicant_changes_total", {
  unit: "1",
  says: "Changes delivered to the handler, of all kinds: Begin and Commit, too"
})
/** Units delivered. */
export const transactions = counter("replicant_transactions_total", {
  unit: "1",
  says: "Units delivered that can be acknowledged: transactions, and messages outside any"
})
/** Bytes of the stream. */
export const receivedBytes = counter("replicant_received_bytes_total", {
  unit: "By",
  says: "Bytes read from the walsender"
})
/** Bytes written to files. */
export const spilledBytes = counter("replicant_spilled_bytes_total", {
  unit: "By",
  says: "Bytes of transactions in progress that were written to files, since they outgrew memory"
})
/** Connections after the first. */
export const reconnects = counter("replicant_reconnects_total", {
  unit: "1",
  says: "Connections that stream after the first"
})
/** Failures that another attempt follows, by cause. */
export const retries = counter("replicant_retries_total", {
  unit: "1",
  label: "cause",
  says: "Failures after which another attempt is made, of the stream or of a first copy; by the error's tag"
})
/** Dead letters. */
export const parked = counter("replicant_parked_total", {
  unit: "1",
  says: "Changes that were parked as dead letters by Handler.park, those that follow one included"
})
/** Consumers left behind. */
export const consumerLagged = counter("replicant_consumer_lagged_total", {
  unit: "1",
  label: "consumer",
  says: "Times that an optional consumer of Handler.broadcast was left behind and began anew, its start included"
})
/** Messages in an engine. */
export const sinkMessages = counter("replicant_sink_messages_total", {
  unit: "1",
  says: "Messages that a sink's engine has made durable"
})
/** Sinks opened again. */
export const sinkReopened = counter("replicant_sink_reopened_total", {
  unit: "1",
  says: "Times that a sink was opened again after a failure"
})
/** Rows read from tables. */
export const snapshotRows = counter("replicant_snapshot_rows_total", {
  unit: "1",
  says: "Rows read from tables, by first copies and by tables that are read anew, whether or not they were completed"
})
/** Bytes of these rows. */
export const snapshotBytes = counter("replicant_snapshot_bytes_total", {
  unit: "By",
  says: "Bytes of these rows, as the server sent them"
})

// Set as it changes.

/** Whether this process is the one that follows the slot. */
export const leaseHeld = gauge("replicant_lease_held", {
  unit: "1",
  says: "1 while this process holds the slot's lease, 0 while it stands by"
})
/** Dead letters there are. */
export const deadLetters = gauge("replicant_dead_letters", {
  mayBeAbsent: true,
  unit: "1",
  says: "Dead letters of this slot that are in the store of Handler.park, those that follow one included; absent without it"
})
/** Dead letters, held back. */
export const parkingStopped = gauge("replicant_parking_stopped", {
  mayBeAbsent: true,
  unit: "1",
  says: "1 while Handler.park takes what fails for an outage, as too much was parked, and parks no more; 0 once that is over"
})

// Positions, computed when read.

/** How far the stream came. */
export const receivedLsn = position("replicant_received_lsn", "The furthest WAL position that was received")
/** How far the handler came. */
export const handledLsn = position("replicant_handled_lsn", "The end of the last unit whose handler has ended")
/** How far all is acknowledged. */
export const acknowledgedLsn = position(
  "replicant_acknowledged_lsn",
  "The end of the last unit that is acknowledged together with all before it"
)
/** What the server was told. */
export const flushedLsn = position("replicant_flushed_lsn", "The position last reported to the server as flushed")
/** What the slot stands at. */
export const confirmedLsn = position(
  "replicant_confirmed_lsn",
  "The slot's confirmed_flush_lsn, as the server last said or was last told, whichever is further"
)
/** Where the WAL ends. */
export const serverLsn = position("replicant_server_lsn", "The end of the server's WAL, as far as it is known", true)

// How far behind, computed when read.

/** How far behind, in WAL. */
export const lagBytes = gauge("replicant_lag_bytes", {
  unit: "By",
  mayBeAbsent: true,
  says: "WAL from the confirmed position to the server's own end; absent while that end is not known"
})
/** How far behind, in time. */
export const lagSeconds = gauge("replicant_lag_seconds", {
  unit: "s",
  says: "How long ago the oldest commit that is not acknowledged was made; where none is known, since when none could have been missed; 0 when all is done"
})
/** How long the oldest commit waits. */
export const oldestUnacknowledgedSeconds = gauge("replicant_oldest_unacknowledged_seconds", {
  unit: "s",
  says: "The age of the oldest delivered commit that is not acknowledged, by the server's clock; 0 when there is none"
})
/** How many units wait. */
export const pendingUnits = gauge("replicant_pending_units", {
  unit: "1",
  says: "Units that are delivered and not acknowledged, or stand behind one that is not"
})
/** How long the end of the WAL is not known. */
export const serverUnknownSeconds = gauge("replicant_server_unknown_seconds", {
  unit: "s",
  says: "For how long the end of the server's WAL has not been known; 0 while it is"
})

// What the stream is doing, computed when read.

/** What `stream.health` says, as a number. */
export const health = gauge("replicant_health", {
  unit: "1",
  says: "0 while the stream is ok, 1 degraded, 2 failing, by the thresholds of its health"
})
/** What `stream.state` says, one series for each state. */
export const state = gauge("replicant_state", {
  unit: "1",
  label: "state",
  says: "1 for the state that the stream is in, 0 for each other one"
})
/** How long it has been so. */
export const stateSeconds = gauge("replicant_state_seconds", { unit: "s", says: "How long it has been in that state" })
/** Whether the server holds the stream back. */
export const stalled = gauge("replicant_stalled", {
  unit: "1",
  says: "1 while the server holds the stream back, for standbys that are down for instance; else 0"
})
/** How long nothing came. */
export const silentSeconds = gauge("replicant_silent_seconds", {
  unit: "s",
  says: "How long the server has said nothing while it was listened to; 0 while nobody reads"
})
/** Failures since the position last moved: a stream that does not get on shows here. */
export const attempts = gauge("replicant_attempts", {
  unit: "1",
  says: "Failed attempts at the present position; 0 once it moves"
})
/** How long the handler has been at one thing. */
export const handlingSeconds = gauge("replicant_handling_seconds", {
  unit: "s",
  says: "How long the handler has been at what it was last given; 0 while it has nothing"
})
/** How long it has had nothing to do. */
export const sinceHandledSeconds = gauge("replicant_since_handled_seconds", {
  unit: "s",
  mayBeAbsent: true,
  says: "How long ago the handler last ended; absent before it has"
})
/** Bytes in files now. */
export const spillBytes = gauge("replicant_spill_bytes", {
  unit: "By",
  says: "Bytes of transactions in progress that are in files now"
})

// What the server keeps for the slot: of the last look of `WalBudget.watch`, while somebody watches.

/** How bad that is. */
export const walLevel = gauge("replicant_wal_level", {
  unit: "1",
  mayBeAbsent: true,
  says: "The level of the slot's WAL budget, by its thresholds: 0 ok, 1 warning, 2 critical, 3 lost; absent while nobody watches it, and so are all below"
})
/** What is kept. */
export const walRetainedBytes = gauge("replicant_wal_retained_bytes", {
  unit: "By",
  mayBeAbsent: true,
  says: "WAL that the server keeps for the slot; absent while the server cannot be looked at, and of a slot that is lost"
})
/** What may yet be written. */
export const walSafeBytes = gauge("replicant_wal_safe_bytes", {
  unit: "By",
  mayBeAbsent: true,
  says: "WAL that may be written until the slot is in danger, its safe_wal_size; absent where max_slot_wal_keep_size sets no limit"
})
/** How fast it grows. */
export const walGrowth = gauge("replicant_wal_growth_bytes_per_second", {
  unit: "By/s",
  mayBeAbsent: true,
  says: "By how much what is kept grows, over the last minute or the last ten, whichever is more; below 0 where it shrinks"
})
/** When it ends. */
export const walLeftSeconds = gauge("replicant_wal_left_seconds", {
  unit: "s",
  mayBeAbsent: true,
  says: "Until the slot is lost or the disk full at that rate, whichever is first; absent where neither is foreseen"
})
/** How old that is. */
export const walUnseenSeconds = gauge("replicant_wal_unseen_seconds", {
  unit: "s",
  mayBeAbsent: true,
  says: "How long ago the server was last looked at for the slot's WAL budget"
})

// A first copy, computed when read.

/** How fast a first copy is. */
export const snapshotRowsPerSecond = gauge("replicant_snapshot_rows_per_second", {
  unit: "rows/s",
  mayBeAbsent: true,
  says: "Rows a second that the first copy reads lately; absent when none is under way"
})
/** How long it will take. */
export const snapshotRemainingSeconds = gauge("replicant_snapshot_remaining_seconds", {
  unit: "s",
  mayBeAbsent: true,
  says: "How long the rest of the first copy will take at that rate, by the planner's estimates; absent where they do not tell"
})
/** How far a target is. */
export const copyAppliedLsn = position(
  "replicant_copy_applied_lsn",
  "Of replicant copy: everything before this position is in the target, committed; absent before a copy has opened it",
  true
)

// Distributions.

/** From commit to acknowledgement. */
export const commitToAcknowledged = histogram(
  "replicant_commit_to_acknowledged_seconds",
  "From a unit's commit to its being acknowledged with all before it, by the server's clock"
)
/** How long handlers take. */
export const handlerSeconds = histogram(
  "replicant_handler_seconds",
  "How long the handler took for what it was given at once: a read, or a piece of rows"
)
