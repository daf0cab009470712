import { defineConfig } from "vitest/config"
import { latest, projectName, versions } from "./test/support/PostgresVersion.ts"
import { Summary } from "./test/support/Summary.ts"

/** What these prove does not depend on the version of the server; of single tests the option `once` says so. */
const onceOnly = ["test/Examples.test.ts", "test/PgServer.test.ts", "test/Proxy.test.ts", "test/FaultProxyExample.test.ts"]

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
          exclude: ["test/architecture.test.ts", ...(version === latest ? [] : onceOnly)],
          env: { REPLICANT_TEST_PROJECT: projectName(version) },
          globalSetup: ["./test/support/globalSetup.ts"],
          // A file may hold tests for other versions only.
          passWithNoTests: true,
          testTimeout: 60_000,
          hookTimeout: 120_000,
          maxWorkers: 2
        }
      }))
    ]
  }
})
