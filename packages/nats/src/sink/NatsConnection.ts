/** A connection of a writer's own: what it lost is not made good by the client behind our back, but by the next writer. */
import { connect as connectNode, type NatsConnection, type NodeConnectionOptions } from "@nats-io/transport-node"
import type { SinkError } from "@replicant/core/sink"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { fromNats } from "./NatsFailure.ts"

/** Where to connect to, as whom, with TLS: the client's own options. */
export type Connection = Omit<NodeConnectionOptions, "reconnect" | "waitOnFirstConnect">

/** Connects; with a limit, as whoever waits for it cannot be interrupted. */
export const connect = (
  sink: string,
  options: NodeConnectionOptions
): Effect.Effect<NatsConnection, SinkError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.tryPromise({
      try: () => connectNode({ timeout: 10_000, ...options }),
      catch: (cause) => fromNats(sink, cause)
    }),
    (connection) => Effect.promise(() => connection.close().catch(() => undefined))
  )
