/**
 * Measures how soon the next owner of a lease has its first row, with real processes, and counts what was lost:
 * `npm run lease:proof -- --rounds 50`. Its server is its own, and gone at the end. Ends with code 0 where nothing was lost and
 * the medians are within their bounds: 2 s after SIGKILL, 1 s after SIGTERM, the term and 2 s for who is frozen or cut off.
 *
 * `--rounds N` (50) of each blow, `--term MILLIS` (3000), `--postgres 14..18` (18), `--blow NAME` one alone.
 */
import { parseArgs } from "node:util"
import { NodeRuntime } from "@effect/platform-node"
import { PgServer } from "@replicant/node/testing"
import { Effect } from "effect"
import { type Blow, blows, playRounds } from "../test/support/lease/Rounds.ts"
import * as PostgresVersion from "../test/support/PostgresVersion.ts"
import { makeWorkspace } from "../test/support/Workspace.ts"

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "50" },
    term: { type: "string", default: "3000" },
    postgres: { type: "string", default: "18" },
    blow: { type: "string" }
  }
})
const term = Number(values.term)

/** The longest median, in milliseconds. */
const bounds: { readonly [B in Blow]: number } = {
  SIGKILL: 2000,
  SIGTERM: 1000,
  session: 2000,
  freeze: term + 2000,
  black: term + 2000
}

const at = (sorted: ReadonlyArray<number>, share: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN

const proof = Effect.gen(function* () {
  const server = yield* PgServer.make(
    PostgresVersion.serverOptions(PostgresVersion.ofProject(`server-${values.postgres}`))
  )
  const workspace = yield* makeWorkspace(server)
  const chosen = values.blow === undefined ? blows : blows.filter((blow) => blow === values.blow)
  const verdict = yield* playRounds(workspace, {
    rounds: Number(values.rounds),
    term,
    blows: chosen,
    onRound: (blow, took) => console.log(`${blow} ${took} ms`)
  })
  const { took, ...counts } = verdict
  let isSound = counts.lost + counts.confirmedTooFar + counts.outOfOrder === 0
  console.log(`\nPostgreSQL ${server.version}, term ${term} ms; milliseconds to the next owner's first row`)
  for (const [blow, times] of took) {
    const sorted = times.toSorted((left, right) => left - right)
    const median = at(sorted, 0.5)
    isSound = isSound && median <= bounds[blow]
    console.log(
      `${blow}: median ${median}, fastest ${sorted[0]}, nine of ten within ${at(sorted, 0.9)}, slowest ${sorted.at(-1)}, of ${sorted.length}; bound ${bounds[blow]}`
    )
  }
  console.log(
    Object.entries(counts)
      .map(([what, count]) => `${what} ${count}`)
      .join(", ")
  )
  console.log(isSound ? "nothing lost, in time" : "FAILED")
  return isSound
}).pipe(Effect.scoped)

NodeRuntime.runMain(
  Effect.tap(proof, (isSound) =>
    Effect.sync(() => {
      process.exitCode = isSound ? 0 : 1
    })
  )
)
