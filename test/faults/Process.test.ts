/** A consumer as a process: it is killed, told to leave, stopped and continued. */
import { assert, describe } from "@effect/vitest"
import { Lsn } from "@replicant/core"
import { FaultProxy } from "@replicant/node/testing"
import { Array, Effect, Exit, Fiber, Scope } from "effect"
import { type Handled, loadConsumer, makeLedger, startConsumer } from "../support/Consumer.ts"
import { eventually } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { once } from "../support/Servers.ts"
import { confirmed, isFree, makeSlot } from "../support/Slot.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"
import { rowsFrom, writeAlong } from "../support/writeAlong.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY)"

/** Handled for the first time: by the ends of transactions, which come again with the same. */
const firsts = (handled: ReadonlyArray<Handled>): ReadonlyArray<Handled> => {
  const ends = new Set<Lsn.Lsn>()
  return handled.filter(({ endLsn }) => !ends.has(endLsn) && ends.add(endLsn))
}

describe("a consumer that is killed", () => {
  const rounds = Number(process.env.REPLICANT_KILL_ROUNDS ?? 4)

  fault(
    ["C1", "C2"],
    `with SIGKILL ${rounds} times finds every commit in its ledger, and none again that was confirmed`,
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        yield* makeSlot(workspace)
        const ledger = yield* makeLedger
        const load = loadConsumer(workspace, ledger, { handlerMillis: 2 })
        const endWriting = yield* writeAlong(workspace)
        const kills: globalThis.Array<{ readonly confirmed: Lsn.Lsn; readonly handled: number }> = []
        let next = yield* load
        for (let round = 1; round <= rounds; round++) {
          const running = next
          const before = yield* ledger.read
          const done = yield* confirmed(workspace)
          yield* running.begin
          const loading = yield* Effect.forkScoped(load)
          const after = yield* eventually(
            Effect.map(ledger.read, (handled) => (handled.length > before.length ? handled : undefined)),
            { what: "it goes on" }
          )
          assert.isTrue(after[before.length]!.endLsn > done, "what was confirmed does not come again")
          yield* Effect.sleep(Math.random() * 60) // Not a wait: the moment at which it is killed.
          yield* running.kill("SIGKILL")
          assert.strictEqual(yield* running.ended, "SIGKILL")
          yield* eventually(isFree(workspace), { what: "the slot is free" })
          kills.push({ confirmed: yield* confirmed(workspace), handled: (yield* ledger.read).length })
          next = yield* Fiber.join(loading)
        }
        const last = yield* endWriting
        yield* next.begin
        yield* eventually(
          Effect.map(ledger.read, (handled) => handled.some(({ ids }) => ids.includes(last))),
          { what: "the last commit is in the ledger" }
        )
        const all = yield* ledger.read
        const handled = firsts(all)
        assert.deepStrictEqual(
          handled.flatMap(({ ids }) => ids),
          Array.range(1, last),
          "every row, in commit order"
        )
        for (const { ids } of handled) assert.lengthOf(ids, rowsFrom(ids[0]!), "whole transactions")
        for (const kill of kills) {
          const known = new Set(all.slice(0, kill.handled).map(({ endLsn }) => endLsn))
          const unhandled = handled.filter(({ endLsn }) => endLsn <= kill.confirmed && !known.has(endLsn))
          assert.lengthOf(unhandled, 0, "nothing was confirmed before it was in the ledger")
        }
        const redelivered = all.length - handled.length
        yield* Effect.logInfo(`${rounds} kills, ${handled.length} transactions, ${redelivered} redelivered`)
      }),
    { since: 18, timeout: 120_000 + rounds * 3000 }
  )
})

describe("a consumer that is told to leave (SIGTERM)", () => {
  /** What every clean stop promises: it ends, the slot free, confirmed what the ledger has, and nothing twice. */
  const leaves = Effect.fnUntraced(function* (
    workspace: Workspace,
    ledger: Effect.Success<typeof makeLedger>,
    consumer: Effect.Success<ReturnType<typeof loadConsumer>>,
    whileLeaving: Effect.Effect<unknown> = Effect.void
  ) {
    yield* consumer.kill("SIGTERM")
    yield* whileLeaving
    assert.strictEqual(yield* consumer.ended, 130, consumer.said())
    assert.include(consumer.said(), "@left", "it ended by itself")
    yield* eventually(isFree(workspace), { what: "the slot is free" })
    const handled = yield* ledger.read
    const last = handled.at(-1)
    if (last !== undefined) assert.isTrue((yield* confirmed(workspace)) >= last.endLsn, "confirmed before it left")
    yield* workspace.sql("INSERT INTO t VALUES (1000000)")
    yield* ledger.openGate
    const again = yield* startConsumer(workspace, ledger)
    const all = yield* eventually(
      Effect.map(ledger.read, (now) => (now.some(({ ids }) => ids.includes(1_000_000)) ? now : undefined)),
      { what: "the next one goes on" }
    )
    yield* again.kill("SIGKILL")
    assert.deepStrictEqual(firsts(all), all, "nothing twice")
    return all.map(({ ids }) => ids.length)
  })

  fault("C3", "idle", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* makeSlot(workspace)
      const ledger = yield* makeLedger
      const consumer = yield* startConsumer(workspace, ledger)
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* eventually(Effect.map(ledger.read, (handled) => handled.length === 1))
      assert.deepStrictEqual(yield* leaves(workspace, ledger, consumer), [1, 1])
    })
  )

  fault(
    "C3",
    "while a handler runs, which ends within its time and counts, with what comes after it left alone",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        yield* makeSlot(workspace)
        const ledger = yield* makeLedger
        const consumer = yield* startConsumer(workspace, ledger, { gate: ledger.gate })
        yield* workspace.sql("INSERT INTO t VALUES (1), (2)")
        yield* eventually(Effect.sync(() => consumer.said().includes("@begun")))
        yield* workspace.sql("INSERT INTO t VALUES (3)")
        const finish = Effect.andThen(Effect.sleep("300 millis"), ledger.openGate)
        assert.deepStrictEqual(yield* leaves(workspace, ledger, consumer, finish), [2, 1, 1])
        assert.strictEqual(consumer.said().split("@begun").length, 2, "one handler in the first process")
      })
  )

  fault("C3", "while a handler runs that never ends: it is interrupted, and its transaction comes again", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* makeSlot(workspace)
      const ledger = yield* makeLedger
      const consumer = yield* startConsumer(workspace, ledger, { gate: ledger.gate, shutdownTimeout: 500 })
      const before = yield* confirmed(workspace)
      yield* workspace.sql("INSERT INTO t VALUES (1), (2)")
      yield* eventually(Effect.sync(() => consumer.said().includes("@begun")))
      const unconfirmed = Effect.gen(function* () {
        yield* Effect.orDie(consumer.ended)
        assert.lengthOf(yield* ledger.read, 0)
        assert.isTrue(
          (yield* Effect.orDie(confirmed(workspace))) <= Lsn.max(before, yield* Effect.orDie(ends(workspace)))
        )
      })
      assert.deepStrictEqual(yield* leaves(workspace, ledger, consumer, unconfirmed), [2, 1])
    })
  )

  fault("C3", "in the middle of a transaction, of which nothing is handled and all comes again", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* makeSlot(workspace)
      const ledger = yield* makeLedger
      const proxy = yield* FaultProxy.make(server)
      const consumer = yield* startConsumer(workspace, ledger, { host: proxy.host, port: proxy.port })
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* eventually(Effect.map(ledger.read, (handled) => handled.length === 1))
      const before = yield* proxy.passed("toClient")
      yield* proxy.slice(2048, 5)
      yield* workspace.sql("INSERT INTO t SELECT generate_series(2, 50001)")
      yield* eventually(Effect.map(proxy.passed("toClient"), (bytes) => bytes > before + 100_000))
      assert.deepStrictEqual(yield* leaves(workspace, ledger, consumer), [1, 50_000, 1])
    })
  )

  fault("C3", "while it reconnects, and while nobody answers its handshake", (server) =>
    Effect.gen(function* () {
      for (const state of ["reconnecting", "handshaking"] as const) {
        const workspace = yield* makeWorkspace(server, { sql: table })
        yield* makeSlot(workspace)
        const ledger = yield* makeLedger
        const scope = yield* Scope.fork(yield* Effect.scope)
        const proxy = yield* Scope.provide(FaultProxy.make(server), scope)
        const consumer = yield* startConsumer(workspace, ledger, { host: proxy.host, port: proxy.port })
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        const { endLsn } = yield* eventually(Effect.map(ledger.read, ([handled]) => handled))
        yield* eventually(Effect.map(confirmed(workspace), (lsn) => lsn >= endLsn))
        if (state === "reconnecting") {
          yield* Scope.close(scope, Exit.void)
          yield* eventually(
            Effect.sync(() => consumer.said().split("ECONNREFUSED").length > 2),
            { what: "it is refused" }
          )
        } else {
          yield* proxy.stall("toClient")
          const before = yield* proxy.accepted
          yield* proxy.cut("rst")
          yield* eventually(Effect.map(proxy.accepted, (count) => count > before))
        }
        assert.deepStrictEqual(yield* leaves(workspace, ledger, consumer), [1, 1], state)
      }
    })
  )
})

/** The end of WAL now. */
const ends = (workspace: Workspace) => Effect.map(workspace.currentWalLsn, (text) => Lsn.fromString(text)!)

describe("a consumer that stands still (SIGSTOP)", () => {
  fault(["C10", "N2"], "longer than the server waits for it goes on where it was, and misses nothing", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* makeSlot(workspace)
      const ledger = yield* makeLedger
      const consumer = yield* startConsumer(workspace, ledger, { settings: { wal_sender_timeout: "500ms" } })
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* eventually(Effect.map(ledger.read, (handled) => handled.length === 1))
      yield* consumer.kill("SIGSTOP")
      yield* workspace.sql("INSERT INTO t VALUES (2)")
      yield* eventually(isFree(workspace), { what: "the server gave it up" })
      yield* workspace.sql("INSERT INTO t VALUES (3)")
      yield* consumer.kill("SIGCONT")
      yield* eventually(Effect.map(ledger.read, (handled) => handled.some(({ ids }) => ids.includes(3))))
      const ids = firsts(yield* ledger.read).flatMap((handled) => handled.ids)
      assert.deepStrictEqual(ids, [1, 2, 3])
    })
  )

  fault(
    "C10",
    "longer than it waits for the server does not take its own absence for the server's",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        yield* makeSlot(workspace)
        const ledger = yield* makeLedger
        const proxy = yield* FaultProxy.make(server)
        const consumer = yield* startConsumer(workspace, ledger, {
          host: proxy.host,
          port: proxy.port,
          receiverTimeout: 1500,
          settings: { wal_sender_timeout: 0 }
        })
        const pid = (yield* workspace.findSlot())!.active_pid
        // An answer takes half as long as the next ping: so often enough one is under way when it is stopped.
        yield* proxy.slice(1000, 375)
        for (let round = 1; round <= 3; round++) {
          const heard = yield* proxy.passed("toServer")
          yield* eventually(
            Effect.map(proxy.passed("toServer"), (bytes) => bytes > heard),
            { what: "a ping went out" }
          )
          yield* consumer.kill("SIGSTOP")
          yield* Effect.sleep("2500 millis") // Not a wait: how long it stands still.
          yield* consumer.kill("SIGCONT")
        }
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        yield* eventually(Effect.map(ledger.read, (handled) => handled.length === 1))
        assert.strictEqual((yield* workspace.findSlot())!.active_pid, pid, consumer.said())
      }),
    once
  )
})
