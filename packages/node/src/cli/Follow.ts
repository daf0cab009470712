/**
 * A stream on its way to standard output. What was acknowledged is what the operating system has taken: a read's changes
 * are written with one write, and only when it is done may the server forget them. While a write waits, nothing is read.
 */
import { Handler, isSnapshotChange, type LogicalStream, type Snapshot } from "@replicant/core"
import type { WalSender } from "@replicant/core/driver"
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as LiveLine from "./LiveLine.ts"
import { Output, type OutputFailed } from "./StandardOutput.ts"
import { acknowledgedLsn, type Totals } from "./Status.ts"
import { isCounted, StreamWindow, type WindowOptions } from "./StreamWindow.ts"

type Change = Snapshot.ChangeAfterSnapshot

/** A change as a line without its break; `undefined` is not shown. */
export type Formatter = (change: Change) => string | undefined

/** A stream of any options, as far as it is followed here. */
export interface Followed {
  readonly options: Pick<LogicalStream.Options, "slot" | "snapshot">
  readonly state: LogicalStream.LogicalStream<LogicalStream.Options>["state"]
  readonly run: <E>(handler: Handler.Handler<Change, E>) => Effect.Effect<unknown, Snapshot.Error | E, WalSender>
}

export interface FollowOptions {
  readonly stream: Followed
  readonly window: WindowOptions
  readonly format: Formatter
  /** Counts what was written. */
  readonly totals: { -readonly [Key in keyof Totals]: Totals[Key] }
}

const formatLines = (changes: ReadonlyArray<Change>, format: Formatter): string => {
  let text = ""
  for (const change of changes) {
    const line = format(change)
    if (line !== undefined) text += `${line}\n`
  }
  return text
}

const count = (totals: FollowOptions["totals"], changes: ReadonlyArray<Change>): void => {
  for (const change of changes) {
    if (isCounted(change) && !isSnapshotChange(change)) totals.changes++
    if (change._tag === "Commit") totals.transactions++
  }
}

/** Writes to standard output, which may be the terminal that also bears the live line. */
const makeWriter = Effect.gen(function* () {
  const output = yield* Output
  const line = yield* LiveLine.Standard
  return (changes: NonEmptyReadonlyArray<Change>, text: string) => {
    const last = changes.at(-1)?._tag
    // This one is not shown, and yet all before it must be safe.
    if (text === "" && last !== "SnapshotRangeCompleted") return Effect.void
    // Rows are to be safe with the mark that follows them: a disk need not be waited for some hundred times a second.
    const write = last === "SnapshotRow" ? output.append(text) : output.write(text)
    if (!output.isTerminal || !line.isTerminal) return write
    return Effect.suspend(() => {
      line.makeRoom()
      return Effect.ensuring(
        write,
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

/** A snapshot is done when the slot that goes on from it is there, which is after its last line was written. */
const awaitSlot = ({ options: { snapshot }, state }: Followed): Effect.Effect<void> =>
  snapshot !== "initial"
    ? Effect.void
    : SubscriptionRef.changes(state).pipe(
        Stream.takeUntil((now) => now._tag === "Streaming" || (now._tag === "Copying" && now.isCompleted)),
        Stream.runDrain
      )

/** Streams to standard output until the window ends or the reader goes; fails when the stream or the writing does. */
export const follow = Effect.fnUntraced(function* (
  options: FollowOptions
): Effect.fn.Return<void, Snapshot.Error | OutputFailed, WalSender> {
  const { stream } = options
  const finished = yield* Deferred.make<void>()
  const window = new StreamWindow(options.window)
  const write = yield* makeWriter
  const handler = Handler.arrays((changes: NonEmptyReadonlyArray<Change>) => {
    const shown = window.take(changes)
    return write(changes, formatLines(shown.changes, options.format)).pipe(
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
  const isOver = Effect.andThen(Deferred.await(finished), awaitSlot(stream))
  const ended = Effect.raceFirst(isOver, awaitUntilLsn(stream.options.slot, options.window))
  yield* Effect.raceFirst(Effect.asVoid(stream.run(handler)), ended).pipe(
    Effect.catchTag("OutputClosed", () => Effect.void)
  )
})
