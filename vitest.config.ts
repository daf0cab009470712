import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          include: ["packages/*/test/**/*.test.ts", "test/architecture.test.ts"]
        }
      },
      {
        test: {
          name: "server",
          include: ["test/**/*.test.ts"],
          exclude: ["test/architecture.test.ts"],
          testTimeout: 60_000,
          hookTimeout: 120_000,
          fileParallelism: true,
          maxWorkers: 2
        }
      }
    ]
  }
})
