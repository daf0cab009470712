/**
 * What an operator watches, at the grain of a read: nothing here costs per row.
 *
 * Label them with `Metric.CurrentMetricAttributes`; the stream itself labels with its slot.
 */
import * as Metric from "effect/Metric"

/** Changes delivered, of all kinds. */
export const changes = Metric.counter("replicant_changes_total", {
  description: "Changes delivered to the consumer",
  incremental: true
})

/** Units that can be acknowledged: committed transactions, and messages outside any. */
export const transactions = Metric.counter("replicant_transactions_total", {
  description: "Transactions delivered to the consumer",
  incremental: true
})

/** Bytes read from the walsender. */
export const receivedBytes = Metric.counter("replicant_received_bytes_total", {
  description: "Bytes read from the walsender",
  incremental: true
})

/** The furthest WAL position seen. */
export const receivedLsn = Metric.gauge("replicant_received_lsn", {
  description: "Furthest WAL position received, in bytes",
  bigint: true
})

/** The position last reported as flushed. */
export const flushedLsn = Metric.gauge("replicant_flushed_lsn", {
  description: "WAL position last reported as flushed, in bytes",
  bigint: true
})

/** WAL received and not yet reported as flushed. */
export const lagBytes = Metric.gauge("replicant_lag_bytes", {
  description: "WAL bytes received and not acknowledged",
  bigint: true
})

/** From a transaction's commit to its arrival, by the server's clock. */
export const lagSeconds = Metric.gauge("replicant_lag_seconds", {
  description: "Seconds from commit to arrival, by the server's clock"
})

/** Connections made after the first. */
export const reconnects = Metric.counter("replicant_reconnects_total", {
  description: "Reconnections after a failure",
  incremental: true
})

/** Failures since the position last moved: a stream that does not get on shows here. */
export const attempts = Metric.gauge("replicant_attempts", {
  description: "Failed attempts at the present position; 0 once it moves"
})

/** Whether this process is the one that follows the slot. */
export const leaseHeld = Metric.gauge("replicant_lease_held", {
  description: "1 while this process holds the slot's lease, 0 while it stands by"
})

/** Whether the server holds the stream back. */
export const stalled = Metric.gauge("replicant_stalled", {
  description: "1 while the server holds the stream back, for standbys that are down for instance; else 0"
})
