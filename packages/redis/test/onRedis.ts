/** A test against a Redis of its own, in real time. Skipped by name where there is no `redis-server`; in CI never. */

import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { it } from "@effect/vitest"
import { RedisServer, type RedisServerOptions, type RedisServerShape } from "@replicant/redis/testing"
import { Context, Effect, Layer, Logger, type Scope } from "effect"
import * as Redis from "effect/persistence/Redis"

const isInstalled = RedisServer.isInstalled()

/** A client of its own, as another process has one. What it logs of lost connections is no concern of a test. */
export const connectClient = (url: string): Effect.Effect<Redis.Redis["Service"], Redis.RedisError, Scope.Scope> =>
  Effect.map(Layer.build(NodeRedis.layer({ url, disableOfflineQueue: true })), (context) =>
    Context.get(context, Redis.Redis)
  ).pipe(Effect.provide(Logger.layer([])))

export const onRedis = (
  title: string,
  body: (server: RedisServerShape) => Effect.Effect<unknown, unknown, Scope.Scope>,
  options: RedisServerOptions = {}
): void => {
  if (!isInstalled && process.env.CI === undefined)
    it.skip(`${title} (no redis-server on this machine)`, () => undefined)
  else it.live(title, () => Effect.flatMap(RedisServer.make(options), body))
}
