/** What `/readyz` says: how all streams of a program are. */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Health from "../stream/Health.ts"
import type { Watched } from "./Watched.ts"

/** What `/readyz` says. */
export const Readiness = Schema.Struct({
  /** The worst of all streams'. */
  status: Health.Status,
  streams: Schema.Array(Schema.Struct({ slot: Schema.String, ...Health.Health.fields }))
})
export interface Readiness extends Schema.Schema.Type<typeof Readiness> {}

/** The streams that `/readyz` is about: all of a program, one at least. */
export interface Options {
  readonly streams: NonEmptyReadonlyArray<Watched>
}

/** How all of them are, in the order in which they are given. Asks nobody. */
export const readiness = ({ streams }: Options): Effect.Effect<Readiness> =>
  Effect.map(
    Effect.forEach(streams, ({ health, options: { slot } }) => Effect.map(health, (told) => ({ slot, ...told }))),
    (all) => ({ status: Health.worst(all.map(({ status }) => status)), streams: all })
  )
