/**
 * Decoding alone, in process, on one core: bytes as a walsender sends them, to changes; then the Stream on top of it,
 * and a Schema on top of a row. How to read the figures is in README.md.
 *
 * node bench/decode.ts [--seconds 1] [--rounds 5] [--check] [--json FILE]
 *
 * Clients take turns; each figure is the median of its rounds. With `--check` it compares decoding with
 * pg-logical-replication's, in about 10 seconds, and fails when the ratio is under half of what we stand for.
 */
import { spawnSync } from "node:child_process"
import { writeFileSync } from "node:fs"
import { parseArgs } from "node:util"
import { type Change, Pgoutput, Replication } from "@replicant/core"
import { portableText } from "@replicant/core/driver"
import { Effect, Layer, Stream } from "effect"
import * as CannedWalSender from "./CannedWalSender.ts"
import { line, median } from "./Clients.ts"
import { pgLogicalReplication, replicant, secondsAPass } from "./DecodeLoop.ts"
import { readsOf, type Shape, shapes, type Workload, write } from "./pgoutputBytes.ts"

const { values: flags } = parseArgs({
  options: {
    seconds: { type: "string", default: "1" },
    rounds: { type: "string", default: "5" },
    check: { type: "boolean", default: false },
    json: { type: "string" }
  }
})

const rounds = Number(flags.rounds)
const seconds = Number(flags.seconds)

type Contender = readonly [name: string, pass: () => unknown]

/** Row changes a second of each, in turn, after a round that warms up. */
const race = (contenders: ReadonlyArray<Contender>, rows: number): ReadonlyArray<number> => {
  const figures = contenders.map((): Array<number> => [])
  for (let round = 0; round <= rounds; round++) {
    for (const [index, [, pass]] of contenders.entries()) {
      const rate = rows / secondsAPass(pass, seconds / rounds)
      if (round > 0) figures[index]!.push(rate)
    }
  }
  return figures.map(median)
}

interface Row {
  readonly workload: string
  readonly contender: string
  readonly changesPerSecond: number
  /** Against the last contender of a decode race, the first of a race of streams. */
  readonly ratio: number
}

const report = (
  workload: string,
  contenders: ReadonlyArray<Contender>,
  rates: ReadonlyArray<number>,
  yardstick: number
): ReadonlyArray<Row> =>
  contenders.map(([contender], index) => {
    const changesPerSecond = rates[index]!
    const row = { workload, contender, changesPerSecond, ratio: changesPerSecond / yardstick }
    console.log(line(`  ${contender}`, `${Math.round(changesPerSecond / 1000)} k/s`, `x ${row.ratio.toFixed(2)}`))
    return row
  })

const decoders = (workload: Workload): ReadonlyArray<Contender> => {
  const reads = readsOf(workload.bytes)
  const ours = replicant(workload)
  const portable = replicant(workload, portableText)
  const theirs = pgLogicalReplication(workload)
  return [
    ["replicant", () => ours(reads)],
    ["replicant, portable text", () => portable(reads)],
    ["pg-logical-replication", () => theirs(reads)]
  ]
}

const decode = (shape: Shape): ReadonlyArray<Row> => {
  const workload = write(shape)
  console.log(`\n${shape.name} (${Math.round(workload.bytes.length / workload.rows)} bytes a row)`)
  const contenders = decoders(workload)
  const rates = race(contenders, workload.rows)
  return report(shape.name, contenders, rates, rates.at(-1)!)
}

/** One connection from start to hang-up, consumed by `consume`. */
const streamed =
  (workload: Workload, consume: (replication: Replication.Replication["Service"]) => Effect.Effect<unknown, unknown>) =>
  (): Promise<unknown> => {
    const reads = [workload.relations, ...readsOf(workload.bytes)]
    const options = { slot: "bench", plugin: Pgoutput.make({ publications: ["bench"] }) }
    const service = Replication.layer(options).pipe(Layer.provide(CannedWalSender.layer(reads)))
    return Effect.flatMap(Replication.Replication, consume).pipe(
      Effect.provide(service),
      Effect.ignore,
      Effect.runPromise
    )
  }

/** The whole service over canned reads, by how it is consumed. Every row is counted, every transaction acknowledged. */
const streams = async (): Promise<ReadonlyArray<Row>> => {
  const workload = write({ ...shapes[0]!, rows: 500_000 })
  const reads = readsOf(workload.bytes)
  let seen = 0
  const see = (change: Change): void => {
    if (change._tag === "Insert") seen++
  }
  const loop = replicant(workload, undefined, (changes) => changes.forEach(see))
  const consumers: ReadonlyArray<readonly [name: string, run: () => unknown]> = [
    ["the bare decode loop", () => loop(reads)],
    [
      "runForEachArray",
      streamed(workload, ({ acknowledgeThrough, changes }) =>
        Stream.runForEachArray(changes, (array) => {
          array.forEach(see)
          const commit = array.findLast((change) => change._tag === "Commit")
          return commit === undefined ? Effect.void : acknowledgeThrough(commit.nextLsn)
        })
      )
    ],
    [
      "transactions, runForEachArray",
      streamed(workload, ({ acknowledgeThrough, transactions }) =>
        Stream.runForEachArray(transactions, (array) => {
          for (const transaction of array) transaction.changes.forEach(see)
          return acknowledgeThrough(array.at(-1)!.nextLsn)
        })
      )
    ],
    [
      "runForEach, a constant Effect",
      streamed(workload, ({ acknowledge, changes }) =>
        Stream.runForEach(changes, (change) => {
          see(change)
          return change._tag === "Commit" ? acknowledge(change.nextLsn) : Effect.void
        })
      )
    ],
    [
      "runForEach, Effect.sync",
      streamed(workload, ({ acknowledge, changes }) =>
        Stream.runForEach(changes, (change) =>
          change._tag === "Commit" ? acknowledge(change.nextLsn) : Effect.sync(() => see(change))
        )
      )
    ],
    [
      "runForEach, Effect.fnUntraced",
      streamed(workload, ({ acknowledge, changes }) =>
        Stream.runForEach(
          changes,
          Effect.fnUntraced(function* (change) {
            see(change)
            if (change._tag === "Commit") yield* acknowledge(change.nextLsn)
          })
        )
      )
    ]
  ]
  console.log(`\nthe Stream on top: ${shapes[0]!.name}`)
  const figures = consumers.map((): Array<number> => [])
  for (let round = 0; round <= rounds; round++) {
    for (const [index, [name, run]] of consumers.entries()) {
      seen = 0
      const begun = performance.now()
      await run()
      const elapsed = (performance.now() - begun) / 1000
      if (seen !== workload.rows) throw new Error(`${name} saw ${seen} of ${workload.rows} rows`)
      if (round > 0) figures[index]!.push(seen / elapsed)
    }
  }
  const rates = figures.map(median)
  return report("streams", consumers, rates, rates[0]!)
}

/** Nanoseconds a row, each figure from a process of its own. */
const schemas = (): ReadonlyArray<Row> => {
  console.log("\na Schema of six columns on top of a narrow row")
  const run = (...flags: ReadonlyArray<string>): readonly [bare: number, withSchema: number] => {
    const script = new URL("rowSchema.ts", import.meta.url).pathname
    const { status, stderr, stdout } = spawnSync(process.execPath, [...flags, script], { encoding: "utf8" })
    if (status !== 0) throw new Error(stderr)
    return JSON.parse(stdout)
  }
  return [
    ["Schema", run()] as const,
    ["Schema, with the Schema JIT", run("--import", "effect/schema/SchemaJITCompiler/enable")] as const
  ].map(([contender, [bare, withSchema]]) => {
    console.log(line(`  ${contender}`, `${Math.round(withSchema - bare)} ns`, `x ${(bare / withSchema).toFixed(2)}`))
    return { workload: "schema", contender, changesPerSecond: 1e9 / withSchema, ratio: bare / withSchema }
  })
}

/** The least ratio to pg-logical-replication: half of what we stand for, as a machine under load allows. */
const bars: ReadonlyArray<readonly [shape: Shape, least: number]> = [
  [shapes[0]!, 7 / 2],
  [shapes[2]!, 4.5 / 2]
]

const check = (): void => {
  for (const [shape, least] of bars) {
    const workload = write(shape)
    const [ours, , theirs] = decoders(workload)
    const rates = race([ours!, theirs!], workload.rows)
    const ratio = rates[0]! / rates[1]!
    const verdict = ratio < least ? `TOO SLOW, at least ${least}` : `at least ${least}`
    console.log(`${line(shape.name, `x ${ratio.toFixed(2)}`)}  ${verdict}`)
    if (ratio < least) process.exitCode = 1
  }
}

if (flags.check) check()
else {
  // Streams first: in a process that has decoded nothing else, the bare loop is a strict yardstick.
  const rows = [...(await streams()), ...shapes.flatMap(decode), ...schemas()]
  if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(rows, null, 2)}\n`)
}
