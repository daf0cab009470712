/**
 * A network that goes black at each question that is asked, one after the other: of a stream that waits for its slot, takes it
 * over or makes up for its loss, of a first copy and one that goes on, of a table read anew, of a copy's two sides, of single
 * looks. What waits then gives up within its limit, closes its sockets, and goes on when the network is back.
 *
 * The questions are counted as they pass, so one that is new is among them without being listed here. Those that are alike are
 * tried once; with `REPLICANT_FAULTS=full` each is, wherever it is asked.
 */
import { assert, describe } from "@effect/vitest"
import {
  CheckpointStore,
  LogicalStream,
  nextLsn,
  Pgoutput,
  ReplicationSlot,
  Tables,
  WalSender,
  withLogicalStream
} from "@replicant/core"
import { Copy, PgWalSender } from "@replicant/node"
import { FaultProxy } from "@replicant/node/testing"
import { Effect, Fiber, Redacted, References, Schedule, type Scope, Stream } from "effect"
import { copyOptions, markTable } from "../support/Copying.ts"
import { eventually, patience } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { follow } from "../support/Follow.ts"
import { makeQuestions, type Questions } from "../support/Questions.ts"
import { once, type Server } from "../support/Servers.ts"
import { makeSlot } from "../support/Slot.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"

/** The way that goes black: for the client it is the server. */
interface Way {
  readonly questions: Questions
  readonly options: { readonly host: string; readonly port: number }
  /** Whether the network has gone black. */
  readonly isBlack: () => boolean
}

/** Scaled: what is 10 s by default. */
const limits = {
  sslmode: "disable",
  answerTimeout: "500 millis",
  connectTimeout: "1 second",
  keepAlive: false
} as const

interface Scenario {
  /** What is there before the first question. */
  readonly prepare: (
    server: Server,
    way: Way
  ) => Effect.Effect<
    {
      /** Runs over the way, and ends or fails as it likes: whoever runs it begins it again, as a service would. */
      readonly run: Effect.Effect<unknown, unknown, Scope.Scope>
      /** Whether it has come to its end. */
      readonly isDone: Effect.Effect<boolean, unknown>
    },
    unknown,
    Scope.Scope
  >
}

const walSenderOf = (workspace: Workspace, way: Way) =>
  PgWalSender.layer({ url: Redacted.make(workspace.url()), ...limits, ...way.options })

const table =
  "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, repeat('x', 400) FROM generate_series(1, 500) i"

const optionsOf = (workspace: Workspace): LogicalStream.Options => ({
  slot: workspace.slot,
  plugin: Pgoutput.make({ publications: [workspace.publication] }),
  reconnect: Schedule.spaced("50 millis"),
  timing: { receiverTimeout: "2 seconds", acknowledgeDelay: "20 millis", closeTimeout: "200 millis" }
})

/** Follows, until what is inserted once it streams has come. */
const streams = Effect.fnUntraced(function* (
  workspace: Workspace,
  way: Way,
  options: Partial<LogicalStream.Options>,
  store?: CheckpointStore.CheckpointStore["Service"]
) {
  let isDone = false
  const stream = yield* LogicalStream.make({ ...optionsOf(workspace), ...options } as LogicalStream.Options & {
    readonly snapshot: "initial"
  })
  const run = stream
    .run((change) => {
      if (change._tag === "Insert" && Number(change.row.id) > 1000) isDone = true
      return Effect.succeed(nextLsn(change))
    })
    .pipe((running) =>
      store === undefined ? running : Effect.provideService(running, CheckpointStore.CheckpointStore, store)
    )
  let id = 1000
  return {
    stream,
    run: Effect.provide(run, walSenderOf(workspace, way)),
    isDone: Effect.gen(function* () {
      if (!isDone && (yield* workspace.isStreaming(workspace.slot)))
        yield* workspace.sql(`INSERT INTO t VALUES (${++id})`)
      return isDone
    })
  }
})

/** Somebody else streams from the slot until then. */
const held = Effect.fnUntraced(function* (workspace: Workspace, isOver: () => boolean) {
  const holder = yield* follow(workspace)
  yield* eventually(Effect.sync(isOver)).pipe(Effect.andThen(holder.stop), Effect.forkScoped)
})

const scenarios: { readonly [name: string]: Scenario } = {
  "a stream that checks what it needs, and waits for its slot": {
    prepare: Effect.fnUntraced(function* (server, way) {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* held(workspace, () => way.isBlack() || way.questions.asked.length >= 12)
      return yield* streams(workspace, way, {
        check: (connection) =>
          Tables.describe(connection, { selection: { _tag: "Schemas", schemas: ["public"] }, aspects: ["columns"] })
      })
    })
  },
  "a stream that makes its slot": {
    prepare: Effect.fnUntraced(function* (server, way) {
      const workspace = yield* makeWorkspace(server, { sql: table })
      return yield* streams(workspace, way, { createSlot: "permanent" })
    })
  },
  "a stream that takes its slot over": {
    prepare: Effect.fnUntraced(function* (server, way) {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* held(workspace, way.isBlack)
      return yield* streams(workspace, way, { slotPolicy: { inUse: "takeOver" } })
    })
  },
  "a stream whose slot is lost": {
    prepare: Effect.fnUntraced(function* (server, way) {
      const workspace = yield* makeWorkspace(server, { sql: table })
      return yield* streams(workspace, way, { slotPolicy: { missing: "recreate" } })
    })
  },
  "a first copy over two connections": {
    prepare: Effect.fnUntraced(function* (server, way) {
      const workspace = yield* makeWorkspace(server, { sql: `${table}; ${table.replaceAll(/\bt\b/g, "u")}` })
      return yield* streams(workspace, way, { snapshot: "initial", copy: { piecePages: 16, connections: 2 } })
    })
  },
  "a copy that goes on": {
    prepare: Effect.fnUntraced(function* (server, way) {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const store = yield* Effect.provide(CheckpointStore.CheckpointStore, CheckpointStore.memory)
      let rows = 0
      const options = {
        ...optionsOf(workspace),
        snapshot: "initial",
        copy: { piecePages: 4, connections: 1 },
        timing: { shutdownTimeout: "10 millis" }
      } as const
      // A first run stops in the middle.
      const first = yield* withLogicalStream(options, (change) =>
        change._tag === "SnapshotRow" && ++rows > 250 ? Effect.never : Effect.succeed(nextLsn(change))
      ).pipe(
        Effect.provideService(CheckpointStore.CheckpointStore, store),
        Effect.provide(PgWalSender.layer({ url: Redacted.make(workspace.url()) })),
        Effect.forkChild
      )
      yield* eventually(Effect.sync(() => rows > 250))
      yield* Fiber.interrupt(first)
      yield* workspace.sql("DELETE FROM t WHERE id % 7 = 0; UPDATE t SET id = -id WHERE id % 11 = 0")
      return yield* streams(workspace, way, { snapshot: "initial", copy: options.copy }, store)
    })
  },
  "a table that is read anew": {
    prepare: Effect.fnUntraced(function* (server, way) {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* makeSlot(workspace)
      const { run, stream } = yield* streams(workspace, way, { snapshot: "never" })
      let isDone = false
      const request = yield* stream.request({ table: "t" })
      yield* request.await.pipe(
        Effect.andThen(
          Effect.sync(() => {
            isDone = true
          })
        ),
        Effect.forkScoped
      )
      return { run, isDone: Effect.sync(() => isDone) }
    })
  },
  "a look at a slot, at all slots, and at tables": {
    prepare: Effect.fnUntraced(function* (server, way) {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* makeSlot(workspace)
      let isDone = false
      const run = Effect.gen(function* () {
        yield* Stream.runHead(ReplicationSlot.walStatusChanges(workspace.slot, { interval: "50 millis" }))
        const connection = yield* (yield* WalSender).connect
        yield* ReplicationSlot.listReplicationSlots(connection)
        yield* Tables.describe(connection, {
          selection: { _tag: "Schemas", schemas: ["public"] },
          aspects: ["columns"]
        })
        isDone = true
      }).pipe(Effect.provide(walSenderOf(workspace, way)))
      return { run, isDone: Effect.sync(() => isDone) }
    })
  },
  ...Object.fromEntries(
    (["from", "to"] as const).map((side) => [
      `a copy into another database, whose ${side === "from" ? "source" : "target"} is cut off`,
      {
        prepare: Effect.fnUntraced(function* (server: Server, way: Way) {
          const sql = `${table.split(";")[0]}; ${markTable}`
          const source = yield* makeWorkspace(server, { sql: `${table}; ${markTable}` })
          const target = yield* makeWorkspace(server, { sql })
          const options = copyOptions(source, target, { piecePages: 16 })
          const run = Copy.run({
            ...options,
            from: { ...options.from, ...limits, ...(side === "from" ? way.options : {}) },
            to: { ...options.to, ...limits, ...(side === "to" ? way.options : {}) }
          })
          let id = 0
          const isDone = Effect.gen(function* () {
            const [row] = yield* target.sql("SELECT count(*) AS n FROM end_mark")
            if (row?.n !== "0") return true
            if (yield* source.isStreaming(source.slot)) yield* source.sql("INSERT INTO end_mark DEFAULT VALUES")
            return id++ < 0
          })
          return { run, isDone }
        })
      } satisfies Scenario
    ])
  )
}

/** Goes black before the `nth` question, and gives all that were asked: fewer than that, where it came to its end before. */
const blackAt = (server: Server, { prepare }: Scenario, nth: number) =>
  Effect.scoped(
    Effect.gen(function* () {
      const proxy = yield* FaultProxy.make(server)
      let isBlack = false
      let isAsking = () => true
      const questions = yield* makeQuestions(proxy, (number, isOpen) => {
        if (number !== nth) return
        Effect.runSync(proxy.blackHole())
        isBlack = true
        isAsking = isOpen
      })
      const way: Way = { questions, options: { host: questions.host, port: questions.port }, isBlack: () => isBlack }
      const { isDone, run } = yield* prepare(server, way)
      // Begun again when it fails or ends, as a service would.
      const running = yield* Effect.scoped(run).pipe(
        Effect.ignore,
        Effect.andThen(Effect.sleep("50 millis")),
        Effect.forever,
        Effect.forkScoped
      )
      const what = () => `question ${nth}: ${questions.asked[nth - 1]?.slice(0, 100)}`
      yield* eventually(
        Effect.map(isDone, (done) => done || isBlack),
        { what: `the end, or ${what()}` }
      )
      if (isBlack) {
        yield* eventually(
          Effect.sync(() => !isAsking()),
          { what: `giving up ${what()}` }
        )
        // The network is back, and the server has noticed.
        yield* proxy.pass
        yield* proxy.cut("rst")
        yield* eventually(isDone, { what: `going on after ${what()}` })
      }
      yield* Fiber.interrupt(running)
      yield* eventually(
        Effect.sync(() => questions.open() === 0),
        { what: `no socket is left after ${what()}` }
      )
      return questions.asked
    })
  ).pipe(Effect.provideService(References.MinimumLogLevel, "Fatal"))

/** Questions alike, whatever they name. */
const kindOf = (question: string): string => question.replaceAll(/[a-z_]*[0-9][a-z0-9_/-]*/gi, "#")

const isFull = process.env.REPLICANT_FAULTS === "full"

/** Kinds that were tried already. */
const tried = new Set<string>()

/** Where to go black: at each question of a kind that was not tried, or at all. */
const places = (asked: ReadonlyArray<string>): ReadonlyArray<number> =>
  asked.flatMap((question, index) => {
    const kind = kindOf(question)
    if (!isFull && tried.has(kind)) return []
    tried.add(kind)
    return [index + 1]
  })

describe("a network that goes black at each question", () => {
  for (const [name, scenario] of Object.entries(scenarios)) {
    fault(
      "N14",
      name,
      (server) =>
        Effect.gen(function* () {
          const asked = yield* blackAt(server, scenario, Number.POSITIVE_INFINITY)
          assert.isAtLeast(asked.length, 3)
          yield* Effect.forEach(places(asked), (place) => blackAt(server, scenario, place), {
            concurrency: 8,
            discard: true
          })
        }),
      { ...once, timeout: isFull ? 600_000 : 120_000 }
    )
  }
})

describe("a server that takes long to answer", () => {
  fault(
    "N14",
    "is waited for while it is at work: on a query, and on a slot that waits for a transaction",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server)
        const proxy = yield* FaultProxy.make(server)
        const layer = PgWalSender.layer({
          url: Redacted.make(workspace.url()),
          ...limits,
          connectTimeout: "10 seconds",
          answerTimeout: "200 millis",
          host: proxy.host,
          port: proxy.port
        })
        const connection = yield* Effect.flatMap(WalSender, ({ connect }) => connect).pipe(Effect.provide(layer))
        const asked = Effect.map(proxy.accepted, (accepted) => accepted - 1)
        yield* connection.query("SELECT pg_sleep(3)")
        assert.isAtLeast(yield* asked, 1)
        const before = yield* asked
        const session = yield* workspace.session
        yield* session.query("BEGIN; SELECT pg_current_xact_id()")
        const making = yield* ReplicationSlot.createReplicationSlot(connection, {
          slot: workspace.slot,
          plugin: "pgoutput",
          snapshot: "nothing"
        }).pipe(Effect.forkChild)
        yield* eventually(
          Effect.map(asked, (count) => count >= before + 3),
          { what: "it was asked about three times" }
        )
        yield* session.query("COMMIT")
        assert.strictEqual((yield* Fiber.join(making)).name, workspace.slot)
      }),
    once
  )

  fault(
    "N14",
    "is told from one whose answer was lost: its connection is closed, and others go on",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server)
        const proxy = yield* FaultProxy.make(server)
        const layer = PgWalSender.layer({
          url: Redacted.make(workspace.url()),
          ...limits,
          connectTimeout: "10 seconds",
          host: proxy.host,
          port: proxy.port
        })
        const connection = yield* Effect.flatMap(WalSender, ({ connect }) => connect).pipe(Effect.provide(layer))
        yield* proxy.cutAfter(0, "silence", "toServer")
        const error = yield* Effect.flip(connection.query("SELECT 1")).pipe(Effect.timeout(patience))
        assert.deepInclude(error, { _tag: "ConnectionError", reason: "TimedOut", isRetryable: true })
        assert.include(error.message, "the server waits for us: the connection is broken")
        // Whoever asks on is told at once.
        assert.strictEqual((yield* Effect.flip(connection.query("SELECT 1")))._tag, "ConnectionError")
        yield* eventually(
          Effect.map(proxy.open, (open) => open === 0),
          { what: "its socket is closed" }
        )
      }),
    once
  )
})
