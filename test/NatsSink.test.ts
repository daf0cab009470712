/** Changes of a real PostgreSQL in a real NATS, whoever is killed: each once and in order. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { isInstalled } from "./support/SinkEngines.ts"
import { killSink } from "./support/SinkKills.ts"

describe("a sink in JetStream", () => {
  for (const [name, what] of [
    ["nats", "nats-server"],
    ["nats-current", "a current nats-server"]
  ] as const) {
    const title = `holds each change once and in order, with its runner, ${what} and PostgreSQL killed`
    // The current one comes by Go: see .ci/run.
    const isNeeded = name === "nats" && process.env.CI !== undefined
    if (!isInstalled(name) && !isNeeded) it.skip(`${title} (no ${what} on this machine)`, () => undefined)
    else
      it.live(title, () =>
        Effect.gen(function* () {
          const outcome = yield* killSink(name, { runner: 3, engine: 3, postgres: 2 })
          assert.deepInclude(outcome, { stored: outcome.committed, lost: 0, twice: 0, outOfOrder: 0 })
          assert.isAbove(outcome.committed, 100)
        })
      )
  }
})
