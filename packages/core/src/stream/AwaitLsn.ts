/**
 * Waiting until a consumer has handled all that was committed before a position: so that who has written reads what was made of it.
 *
 * Progress is asked for and not told: it moves with every read, and hardly anybody waits.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Ref from "effect/Ref"
import * as Schema from "effect/Schema"
import { errorId } from "../ErrorForm.ts"
import * as Lsn from "../Lsn.ts"
import { monotonicMillis } from "../MonotonicTime.ts"
import * as WalProgress from "../replication/WalProgress.ts"

/** The consumer was not that far in time. What was written is not lost: it is handled later. */
export class LsnTimeout extends Schema.TaggedError<LsnTimeout>(errorId("LsnTimeout"))("LsnTimeout", {
  /** What was waited for. */
  lsn: Lsn.Lsn,
  /** How far the consumer was then. */
  handled: Lsn.Lsn,
  /** How long it was waited for, in milliseconds. */
  timeout: Schema.Number,
  /** What the stream was doing: the `_tag` of its state. */
  state: Schema.String
}) {
  get remedy(): string {
    return this.state === "Streaming"
      ? "wait longer, or see why the consumer is behind: its handler is slow, or the position is of another cluster"
      : "see why the stream is not streaming: its state tells"
  }
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    const { handled, lsn, state, timeout } = this
    return `${Lsn.format(lsn)} was not handled within ${timeout} ms: the stream is ${state}, and at ${Lsn.format(handled)}`
  }
}

/** How often to look, in milliseconds. */
const lookEvery = 5

/** What is waited on: the progress of the run that is under way, or was last, and what the stream is doing. */
export interface Waited {
  readonly progress: () => WalProgress.WalProgressRef | undefined
  readonly state: Effect.Effect<string>
}

/** Waits until all before `lsn` is handled; fails with {@link LsnTimeout} when it is not by then. */
export const awaitLsn = Effect.fnUntraced(function* (
  { progress, state }: Waited,
  lsn: Lsn.Lsn,
  within: Duration.Input
): Effect.fn.Return<void, LsnTimeout> {
  const timeout = Duration.toMillis(Duration.fromInputUnsafe(within))
  const end = (yield* monotonicMillis) + timeout
  while (true) {
    const ref = progress()
    const handled = ref === undefined ? Lsn.zero : WalProgress.handledLsn(yield* Ref.get(ref))
    if (handled >= lsn) return
    const rest = end - (yield* monotonicMillis)
    if (rest <= 0) return yield* new LsnTimeout({ lsn, handled, timeout, state: yield* state })
    yield* Effect.sleep(Math.min(rest, lookEvery))
  }
})
