/**
 * A reporter that ends the run with plain lines for programs to read: the name of each test that failed, how many scenarios
 * of the conformance suite hold, and `N passed, N failed, N skipped`.
 */
import type { Reporter, TestModule } from "vitest/node"

/** `[ri-full] sentence`: the id of a scenario. */
const scenarioOf = (name: string): string | undefined => /^\[([a-z0-9-]+)\] /.exec(name)?.[1]

/** By scenario and project, whether all its tests passed. */
const conformance = (modules: ReadonlyArray<TestModule>): string | undefined => {
  const held = new Map<string, boolean>()
  const projects = new Set<string>()
  for (const module of modules) {
    if (!module.moduleId.includes("/test/conformance/")) continue
    for (const test of module.children.allTests()) {
      const scenario = scenarioOf(test.name)
      const { state } = test.result()
      if (scenario === undefined || state === "skipped") continue
      projects.add(module.project.name)
      held.set(scenario, (held.get(scenario) ?? true) && state === "passed")
    }
  }
  if (held.size === 0) return undefined
  const passed = [...held.values()].filter((holds) => holds).length
  return `conformance: ${passed} of ${held.size} scenarios hold on ${[...projects].sort().join(", ")}`
}

export class Summary implements Reporter {
  onTestRunEnd(modules: ReadonlyArray<TestModule>, unhandledErrors: ReadonlyArray<unknown>): void {
    const counts = { passed: 0, failed: unhandledErrors.length, skipped: 0, pending: 0 }
    const tell = (module: TestModule, name: string) =>
      process.stdout.write(`failed: ${module.project.name} ${module.relativeModuleId} ${name}\n`)
    for (const module of modules) {
      for (const test of module.children.allTests()) {
        const { state } = test.result()
        counts[state]++
        if (state === "failed" || state === "pending") tell(module, test.fullName)
      }
      // A file that cannot be loaded, or whose hooks fail, may hold no failed test.
      if (module.state() === "failed" && ![...module.children.allTests("failed")].length) {
        counts.failed++
        tell(module, "as a whole")
      }
    }
    for (const error of unhandledErrors) process.stdout.write(`failed: outside of any test ${String(error)}\n`)
    const { failed, passed, skipped, pending } = counts
    const scenarios = conformance(modules)
    if (scenarios !== undefined) process.stdout.write(`${scenarios}\n`)
    process.stdout.write(`${passed} passed, ${failed + pending} failed, ${skipped} skipped\n`)
  }
}
