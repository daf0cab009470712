/**
 * What is requested of a stream, for as long as the stream runs: what earlier processes left is taken up, and the worker runs
 * beside it.
 *
 * What a run that has ended handed over may be lost with it: so requests of this process begin anew with the next run, or
 * go on from what the store knows to be durable.
 */
import * as Effect from "effect/Effect"
import type { InProgressMode, OutputPlugin } from "../change/OutputPlugin.ts"
import type { CheckpointError, CheckpointStore } from "../checkpoint/CheckpointService.ts"
import { InvalidOption } from "../ReplicationError.ts"
import type { WalSender } from "../server/WalSender.ts"
import type { ControlState } from "./Control.ts"
import { keyText } from "./Key.ts"
import { type KeptRequest, SnapshotLedger } from "./Ledger.ts"
import { makeJob, type SnapshotJob } from "./Request.ts"
import { mostTouched, TouchedKeys } from "./TouchedKeys.ts"
import { work } from "./Worker.ts"

/** What is to be known of the stream. */
export interface AttachOptions {
  readonly slot: string
  readonly plugin: OutputPlugin
  /** Milliseconds. */
  readonly lockTimeout: number
  readonly checkpoints?: CheckpointStore["Service"] | undefined
}

/** What decides whether tables can be read anew among what a stream delivers. */
interface Fitness {
  readonly plugin: OutputPlugin
  readonly inProgress?: InProgressMode | undefined
}

/** Why a stream cannot take what is requested: it lacks messages, or delivers what is not committed. */
export const unfit = ({ inProgress, plugin }: Fitness): InvalidOption | undefined => {
  const { name, tells } = plugin
  if (inProgress === "deliver") {
    return new InvalidOption({ option: "inProgress", problem: "delivers what is not committed, which no reader sees" })
  }
  if (!tells.copiedRows || tells.publications.length === 0) {
    return new InvalidOption({
      option: "plugin",
      problem: `tables are read anew as published, and ${name} has no such`
    })
  }
  if (tells.prepared) {
    return new InvalidOption({ option: "twoPhase", problem: "delivers what is not committed, which no reader sees" })
  }
  return tells.messages
    ? undefined
    : new InvalidOption({
        option: "messages",
        problem: "is off, and a logical message marks where the rows belong",
        remedy: "leave messages out of the plugin's options, or set it to true"
      })
}

const reset = (job: SnapshotJob): void => {
  job.touched = undefined
  job.reading = undefined
  job.snapshot = undefined
  job.shape = undefined
  job.after = undefined
  job.rows = 0
  job.bytes = 0
  job.disturbed = 0
}

/** Takes up what is kept of a request. One of the same id that was made by now is the same. */
const adopt = Effect.fnUntraced(function* (state: ControlState, ledger: SnapshotLedger, kept: KeptRequest) {
  const made = state.jobs.find(({ request }) => request.id === kept.id)
  const job = made ?? (yield* makeJob({ id: kept.id, name: kept.table, where: kept.where }, state))
  if (made === undefined) {
    state.jobs.push(job)
    if (kept.isPaused) yield* job.request.pause
  }
  job.attempt = kept.attempt
  const { reading } = kept
  if (reading === undefined || job.request.where !== kept.where) return ledger.add(job)
  const { after, bytes, keyColumns, oid, rereads, rows, shape } = reading
  const touched = new TouchedKeys({ oid, keyColumns, maxBytes: mostTouched })
  for (const reread of rereads) touched.rereads.set(keyText(reread.values), reread)
  Object.assign(job, { touched, shape, after, rows, bytes })
  return ledger.add(job, { after, rows, bytes })
})

/** Runs a stream, and what is requested of it beside it. */
export const attach = <A, E, R>(
  state: ControlState,
  { checkpoints, lockTimeout, plugin, slot }: AttachOptions,
  stream: Effect.Effect<A, E, R>
): Effect.Effect<A, E | InvalidOption | CheckpointError, R | WalSender> =>
  Effect.gen(function* () {
    const ledger = new SnapshotLedger(checkpoints, slot)
    state.ledger = ledger
    for (const job of state.jobs) {
      reset(job)
      ledger.add(job)
    }
    for (const kept of yield* ledger.load) yield* adopt(state, ledger, kept)
    return yield* Effect.raceFirst(stream, work(state, { plugin, lockTimeout }))
  }).pipe(
    Effect.ensuring(
      Effect.sync(() => {
        state.ledger = undefined
      })
    )
  )
