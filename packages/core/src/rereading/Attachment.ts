/**
 * A control and a stream, put together for as long as the stream runs: what earlier processes left is taken up, and the
 * worker runs beside it.
 *
 * What a run that has ended handed over may be lost with it: so requests of this process begin anew with the next run, or
 * go on from what the store knows to be durable.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { OutputPlugin } from "../change/OutputPlugin.ts"
import type { CheckpointError, CheckpointStore } from "../checkpoint/CheckpointService.ts"
import { InvalidOption } from "../ReplicationError.ts"
import type { WalSender } from "../server/WalSender.ts"
import { type ControlState, type SnapshotControl, stateOf } from "./Control.ts"
import { type KeptRequest, left, SnapshotLedger } from "./Ledger.ts"
import { advance, makeJob } from "./Request.ts"
import { work } from "./Worker.ts"

/** What a control needs to know of its stream. */
export interface AttachOptions {
  readonly slot: string
  readonly plugin: OutputPlugin
  /** Milliseconds. */
  readonly lockTimeout: number
  readonly checkpoints?: CheckpointStore["Service"] | undefined
}

/** A server that has every option: what is asked for is known without one. */
const anyServer = 180_000

/** Why a plugin's stream cannot take what is requested: it lacks messages, or delivers what is not committed. */
const unfit = (plugin: OutputPlugin): InvalidOption | undefined => {
  if (plugin.name !== "pgoutput" || plugin.publications.length === 0) {
    return new InvalidOption({ option: "plugin", problem: "tables are read anew as pgoutput publishes them" })
  }
  if (plugin.isTwoPhase === true) {
    return new InvalidOption({ option: "twoPhase", problem: "delivers what is not committed, which no reader sees" })
  }
  const asked = Result.getOrElse(plugin.options(anyServer), () => [])
  return asked.some(([name, value]) => name === "messages" && value === "true")
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

/** Runs a stream with a control: `run` is given what its handler is to be wrapped by. */
export const withControl = <A, E, R>(
  control: SnapshotControl,
  { checkpoints, lockTimeout, plugin, slot }: AttachOptions,
  run: (state: ControlState) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | InvalidOption | CheckpointError, R | WalSender> =>
  Effect.gen(function* () {
    const problem = unfit(plugin)
    if (problem !== undefined) return yield* problem
    const state = stateOf(control)
    if (state.ledger !== undefined) {
      return yield* new InvalidOption({ option: "control", problem: "serves another stream, and can serve but one" })
    }
    const ledger = new SnapshotLedger(checkpoints, slot)
    state.ledger = ledger
    const detach = Effect.sync(() => {
      state.ledger = undefined
    })
    return yield* Effect.gen(function* () {
      for (const job of state.jobs) {
        advance(job, { _tag: "Attached" })
        ledger.add(job)
      }
      for (const kept of yield* ledger.load) yield* adopt(state, ledger, kept)
      return yield* Effect.raceFirst(run(state), work(state, { plugin, lockTimeout }))
    }).pipe(Effect.ensuring(detach))
  })
