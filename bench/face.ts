/**
 * What the ways to take changes cost: arrays, one change at a time through a declared table, whole transactions; over recorded
 * bytes, through `withLogicalStream`, without a socket. How to read the figures is in README.md.
 *
 * node bench/face.ts [--rounds 9] [--rows 200000] [--json FILE]
 * node bench/face.ts --before DIR [--check]
 *
 * With `--before`, another checkout takes turns with this one (a `git worktree` with its `node_modules`): each in a process of
 * its own, so that neither makes the other's code slower to run, and each round asks both, in changing order. It prints how
 * many times as fast this one is, by the medians of the rounds' ratios, and their spread. `--check` fails where the law of
 * decision 19 does not hold.
 */
import { type ChildProcess, fork } from "node:child_process"
import { writeFileSync } from "node:fs"
import { resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { line, median } from "./Clients.ts"
import { open, type Pass, type Way, ways } from "./faceTree.ts"

const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "9" },
    rows: { type: "string", default: "200000" },
    before: { type: "string" },
    check: { type: "boolean", default: false },
    json: { type: "string" },
    serve: { type: "string" }
  }
})

const rounds = Number(flags.rounds)
const rows = Number(flags.rows)
const here = fileURLToPath(new URL("..", import.meta.url))

/** At least so many times as fast as before; and at most so many times the processor time. */
const laws: Readonly<Record<Way, number>> = {
  arrays: 0.98,
  "one at a time, a declared table": 1.15,
  "whole transactions": 0.98
}
const mostCpu = 1.02

type Measure = (way: Way) => Promise<Pass>

/** The median of all, the least and the most. */
const spread = (values: ReadonlyArray<number>) => ({
  median: median(values),
  least: Math.min(...values),
  most: Math.max(...values)
})

/** Passes of each way by turns, after a round that warms up. */
const measureHere = async (): Promise<unknown> => {
  const measure = await open(here, rows)
  const passes = new Map<Way, Array<Pass>>(ways.map((way) => [way, []]))
  for (let round = 0; round <= rounds; round++) {
    for (const way of ways) {
      const pass = await measure(way)
      if (round > 0) passes.get(way)!.push(pass)
    }
  }
  console.log(line("", "k rows/s", "least", "most", "CPU s/M"))
  return ways.map((way) => {
    const rate = spread(passes.get(way)!.map(({ rowsPerSecond }) => rowsPerSecond))
    const cpu = spread(passes.get(way)!.map(({ secondsPerMillion }) => secondsPerMillion))
    const [middle, least, most] = [rate.median, rate.least, rate.most].map((value) => Math.round(value / 1000))
    console.log(line(way, middle!, least!, most!, cpu.median.toFixed(2)))
    return { way, rate, cpu }
  })
}

const childOf = (root: string): ChildProcess =>
  fork(fileURLToPath(import.meta.url), ["--serve", root, "--rows", String(rows)])

const measureIn = (child: ChildProcess): Measure => {
  const lost = new Promise<never>((_, reject) => {
    child.once("exit", () => reject(new Error("a checkout could not be measured")))
  })
  // Also where it ends while nobody waits for it: then it is told with the next question.
  lost.catch(() => undefined)
  return async (way) => {
    const answered = new Promise<Pass>((answer) => child.once("message", (pass) => answer(pass as Pass)))
    child.send(way)
    return await Promise.race([answered, lost])
  }
}

/** Both checkouts, in turns. */
const compare = async (directory: string): Promise<unknown> => {
  const children = [childOf(here), childOf(resolve(directory))] as const
  try {
    const [now, before] = [measureIn(children[0]), measureIn(children[1])]
    const ratios = new Map<Way, Array<{ readonly rate: number; readonly cpu: number }>>(ways.map((way) => [way, []]))
    for (let round = 0; round <= rounds; round++) {
      for (const way of ways) {
        const first = round % 2 === 0 ? await now(way) : await before(way)
        const second = round % 2 === 0 ? await before(way) : await now(way)
        const [self, that] = round % 2 === 0 ? [first, second] : [second, first]
        const rate = self.rowsPerSecond / that.rowsPerSecond
        if (round > 0) ratios.get(way)!.push({ rate, cpu: self.secondsPerMillion / that.secondsPerMillion })
      }
    }
    console.log(line("now : before", "rate", "least", "most", "CPU", "needed"))
    return ways.map((way) => {
      const rate = spread(ratios.get(way)!.map((ratio) => ratio.rate))
      const cpu = spread(ratios.get(way)!.map((ratio) => ratio.cpu))
      const holds = rate.median >= laws[way] && cpu.median <= mostCpu
      const cells = [rate.median, rate.least, rate.most, cpu.median].map((value) => value.toFixed(2))
      console.log(line(way, ...cells, `>= ${laws[way]}`), holds ? "" : "  does not hold")
      if (!holds && flags.check) process.exitCode = 1
      return { way, rate, cpu, holds }
    })
  } finally {
    for (const child of children) child.kill()
  }
}

if (flags.serve === undefined) {
  const figures = await (flags.before === undefined ? measureHere() : compare(flags.before))
  if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(figures, null, 2)}\n`)
} else {
  const measure = await open(flags.serve, rows)
  process.on("message", async (way: Way) => process.send!(await measure(way)))
  process.on("disconnect", () => process.exit(0))
}
