/**
 * Where Replicant's time goes while it drains: a table of functions by their own time, from V8's sampling profiler.
 *
 * node bench/profile.ts [--only narrow] [--scale 4] [--top 25] [--json FILE]
 */
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { line } from "./Clients.ts"

const { values: flags } = parseArgs({
  options: {
    only: { type: "string", default: "narrow" },
    scale: { type: "string", default: "4" },
    top: { type: "string", default: "25" },
    json: { type: "string" }
  }
})

interface Profile {
  readonly nodes: ReadonlyArray<{
    readonly id: number
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number }
  }>
  readonly samples: ReadonlyArray<number>
  readonly timeDeltas: ReadonlyArray<number>
}

interface Row {
  readonly function: string
  readonly milliseconds: number
}

/** Own time by function; what has no URL is V8's or Node's: `(idle)`, `(garbage collector)`, `utf8Slice`. */
const ownTimes = ({ nodes, samples, timeDeltas }: Profile): ReadonlyArray<Row> => {
  const names = new Map(
    nodes.map(({ callFrame: { functionName, lineNumber, url }, id }) => {
      const file = url.split("/").at(-1)
      const place = file === "" || file === undefined ? "" : `  ${file}:${lineNumber + 1}`
      // Code without a file and a name was made from strings.
      return [
        id,
        functionName === "" && place === "" ? "(compiled row readers)" : `${functionName || "(anonymous)"}${place}`
      ]
    })
  )
  const times = new Map<string, number>()
  for (const [index, id] of samples.entries()) {
    const name = names.get(id)!
    times.set(name, (times.get(name) ?? 0) + timeDeltas[index]! / 1000)
  }
  return [...times]
    .map(([name, milliseconds]) => ({ function: name, milliseconds }))
    .toSorted((a, b) => b.milliseconds - a.milliseconds)
}

const directory = mkdtempSync(join(tmpdir(), "replicant-profile-"))
const profile = join(directory, "client.cpuprofile")
try {
  const drain = new URL("drain.ts", import.meta.url).pathname
  const workload = ["--rounds", "1", "--clients", "replicant", "--only", flags.only, "--scale", flags.scale]
  const { status } = spawnSync(process.execPath, [drain, ...workload], {
    env: { ...process.env, BENCH_PROFILE: profile },
    stdio: "inherit"
  })
  if (status !== 0) process.exit(status)
  const rows = ownTimes(JSON.parse(readFileSync(profile, "utf8")))
  const busy = rows.filter((row) => row.function !== "(idle)" && !row.function.includes("inspector"))
  const total = busy.reduce((sum, { milliseconds }) => sum + milliseconds, 0)
  console.log(`\n${line("function".padEnd(50), "ms", "% of busy")}`)
  for (const { function: name, milliseconds } of busy.slice(0, Number(flags.top))) {
    console.log(line(name.slice(0, 49).padEnd(50), milliseconds.toFixed(0), ((100 * milliseconds) / total).toFixed(1)))
  }
  const idle = rows.find((row) => row.function === "(idle)")?.milliseconds ?? 0
  console.log(line("busy, of all".padEnd(50), total.toFixed(0), ((100 * total) / (total + idle)).toFixed(1)))
  if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(rows, null, 2)}\n`)
} finally {
  rmSync(directory, { recursive: true, force: true })
}
