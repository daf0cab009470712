/**
 * Runs the benchmarks, each in a process of its own, one after the other.
 *
 * npm run bench                          all of them
 * npm run bench -- drain --rounds 5      one, with its own flags
 * npm run bench -- --json FILE           all of them, their figures in one file by name
 * npm run bench -- --quick               all of them, small: whether they run, not how fast
 */
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"

/** The benchmarks, and what makes each small. */
const benchmarks: Readonly<Record<string, ReadonlyArray<string>>> = {
  drain: ["--rounds", "1", "--scale", "0.02"],
  decode: ["--rounds", "1", "--seconds", "0.1"],
  face: ["--rounds", "1", "--rows", "20000"],
  handlers: ["--rounds", "1", "--rows", "20000"],
  latency: ["--rounds", "1", "--seconds", "1"],
  memory: ["--scale", "0.02", "--seconds", "3"],
  scale: ["--rounds", "1", "--seconds", "0.05"],
  snapshot: ["--rounds", "1", "--rows", "100000"],
  sinks: ["--rounds", "1", "--rows", "10000"],
  operations: ["--rounds", "1", "--scale", "0.02"]
}

const runOne = (name: string, flags: ReadonlyArray<string>): number =>
  spawnSync(process.execPath, [new URL(`${name}.ts`, import.meta.url).pathname, ...flags], { stdio: "inherit" })
    .status ?? 1

const runAll = (file: string | undefined, isQuick: boolean): number => {
  const directory = mkdtempSync(join(tmpdir(), "replicant-bench-"))
  try {
    const figures: Record<string, unknown> = { node: process.version, date: new Date().toISOString() }
    for (const [name, small] of Object.entries(benchmarks)) {
      console.log(`\n== ${name}`)
      const json = join(directory, `${name}.json`)
      const status = runOne(name, [...(isQuick ? small : []), "--json", json])
      if (status !== 0) return status
      figures[name] = JSON.parse(readFileSync(json, "utf8"))
    }
    if (file !== undefined) writeFileSync(file, `${JSON.stringify(figures, null, 2)}\n`)
    return 0
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

const [name, ...rest] = process.argv.slice(2)
if (name !== undefined && !name.startsWith("-")) {
  if (!Object.hasOwn(benchmarks, name) && name !== "profile") {
    console.error(`no benchmark is called ${name}: ${Object.keys(benchmarks).join(", ")}, or profile`)
    process.exit(2)
  }
  process.exitCode = runOne(name, rest)
} else {
  const { values } = parseArgs({ options: { json: { type: "string" }, quick: { type: "boolean", default: false } } })
  process.exitCode = runAll(values.json, values.quick)
}
