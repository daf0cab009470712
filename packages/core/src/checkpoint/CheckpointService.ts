/**
 * Where a copy under way keeps how far it is, so that a later run can go on from there: the service, and the
 * one that forgets with the process. Files are in `CheckpointFiles.ts`, tables in `CheckpointTable.ts`.
 *
 * A store keeps texts by key and knows nothing of what they mean. It has to be durable where its consumer's rows are:
 * best in the same place. One that is lost costs a copy from the beginning, and never a row.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { errorId, logText } from "../ErrorForm.ts"

/** A checkpoint could not be kept or found again, or is not one of ours. No row value is in one, and none in this error. */
export class CheckpointError extends Schema.TaggedError<CheckpointError>(errorId("CheckpointError"))(
  "CheckpointError",
  {
    /** `read` is of a text that was loaded well: it is no checkpoint, or of another version of Replicant. */
    during: Schema.Literals(["open", "load", "save", "remove", "read"]),
    key: Schema.String,
    problem: Schema.String
  }
) {
  get remedy(): string {
    return this.during === "read"
      ? `remove the checkpoint "${this.key}" from the store: the copy then begins anew`
      : "see that the store can be reached and written to; the copy goes on from the last checkpoint that was saved"
  }
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `cannot ${this.during} the checkpoint "${logText(this.key)}": ${logText(this.problem)}`
  }
}

/**
 * Keeps checkpoints. `memory` outlives a lost connection, `file` and `sql` the process as well.
 *
 * `save` is called only after the handler has ended the element that bears the same text as its `checkpoint`. So a
 * consumer that stores this text together with its rows, in one transaction, may bring a store of its own: one whose
 * `load` reads it there, and whose `save` has nothing left to do. What is requested of a stream is kept under another key:
 * where a store gives the copy's text whatever the key, nothing of a request is saved or removed, and it begins anew.
 */
export class CheckpointStore extends Context.Service<
  CheckpointStore,
  {
    readonly load: (key: string) => Effect.Effect<Option.Option<string>, CheckpointError>
    /** The text must be durable when this has ended; cut short, the one before must still be there. */
    readonly save: (key: string, checkpoint: string) => Effect.Effect<void, CheckpointError>
    /** Of a key that is not there: nothing happens. */
    readonly remove: (key: string) => Effect.Effect<void, CheckpointError>
  }
>()("@replicant/core/CheckpointStore") {}

/** Keeps them for as long as the program runs: a lost connection is resumed from them, a new process begins anew. */
export const memory: Layer.Layer<CheckpointStore> = Layer.sync(CheckpointStore, () => {
  const texts = new Map<string, string>()
  return CheckpointStore.of({
    load: (key) => Effect.sync(() => Option.fromUndefinedOr(texts.get(key))),
    save: (key, checkpoint) => Effect.sync(() => void texts.set(key, checkpoint)),
    remove: (key) => Effect.sync(() => void texts.delete(key))
  })
})
