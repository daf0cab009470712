/**
 * How fast a snapshot is: rows a second of copying a table of narrow rows with two connections when the handler only counts,
 * beside two `psql` that copy half of it each to nowhere. In turns within one run, so that what the machine is busy with
 * falls on both.
 *
 *     node bench/snapshot.ts [rows] [rounds]
 */
import { spawn } from "node:child_process"
import { runMain } from "@effect/platform-node/NodeRuntime"
import { Pgoutput, Snapshot } from "@replicant/core"
import { PgWalSender } from "@replicant/node"
import { PgServer } from "@replicant/node/testing"
import { Effect, Redacted } from "effect"

const rows = Number(process.argv[2] ?? 2_000_000)
const rounds = Number(process.argv[3] ?? 5)

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
    return Snapshot.withSnapshotStreamArray(
      { slot: "bench", plugin: Pgoutput.make({ publications: ["bench"] }), snapshot: "only" },
      (changes) =>
        Effect.sync(() => {
          count += changes.length
          return undefined
        })
    ).pipe(
      Effect.provide(PgWalSender.layer({ url: Redacted.make(url) })),
      Effect.flatMap((completed) =>
        completed.rows === rows && count === rows + 3 ? Effect.void : Effect.fail(new Error(`${count} of ${rows} rows`))
      )
    )
  })

const median = (values: ReadonlyArray<number>) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!

Effect.gen(function* () {
  const server = yield* PgServer.make({ settings: { shared_buffers: "512MB" } })
  yield* server.query(table)
  yield* server.query("VACUUM (FREEZE, ANALYZE) narrow")
  yield* server.query("CREATE PUBLICATION bench FOR TABLE narrow")
  const [size] = yield* server.query("SELECT relpages FROM pg_class WHERE relname = 'narrow'")
  const middle = Math.floor(Number(size?.relpages) / 2)
  const ours: Array<number> = []
  const theirs: Array<number> = []
  for (let round = 0; round <= rounds; round++) {
    const us = yield* seconds(snapshot(server.url()))
    const them = yield* seconds(twoPsql(server.url(), middle))
    // The first round warms up.
    if (round === 0) continue
    ours.push(us)
    theirs.push(them)
    process.stdout.write(
      `round ${round}: snapshot ${Math.round(rows / us / 1000)} k rows/s, psql ${Math.round(rows / them / 1000)} k rows/s, ${(them / us).toFixed(2)} x\n`
    )
  }
  const peak = Math.round(process.resourceUsage().maxRSS / 1024)
  process.stdout.write(
    `median: snapshot ${Math.round(rows / median(ours) / 1000)} k rows/s, psql ${Math.round(rows / median(theirs) / 1000)} k rows/s, ${(median(theirs) / median(ours)).toFixed(2)} x; peak RSS ${peak} MB\n`
  )
}).pipe(Effect.scoped, runMain)
