/**
 * A walsender at work on what nobody wants, which answers nothing meanwhile: a large load of a table that is not published,
 * and REFRESH MATERIALIZED VIEW. It is waited for; one that only seems to be there is not.
 *
 * Both sides' limits are a fiftieth of their defaults, and loads are sized by how fast this machine decodes.
 */
import { assert, describe } from "@effect/vitest"
import { type LogicalStream, type Replication, WalSender } from "@replicant/core"
import { PgServer } from "@replicant/node/testing"
import { Clock, Effect, Layer, Redacted, Schedule } from "effect"
import { eventually } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { follow, insertedRows, walSender } from "../support/Follow.ts"
import * as PostgresVersion from "../support/PostgresVersion.ts"
import { once, type Server } from "../support/Servers.ts"
import { makeWorkspace, type Workspace, type WorkspaceServer } from "../support/Workspace.ts"

/** For 60 s and 30 s; milliseconds. */
const walSenderTimeout = 1200
const receiverTimeout = 600

/** So little that each transaction spills: fewer rows take as long, and each as long as the next. */
const workMem = "64kB"

const quickly = Schedule.spaced("20 millis")

/** A layer whose connections are counted: those of the stream, and those that ask what it is doing. */
const counted = (layer: ReturnType<typeof walSender>) => {
  const connections = { count: 0 }
  const count = Effect.sync(() => {
    connections.count++
  })
  const counting = Layer.effect(
    WalSender,
    Effect.map(WalSender, (real) => WalSender.of({ ...real, connect: Effect.andThen(count, real.connect) }))
  ).pipe(Layer.provide(layer))
  return { layer: counting, connections }
}

interface BusyOptions {
  readonly user?: string | undefined
  readonly options?: Partial<Replication.Options> | undefined
  readonly timing?: LogicalStream.Timing | undefined
}

/** A stream of the table `t`, beside which there is one that nobody streams. */
const streamBeside = Effect.fnUntraced(function* (
  server: WorkspaceServer,
  { options, timing, user }: BusyOptions = {}
) {
  const workspace = yield* makeWorkspace(server, {
    sql: "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int, v text)",
    publication: "FOR TABLE t"
  })
  const settings = { wal_sender_timeout: `${walSenderTimeout}ms`, logical_decoding_work_mem: workMem }
  const role = user === undefined ? {} : { user, password: Redacted.make("secret") }
  const { connections, layer } = counted(walSender(workspace, { settings, ...role }))
  const stream = yield* follow(workspace, {
    layer,
    options: { timing: { receiverTimeout, ...timing }, reconnect: quickly, ...options }
  })
  /** Milliseconds until a row arrives that is inserted now: until all before it is decoded. */
  const arrival = Effect.fnUntraced(function* (id: number) {
    yield* workspace.sql(`INSERT INTO t VALUES (${id})`)
    const before = yield* Clock.currentTimeMillis
    yield* eventually(
      Effect.sync(() => insertedRows(stream.changes).some((row) => row.id === id)),
      { what: `row ${id} arrives` }
    )
    return (yield* Clock.currentTimeMillis) - before
  })
  return { workspace, stream, states: stream.states, connections, arrival }
})

const load = (workspace: Workspace, rows: number) =>
  workspace.sql(`INSERT INTO other SELECT i, repeat('x', 20) FROM generate_series(1, ${rows}) i`)

const refresh = (workspace: Workspace, rows: number) =>
  workspace.sql(`CREATE MATERIALIZED VIEW IF NOT EXISTS mv${rows} AS
    SELECT i, repeat('x', 20) AS v FROM generate_series(1, ${rows}) i WITH NO DATA;
  REFRESH MATERIALIZED VIEW mv${rows}`)

const work = { "a load of a table that is not published": load, "REFRESH MATERIALIZED VIEW": refresh }

type Work = keyof typeof work

const reconnections = (states: ReadonlyArray<LogicalStream.StreamState>) =>
  states.flatMap((state) => (state._tag === "Reconnecting" ? [`${state.cause._tag}: ${state.cause.message}`] : []))

const sample = 100_000

/**
 * As many rows as take about so long to decode once they are read, which is when nothing is answered: half of the time that
 * a slot of its own takes for both.
 */
const rowsFor = Effect.fnUntraced(function* (workspace: Workspace, by: Work, millis: number) {
  const session = yield* workspace.session
  yield* session.query("SELECT pg_create_logical_replication_slot('sample_' || pg_backend_pid(), 'pgoutput', true)")
  yield* session.query(`SET logical_decoding_work_mem = '${workMem}'`)
  yield* work[by](workspace, sample)
  const before = yield* Clock.currentTimeMillis
  yield* session.query(`SELECT count(*) FROM pg_logical_slot_get_binary_changes('sample_' || pg_backend_pid(), NULL, NULL,
    'proto_version', '1', 'publication_names', '"${workspace.publication}"')`)
  const took = Math.max(50, (yield* Clock.currentTimeMillis) - before)
  return Math.ceil((sample * millis) / (took / 2))
}, Effect.scoped)

const decodesThrough = (by: Work, times: number) =>
  Effect.fnUntraced(function* (server: Server) {
    const { arrival, connections, states, stream, workspace } = yield* streamBeside(server)
    const rows = yield* rowsFor(workspace, by, times * walSenderTimeout)
    yield* arrival(1)
    yield* work[by](workspace, rows)
    const took = yield* arrival(2)
    yield* Effect.logInfo(`${rows} rows were decoded in ${took} ms; asked ${connections.count - 1} times`)
    assert.deepStrictEqual(reconnections(states), [])
    assert.deepStrictEqual(
      insertedRows(stream.changes).map((row) => row.id),
      [1, 2]
    )
    if (times > 2) assert.isAtLeast(connections.count, 2, "somebody asked what it was doing")
  })

describe("a walsender at work", () => {
  for (const by of Object.keys(work) as ReadonlyArray<Work>) {
    for (const times of [0.5, 2, 5]) {
      const isForAll = by === "REFRESH MATERIALIZED VIEW" && times === 2
      fault(
        "N13",
        `on ${by} for ${times} times the server's limit is waited for, on one connection`,
        decodesThrough(by, times),
        isForAll ? { timeout: 120_000 } : { ...once, timeout: 120_000 }
      )
    }
  }

  fault(
    "N13",
    "about which nobody can be asked is given more time at each attempt, until it is done; and that is told",
    (server) =>
      Effect.gen(function* () {
        const user = `lonely_${Date.now() % 1_000_000_000}`
        yield* Effect.acquireRelease(
          server.query(`CREATE ROLE ${user} LOGIN REPLICATION CONNECTION LIMIT 1 PASSWORD 'secret'`),
          () => Effect.ignore(server.query(`DROP ROLE ${user}`))
        )
        const { arrival, states, stream, workspace } = yield* streamBeside(server, { user })
        const by = "REFRESH MATERIALIZED VIEW"
        const rows = yield* rowsFor(workspace, by, 6 * receiverTimeout)
        yield* arrival(1)
        yield* work[by](workspace, rows)
        yield* arrival(2)
        const verdicts = states.filter(
          (state) => state._tag === "Reconnecting" && state.cause._tag === "WalReceiverTimeout"
        )
        assert.isAtMost(verdicts.length, 8)
        assert.include(
          insertedRows(stream.changes).map((row) => row.id),
          2
        )
        const attempts = states.flatMap((state) => (state._tag === "Reconnecting" ? [state.attempt] : []))
        const moves = attempts.filter((attempt) => attempt === 1).length
        assert.isAtMost(moves, 2, "counted on at one position")
        yield* stream.stop
      }),
    { ...once, timeout: 120_000 }
  )
})

describe("a walsender that only seems to be there", () => {
  fault(
    ["N3", "N13"],
    "as it is frozen is given up within the limit, and the stream goes on when it is gone",
    () =>
      Effect.gen(function* () {
        const server = yield* PgServer.make(PostgresVersion.serverOptions())
        const { arrival, states, workspace } = yield* streamBeside(server, {
          timing: { receiverTimeout: 1000 },
          options: { slotPolicy: { inUseTimeout: "1 minute" } }
        })
        yield* arrival(1)
        const pid = (yield* workspace.findSlot())?.active_pid
        assert(typeof pid === "number")
        yield* Effect.acquireRelease(
          Effect.sync(() => process.kill(pid, "SIGSTOP")),
          () => Effect.ignore(Effect.try(() => process.kill(pid, "SIGCONT")))
        )
        yield* eventually(
          Effect.sync(() => reconnections(states).length > 0),
          { what: "a verdict" }
        )
        assert.match(reconnections(states)[0]!, /WalReceiverTimeout: .* silent for 1000 ms .* it waits for us/)
        yield* Effect.sync(() => process.kill(pid, "SIGCONT"))
        yield* arrival(2)
      }),
    once
  )
})
