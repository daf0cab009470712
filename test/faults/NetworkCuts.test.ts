/**
 * A connection cut at every byte of its handshake and of its stream, in both of TCP's ways. Nothing is ever confirmed
 * here, so each connection begins with the first transaction, and what it brought until it was cut is held against what
 * was committed.
 *
 * Every byte takes minutes: `REPLICANT_FAULTS=full` asks for it. Otherwise some of them do, other ones on each version.
 */
import { assert, describe } from "@effect/vitest"
import { type Change, Replication, type Transaction, withLogicalStream } from "@replicant/core"
import { type CutPlan, FaultProxy } from "@replicant/node/testing"
import { Array, Effect, References, Schedule, type Scope, Stream } from "effect"
import { deliveryOf, insertedIds } from "../support/Delivery.ts"
import { eventually } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { insertedRows, logicalOptions, walSender } from "../support/Follow.ts"
import * as PostgresVersion from "../support/PostgresVersion.ts"
import type { Server } from "../support/Servers.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"

const isFull = process.env.REPLICANT_FAULTS === "full"

/** The positions below `extent` that this version cuts at. */
const positionsBelow = (extent: number, { majorVersion }: Server): ReadonlyArray<number> => {
  const stride = isFull ? 1 : majorVersion === PostgresVersion.latest ? 13 : 97
  return Array.makeBy(
    Math.ceil((extent - (majorVersion % stride)) / stride),
    (n) => (majorVersion % stride) + n * stride
  )
}

const transactions = 10
const rowsEach = 3
const ids = Array.range(1, transactions * rowsEach)
const lastId = ids.length + 1

/** Enough that the stream has more than 2,000 bytes beyond the handshake. */
const write = (workspace: Workspace) =>
  Effect.forEach(Array.chunksOf(ids, rowsEach), ([first]) =>
    workspace.sql(`INSERT INTO t SELECT i, repeat('x', 10) FROM generate_series(${first}, ${first! + rowsEach - 1}) i`)
  )

/** One client with a slot and a proxy of its own: what it consumes, and what it saw. */
interface Lane {
  readonly name: string
  readonly ending: CutPlan["ending"]
  readonly direction: NonNullable<CutPlan["direction"]>
  readonly consume: (workspace: Workspace, slot: string, proxy: FaultProxy["Service"]) => Consumer
}

interface Consumer {
  readonly run: Effect.Effect<unknown, unknown, Scope.Scope>
  readonly ids: () => ReadonlyArray<number>
  /** Fails where what came contradicts the promise; gives how many transactions were cut while they came. */
  readonly check: () => number
}

const optionsOf = (workspace: Workspace, slot: string) => ({
  ...logicalOptions(workspace),
  slot,
  createSlot: "permanent" as const,
  reconnect: Schedule.spaced("1 millis")
})

/** Not asking for TLS first, which would make two connections of one. */
const layerOf = (workspace: Workspace, { host, port }: FaultProxy["Service"]) =>
  walSender(workspace, { host, port, sslmode: "disable" })

const byChange: Lane["consume"] = (workspace, slot, proxy) => {
  const changes: Array<Change> = []
  const handler = (change: Change) => Effect.sync(() => void changes.push(change))
  return {
    run: withLogicalStream(optionsOf(workspace, slot), handler).pipe(Effect.provide(layerOf(workspace, proxy))),
    ids: () => [...new Set(insertedRows(changes).map(({ id }) => Number(id)))],
    check: () => {
      const delivery = deliveryOf(changes)
      assert.deepStrictEqual(insertedIds(delivery), [...ids, lastId])
      return delivery.halves
    }
  }
}

const byTransaction: Lane["consume"] = (workspace, slot, proxy) => {
  const seen: Array<Transaction> = []
  const idsOf = ({ changes }: Transaction) =>
    changes.flatMap((change) => (change._tag === "Insert" ? [Number(change.row.id)] : []))
  const take = Effect.gen(function* () {
    const { transactions } = yield* Replication.Replication
    return yield* Stream.runForEach(transactions, (transaction) => Effect.sync(() => seen.push(transaction)))
  })
  const options = optionsOf(workspace, slot)
  return {
    run: Effect.suspend(() => Effect.provide(take, Replication.layer(options), { local: true })).pipe(
      Effect.retry(options.reconnect),
      Effect.provide(layerOf(workspace, proxy))
    ),
    ids: () => [...new Set(seen.flatMap(idsOf))],
    check: () => {
      let before = 0
      for (const transaction of seen) {
        const rows = idsOf(transaction)
        const isWhole = rows.length === (rows[0] === lastId ? 1 : rowsEach)
        assert.isTrue(isWhole, `a whole transaction, not ${rows.join()}`)
        assert.include([1, before + 1], rows[0], "the next one, or the first again")
        before = rows.at(-1)!
      }
      return 0
    }
  }
}

const lanes: ReadonlyArray<Lane> = [
  { name: "changes, reset", ending: "rst", direction: "toClient", consume: byChange },
  { name: "changes, ended", ending: "fin", direction: "toClient", consume: byChange },
  { name: "transactions, reset", ending: "rst", direction: "toClient", consume: byTransaction },
  { name: "what we send, reset", ending: "rst", direction: "toServer", consume: byChange }
]

/** What may vary between two connections: a number in text, a keep-alive. */
const slack = 60

/** How many bytes go each way until all has arrived, when nothing is cut. */
const measure = (server: Server, workspace: Workspace, slot: string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const proxy = yield* FaultProxy.make(server)
      const consumer = byChange(workspace, slot, proxy)
      yield* Effect.forkScoped(consumer.run)
      yield* eventually(Effect.sync(() => consumer.ids().length === ids.length))
      const [toClient, toServer] = [yield* proxy.passed("toClient"), yield* proxy.passed("toServer")]
      return { toClient: toClient - slack, toServer: toServer - slack }
    })
  )

const runLane = Effect.fnUntraced(
  function* (
    server: Server,
    workspace: Workspace,
    { lane, positions, slot }: { readonly lane: Lane; readonly positions: ReadonlyArray<number>; readonly slot: string }
  ) {
    const proxy = yield* FaultProxy.make(server)
    yield* proxy.cutEach({ after: (n) => positions[n - 1], ending: lane.ending, direction: lane.direction })
    const consumer = lane.consume(workspace, slot, proxy)
    yield* Effect.forkScoped(consumer.run)
    yield* eventually(
      Effect.map(proxy.accepted, (accepted) => accepted > positions.length),
      { deadline: "10 minutes", what: `${lane.name}: a connection for each of ${positions.length} positions` }
    )
    return { consumer, cuts: positions.length, lane: lane.name }
  },
  Effect.provideService(References.MinimumLogLevel, "Error")
)

describe("a connection cut at every byte", () => {
  fault(
    ["N1", "N2", "N9"],
    "brings every change in order, a cut transaction again from its Begin, and no half to a transaction's handler",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int PRIMARY KEY, v text)" })
        const slots = lanes.map((_, n) => `${workspace.slot}_${n}`)
        for (const slot of slots) {
          yield* workspace.sql(`SELECT pg_create_logical_replication_slot('${slot}', 'pgoutput')`)
        }
        yield* write(workspace)
        const extent = yield* measure(server, workspace, slots[0]!)
        const fromServer = positionsBelow(extent.toClient, server)
        const fromClient = positionsBelow(extent.toServer, server)
        const outcomes = yield* Effect.forEach(
          lanes,
          (lane, n) => {
            const positions = lane.direction === "toServer" ? fromClient : fromServer.filter((_, at) => at % 3 === n)
            return runLane(server, workspace, { lane, positions, slot: slots[n]! })
          },
          { concurrency: lanes.length }
        )
        yield* workspace.sql(`INSERT INTO t VALUES (${lastId}, 'last')`)
        for (const { consumer, lane } of outcomes) {
          yield* eventually(
            Effect.sync(() => consumer.ids().includes(lastId)),
            { what: `${lane}: the stream goes on` }
          )
          assert.deepStrictEqual(consumer.ids(), [...ids, lastId], lane)
        }
        const halves = outcomes.map(({ consumer }) => consumer.check())
        assert.isAbove(Math.max(...halves), 0, "transactions were cut in the middle")
        if (isFull) yield* Effect.logInfo({ extent, halves, cuts: outcomes.map(({ cuts }) => cuts) })
      }),
    { timeout: isFull ? 600_000 : 60_000 }
  )
})
