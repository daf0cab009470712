import { defineConfig } from "vitest/config"
import { latest, type PostgresVersion, projectName, versions } from "./test/support/PostgresVersion.ts"
import { Summary } from "./test/support/Summary.ts"

/** What these prove does not depend on the version of the server; of single tests the option `once` says so. */
const onceOnly = [
  "test/Examples.test.ts",
  "test/PgServer.test.ts",
  "test/Proxy.test.ts",
  "test/FaultProxyExample.test.ts"
]

/**
 * Faults that take long and that no version has been seen to change: `npm test` provokes them on the newest alone, and
 * proves the whole of it on the oldest and the newest. `npm run server:all` runs everything on all.
 */
const onNewest = ["Bytes", "Connect", "HostileNames", "Network", "Process", "Secrets", "Security"].map(
  (name) => `test/faults/${name}.test.ts`
)
const atTheEnds = ["test/Replay.test.ts", "test/faults/Data.test.ts", "test/faults/NetworkCuts.test.ts"]

const excluded = (version: PostgresVersion): ReadonlyArray<string> => {
  if (version === latest) return []
  if (process.env.REPLICANT_TEST === "everything") return onceOnly
  return [...onceOnly, ...onNewest, ...(version === versions[0] ? [] : atTheEnds)]
}

/**
 * `unit` needs nothing but this checkout; `server-14` to `server-18` run the same files, each on PostgreSQL of that
 * version. The `Summary` reporter ends the run with `N passed, N failed, N skipped` on a line of its own.
 */
export default defineConfig({
  test: {
    teardownTimeout: 30_000,
    reporters: ["default", new Summary()],
    projects: [
      {
        test: {
          name: "unit",
          include: ["packages/*/test/**/*.test.ts", "test/architecture.test.ts"],
          testTimeout: 10_000
        }
      },
      ...versions.map((version) => ({
        test: {
          name: projectName(version),
          include: ["test/**/*.test.ts"],
          exclude: ["test/architecture.test.ts", ...excluded(version)],
          env: { REPLICANT_TEST_PROJECT: projectName(version) },
          globalSetup: ["./test/support/globalSetup.ts"],
          // A file may hold tests for other versions only.
          passWithNoTests: true,
          testTimeout: 60_000,
          hookTimeout: 120_000,
          // A busy machine may outlast a deadline: what fails twice is a failure. Never at a developer's desk.
          retry: process.env.CI === undefined ? 0 : 1,
          maxWorkers: 3
        }
      }))
    ]
  }
})
