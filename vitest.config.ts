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
 * Faults and proofs that take long, and that no version in the middle has been seen to change: they run on the oldest and
 * the newest. `REPLICANT_TEST=everything` runs them on all: `npm run server:all`.
 */
const atTheEnds = [
  "test/Replay.test.ts",
  ...["Bytes", "Connect", "Data", "HostileNames", "Network", "NetworkCuts", "Process", "Secrets", "Security"].map(
    (name) => `test/faults/${name}.test.ts`
  )
]

const excluded = (version: PostgresVersion): ReadonlyArray<string> => {
  if (version === latest) return []
  const isAtAnEnd = version === versions[0] || process.env.REPLICANT_TEST === "everything"
  return isAtAnEnd ? onceOnly : [...onceOnly, ...atTheEnds]
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
          maxWorkers: 3
        }
      }))
    ]
  }
})
