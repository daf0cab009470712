/**
 * Where changes wait that cannot be handled: with their place, what they failed of, and how often. The public module
 * `DeadLetters`.
 *
 * A change counts as handled once it is here, so what is lost here is lost: a store has to be as durable as the target.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { errorId, logText } from "../ErrorForm.ts"

/** A letter could not be stored, looked for or dropped. No row value is in this error. */
export class DeadLettersError extends Schema.TaggedError<DeadLettersError>(errorId("DeadLettersError"))(
  "DeadLettersError",
  {
    during: Schema.Literals(["park", "find", "list", "clear"]),
    problem: Schema.String
  }
) {
  get remedy(): string {
    return "see that the store of dead letters can be reached and written to: nothing is acknowledged meanwhile"
  }
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    return `cannot ${this.during} dead letters: ${logText(this.problem)}`
  }
}

/** A change that is parked. */
export interface DeadLetter {
  /** Its `changeId`; `undefined` for a row of a snapshot, which only its key names. */
  readonly id: string | undefined
  /** The rows that it is of: later changes of any of them are parked behind it. They hold key values. */
  readonly keys: ReadonlyArray<string>
  /** What it failed of; `Follows` where it was not tried, since an earlier change of its row is parked. */
  readonly cause: { readonly tag: string; readonly message: string }
  /** How often it was tried. */
  readonly attempts: number
  readonly change: unknown
}

/**
 * Keeps dead letters, in the order in which they were parked.
 *
 * A change may be parked again after a crash, as it may be delivered again: a letter of the same `id` takes the place of the
 * one that is there.
 */
export class DeadLetters extends Context.Service<
  DeadLetters,
  {
    /** The letter is durable when this has ended: the change counts as handled then. */
    readonly park: (letter: DeadLetter) => Effect.Effect<void, DeadLettersError>
    /** Whether a letter has one of these keys. Asked for every row: to be answered without a question to elsewhere. */
    readonly holds: (keys: ReadonlyArray<string>) => Effect.Effect<boolean, DeadLettersError>
    readonly list: Effect.Effect<ReadonlyArray<DeadLetter>, DeadLettersError>
    /** Drops the letters of this key, or all: what comes of these rows from now on is handled again. */
    readonly clear: (key?: string) => Effect.Effect<void, DeadLettersError>
  }
>()("@replicant/core/DeadLetters") {}

/**
 * Keeps them for as long as the program runs, and **loses them with it**, though they have been acknowledged: for tests, and
 * where a lost change does no harm.
 */
export const memory: Layer.Layer<DeadLetters> = Layer.sync(DeadLetters, () => {
  let letters: ReadonlyArray<DeadLetter> = []
  let held = new Set<string>()
  const set = (now: ReadonlyArray<DeadLetter>) => {
    letters = now
    held = new Set(now.flatMap(({ keys }) => keys))
  }
  return DeadLetters.of({
    park: (letter) =>
      Effect.sync(() => {
        const at = letter.id === undefined ? -1 : letters.findIndex(({ id }) => id === letter.id)
        letters = at === -1 ? [...letters, letter] : letters.with(at, letter)
        for (const key of letter.keys) held.add(key)
      }),
    holds: (keys) => Effect.sync(() => keys.some((key) => held.has(key))),
    list: Effect.sync(() => letters),
    clear: (key) => Effect.sync(() => set(key === undefined ? [] : letters.filter(({ keys }) => !keys.includes(key))))
  })
})
