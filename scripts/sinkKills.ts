/**
 * Kills a sink's runner, its engine and its PostgreSQL under load, and reads back from the engine what is there: the full counts,
 * for what the tests do with small ones. Needs `redis-server`.
 *
 *     npm run sink:kills -- [runner engine postgres]
 */
import { RedisServer } from "@replicant/redis/testing"
import { Effect } from "effect"
import { killSink } from "../test/support/SinkKills.ts"

const [runner = 50, engine = 20, postgres = 20] = process.argv.slice(2).map(Number)

if (!RedisServer.isInstalled()) {
  console.error("there is no redis-server on this machine")
  process.exitCode = 1
} else {
  const began = performance.now()
  const outcome = await Effect.runPromise(Effect.scoped(killSink({ runner, engine, postgres }, console.log)))
  console.log(JSON.stringify({ ...outcome, seconds: Math.round((performance.now() - began) / 1000) }))
  const isWhole = outcome.lost + outcome.twice + outcome.outOfOrder === 0 && outcome.stored === outcome.committed
  process.exitCode = isWhole ? 0 : 1
}
