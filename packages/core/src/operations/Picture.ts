/**
 * What the page shows, once a second, to each who has it open: by server-sent events, whose form is a line `data: ` and an empty
 * one. What is asked of a stream's server is asked only meanwhile; budgets are watched for health and metrics, too, and so as long as the
 * routes are served. Each is asked once for all who look.
 *
 * Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Health from "../stream/Health.ts"
import { Observation } from "../stream/Observation.ts"
import { WalBudget } from "./Budget.ts"
import type { Watched } from "./Watched.ts"

/** One stream at one moment. What is not known is not there. */
const StreamPicture = Schema.Struct({
  slot: Schema.String,
  health: Health.Health,
  seen: Schema.optionalKey(Observation),
  budget: Schema.optionalKey(WalBudget),
  /** Whether a doctor can be asked about it. */
  hasDoctor: Schema.Boolean
})

/** All streams at one moment. */
export const Picture = Schema.Struct({
  /** Milliseconds of Unix time. */
  at: Schema.Number,
  status: Health.Status,
  streams: Schema.Array(StreamPicture)
})
export interface Picture extends Schema.Schema.Type<typeof Picture> {}

const pictureOf = (
  { doctor, health, observe = Effect.undefined, options: { slot } }: Watched,
  budget: WalBudget | undefined
) =>
  Effect.map(Effect.all({ health, seen: observe }), ({ health, seen }) => ({
    slot,
    health,
    ...(seen === undefined ? {} : { seen }),
    ...(budget === undefined ? {} : { budget }),
    hasDoctor: doctor !== undefined
  }))

const encode = Schema.encodeSync(Schema.fromJsonString(Picture))

/** The events of whoever opens the page. The scope is that of the routes. */
export const events = Effect.fnUntraced(function* (
  streams: ReadonlyArray<Watched>
): Effect.fn.Return<Stream.Stream<Uint8Array>, never, Scope.Scope> {
  const budgets = yield* Effect.forEach(streams, ({ budget }) =>
    budget === undefined ? Effect.undefined : Stream.share(budget, { capacity: 1, strategy: "sliding", replay: 1 })
  )
  for (const budget of budgets) if (budget !== undefined) yield* Effect.forkScoped(Stream.runDrain(budget))
  return Stream.unwrap(
    Effect.gen(function* () {
      const latest: Array<WalBudget | undefined> = streams.map(() => undefined)
      yield* Effect.forEach(budgets, (budget, index) =>
        budget === undefined
          ? Effect.void
          : Effect.forkScoped(
              Stream.runForEach(budget, (now) =>
                Effect.sync(() => {
                  latest[index] = now
                })
              )
            )
      )
      const picture = Effect.gen(function* () {
        const all = yield* Effect.forEach(streams, (stream, index) => pictureOf(stream, latest[index]), {
          concurrency: "unbounded"
        })
        const status = Health.worst(all.map(({ health }) => health.status))
        return `data: ${encode({ at: yield* Clock.currentTimeMillis, status, streams: all })}\n\n`
      })
      return Stream.encodeText(Stream.fromEffectSchedule(picture, Schedule.spaced("1 second")))
    })
  )
})
