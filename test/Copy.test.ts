/**
 * A copy into another PostgreSQL, by its result: both hold the same rows, whatever their types, whatever came between. What
 * it does when it is killed is in faults/Copy.test.ts.
 */
import { randomInt } from "node:crypto"
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { caughtUp, copyOptions, markTable, positionOf, startCopy } from "./support/Copying.ts"
import { eventually } from "./support/eventually.ts"
import { runWorkload, workloadTables } from "./support/RandomWorkload.ts"
import { once, onServer } from "./support/Servers.ts"
import { checksums } from "./support/TableChecksum.ts"
import { makeWorkspace } from "./support/Workspace.ts"

const seed = process.env.COPY_SEED === undefined ? randomInt(2 ** 31) : Number(process.env.COPY_SEED)

describe("a copy into another database", () => {
  onServer(
    "postgres",
    "equals its source after the first copy and a random workload, value for value of every type",
    (server) =>
      Effect.gen(function* () {
        const tables = `${workloadTables({})}; ${markTable}`
        const source = yield* makeWorkspace(server, { sql: tables })
        const target = yield* makeWorkspace(server, { sql: tables })
        yield* runWorkload(source.session, { seed, statements: 600 })
        const copying = yield* startCopy(copyOptions(source, target))
        const report = yield* copying.during(runWorkload(source.session, { seed: seed + 1, statements: 1000 }))
        yield* copying.during(caughtUp(source, target))
        const label = `COPY_SEED=${seed} ${JSON.stringify({ report, ...copying.totals })}`
        assert.deepStrictEqual(yield* checksums(target), yield* checksums(source), label)
        assert.isAbove(copying.totals.rows, 20, label)
        assert.isAbove(copying.totals.changes, 100, label)
        assert.strictEqual(copying.totals.missing, 0, label)
      }),
    { timeout: 90_000 }
  )
})
