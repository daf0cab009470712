/** What `ops/grafana-dashboard.json` shows, row by row. Each query says of which process it is where a slot has several. */

interface Query {
  readonly expr: string
  readonly legend: string
}

export interface Panel {
  readonly title: string
  readonly says?: string
  readonly kind?: "timeseries" | "state-timeline" | "heatmap"
  /** As Grafana calls them. */
  readonly unit: "s" | "bytes" | "binBps" | "cps" | "short"
  readonly words?: Readonly<Record<number, readonly [text: string, color: string]>>
  /** May be below 0. */
  readonly isSigned?: true
  readonly queries: ReadonlyArray<Query>
}

export interface Row {
  readonly title: string
  readonly panels: ReadonlyArray<Panel>
}

const of = (metric: string) => `replicant_${metric}{slot=~"$slot"}`
const worst = (metric: string, legend = "{{slot}}"): Query => ({ expr: `max by (slot) (${of(metric)})`, legend })
const best = (metric: string, legend = "{{slot}}"): Query => ({ expr: `min by (slot) (${of(metric)})`, legend })
const rate = (counter: string, legend = "{{slot}}"): Query => ({
  expr: `sum by (slot) (rate(${of(counter)}[$__rate_interval]))`,
  legend
})
/** The count itself: a rate tells nothing of a counter's first step, and these seldom make another. */
const total = (counter: string, legend = "{{slot}}"): Query => ({ expr: `sum by (slot) (${of(counter)})`, legend })
const quantile = (part: number, histogram: string): Query => ({
  expr: `histogram_quantile(${part}, sum by (slot, le) (rate(${of(`${histogram}_bucket`)}[$__rate_interval])))`,
  legend: `{{slot}} ${part * 100} %`
})
const yesOrNo = { 0: ["no", "green"], 1: ["yes", "red"] } as const

export const rows: ReadonlyArray<Row> = [
  {
    title: "How it is",
    panels: [
      {
        title: "Health",
        says: "The page of --listen, or /readyz, says why.",
        kind: "state-timeline",
        unit: "short",
        words: { 0: ["ok", "green"], 1: ["degraded", "yellow"], 2: ["failing", "red"] },
        queries: [best("health")]
      },
      {
        title: "State",
        kind: "state-timeline",
        unit: "short",
        words: { 1: ["", "blue"] },
        queries: [{ expr: `max by (slot, state) (${of("state")}) == 1`, legend: "{{slot}} {{state}}" }]
      },
      {
        title: "Behind, in time",
        says: "How long ago the oldest commit that is not acknowledged was made.",
        unit: "s",
        queries: [best("lag_seconds"), best("oldest_unacknowledged_seconds", "{{slot}} delivered")]
      },
      {
        title: "Behind, in WAL",
        says: "From the confirmed position to the server's own end. Not there while that end is not known.",
        unit: "bytes",
        queries: [best("lag_bytes")]
      },
      {
        title: "Stalled",
        says: "The server holds the stream back, for standbys that are down for instance.",
        kind: "state-timeline",
        unit: "short",
        words: yesOrNo,
        queries: [worst("stalled")]
      },
      {
        title: "Holders of the lease",
        says: "Under a lease one process holds it. None for longer than its term: nobody follows the slot.",
        unit: "short",
        queries: [total("lease_held")]
      }
    ]
  },
  {
    title: "The server's WAL",
    panels: [
      {
        title: "WAL written and confirmed",
        says: "Where the second is below the first for long, what is kept for the slot grows.",
        unit: "binBps",
        queries: [
          { expr: `max by (slot) (deriv(${of("server_lsn")}[5m]))`, legend: "{{slot}} written" },
          { expr: `max by (slot) (deriv(${of("confirmed_lsn")}[5m]))`, legend: "{{slot}} confirmed" }
        ]
      },
      {
        title: "Behind in an hour, if it goes on so",
        says: "A forecast from the last half hour, of what is behind: what the server keeps is no less.",
        unit: "bytes",
        queries: [
          { expr: `clamp_min(min by (slot) (predict_linear(${of("lag_bytes")}[30m], 3600)), 0)`, legend: "{{slot}}" }
        ]
      },
      {
        title: "WAL budget",
        says: "By the thresholds of WalBudget: 4 hours left are a warning and one is critical, where nothing else is set.",
        kind: "state-timeline",
        unit: "short",
        words: { 0: ["ok", "green"], 1: ["warning", "yellow"], 2: ["critical", "red"], 3: ["lost", "purple"] },
        queries: [worst("wal_level")]
      },
      {
        title: "Until the slot is lost, or the disk full",
        says: "At the rate of the last minutes, whichever is first. Not there while neither is foreseen.",
        unit: "s",
        queries: [best("wal_left_seconds")]
      },
      {
        title: "Kept for the slot, and what may yet be written",
        says: "Without max_slot_wal_keep_size there is no limit to what may be written.",
        unit: "bytes",
        queries: [worst("wal_retained_bytes", "{{slot}} kept"), best("wal_safe_bytes", "{{slot}} may be written")]
      },
      {
        title: "What is kept grows by",
        says: "Below 0 it shrinks.",
        unit: "binBps",
        isSigned: true,
        queries: [worst("wal_growth_bytes_per_second")]
      },
      {
        title: "The server not looked at for its budget for",
        unit: "s",
        queries: [best("wal_unseen_seconds")]
      },
      {
        title: "The end of the server's WAL not known for",
        unit: "s",
        queries: [best("server_unknown_seconds")]
      },
      {
        title: "The server silent for",
        unit: "s",
        queries: [best("silent_seconds")]
      }
    ]
  },
  {
    title: "Throughput",
    panels: [
      {
        title: "Changes and transactions",
        unit: "cps",
        queries: [
          rate("changes_total", "{{slot}} changes"),
          rate("transactions_total", "{{slot}} transactions"),
          rate("snapshot_rows_total", "{{slot}} rows of tables")
        ]
      },
      {
        title: "Read from the server",
        unit: "binBps",
        queries: [rate("received_bytes_total"), rate("snapshot_bytes_total", "{{slot}} rows of tables")]
      },
      {
        title: "From commit to acknowledged",
        kind: "heatmap",
        unit: "s",
        queries: [
          {
            expr: `sum by (le) (increase(${of("commit_to_acknowledged_seconds_bucket")}[$__rate_interval]))`,
            legend: "{{le}}"
          }
        ]
      },
      {
        title: "From commit to acknowledged, quantiles",
        unit: "s",
        queries: [0.5, 0.95, 0.99].map((part) => quantile(part, "commit_to_acknowledged_seconds"))
      }
    ]
  },
  {
    title: "The handler",
    panels: [
      {
        title: "Time for what it is given at once",
        unit: "s",
        queries: [0.5, 0.99].map((part) => quantile(part, "handler_seconds"))
      },
      { title: "At one thing for", unit: "s", queries: [worst("handling_seconds")] },
      { title: "Units not acknowledged", unit: "short", queries: [worst("pending_units")] },
      {
        title: "Transactions in progress, in files",
        unit: "bytes",
        queries: [worst("spill_bytes")]
      }
    ]
  },
  {
    title: "Failures",
    panels: [
      {
        title: "Tried again, by cause",
        says: "By the error's tag: docs/errors.md has each one's cure.",
        unit: "short",
        queries: [{ expr: `sum by (slot, cause) (${of("retries_total")})`, legend: "{{slot}} {{cause}}" }]
      },
      {
        title: "Attempts at one position, and connections made anew",
        unit: "short",
        queries: [worst("attempts", "{{slot}} attempts"), total("reconnects_total", "{{slot}} connections")]
      },
      {
        title: "Parked changes",
        unit: "short",
        queries: [total("parked_total"), worst("dead_letters", "{{slot}} in the store")]
      },
      {
        title: "Parking stopped",
        says: "So much was parked that it is taken for an outage.",
        kind: "state-timeline",
        unit: "short",
        words: yesOrNo,
        queries: [worst("parking_stopped")]
      }
    ]
  },
  {
    title: "First copies, replicant copy and sinks",
    panels: [
      { title: "Rows of a first copy", unit: "cps", queries: [worst("snapshot_rows_per_second")] },
      { title: "A first copy's remaining time", unit: "s", queries: [worst("snapshot_remaining_seconds")] },
      {
        title: "The target of replicant copy behind",
        says: "WAL from what is committed there to the end of the source's.",
        unit: "bytes",
        queries: [
          {
            expr: `max by (slot) (${of("server_lsn")}) - max by (slot) (${of("copy_applied_lsn")})`,
            legend: "{{slot}}"
          }
        ]
      },
      {
        title: "Messages in a sink",
        unit: "short",
        queries: [total("sink_messages_total"), total("sink_reopened_total", "{{slot}} opened again")]
      }
    ]
  }
]
