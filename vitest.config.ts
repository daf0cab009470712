import { defineConfig } from "vitest/config"
import { Summary } from "./test/support/Summary.ts"

/**
 * Two projects: `unit` needs nothing but this checkout, `server` starts PostgreSQL. The `Summary` reporter ends the run
 * with `N passed, N failed, N skipped` on a line of its own.
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
      {
        test: {
          name: "server",
          include: ["test/**/*.test.ts"],
          exclude: ["test/architecture.test.ts"],
          globalSetup: ["./test/support/globalSetup.ts"],
          testTimeout: 60_000,
          hookTimeout: 120_000,
          maxWorkers: 2
        }
      }
    ]
  }
})
