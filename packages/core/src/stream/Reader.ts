/**
 * What reads arrays of changes in one plain loop, put where changes come from: on a stream here, before a handler in
 * `Handler.ts`. It knows nothing of what is read. What came before a failure is handed over first, so that it can be finished
 * and acknowledged.
 */
import { isReadonlyArrayNonEmpty } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"

/** Appends what `changes` mean to `out`, up to a failure, which it returns. May remember what is open between arrays. */
export interface Reader<In, Out, F> {
  readonly append: (changes: ReadonlyArray<In>, out: Array<Out>) => F | undefined
}

/** A stream read by a reader of its own, made anew for each run. Arrays stay whole. */
export const readStream =
  <In, Out, F>(makeReader: () => Reader<In, Out, F>) =>
  <E, R>(self: Stream.Stream<In, E, R>): Stream.Stream<Out, E | F, R> =>
    Stream.transformPull(self, (pull) =>
      Effect.sync(() => {
        const reader = makeReader()
        let failure: F | undefined
        return Effect.gen(function* () {
          while (true) {
            if (failure !== undefined) return yield* Effect.fail(failure)
            const out: Array<Out> = []
            failure = reader.append(yield* pull, out)
            if (isReadonlyArrayNonEmpty(out)) return out
          }
        })
      })
    )
