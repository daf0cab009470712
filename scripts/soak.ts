/**
 * Runs streams under load and faults for as long as one likes, and compares what was committed with what was delivered:
 * `npm run soak -- --minutes 30`. Its server is its own, and gone at the end. Ends with code 0 where nothing was lost,
 * torn, reordered or leaked, and every consumer left in good order; duplicates are counted, and are no fault.
 *
 * `--minutes N` (10), `--postgres 14..18` (18), `--heap N` (none): megabytes of heap that a consumer may have, which
 * tells memory that is needed from memory that nobody has collected yet. What it needs is under test/support/soak.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { NodeRuntime } from "@effect/platform-node"
import { PgServer, type PgServerShape } from "@replicant/node/testing"
import { Effect, Fiber, Schedule, type Scope } from "effect"
import { eventually } from "../test/support/eventually.ts"
import * as PostgresVersion from "../test/support/PostgresVersion.ts"
import { finishLoad, runLoad, schema, type Written } from "../test/support/soak/Load.ts"
import { makeSoakConsumer, type SoakConsumer, type SoakPlace } from "../test/support/soak/SoakConsumer.ts"
import { pickFault } from "../test/support/soak/SoakFaults.ts"

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    postgres: { type: "string", default: "18" },
    heap: { type: "string" }
  }
})
const minutes = Number(values.minutes)

/** WAL bytes that the consumers may be behind before the load waits for them. */
const maxLag = 300_000_000

interface Soak {
  readonly server: PgServerShape
  readonly consumers: ReadonlyArray<SoakConsumer>
  readonly written: Written
  readonly faults: Map<string, number>
  readonly began: number
  readonly lag: { bytes: number }
  readonly peak: { bytes: number }
}

const megabytes = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`

const sum = (counts: Iterable<number>): number => [...counts].reduce((total, count) => total + count, 0)

/** Writes a line over the last one in a terminal, and below it elsewhere. */
const show = (line: string): Effect.Effect<void> =>
  Effect.sync(() => void process.stdout.write(process.stdout.isTTY ? `\r\u001b[K${line}` : `${line}\n`))

const liveLine = ({ began, consumers, faults, lag, peak, written }: Soak): string => {
  const seconds = Math.round((performance.now() - began) / 1000)
  const parts = consumers.map(
    ({ by, ledger, residentBytes }) =>
      `${by} ${ledger.delivered} (+${ledger.redelivered} again) ${megabytes(residentBytes())}`
  )
  const counts = `committed ${written.committed + written.prepared}, rolled back ${written.rolledBack}`
  return `${seconds} s: ${counts} | ${parts.join(" | ")} | lag ${megabytes(lag.bytes)} | faults ${sum(faults.values())} | most memory ${megabytes(peak.bytes)}`
}

/** Looks around once: what has arrived, how far behind it is, whether a consumer has given up. */
const look = Effect.fnUntraced(function* (soak: Soak) {
  for (const { by, gaveUp, ledger, residentBytes } of soak.consumers) {
    ledger.read()
    soak.peak.bytes = Math.max(soak.peak.bytes, residentBytes())
    const ending = gaveUp()
    if (ending !== undefined) return yield* Effect.die(new Error(`the consumer by ${by} gave up: ${ending}`))
  }
  const [row] = yield* soak.server
    .query(
      "SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn))::float8 AS lag FROM pg_replication_slots"
    )
    .pipe(Effect.orElseSucceed(() => []))
  if (row !== undefined) soak.lag.bytes = Number(row.lag)
})

const disturb = (soak: Soak) =>
  Effect.gen(function* () {
    const { name, provoke } = pickFault()
    const consumer = soak.consumers[Math.random() < 0.5 ? 0 : 1]!
    // A server that is just recovering refuses what a fault asks of it: then it is none, and not counted.
    const isProvoked = yield* Effect.match(provoke(soak.server, consumer), {
      onFailure: () => false,
      onSuccess: () => true
    })
    if (isProvoked) soak.faults.set(name, (soak.faults.get(name) ?? 0) + 1)
    yield* Effect.sleep(Math.random() * 1500)
  })

/** All goes well from here on: everything arrives, and the consumers leave. */
const calmDown = Effect.fnUntraced(function* (soak: Soak, place: SoakPlace) {
  for (const { proxy, signal } of soak.consumers) yield* Effect.andThen(proxy.pass, signal("SIGCONT"))
  yield* Effect.andThen(place.server.start, eventually(place.server.query("SELECT 1")))
  const committed = yield* Effect.retry(finishLoad(place.server, place.database), Schedule.recurs(3))
  yield* show(`waiting for ${committed.size} commits to arrive`)
  const arrived = Effect.as(
    look(soak),
    soak.consumers.every(({ ledger }) => ledger.has("0"))
  )
  yield* Effect.repeat(
    Effect.andThen(
      arrived,
      Effect.sync(() => soak.consumers.every(({ ledger }) => ledger.has("0")))
    ),
    { until: (isDone) => isDone, schedule: Schedule.spaced("200 millis") }
  ).pipe(Effect.timeoutOption("3 minutes"))
  const endings = yield* Effect.forEach(soak.consumers, (consumer) =>
    Effect.andThen(consumer.signal("SIGTERM"), consumer.ended)
  )
  const active = yield* place.server.query("SELECT slot_name FROM pg_replication_slots WHERE active")
  const senders = yield* place.server.query("SELECT pid FROM pg_stat_replication")
  return { committed, endings, left: active.length + senders.length }
})

const soakOn = Effect.fnUntraced(function* (directory: string): Effect.fn.Return<boolean, unknown, Scope.Scope> {
  const version = PostgresVersion.ofProject(`server-${values.postgres}`)
  const server = yield* PgServer.make({
    ...PostgresVersion.serverOptions(version),
    timeout: "3 minutes",
    settings: { max_prepared_transactions: 20, max_wal_size: "4GB", checkpoint_timeout: "2min" }
  })
  const place: SoakPlace = {
    server,
    database: "soak",
    publication: "soak",
    directory,
    heap: Number(values.heap) || undefined
  }
  yield* server.query("CREATE DATABASE soak")
  yield* server.query(`${schema}; CREATE PUBLICATION soak FOR ALL TABLES`, "soak")
  const consumers = yield* Effect.all([makeSoakConsumer(place, "transactions"), makeSoakConsumer(place, "changes")])
  const soak: Soak = {
    server,
    consumers,
    written: { committed: 0, rolledBack: 0, prepared: 0, lost: 0 },
    faults: new Map(),
    began: performance.now(),
    lag: { bytes: 0 },
    peak: { bytes: 0 }
  }
  const load = yield* Effect.forkScoped(
    runLoad(server, place.database, { written: soak.written, isHeld: () => soak.lag.bytes > maxLag })
  )
  const watching = Effect.forever(
    Effect.andThen(
      look(soak),
      Effect.suspend(() => show(liveLine(soak)))
    ).pipe(Effect.delay("1 second"))
  )
  yield* Effect.raceFirst(watching, Effect.forever(disturb(soak))).pipe(Effect.timeoutOption(minutes * 60_000))
  yield* Fiber.interrupt(load)
  const { committed, endings, left } = yield* calmDown(soak, place)
  yield* show(liveLine(soak))
  let isSound = left === 0 && endings.every((ending) => ending === 130)
  console.log(`\n\nPostgreSQL ${server.version}, ${minutes} minutes, ${committed.size} transactions committed`)
  console.log(
    `${sum(soak.faults.values())} faults: ${[...soak.faults].map(([name, count]) => `${name} ${count}`).join(", ")}`
  )
  for (const { by, ledger } of consumers) {
    const { delivered, duplicates, leaked, lost, reordered, torn } = ledger.verdict(committed)
    isSound = isSound && lost + reordered + leaked + torn === 0
    console.log(
      `by ${by}: delivered ${delivered}, lost ${lost}, torn ${torn}, reordered ${reordered}, leaked ${leaked}, duplicates ${duplicates}`
    )
  }
  console.log(
    `most memory of a consumer ${megabytes(soak.peak.bytes)}; ended with ${endings.join(" and ")}; left behind: ${left}`
  )
  console.log(isSound ? "nothing lost, nothing reordered, nothing leaked" : "FAILED")
  return isSound
})

const program = Effect.acquireUseRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "replicant-soak-"))),
  (directory) => Effect.scoped(soakOn(directory)),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
).pipe(
  Effect.tap((isSound) =>
    Effect.sync(() => {
      process.exitCode = isSound ? 0 : 1
    })
  )
)

NodeRuntime.runMain(program)
