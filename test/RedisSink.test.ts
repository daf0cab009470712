/** Changes of a real PostgreSQL in a real Redis, whoever is killed: each once and in order. */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@replicant/redis/testing"
import { Effect } from "effect"
import { killSink } from "./support/SinkKills.ts"

describe("a sink in Redis", () => {
  const title = "holds each change once and in order, with its runner, Redis and PostgreSQL killed"
  if (!RedisServer.isInstalled() && process.env.CI === undefined)
    it.skip(`${title} (no redis-server on this machine)`, () => undefined)
  else
    it.live(title, () =>
      Effect.gen(function* () {
        const outcome = yield* killSink({ runner: 3, engine: 3, postgres: 2 })
        assert.deepInclude(outcome, { stored: outcome.committed, lost: 0, twice: 0, outOfOrder: 0 })
        assert.isAbove(outcome.committed, 100)
      })
    )
})
