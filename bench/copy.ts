/**
 * How fast `Copy.run` is, from one database to another of one server: rows a second of the first copy, of one large
 * transaction, and of many small ones that wait in the slot.
 *
 *     node bench/copy.ts [rows of the first copy] [rows of the transaction] [small transactions]
 */
import { runMain } from "@effect/platform-node/NodeRuntime"
import { Copy } from "@replicant/node"
import { PgServer, PgSession } from "@replicant/node/testing"
import { Effect, Fiber, Redacted, References } from "effect"

const [first = 1_000_000, large = 100_000, small = 5_000] = process.argv.slice(2).map(Number)

const table = `CREATE TABLE narrow (id int8 PRIMARY KEY, customer int4, placed timestamptz, state text, total numeric(12, 2), open bool)`
const fill = (from: number, rows: number) =>
  `INSERT INTO narrow SELECT i, i % 1000, '2026-01-01'::timestamptz + i * interval '1 second', 'state ' || i % 7, i * 1.25, i % 3 = 0
    FROM generate_series(${from + 1}, ${from + rows}) i`

const program = Effect.gen(function* () {
  const server = yield* PgServer.make({ settings: { max_wal_size: "4GB" } })
  yield* server.query("CREATE DATABASE source")
  yield* server.query("CREATE DATABASE target")
  yield* server.query(table, "target")
  yield* server.query(table, "source")
  yield* server.query(fill(0, first), "source")
  yield* server.query("CREATE PUBLICATION bench FOR ALL TABLES", "source")
  yield* server.query("ANALYZE", "source")
  const target = yield* PgSession.connect(server.url("target"))
  const until = (condition: string) =>
    Effect.gen(function* () {
      while ((yield* target.query(`SELECT WHERE ${condition}`)).length === 0) yield* Effect.sleep("5 millis")
    }).pipe(Effect.catch(() => Effect.die("the target cannot be asked")))

  /** Runs the copy until the target has what is asked for, and tells how long that took from `since` on. */
  const measure = Effect.fnUntraced(function* (what: string, count: number, condition: string) {
    const since = performance.now()
    const copying = yield* Copy.run({
      from: { url: Redacted.make(server.url("source")) },
      to: { url: Redacted.make(server.url("target")) },
      publications: ["bench"],
      slot: "bench",
      whenMissing: "create"
    }).pipe(Effect.provideService(References.MinimumLogLevel, "Warn"), Effect.forkScoped)
    yield* Effect.raceFirst(until(condition), Fiber.join(copying))
    const seconds = (performance.now() - since) / 1000
    yield* Fiber.interrupt(copying)
    console.log(`${what}: ${seconds.toFixed(2)} s, ${Math.round(count / seconds).toLocaleString("en-US")}/s`)
  })

  yield* target.query(
    "CREATE SCHEMA replicant; CREATE TABLE replicant.copy_position (slot text PRIMARY KEY, system_id text NOT NULL, timeline int NOT NULL, state text NOT NULL, end_lsn pg_lsn NOT NULL, idle_flush pg_lsn, snapshot text)"
  )
  yield* measure(
    `first copy of ${first} rows`,
    first,
    "(SELECT state FROM replicant.copy_position) <> 'copying' AND EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = 'bench' AND NOT temporary)"
  )
  yield* server.query(fill(first, large), "source")
  yield* measure(
    `one transaction of ${large} inserts`,
    large,
    `EXISTS (SELECT FROM narrow WHERE id = ${first + large})`
  )
  yield* server.query(`UPDATE narrow SET customer = -1 WHERE id <= ${large}`, "source")
  yield* measure(`one transaction of ${large} updates`, large, "(SELECT customer FROM narrow WHERE id = 1) = -1")
  const session = yield* PgSession.connect(server.url("source"))
  yield* session.query("SET synchronous_commit = off")
  for (let n = 1; n <= small; n++) yield* session.query(fill(first + large + n, 1))
  const last = first + large + small + 1
  yield* measure(`${small} transactions of one insert`, small, `EXISTS (SELECT FROM narrow WHERE id = ${last})`)
})

runMain(Effect.scoped(program))
