/**
 * What reads arrays of changes in one plain loop, put where changes come from: on a stream, before a handler. It knows
 * nothing of what is read. What came before a failure is handed over first, so that it can be finished and acknowledged.
 */
import { isReadonlyArrayNonEmpty, type NonEmptyReadonlyArray } from "effect/Array"
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { InvalidOption } from "../ReplicationError.ts"

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

/** A handler of arrays. It is not called where nothing is left. */
export const readArrays =
  <In, Out, F, A, E, R>(
    reader: Reader<In, Out, F>,
    handle: (changes: NonEmptyReadonlyArray<Out>) => Effect.Effect<A, E, R>
  ): ((changes: ReadonlyArray<In>) => Effect.Effect<A | undefined, E | F, R>) =>
  (changes) =>
    Effect.suspend((): Effect.Effect<A | undefined, E | F, R> => {
      const out: Array<Out> = []
      const failure = reader.append(changes, out)
      const handled = isReadonlyArrayNonEmpty(out) ? handle(out) : Effect.undefined
      return failure === undefined ? handled : Effect.andThen(handled, Effect.fail(failure))
    })

/** A handler of single changes. */
export const readEach = <In, Out, F, A, E, R>(
  reader: Reader<In, Out, F>,
  handle: (change: Out) => Effect.Effect<A, E, R>
): ((change: In) => Effect.Effect<A | undefined, E | F, R>) => {
  const read = readArrays(reader, ([change]) => handle(change))
  return (change) => read([change])
}

/** What is delivered once, to one of the streams over it: a second would miss what the first had taken. */
export class Source {
  private isTaken = false

  /** A stream of the arrays that `pull` gives. */
  stream<A, E>(
    pull: Effect.Effect<NonEmptyReadonlyArray<A>, E>
  ): Stream.Stream<A, Exclude<E, Cause.Done> | InvalidOption> {
    return Stream.fromPull(
      Effect.suspend(() => {
        if (this.isTaken) {
          const problem = "this stream has been consumed; build the Layer anew to stream again"
          return Effect.fail(new InvalidOption({ option: "changes", problem }))
        }
        this.isTaken = true
        return Effect.succeed(pull)
      })
    )
  }
}
