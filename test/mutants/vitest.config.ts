/** What `npm run mutants` runs tests with: those it names, each file by itself, so that a mutant is seen as it is loaded. */
import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: JSON.parse(process.env.REPLICANT_MUTANTS_TESTS ?? "[]"),
    // What a mistake leaves waiting for ever is noticed by this.
    testTimeout: 10_000
  }
})
