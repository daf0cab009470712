/**
 * How fast a snapshot is: rows a second of copying a table of narrow rows with two connections when the handler only counts,
 * beside two `psql` that copy half of it each to nowhere. In turns within one run, so that what the machine is busy with
 * falls on both.
 *
 * node bench/snapshot.ts [--rows 10000000] [--rounds 5] [--json FILE]
 */
import { spawn } from "node:child_process"
import { writeFileSync } from "node:fs"
import { parseArgs } from "node:util"
import { runMain } from "@effect/platform-node/NodeRuntime"
import { Handler, Pgoutput, withLogicalStream } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { PgServer } from "@replicant/node/testing"
import { Effect, Redacted } from "effect"
import { line, median } from "./Clients.ts"

const { values: flags } = parseArgs({
  options: {
    rows: { type: "string", default: "10000000" },
    rounds: { type: "string", default: "5" },
    json: { type: "string" }
  }
})
const rows = Number(flags.rows)
const rounds = Number(flags.rounds)

const table = `CREATE TABLE narrow (id int8 PRIMARY KEY, customer int4, placed timestamptz, state text, total numeric(12, 2), open bool);
  INSERT INTO narrow SELECT i, i % 1000, '2026-01-01'::timestamptz + i * interval '1 second', 'state ' || i % 7, i * 1.25, i % 3 = 0
    FROM generate_series(1, ${rows}) i`

const seconds = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const start = performance.now()
    yield* effect
    return (performance.now() - start) / 1000
  })

const psql = (url: string, copy: string) =>
  Effect.callback<void, Error>((resume) => {
    spawn("psql", [url, "-qc", copy], { stdio: ["ignore", "ignore", "inherit"] }).once("close", (code) =>
      resume(code === 0 ? Effect.void : Effect.fail(new Error(`psql ended with ${code}`)))
    )
  })

const twoPsql = (url: string, middle: number) =>
  Effect.all(
    [`ctid < '(${middle},0)'`, `ctid >= '(${middle},0)'`].map((half) =>
      psql(url, `\\copy (SELECT * FROM narrow WHERE ${half}) TO /dev/null`)
    ),
    { concurrency: "unbounded" }
  )

const snapshot = (url: string) =>
  Effect.suspend(() => {
    let count = 0
    return withLogicalStream(
      { slot: "bench", plugin: Pgoutput.make({ publications: ["bench"] }), snapshot: "only" },
      Handler.arrays((changes) =>
        Effect.sync(() => {
          count += changes.length
          return undefined
        })
      )
    ).pipe(
      Effect.provide(PgWalSender.layer({ url: Redacted.make(url) })),
      Effect.flatMap((completed) =>
        completed.rows === rows && count === rows + 3 ? Effect.void : Effect.fail(new Error(`${count} of ${rows} rows`))
      )
    )
  })

interface Round {
  readonly snapshotSeconds: number
  readonly psqlSeconds: number
  /** How many times as fast as the two psql. */
  readonly ratio: number
  /** User and system time of this process. */
  readonly cpuSecondsPerMillion: number
}

const round = (url: string, middle: number) =>
  Effect.gen(function* () {
    const before = process.cpuUsage()
    const snapshotSeconds = yield* seconds(snapshot(url))
    const { system, user } = process.cpuUsage(before)
    const psqlSeconds = yield* seconds(twoPsql(url, middle))
    return {
      snapshotSeconds,
      psqlSeconds,
      ratio: psqlSeconds / snapshotSeconds,
      cpuSecondsPerMillion: (user + system) / rows
    }
  })

const thousands = (duration: number) => Math.round(rows / duration / 1000).toLocaleString("en")

const print = (title: string, { cpuSecondsPerMillion, psqlSeconds, ratio, snapshotSeconds }: Round) =>
  console.log(
    line(
      title,
      thousands(snapshotSeconds),
      thousands(psqlSeconds),
      `${ratio.toFixed(2)} x`,
      cpuSecondsPerMillion.toFixed(2)
    )
  )

const medians = (measured: ReadonlyArray<Round>): Round => {
  const of = (key: keyof Round) => median(measured.map((one) => one[key]))
  return {
    snapshotSeconds: of("snapshotSeconds"),
    psqlSeconds: of("psqlSeconds"),
    ratio: of("ratio"),
    cpuSecondsPerMillion: of("cpuSecondsPerMillion")
  }
}

Effect.gen(function* () {
  const server = yield* PgServer.make({ settings: { shared_buffers: "1GB" } })
  yield* server.query(table)
  yield* server.query("VACUUM (FREEZE, ANALYZE) narrow")
  yield* server.query("CREATE PUBLICATION bench FOR TABLE narrow")
  const [size] = yield* server.query("SELECT relpages FROM pg_class WHERE relname = 'narrow'")
  const middle = Math.floor(Number(size?.relpages) / 2)
  console.log(`${rows.toLocaleString("en")} rows, ${rounds} rounds`)
  console.log(line("thousand rows/s", "snapshot", "two psql", "ratio", "CPU s/M"))
  // The first one warms up.
  yield* round(server.url(), middle)
  const measured: Array<Round> = []
  for (let index = 1; index <= rounds; index++) {
    const one = yield* round(server.url(), middle)
    measured.push(one)
    print(`  round ${index}`, one)
  }
  const middling = medians(measured)
  print("  median", middling)
  const maxRssBytes = process.resourceUsage().maxRSS * 1024
  console.log(`peak RSS ${Math.round(maxRssBytes / 1024 / 1024)} MB`)
  if (flags.json !== undefined) {
    writeFileSync(
      flags.json,
      `${JSON.stringify({ rows, medians: middling, rounds: measured, maxRssBytes }, null, 2)}\n`
    )
  }
}).pipe(Effect.scoped, runMain)
