/**
 * Runs the benchmarks, each in a process of its own, one after the other.
 *
 * npm run bench                          all of them
 * npm run bench -- drain --rounds 5      one, with its own flags
 * npm run bench -- --json FILE           all of them, their figures in one file by name
 */
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"

const benchmarks = ["drain", "decode", "latency", "memory", "scale", "snapshot"]

const runOne = (name: string, flags: ReadonlyArray<string>): number =>
  spawnSync(process.execPath, [new URL(`${name}.ts`, import.meta.url).pathname, ...flags], { stdio: "inherit" })
    .status ?? 1

const runAll = (file: string | undefined): number => {
  const directory = mkdtempSync(join(tmpdir(), "replicant-bench-"))
  try {
    const figures: Record<string, unknown> = { node: process.version, date: new Date().toISOString() }
    for (const name of benchmarks) {
      console.log(`\n== ${name}`)
      const json = join(directory, `${name}.json`)
      const status = runOne(name, ["--json", json])
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
  if (![...benchmarks, "profile"].includes(name)) {
    console.error(`no benchmark is called ${name}: ${benchmarks.join(", ")}, or profile`)
    process.exit(2)
  }
  process.exitCode = runOne(name, rest)
} else {
  const { values } = parseArgs({ options: { json: { type: "string" } } })
  process.exitCode = runAll(values.json)
}
