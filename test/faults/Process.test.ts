/** Faults of the consumer: it is killed, told to leave, stopped and continued, slow, wrong, or leaves by itself. */
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { assert, describe } from "@effect/vitest"
import { Lsn, nextLsn, Replication, withLogicalStream } from "@replicant/core"
import { Cause, Effect, Exit, Fiber, Layer, Schedule, Scope, Stream } from "effect"
import { type Handled, loadConsumer, makeLedger, startConsumer } from "../support/Consumer.ts"
import { eventually } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { follow, insertedRows, logicalOptions, walSender } from "../support/Follow.ts"
import { Proxy } from "../support/Proxy.ts"
import { once } from "../support/Servers.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY)"

const makeSlot = (workspace: Workspace) =>
  workspace.sql(`SELECT pg_create_logical_replication_slot('${workspace.slot}', 'pgoutput')`)

const confirmed = (workspace: Workspace) =>
  Effect.map(workspace.findSlot(), (slot) => Lsn.fromString(slot?.confirmed_flush_lsn ?? "") ?? Lsn.zero)

const isFree = (workspace: Workspace) => Effect.map(workspace.findSlot(), (slot) => slot?.active === false)

const millis = Effect.sync(() => performance.now())

const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => from + index)

/** Handled for the first time: by the ends of transactions, which come again with the same. */
const firsts = (handled: ReadonlyArray<Handled>): ReadonlyArray<Handled> => {
  const ends = new Set<Lsn.Lsn>()
  return handled.filter(({ endLsn }) => !ends.has(endLsn) && ends.add(endLsn))
}

/** Commits transactions of one to four rows, one every few milliseconds, until the scope ends; tells the last id. */
const writeAlong = Effect.fnUntraced(function* (workspace: Workspace) {
  const session = yield* workspace.session
  let last = 0
  const write = Effect.suspend(() => {
    const from = last + 1
    const to = from + (from % 4)
    return Effect.map(session.query(`INSERT INTO t SELECT generate_series(${from}, ${to})`), () => {
      last = to
    })
  })
  const fiber = yield* Effect.forkScoped(Effect.forever(Effect.andThen(write, Effect.sleep("8 millis"))))
  return Effect.andThen(
    Fiber.interrupt(fiber),
    Effect.map(workspace.sql("SELECT max(id) AS id FROM t"), ([row]) => Number(row?.id))
  )
})

describe("a consumer that is killed", () => {
  const rounds = Number(process.env.REPLICANT_KILL_ROUNDS ?? 6)

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
        const kills: Array<{ readonly confirmed: Lsn.Lsn; readonly handled: number }> = []
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
          { deadline: "60 seconds", what: "the last commit is in the ledger" }
        )
        const all = yield* ledger.read
        const handled = firsts(all)
        assert.deepStrictEqual(
          handled.flatMap(({ ids }) => ids),
          range(1, last),
          "every row, in commit order"
        )
        for (const { ids } of handled) assert.lengthOf(ids, 1 + (ids[0]! % 4), "whole transactions")
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
  /** What every clean stop promises: in time, the slot free, confirmed what the ledger has, and nothing twice. */
  const leaves = Effect.fnUntraced(function* (
    workspace: Workspace,
    ledger: Effect.Success<typeof makeLedger>,
    consumer: Effect.Success<ReturnType<typeof loadConsumer>>,
    whileLeaving: Effect.Effect<unknown> = Effect.void
  ) {
    const began = yield* millis
    yield* consumer.kill("SIGTERM")
    yield* whileLeaving
    assert.strictEqual(yield* consumer.ended, 130, consumer.said())
    assert.isBelow((yield* millis) - began, 5000)
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
      const proxy = yield* Proxy.make(server)
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
        const proxy = yield* Scope.provide(Proxy.make(server), scope)
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
        const proxy = yield* Proxy.make(server)
        const consumer = yield* startConsumer(workspace, ledger, {
          host: proxy.host,
          port: proxy.port,
          receiverTimeout: 400,
          settings: { wal_sender_timeout: 0 }
        })
        const pid = (yield* workspace.findSlot())!.active_pid
        // An answer takes half as long as the next ping: so often enough one is under way when it is stopped.
        yield* proxy.slice(1000, 100)
        for (let round = 1; round <= 5; round++) {
          const heard = yield* proxy.passed("toServer")
          yield* eventually(
            Effect.map(proxy.passed("toServer"), (bytes) => bytes > heard),
            { what: "a ping went out" }
          )
          yield* consumer.kill("SIGSTOP")
          yield* Effect.sleep("900 millis") // Not a wait: how long it stands still.
          yield* consumer.kill("SIGCONT")
        }
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        yield* eventually(Effect.map(ledger.read, (handled) => handled.length === 1))
        assert.strictEqual((yield* workspace.findSlot())!.active_pid, pid, consumer.said())
      }),
    once
  )
})

describe("a handler that is wrong", () => {
  for (const [how, wrong] of [
    ["dies", (boom: Error) => Effect.die(boom)],
    [
      "throws",
      (boom: Error) => {
        throw boom
      }
    ]
  ] as const) {
    fault("C5", `and ${how} ends the stream with that defect, and acknowledges nothing of its transaction`, (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        const boom = new Error("boom")
        const fiber = yield* withLogicalStream(logicalOptions(workspace), (change) =>
          change._tag === "Insert" && change.row.id === 3 ? wrong(boom) : Effect.succeed(nextLsn(change))
        ).pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
        yield* eventually(workspace.isStreaming())
        yield* workspace.sql("DO $$ BEGIN FOR i IN 1..5 LOOP INSERT INTO t VALUES (i); COMMIT; END LOOP; END $$")
        const exit = yield* Fiber.await(fiber)
        assert(Exit.isFailure(exit))
        assert.strictEqual(Cause.squash(exit.cause), boom)
        assert.isTrue(Cause.hasDies(exit.cause))
        assert.isFalse((yield* workspace.findSlot())?.active)
        const again = yield* follow(workspace)
        yield* again.saw("Commit", 3)
        assert.deepStrictEqual(
          insertedRows(again.changes).map((row) => row.id),
          [3, 4, 5]
        )
      })
    )
  }

  fault(
    "C5",
    "and never ends fails by the time limit that it is given, and holds up nothing but its stream",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        const stream = yield* follow<Cause.TimeoutError>(workspace, {
          handler: () => Effect.timeout(Effect.never, "300 millis")
        })
        yield* workspace.sql("INSERT INTO t VALUES (1)")
        assert.strictEqual((yield* stream.failure)._tag, "TimeoutError")
        assert.isFalse((yield* workspace.findSlot())?.active)
        const again = yield* follow(workspace)
        yield* again.saw("Commit", 1)
      })
  )
})

describe("handlers in parallel", () => {
  fault(
    ["C6", "C7"],
    "that end in any order, and are left at any moment, have confirmed no unfinished transaction",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        yield* makeSlot(workspace)
        const total = 200
        yield* workspace.sql(`DO $$ BEGIN FOR i IN 1..${total} LOOP INSERT INTO t VALUES (i); COMMIT; END LOOP; END $$`)
        const finished = new Map<Lsn.Lsn, number>()
        let rounds = 0
        while (finished.size < total) {
          const layer = Replication.layer(logicalOptions(workspace)).pipe(Layer.provide(walSender(workspace)))
          const done = yield* confirmed(workspace)
          const part = Effect.gen(function* () {
            const replication = yield* Replication.Replication
            yield* replication.transactions.pipe(
              Stream.mapEffect(
                (transaction) =>
                  Effect.gen(function* () {
                    assert.isTrue(transaction.nextLsn.lsn > done, "not again what was confirmed")
                    yield* Effect.sleep(Math.random() * 20)
                    for (const row of insertedRows(transaction.changes)) {
                      finished.set(transaction.nextLsn.lsn, row.id as number)
                    }
                    yield* replication.acknowledge(transaction.nextLsn)
                  }),
                { concurrency: 8, unordered: true }
              ),
              Stream.runDrain
            )
          }).pipe(Effect.provide(layer))
          const enough = eventually(
            Effect.sync(() => finished.size >= Math.min(total, 25 * (rounds + 1))),
            { what: "some are finished" }
          )
          yield* Effect.raceFirst(part, enough)
          rounds++
          const end = yield* confirmed(workspace)
          const ids = [...finished].filter(([lsn]) => lsn <= end).map(([, id]) => id)
          assert.deepStrictEqual(
            ids.sort((a, b) => a - b),
            range(1, ids.length),
            "a prefix, without a gap"
          )
        }
        assert.isAtLeast(rounds, 5)
        assert.strictEqual(finished.size, total)
      })
  )
})

/** Resident memory of a process in bytes. */
const residentBytes = (pid: number) =>
  Effect.promise(() => promisify(execFile)("ps", ["-o", "rss=", "-p", String(pid)])).pipe(
    Effect.map(({ stdout }) => Number(stdout) * 1024)
  )

describe("a consumer that is slow", () => {
  const bytes = 200_000_000

  fault(
    ["C9", "D1"],
    "leaves 200 MB with the server: its memory stays what it was, and its lag can be seen",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int PRIMARY KEY, note text)" })
        yield* workspace.sql("ALTER TABLE t ALTER note SET STORAGE EXTERNAL")
        yield* makeSlot(workspace)
        const ledger = yield* makeLedger
        const consumer = yield* startConsumer(workspace, ledger, { gate: ledger.gate })
        const idle = yield* residentBytes(consumer.pid)
        const count = 2000
        yield* workspace.sql(`DO $$ BEGIN FOR i IN 1..${count} LOOP
          INSERT INTO t VALUES (i, repeat('x', ${bytes / count})); COMMIT; END LOOP; END $$`)
        yield* eventually(Effect.sync(() => consumer.said().includes("@begun")))
        const lag = yield* eventually(
          Effect.map(
            workspace.sql(
              `SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::float8 AS bytes
               FROM pg_replication_slots WHERE slot_name = '${workspace.slot}'`
            ),
            ([row]) => Number(row?.bytes)
          )
        )
        assert.isAbove(lag, bytes * 0.9)
        const waiting = (yield* residentBytes(consumer.pid)) - idle
        assert.isBelow(waiting, 50_000_000, "bytes more than an idle one")
        yield* ledger.openGate
        yield* eventually(
          Effect.map(ledger.read, (handled) => handled.length === count),
          { deadline: "40 seconds", what: "all is handled" }
        )
        yield* consumer.kill("SIGTERM")
        yield* consumer.ended
        const peak = consumer.peakBytes() - idle
        assert.isBelow(peak, 190_000_000, "not what was waiting, nor twice as much")
        yield* Effect.logInfo(`idle ${idle / 1e6} MB, waiting +${waiting / 1e6} MB, peak +${peak / 1e6} MB`)
      }),
    { since: 18, timeout: 90_000 }
  )
})

describe("round after round", () => {
  const rounds = Number(process.env.REPLICANT_LEAK_ROUNDS ?? 100)

  const collectGarbage: Effect.Effect<number> = Effect.sync(() => {
    setFlagsFromString("--expose-gc")
    runInNewContext("gc")()
    return process.memoryUsage().heapUsed
  })

  /** What keeps a process alive, by name. */
  const active = (names: RegExp) =>
    process
      .getActiveResourcesInfo()
      .filter((name) => names.test(name))
      .sort()
  const resources = () => active(/TCP|Immediate|GetAddrInfo|Pipe/)
  const timers = () => active(/Timeout/).length

  const listeners = () => process.eventNames().reduce((sum, name) => sum + process.listenerCount(name), 0)

  fault(
    ["C3", "C7"],
    `${rounds} streams that are left at any moment leave no socket, timer, listener, walsender, slot or memory`,
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: table })
        yield* makeSlot(workspace)
        const session = yield* workspace.session
        yield* session.query(`INSERT INTO t SELECT generate_series(1, 300)`)
        const layer = walSender(workspace)
        const options = { ...logicalOptions(workspace), createSlot: undefined }
        const temporary = { ...options, slot: `${workspace.slot}_temporary`, createSlot: "temporary" as const }
        const ways: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
          // Interrupted at any moment, from before it is connected.
          Effect.suspend(() =>
            Effect.timeoutOption(
              withLogicalStream(options, () => Effect.undefined).pipe(Effect.provide(layer)),
              Math.random() * 40
            )
          ),
          // Left by itself after some changes.
          Replication.Replication.pipe(
            Effect.flatMap(({ changes }) => Stream.runDrain(Stream.take(changes, 10))),
            Effect.provide(Replication.layer(options).pipe(Layer.provide(layer)))
          ),
          // With a slot that goes with it.
          Effect.scoped(
            Effect.gen(function* () {
              const fiber = yield* withLogicalStream(temporary, () => Effect.undefined).pipe(
                Effect.provide(layer),
                Effect.forkScoped
              )
              yield* Effect.sleep(Math.random() * 40)
              yield* Fiber.interrupt(fiber)
            })
          )
        ]
        const settled = Effect.gen(function* () {
          yield* eventually(
            Effect.map(
              session.query(
                `SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                   AND backend_type = 'walsender') AS senders,
                 (SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND temporary) AS slots`
              ),
              ([row]) => Number(row?.senders) === 0 && Number(row?.slots) === 0
            ),
            { what: "the server has let go as well" }
          )
        })
        const round = Effect.gen(function* () {
          yield* ways[Math.floor(Math.random() * ways.length)]!
          yield* settled
        })
        yield* Effect.repeat(round, { times: 20 }) // What is made once and kept, is made.
        const before = { resources: resources(), timers: timers(), listeners: listeners(), heap: yield* collectGarbage }
        for (let count = 1; count <= rounds; count++) yield* round
        const settledResources = Effect.repeat(
          Effect.sync(() => resources()),
          {
            until: (now) => now.join() === before.resources.join(),
            schedule: Schedule.max([Schedule.spaced("50 millis"), Schedule.recurs(60)])
          }
        ).pipe(Effect.map(() => resources()))
        assert.deepStrictEqual(yield* settledResources, before.resources)
        // The test runner has some of its own, which come and go; one a round would be many.
        assert.isAtMost(timers(), before.timers + 3)
        assert.strictEqual(listeners(), before.listeners)
        const grown = (yield* collectGarbage) - before.heap
        // Compiled code and the runner's own keeping; a connection or a fiber that stayed would be ten times this a round.
        assert.isBelow(grown, 2_000_000 + rounds * 2000, "bytes of heap")
        yield* Effect.logInfo(`${rounds} rounds: heap ${grown >= 0 ? "+" : ""}${Math.round(grown / 1024)} KiB`)
      }),
    { since: 18, timeout: 60_000 + rounds * 500 }
  )
})
