/** A stream into Redis as a program of its own, to be killed: options of type `SinkOptions` as one argument of JSON. */

import { NodeRuntime } from "@effect/platform-node"
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { Pgoutput } from "@replicant/core"
import { Route, Sink } from "@replicant/core/sink"
import { PgWalSender } from "@replicant/node"
import { RedisSink } from "@replicant/redis"
import { Effect, Redacted, Schedule } from "effect"

export interface SinkOptions {
  readonly url: string
  readonly slot: string
  readonly publication: string
  readonly redis: string
  /** The stream, and the beginning of the mark's key. */
  readonly stream: string
}

const options = JSON.parse(process.argv[2] ?? "{}") as SinkOptions

const program = Sink.run({
  slot: options.slot,
  plugin: Pgoutput.make({ publications: [options.publication] }),
  reconnect: Schedule.spaced("100 millis"),
  timing: { acknowledgeDelay: "20 millis" },
  sink: { route: Route.one(options.stream), outage: Schedule.spaced("50 millis"), batch: { messages: 100 } }
}).pipe(
  Effect.provide(RedisSink.layer({ mark: `${options.stream}:mark` })),
  Effect.provide([
    NodeRedis.layer({ url: options.redis, disableOfflineQueue: true }),
    PgWalSender.layer({ url: Redacted.make(options.url) })
  ]),
  // Redis may be away as the program begins.
  Effect.retry({ while: (error) => error._tag === "RedisError", schedule: Schedule.spaced("50 millis") })
)

NodeRuntime.runMain(program)
