/**
 * Which requests there are and how far each is, as a text for the checkpoint store: so that a process that ends, however it
 * does, is followed by one that goes on.
 *
 * A chunk counts once a position behind it was acknowledged, and not when it was handed over. A key that is to be read again
 * is written down before the acknowledgement of the transaction that moved it is passed on: it would not come again.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import { CheckpointError, type CheckpointStore } from "../checkpoint/CheckpointService.ts"
import type * as Lsn from "../Lsn.ts"
import { keyText } from "./Key.ts"
import { type Kept as KeptPhase, type Phase, type Reached, touchedOf } from "./Phase.ts"
import { mostTouched, type Reread, TouchedKeys } from "./TouchedKeys.ts"

const Values = Schema.Array(Schema.String)

const Reading = Schema.Struct({
  oid: Schema.Number,
  keyColumns: Values,
  shape: Schema.String,
  after: Schema.optionalKey(Values),
  rows: Schema.Number,
  bytes: Schema.Number,
  rereads: Schema.Array(Schema.Struct({ xid: Schema.Number, values: Values }))
})

/** A request as it is kept. Values of keys are in it, those of rows are not. */
const Kept = Schema.Struct({
  id: Schema.String,
  table: Schema.Struct({ schema: Schema.String, name: Schema.String }),
  where: Schema.optionalKey(Schema.String),
  isPaused: Schema.Boolean,
  attempt: Schema.Number,
  reading: Schema.optionalKey(Reading)
})

/** A request that an earlier process had. */
export type KeptRequest = typeof Kept.Type

/** What is written down of a request. */
interface KeptJob {
  readonly request: Pick<KeptRequest, "id" | "table"> & { readonly where: string | undefined }
  readonly isPaused: boolean
  readonly phase: Phase
}

const Ledger = Schema.fromJsonString(Schema.Struct({ version: Schema.Literal(1), requests: Schema.Array(Kept) }))

/** A chunk that was handed over, as long as nothing behind it was acknowledged. */
interface Undurable {
  readonly job: KeptJob
  readonly commitLsn: Lsn.Lsn
  readonly reached: Reached
  /** What it settled: to be read again if it is lost. */
  readonly settled: ReadonlyArray<Reread>
  readonly isLast: boolean
}

interface Entry {
  readonly job: KeptJob
  reached: Reached | undefined
  /** Keys that had come to be read again when it was last written down; `undefined` where nothing of it held. */
  moves: number | undefined
}

/** What an earlier process read of a table, as far as it is durable: nothing of the stream is known since. */
export const left = (reading: NonNullable<KeptRequest["reading"]>): Omit<KeptPhase, "_tag" | "tally"> => {
  const { after, bytes, keyColumns, oid, rereads, rows, shape } = reading
  const touched = new TouchedKeys({ oid, keyColumns, maxBytes: mostTouched })
  for (const reread of rereads) touched.rereads.set(keyText(reread.values), reread)
  return { touched, shape, reached: { after, rows, bytes } }
}

const keyOf = (slot: string): string => `tables/${slot}`

/** What one stream keeps. Without a store it keeps nothing, and costs nothing. */
export class SnapshotLedger {
  private readonly entries = new Map<string, Entry>()
  private undurable: Array<Undurable> = []
  private isDirty = false
  private readonly store: CheckpointStore["Service"] | undefined
  private readonly key: string
  private readonly semaphore = Semaphore.makeUnsafe(1)

  constructor(store: CheckpointStore["Service"] | undefined, slot: string) {
    this.store = store
    this.key = keyOf(slot)
  }

  /** The requests that an earlier process left. */
  get load(): Effect.Effect<ReadonlyArray<KeptRequest>, CheckpointError> {
    const { key, store } = this
    if (store === undefined) return Effect.succeed([])
    return Effect.flatMap(store.load(key), (text) => {
      if (Option.isNone(text)) return Effect.succeed([])
      return Schema.decodeEffect(Ledger)(text.value).pipe(
        Effect.map(({ requests }) => requests),
        Effect.mapError(
          () => new CheckpointError({ during: "read", key, problem: "it is not the list of requests that was saved" })
        )
      )
    })
  }

  /** A request is there. `reached` is where an earlier process left it. */
  add(job: KeptJob, reached?: Reached | undefined): void {
    this.entries.set(job.request.id, { job, reached, moves: undefined })
    this.isDirty = true
  }

  /**
   * A request is begun from its first row, in the transaction of this commit: what was handed over before counts for nothing.
   * Until that is acknowledged, another process would have to say so again.
   */
  begin(job: KeptJob, commitLsn: Lsn.Lsn): void {
    this.undurable = this.undurable.filter((chunk) => chunk.job !== job)
    const entry = this.entries.get(job.request.id)
    if (entry !== undefined) entry.reached = undefined
    this.isDirty = true
    this.handedOver({ job, commitLsn, reached: { after: undefined, rows: 0, bytes: 0 }, settled: [], isLast: false })
  }

  /** A request is over, and nothing of it is to be brought again. */
  remove(job: KeptJob): void {
    this.undurable = this.undurable.filter((chunk) => chunk.job !== job)
    this.isDirty = this.entries.delete(job.request.id) || this.isDirty
  }

  /** A chunk has been handed over in the transaction of this commit. */
  handedOver(chunk: Undurable): void {
    if (this.store !== undefined) this.undurable.push(chunk)
  }

  /** Everything before this position is durable. */
  acknowledged(lsn: Lsn.Lsn): void {
    let count = 0
    for (const { commitLsn, isLast, job, reached } of this.undurable) {
      if (commitLsn >= lsn) break
      count += 1
      const entry = this.entries.get(job.request.id)
      if (entry !== undefined) entry.reached = reached
      if (isLast) this.entries.delete(job.request.id)
      this.isDirty = true
    }
    if (count > 0) this.undurable.splice(0, count)
  }

  /** Whether there is something that only an acknowledgement will tell. */
  get isWaiting(): boolean {
    return this.undurable.length > 0
  }

  /** Writes down what has changed. */
  get save(): Effect.Effect<void, CheckpointError> {
    const { store } = this
    if (store === undefined) return Effect.void
    return this.semaphore.withPermits(1)(
      Effect.suspend(() => {
        for (const entry of this.entries.values()) {
          const moves = touchedOf(entry.job.phase)?.moves
          if (moves === entry.moves) continue
          entry.moves = moves
          this.isDirty = true
        }
        if (!this.isDirty) return Effect.void
        this.isDirty = false
        if (this.entries.size === 0) return store.remove(this.key)
        const requests = Array.from(this.entries.values(), (entry) => this.kept(entry))
        return Effect.flatMap(Effect.orDie(Schema.encodeEffect(Ledger)({ version: 1, requests })), (text) =>
          store.save(this.key, text)
        )
      })
    )
  }

  private kept({ job, reached }: Entry): KeptRequest {
    const { isPaused, request } = job
    // Of one that is over, the end is not durable yet.
    const phase = job.phase._tag === "Ended" ? job.phase.before : job.phase
    const kept = {
      id: request.id,
      table: request.table,
      ...(request.where === undefined ? {} : { where: request.where }),
      isPaused,
      attempt: phase.tally.attempt
    }
    if (phase._tag === "Idle" || reached === undefined) return kept
    const { shape, touched } = phase
    const settled = this.undurable.flatMap((chunk) => (chunk.job === job ? chunk.settled : []))
    const { after, bytes, rows } = reached
    const { keyColumns, oid } = touched.options
    const rereads = [...touched.rereads.values(), ...settled]
    return {
      ...kept,
      reading: { oid, keyColumns, shape, ...(after === undefined ? {} : { after }), rows, bytes, rereads }
    }
  }
}
