/**
 * A stream on its way to standard output. What was acknowledged is what the operating system has taken: a read's changes
 * are written with one write, and only when it is done may the server forget them. While a write waits, nothing is read.
 */
import {
  type Change,
  type LogicalStreamOptions,
  type ReplicationError,
  type WalSender,
  withLogicalStreamArray
} from "@replicant/core"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as LiveLine from "./LiveLine.ts"
import { Output, type OutputFailed } from "./StandardOutput.ts"
import { acknowledgedLsn, type Totals } from "./Status.ts"
import { isCounted, StreamWindow, type WindowOptions } from "./StreamWindow.ts"

/** A change as a line without its break; `undefined` is not shown. */
export type Formatter = (change: Change) => string | undefined

export interface FollowOptions {
  readonly stream: LogicalStreamOptions
  readonly window: WindowOptions
  readonly format: Formatter
  /** Counts what was written. */
  readonly totals: Totals
}

const formatLines = (changes: ReadonlyArray<Change>, format: Formatter): string => {
  let text = ""
  for (const change of changes) {
    const line = format(change)
    if (line !== undefined) text += `${line}\n`
  }
  return text
}

const count = (totals: Totals, changes: ReadonlyArray<Change>): void => {
  for (const change of changes) {
    if (isCounted(change)) totals.changes++
    if (change._tag === "Commit") totals.transactions++
  }
}

/** Writes to standard output, which may be the terminal that also bears the live line. */
const makeWriter = Effect.gen(function* () {
  const output = yield* Output
  const line = yield* LiveLine.Standard
  return (text: string) => {
    if (text === "") return Effect.void
    if (!output.isTerminal || !line.isTerminal) return output.write(text)
    return Effect.suspend(() => {
      line.makeRoom()
      return Effect.ensuring(
        output.write(text),
        Effect.sync(() => line.redraw())
      )
    })
  }
})

/**
 * Waits until the server has been told that all before the window's end is done. On a quiet database no change would tell
 * that the end is reached; but an idle stream acknowledges the positions of keep-alives.
 */
const awaitUntilLsn = (slot: string, { untilLsn }: WindowOptions): Effect.Effect<void> =>
  untilLsn === undefined
    ? Effect.never
    : Effect.asVoid(
        Effect.repeat(acknowledgedLsn(slot), {
          until: (acknowledged) => acknowledged >= untilLsn,
          schedule: Schedule.spaced("50 millis")
        })
      )

/** Streams to standard output until the window ends or the reader goes; fails when the stream or the writing does. */
export const follow = Effect.fnUntraced(function* (
  options: FollowOptions
): Effect.fn.Return<void, ReplicationError | OutputFailed, WalSender> {
  const finished = yield* Deferred.make<void>()
  const window = new StreamWindow(options.window)
  const write = yield* makeWriter
  const stream = withLogicalStreamArray(options.stream, (changes) =>
    Effect.suspend(() => {
      const shown = window.take(changes)
      return write(formatLines(shown.changes, options.format)).pipe(
        Effect.andThen(
          Effect.suspend(() => {
            count(options.totals, shown.changes)
            // The stream ends in good order when it is interrupted: with this acknowledgement.
            return shown.isFinished ? Deferred.succeed(finished, undefined) : Effect.void
          })
        ),
        Effect.as(shown.nextLsn)
      )
    })
  )
  const ended = Effect.raceFirst(Deferred.await(finished), awaitUntilLsn(options.stream.slot, options.window))
  yield* Effect.raceFirst(stream, ended).pipe(Effect.catchTag("OutputClosed", () => Effect.void))
})
