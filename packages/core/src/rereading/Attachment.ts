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
import { type KeptRequest, left, SnapshotLedger } from "./Ledger.ts"
import { advance, makeJob } from "./Request.ts"
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

/** Takes up what is kept of a request. One of the same id that was made by now is the same. */
const adopt = Effect.fnUntraced(function* (state: ControlState, ledger: SnapshotLedger, kept: KeptRequest) {
  const made = state.jobs.find(({ request }) => request.id === kept.id)
  const job = made ?? (yield* makeJob({ id: kept.id, name: kept.table, where: kept.where }, state))
  if (made === undefined) {
    state.jobs.push(job)
    if (kept.isPaused) yield* job.request.pause
  }
  const { attempt, reading } = kept
  const part = reading === undefined || job.request.where !== kept.where ? undefined : left(reading)
  advance(job, { _tag: "Adopted", attempt, left: part })
  return ledger.add(job, part?.reached)
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
    state.forgetHanded()
    for (const job of state.jobs) {
      advance(job, { _tag: "Attached" })
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
