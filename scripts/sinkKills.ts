/**
 * Kills a sink's runner, its engine and its PostgreSQL under load, and reads back from the engine what is there: the full counts,
 * for what the tests do with small ones. Needs the engine: `redis-server`, `nats-server`, a current one (`nats-current`), or three of these (`nats-cluster`).
 *
 *     npm run sink:kills -- [redis|nats|nats-current|nats-cluster] [runner engine postgres]
 */
import { Effect } from "effect"
import { engineNames, isInstalled } from "../test/support/SinkEngines.ts"
import { killSink } from "../test/support/SinkKills.ts"

const args = process.argv.slice(2)
const name = engineNames.find((known) => known === args[0])
const [runner = 50, engine = 20, postgres = 20] = (name === undefined ? args : args.slice(1)).map(Number)
const chosen = name ?? "redis"

if (!isInstalled(chosen)) {
  console.error(`there is no ${chosen} on this machine`)
  process.exitCode = 1
} else {
  const began = performance.now()
  const outcome = await Effect.runPromise(Effect.scoped(killSink(chosen, { runner, engine, postgres }, console.log)))
  console.log(JSON.stringify({ engine: chosen, ...outcome, seconds: Math.round((performance.now() - began) / 1000) }))
  const isWhole = outcome.lost + outcome.twice + outcome.outOfOrder === 0 && outcome.stored === outcome.committed
  process.exitCode = isWhole ? 0 : 1
}
