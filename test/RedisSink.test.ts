/** Changes of a real PostgreSQL in a real Redis, whoever is killed: each once and in order. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { isInstalled } from "./support/SinkEngines.ts"
import { killSink } from "./support/SinkKills.ts"

describe("a sink in Redis", () => {
  const title = "holds each change once and in order, with its runner, Redis and PostgreSQL killed"
  if (!isInstalled("redis") && process.env.CI === undefined)
    it.skip(`${title} (no redis-server on this machine)`, () => undefined)
  else
    it.live(title, () =>
      Effect.gen(function* () {
        const outcome = yield* killSink("redis", { runner: 3, engine: 3, postgres: 2 })
        assert.deepInclude(outcome, { stored: outcome.committed, lost: 0, twice: 0, outOfOrder: 0 })
        assert.isAbove(outcome.committed, 100)
      })
    )
})
