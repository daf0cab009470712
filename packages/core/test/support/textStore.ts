/** A place for checkpoints that a test can look into and write to, and that outlives every run. */
import { Effect, Option } from "effect"
import type { CheckpointStore } from "../../src/checkpoint/CheckpointService.ts"

/** What is saved stands in `texts`, by its key. */
export const textStore = (texts = new Map<string, string>()): CheckpointStore["Service"] => ({
  load: (key) => Effect.sync(() => Option.fromUndefinedOr(texts.get(key))),
  save: (key, text) => Effect.sync(() => void texts.set(key, text)),
  remove: (key) => Effect.sync(() => void texts.delete(key))
})
