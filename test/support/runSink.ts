/** A stream into an engine as a program of its own, to be killed: options of type `SinkOptions` as one argument of JSON. */

import { NodeRuntime } from "@effect/platform-node"
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { Pgoutput } from "@replicant/core"
import { Route, Sink } from "@replicant/core/sink"
import { NatsSink } from "@replicant/nats"
import { PgWalSender } from "@replicant/node"
import { RedisSink } from "@replicant/redis"
import { Effect, Layer, Redacted, Schedule } from "effect"

export interface SinkOptions {
  readonly url: string
  readonly slot: string
  readonly publication: string
  readonly engine: "redis" | "nats"
  /** Of several servers with commas between them. */
  readonly engineUrl: string
  /** The stream, or its subject, and the beginning of the mark's name. */
  readonly stream: string
  /** On how many servers a stream of JetStream is. */
  readonly replicas?: number | undefined
}

const {
  engine,
  engineUrl,
  publication,
  replicas = 1,
  slot,
  stream,
  url
} = JSON.parse(process.argv[2] ?? "{}") as SinkOptions

const layers = {
  redis: () =>
    Layer.provide(
      RedisSink.layer({ mark: `${stream}:mark` }),
      NodeRedis.layer({ url: engineUrl, disableOfflineQueue: true })
    ),
  nats: () =>
    NatsSink.layer({
      connection: { servers: engineUrl.split(",") },
      stream,
      mark: `${stream}.mark`,
      createStream: { subjects: [stream, `${stream}.mark`], num_replicas: replicas }
    })
}

const program = Sink.run({
  slot,
  plugin: Pgoutput.make({ publications: [publication] }),
  reconnect: Schedule.spaced("100 millis"),
  timing: { acknowledgeDelay: "20 millis" },
  sink: {
    route: Route.one(stream),
    outage: Schedule.spaced("50 millis"),
    batch: { messages: 100 },
    // A cluster that elects a leader answers nothing meanwhile.
    ...(replicas > 1 ? { answerTimeout: "5 seconds" } : {})
  }
}).pipe(
  Effect.provide(layers[engine]()),
  Effect.provide(PgWalSender.layer({ url: Redacted.make(url) })),
  // Redis may be away as the program begins.
  Effect.retry({ while: (error) => error._tag === "RedisError", schedule: Schedule.spaced("50 millis") })
)

NodeRuntime.runMain(program)
