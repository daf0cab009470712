/**
 * The gauges and histograms of a stream in Effect's registry: each computed when an exporter reads it, from an observation of
 * that moment. Those that cannot be known now are taken out of the registry, since a number would pass for one.
 */
import type * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import type * as Lsn from "../Lsn.ts"
import * as Metrics from "../replication/Metrics.ts"
import type { Vitals } from "../replication/Vitals.ts"
import * as Health from "./Health.ts"
import { Observation } from "./Observation.ts"

/** What is read off at one moment. */
export interface Reading {
  readonly seen: Observation
  readonly health: Health.Status
}

type Value = number | bigint | undefined

const gauge = <Input extends number | bigint>(
  metric: Metric.Gauge<Input>,
  value: (reading: Reading) => Input | undefined
): readonly [Metric.Gauge<number | bigint>, (reading: Reading) => Value] => [
  metric as unknown as Metric.Gauge<number | bigint>,
  value
]

const position = (metric: Metric.Gauge<bigint>, of: (seen: Observation) => Lsn.Lsn | undefined) =>
  gauge<bigint>(metric, ({ seen }) => of(seen))

/** One series for each state, of which one is 1. */
const states = Observation.fields.state.literals.map((state) =>
  gauge<number>(Metric.withAttributes(Metrics.state, { state }) as Metric.Gauge<number>, ({ seen }) =>
    seen.state === state ? 1 : 0
  )
)

/** What each gauge of a stream says. */
export const gauges = [
  position(Metrics.receivedLsn, ({ received }) => received),
  position(Metrics.handledLsn, ({ handled }) => handled),
  position(Metrics.acknowledgedLsn, ({ acknowledged }) => acknowledged),
  position(Metrics.flushedLsn, ({ flushed }) => flushed),
  position(Metrics.confirmedLsn, ({ confirmed }) => confirmed),
  position(Metrics.serverLsn, ({ server }) => server),
  gauge(Metrics.lagBytes, ({ seen }) => seen.lagBytes),
  gauge(Metrics.lagSeconds, ({ seen }) => seen.lagSeconds),
  gauge(Metrics.oldestUnacknowledgedSeconds, ({ seen }) => seen.oldestUnacknowledgedSeconds ?? 0),
  gauge(Metrics.pendingUnits, ({ seen }) => seen.pending),
  gauge(Metrics.serverUnknownSeconds, ({ seen }) => seen.serverUnknownSeconds),
  gauge(Metrics.health, ({ health }) => Health.toNumber(health)),
  ...states,
  gauge(Metrics.stateSeconds, ({ seen }) => seen.stateSeconds),
  gauge(Metrics.stalled, ({ seen }) => (seen.stall === undefined ? 0 : 1)),
  gauge(Metrics.silentSeconds, ({ seen }) => seen.silentSeconds ?? 0),
  gauge(Metrics.attempts, ({ seen }) => seen.attempts),
  gauge(Metrics.handlingSeconds, ({ seen }) => seen.handlingSeconds ?? 0),
  gauge(Metrics.sinceHandledSeconds, ({ seen }) => seen.sinceHandledSeconds),
  gauge(Metrics.spillBytes, ({ seen }) => seen.spillBytes),
  gauge(Metrics.deadLetters, ({ seen }) => seen.parked?.letters),
  gauge(Metrics.snapshotRowsPerSecond, ({ seen }) => seen.copy?.rowsPerSecond),
  gauge(Metrics.snapshotRemainingSeconds, ({ seen }) => seen.copy?.remainingSeconds)
] as const

const noUpdate = { update: () => {}, modify: () => {} }

export interface SeriesOptions {
  readonly vitals: Vitals
  readonly read: () => Reading
  /** Told that somebody looks. */
  readonly onLook: () => void
}

/** The series of one stream, under the labels and in the registry of a context. */
export class Series {
  private readonly context: Context.Context<never>
  private readonly read: () => Reading
  private readonly onLook: () => void
  private readonly present = new Set<Metric.Gauge<number | bigint>>()

  /** Takes the place of whatever is there by the same labels: a stream of that slot that has stopped. */
  constructor(context: Context.Context<never>, { onLook, read, vitals }: SeriesOptions) {
    this.context = context
    this.read = read
    this.onLook = onLook
    Metric.registerUnsafe(Metrics.handlerSeconds, context, { get: () => vitals.handlerSeconds.state, ...noUpdate })
    Metric.registerUnsafe(Metrics.commitToAcknowledged, context, {
      get: () => vitals.commitToAcknowledged.state,
      ...noUpdate
    })
    this.settle()
  }

  /** Takes out what cannot be known now, and puts back what can. Returns what it was decided by. */
  settle(): Reading {
    const reading = this.read()
    for (const [metric, value] of gauges) {
      const known = value(reading)
      if (known === undefined) {
        // Also where somebody has asked for its value meanwhile, which makes one of zero.
        Metric.removeUnsafe(metric, this.context)
        this.present.delete(metric)
      } else if (!this.present.has(metric)) {
        this.register(metric, value, known)
      }
    }
    return reading
  }

  private register(
    metric: Metric.Gauge<number | bigint>,
    value: (reading: Reading) => Value,
    known: number | bigint
  ): void {
    let last = known
    this.present.add(metric)
    Metric.registerUnsafe(metric, this.context, {
      get: () => {
        this.onLook()
        // Unknown since a moment ago, it is taken out a moment later.
        last = value(this.read()) ?? last
        return { value: last }
      },
      ...noUpdate
    })
  }
}
