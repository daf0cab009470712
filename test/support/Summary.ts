/** A reporter that ends the run with one plain line for programs to read: `N passed, N failed, N skipped`. */
import type { Reporter, TestModule } from "vitest/node"

export class Summary implements Reporter {
  onTestRunEnd(modules: ReadonlyArray<TestModule>, unhandledErrors: ReadonlyArray<unknown>): void {
    const counts = { passed: 0, failed: unhandledErrors.length, skipped: 0, pending: 0 }
    for (const module of modules) {
      for (const test of module.children.allTests()) counts[test.result().state]++
      // A file that cannot be loaded, or whose hooks fail, may hold no failed test.
      if (module.state() === "failed" && ![...module.children.allTests("failed")].length) counts.failed++
    }
    const { failed, passed, skipped, pending } = counts
    process.stdout.write(`${passed} passed, ${failed + pending} failed, ${skipped} skipped\n`)
  }
}
