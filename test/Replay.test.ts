/**
 * The whole of it, proved by its result: a second database that is fed from the stream alone equals the first, table by
 * table, after a workload of its seed's own making. What a stream leaves out, doubles, misplaces or bends shows here.
 *
 * A failure names its seed; `REPLAY_SEED=…` runs it again. The statements are then the same, how they interleave is
 * not.
 */
import { randomInt } from "node:crypto"
import { NodeFileSystem } from "@effect/platform-node"
import { assert, describe } from "@effect/vitest"
import {
  type Change,
  type Handler,
  type LogicalStream,
  Lsn,
  Pgoutput,
  TransactionSpill,
  withLogicalStream
} from "@replicant/core"
import { FaultProxy, type FaultProxyShape, PgServer } from "@replicant/node/testing"
import { Effect, Fiber, Layer, Schedule } from "effect"
import { eventually } from "./support/eventually.ts"
import { logicalOptions, walSender } from "./support/Follow.ts"
import * as PostgresVersion from "./support/PostgresVersion.ts"
import { runWorkload, type WorkloadOptions, workloadTables } from "./support/RandomWorkload.ts"
import { encodeDecoded, encodeVerbatim, makeReplayer, type Replayer } from "./support/Replayer.ts"
import { onServer } from "./support/Servers.ts"
import { pinned, rowsInOrder, tableChecksum, tableNames } from "./support/TableChecksum.ts"
import { makeWorkspace, type Workspace, type WorkspaceServer } from "./support/Workspace.ts"

interface Mode {
  readonly title: string
  /** Options of the plugin, beside its publication. */
  readonly pgoutput?: Partial<Pgoutput.Options> | undefined
  readonly workload?: Omit<WorkloadOptions, "seed"> | undefined
  /** What CREATE PUBLICATION says after the name. */
  readonly publication?: string | undefined
  /** Settings of the source's database: `{ logical_decoding_work_mem: "64kB" }`. */
  readonly database?: Readonly<Record<string, string>> | undefined
  /** Settings that take a server of its own: `{ max_prepared_transactions: 20 }`. */
  readonly server?: Readonly<Record<string, string | number>> | undefined
  /** How often the connection is cut under way; what was not acknowledged then comes again. */
  readonly cuts?: number | undefined
  readonly since?: number | undefined
}

const binary = { format: "binary", enums: ["mood"], types: "text" } as const
/** Transactions of more than this leave the server's memory, and are sent while they run where that is asked for. */
const small = { logical_decoding_work_mem: "64kB" } as const
const prepares = { max_prepared_transactions: 20 } as const

const modes: ReadonlyArray<Mode> = [
  { title: "in text" },
  { title: "in binary", pgoutput: binary, workload: { types: "binary" } },
  { title: "by the values of the built-in decoders", pgoutput: { types: {} }, workload: { values: "kept" } },
  {
    title: "by the values of the built-in decoders, in binary",
    pgoutput: { ...binary, types: {} },
    workload: { types: "binary", values: "kept" }
  },
  {
    title: "by way of the partitioned table's root",
    publication: "FOR ALL TABLES WITH (publish_via_partition_root = true)",
    workload: { partitions: "root" }
  },
  { title: "over a connection that is cut again and again", cuts: 6, workload: { statements: 2000 } },
  {
    title: "with transactions that are prepared, told when they commit",
    server: prepares,
    workload: { end: "prepare" }
  },
  { title: "in progress, by protocol 2", pgoutput: { streaming: "on" }, database: small },
  {
    title: "in progress, in binary",
    pgoutput: { ...binary, streaming: "on" },
    database: small,
    workload: { types: "binary" }
  },
  {
    title: "in progress and cut again and again",
    pgoutput: { streaming: "on" },
    database: small,
    cuts: 6,
    workload: { statements: 2000 }
  },
  { title: "in progress, in parallel, by protocol 4", pgoutput: { streaming: "parallel" }, database: small, since: 16 },
  {
    title: "with transactions that are prepared, told as they are, by protocol 3",
    pgoutput: { twoPhase: true },
    server: prepares,
    workload: { end: "prepare" },
    since: 15
  },
  {
    title: "with transactions that are prepared while they are in progress",
    pgoutput: { twoPhase: true, streaming: "on" },
    server: prepares,
    database: small,
    workload: { end: "prepare" },
    since: 15
  }
]

/** So little that some transactions in progress are gathered in files, others in memory. */
const spill = TransactionSpill.layer({ maxBytesInMemory: 600_000 }).pipe(Layer.provide(NodeFileSystem.layer))

/** How many a workload makes; cuts need more to fall into. */
const statements = Number(process.env.REPLAY_STATEMENTS ?? 1000)

const seed = process.env.REPLAY_SEED === undefined ? randomInt(2 ** 31) : Number(process.env.REPLAY_SEED)

const linesOf = (workspace: Workspace, table: string) =>
  Effect.map(workspace.sql(`${pinned}; SELECT line FROM ${rowsInOrder(table)} ORDER BY line`), (rows) =>
    rows.map((row) => String(row.line))
  )

/** Around the first character in which two rows differ. */
const excerpt = (row: string | undefined, other: string | undefined): string => {
  if (row === undefined) return "no row"
  const same = [...row].findIndex((character, index) => character !== other?.[index])
  const from = Math.max(0, (same < 0 ? row.length : same) - 60)
  return `${from > 0 ? `… at ${from}: ` : ""}${row.slice(from, from + 160)}`
}

const assertEqual = Effect.fnUntraced(function* (source: Workspace, target: Workspace, label: string) {
  let rows = 0
  for (const table of yield* tableNames(source)) {
    const expected = yield* tableChecksum(source, table)
    const actual = yield* tableChecksum(target, table)
    rows += expected.rows
    if (expected.rows === actual.rows && expected.sum === actual.sum) continue
    const [there, here] = yield* Effect.all([linesOf(source, table), linesOf(target, table)])
    const index = there.findIndex((line, at) => line !== here[at])
    const at = index < 0 ? there.length : index
    assert.fail(
      `table ${table}: ${expected.rows} rows at the source, ${actual.rows} at the replica, ${label}; row ${at + 1} is\n` +
        `  source:  ${excerpt(there[at], here[at])}\n  replica: ${excerpt(here[at], there[at])}`
    )
  }
  return rows
})

/** Cuts a connection, waits for the next, and so on; each after some more bytes. */
const cutAgainAndAgain = Effect.fnUntraced(function* (proxy: FaultProxyShape, cuts: number) {
  for (let cut = 1; cut <= cuts; cut++) {
    const accepted = yield* proxy.accepted
    yield* proxy.cutAfter(50_000 + cut * 33_333, cut % 2 === 0 ? "rst" : "fin")
    yield* eventually(
      Effect.map(proxy.accepted, (now) => now > accepted),
      { what: `a new connection after cut ${cut}` }
    )
  }
})

/** Acknowledges one transaction of a hundred, so that a new connection brings again what is applied already. */
const seldom = (replayer: Replayer) => {
  let count = 0
  return (change: Change): Effect.Effect<Handler.Handled, Effect.Error<ReturnType<Replayer["handle"]>>> =>
    Effect.map(replayer.handle(change), (done) => (done !== undefined && ++count % 100 === 0 ? done : undefined))
}

const replay = Effect.fnUntraced(function* (server: WorkspaceServer, mode: Mode) {
  const options: WorkloadOptions = { statements, ...mode.workload, seed }
  const tables = workloadTables(options)
  const source = yield* makeWorkspace(server, { sql: tables, publication: mode.publication })
  const target = yield* makeWorkspace(server, { sql: tables })
  for (const [name, value] of Object.entries(mode.database ?? {})) {
    yield* source.sql(`ALTER DATABASE ${source.database} SET ${name} = '${value}'`)
  }
  const types = mode.pgoutput?.types ?? "text"
  const replayer = yield* makeReplayer(target.url(), types === "text" ? encodeVerbatim : encodeDecoded)
  const proxy = yield* FaultProxy.make(server)
  const stream: LogicalStream.Options = {
    ...logicalOptions(source),
    plugin: Pgoutput.make({ types, ...mode.pgoutput, publications: [source.publication] }),
    reconnect: Schedule.spaced("20 millis")
  }
  const handler = mode.cuts === undefined ? replayer.handle : seldom(replayer)
  const following = yield* withLogicalStream(stream, handler).pipe(
    Effect.provide([walSender(source, { host: proxy.host, port: proxy.port }), spill]),
    Effect.forkScoped
  )
  const whileFollowing = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.raceFirst(effect, Fiber.join(following))
  yield* whileFollowing(eventually(source.isStreaming(), { what: "the stream began" }))

  const cutting = yield* Effect.forkScoped(cutAgainAndAgain(proxy, mode.cuts ?? 0))
  const report = yield* whileFollowing(runWorkload(source.session, options))
  yield* whileFollowing(Fiber.join(cutting))
  const [end] = yield* source.sql("SELECT pg_logical_emit_message(true, 'end', '') AS lsn")
  const last = Lsn.fromString(String(end?.lsn))!
  yield* whileFollowing(
    eventually(
      Effect.map(replayer.position, (position) => position >= last),
      {
        what: `all up to ${Lsn.format(last)} was applied, ${replayer.applied()} transactions so far`
      }
    )
  )
  if (mode.pgoutput?.streaming !== undefined) {
    const sql = `SELECT stream_txns > 0 AS streamed FROM pg_stat_replication_slots WHERE slot_name = '${source.slot}'`
    yield* whileFollowing(
      eventually(
        Effect.map(source.sql(sql), ([row]) => row?.streamed === true),
        { what: "the server sent transactions in progress" }
      )
    )
  }
  const label = `seed ${seed}, ${JSON.stringify(report)}, ${replayer.applied()} applied and ${replayer.skipped()} passed over`
  const rows = yield* assertEqual(source, target, label)
  return { report, rows, replayer, accepted: yield* proxy.accepted, label }
})

describe(`a second database that is fed from the stream alone, by seed ${seed}`, () => {
  for (const mode of modes) {
    onServer(
      "postgres",
      `equals the first after a random workload: ${mode.title}`,
      (shared) =>
        Effect.gen(function* () {
          const server =
            mode.server === undefined
              ? shared
              : yield* PgServer.make({ ...PostgresVersion.serverOptions(), settings: mode.server })
          const { accepted, label, replayer, report, rows } = yield* replay(server, mode)
          // A workload that came to nothing would prove nothing.
          assert.isAbove(rows, 50, label)
          assert.isAbove(report.committed, report.statements / 20, label)
          assert.isAtLeast(replayer.applied(), report.committed / 2, label)
          if (mode.workload?.end === "prepare") assert.isAbove(report.prepared, 20, label)
          // Whether one came again that was applied is a matter of when it was cut: the label says how many.
          if (mode.cuts !== undefined) assert.isAbove(accepted, mode.cuts, label)
        }).pipe(Effect.tapError((error) => Effect.logError(`seed ${seed}: ${String(error)}`))),
      { since: mode.since, timeout: 90_000 }
    )
  }
})
