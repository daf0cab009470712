/**
 * Plants small mistakes, one at a time, in the modules that decide about a position, and sees whether a unit test notices:
 * `npm run mutants`, or `npm run mutants -- WalProgress KeepAlive` for those of these names. Ends with code 0 where each
 * module's score is high enough and each mistake that no test notices is explained in `test/mutants/survivors.json`.
 *
 * Which modules, and by which tests they are judged, is in `test/mutants/plan.ts`. `--workers N` (1) tries so many at once.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { parseArgs } from "node:util"
import { NodeRuntime } from "@effect/platform-node"
import { Stryker } from "@stryker-mutator/core"
import { Effect } from "effect"
import { judge, type Mutant } from "../test/mutants/judge.ts"
import { type Mutated, plan } from "../test/mutants/plan.ts"
import survivors from "../test/mutants/survivors.json" with { type: "json" }

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { workers: { type: "string", default: "1" } }
})

const name = ({ file }: Mutated): string => basename(file, ".ts")
const chosen = positionals.length === 0 ? plan : plan.filter((mutated) => positionals.includes(name(mutated)))
const unknown = positionals.filter((wanted) => !plan.some((mutated) => name(mutated) === wanted))

/** Runs in a copy of the checkout, which is gone at the end. */
const runStryker = ({ file, tests }: Mutated) =>
  Effect.acquireUseRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "replicant-mutants-"))),
    (directory) =>
      Effect.promise((): Promise<ReadonlyArray<Mutant>> => {
        process.env.REPLICANT_MUTANTS_TESTS = JSON.stringify(tests)
        return new Stryker({
          configFile: "test/mutants/stryker.json",
          mutate: [file],
          concurrency: Number(values.workers),
          tempDirName: directory
        }).runMutationTest()
      }),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
  )

const program = Effect.gen(function* () {
  if (unknown.length > 0) return yield* Effect.fail(`no such module in test/mutants/plan.ts: ${unknown.join(", ")}`)
  const problems: Array<string> = []
  for (const mutated of chosen) {
    const began = performance.now()
    // As it is now: who goes on writing meanwhile moves its lines.
    const source = readFileSync(mutated.file, "utf8")
    const mutants = yield* runStryker(mutated)
    const verdict = judge(mutated.file, source, mutants, survivors)
    const seconds = Math.round((performance.now() - began) / 1000)
    console.log(`${verdict.summary} (${seconds} s)`)
    for (const problem of verdict.problems) console.log(problem)
    problems.push(...verdict.problems)
  }
  if (problems.length > 0) return yield* Effect.fail(`${problems.length} problems`)
})

NodeRuntime.runMain(program)
