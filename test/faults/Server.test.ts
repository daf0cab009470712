/**
 * Faults of the server: it ends the connection, stops, crashes, or has no room. Another server in its place:
 * Standby.test.ts.
 */
import { assert, describe } from "@effect/vitest"
import { type Change, Lsn, nextLsn, withLogicalStream } from "@replicant/core"
import { FaultProxy, PgServer, type PgServerOptions } from "@replicant/node/testing"
import { Effect, Fiber, Latch, Ref, Schedule } from "effect"
import { eventually } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { follow, insertedRows, logicalOptions, walSender } from "../support/Follow.ts"
import { unhurried } from "../support/limits.ts"
import * as PostgresVersion from "../support/PostgresVersion.ts"
import { untilConfirmed } from "../support/Slot.ts"
import { tapWalSender } from "../support/WalSenderTap.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY)"

const ownServer = (settings: PgServerOptions["settings"] = {}) =>
  PgServer.make({ ...PostgresVersion.serverOptions(), settings })

/** The usual schedule would wait longer each time: what it is, LogicalStream's own tests prove. */
const soon = { reconnect: Schedule.spaced("100 millis") }

const ids = (changes: ReadonlyArray<Change>) => insertedRows(changes).map((row) => row.id as number)

/** In the order of their first arrival: at least once means that duplicates may follow. */
const arrived = (changes: ReadonlyArray<Change>) => [...new Set(ids(changes))]

const activePid = (workspace: Workspace) => Effect.map(workspace.findSlot(), (slot) => slot?.active_pid ?? undefined)

const millis = Effect.sync(() => performance.now())

/** Ends the walsender, which is gone at once unless it waits for room in the socket: then once we read on. */
const terminate = Effect.fnUntraced(function* (workspace: Workspace) {
  const pid = yield* activePid(workspace)
  yield* workspace.sql(`SELECT pg_terminate_backend(${pid})`)
  const isGone = Effect.map(
    workspace.sql(`SELECT FROM pg_stat_activity WHERE pid = ${pid}`),
    (rows) => rows.length === 0
  )
  yield* Effect.timeoutOption(eventually(isGone), "300 millis")
})

describe("a walsender that is ended", () => {
  // More than fits the buffers on the way, so that the rest is not sent yet while the handler is at its first rows.
  const rows = 50_000
  const wide = "CREATE TABLE t (id int PRIMARY KEY, note text DEFAULT repeat('x', 400))"

  for (const [where, isWhere] of [
    ["the begin", (change) => change._tag === "Begin"],
    ["the first row", (change) => change._tag === "Insert" && change.row.id === 1],
    ["a row in the middle", (change) => change._tag === "Insert" && change.row.id === rows / 2],
    ["the commit", (change) => change._tag === "Commit"]
  ] as ReadonlyArray<readonly [string, (change: Change) => boolean]>) {
    fault(
      "V1",
      `by an administrator while ${where} is handled does not cancel the handler, whose result counts`,
      (server) =>
        Effect.gen(function* () {
          const workspace = yield* makeWorkspace(server, { sql: wide })
          let isInterrupted = false
          let isDisturbed = false
          const stream = yield* follow<unknown>(workspace, {
            options: soon,
            handler: (change) => {
              const done = Effect.succeed(nextLsn(change))
              if (isDisturbed || !isWhere(change)) return done
              isDisturbed = true
              const disturb = Effect.andThen(terminate(workspace), done)
              return Effect.onInterrupt(disturb, () =>
                Effect.sync(() => {
                  isInterrupted = true
                })
              )
            }
          })
          yield* workspace.sql(`INSERT INTO t SELECT generate_series(1, ${rows})`)
          yield* eventually(Effect.sync(() => isDisturbed))
          yield* workspace.sql("INSERT INTO t VALUES (0)")
          yield* eventually(
            Effect.sync(() => ids(stream.changes).includes(0)),
            { what: "the stream goes on" }
          )
          assert.isFalse(isInterrupted)
          const ends = stream.changes.flatMap((change) => (change._tag === "Commit" ? [change.endLsn] : []))
          assert.strictEqual(new Set(ends).size, 2, "both transactions were ended")
          assert.lengthOf(ends, 2, "and neither twice")
          const begins = stream.changes.filter((change) => change._tag === "Begin").length
          assert.strictEqual(begins, where === "the commit" ? 2 : 3, "begun anew unless its end was acknowledged")
          const last = ids(stream.changes).slice(-rows - 1)
          assert.deepStrictEqual(last.slice(0, 3), [1, 2, 3], "redelivered from its beginning")
          assert.strictEqual(new Set(last).size, rows + 1)
        })
    )
  }

  fault("V4", "by a cancelled query closes the connection itself, and goes on", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      const proxy = yield* FaultProxy.make(server)
      const layer = walSender(workspace, { host: proxy.host, port: proxy.port })
      const stream = yield* follow(workspace, { options: soon, layer })
      for (let id = 1; id <= 3; id++) {
        yield* workspace.sql(`INSERT INTO t VALUES (${id})`)
        yield* stream.saw("Commit", id)
        const pid = yield* activePid(workspace)
        yield* workspace.sql(`SELECT pg_cancel_backend(${pid})`)
        yield* eventually(
          Effect.map(activePid(workspace), (now) => now !== undefined && now !== pid),
          { what: "another walsender took over" }
        )
        yield* eventually(
          Effect.map(proxy.open, (open) => open === 1),
          { what: "the old connection is closed" }
        )
      }
      yield* workspace.sql("INSERT INTO t VALUES (4)")
      yield* stream.saw("Insert", 4)
      assert.deepStrictEqual(ids(stream.changes), [1, 2, 3, 4])
      const causes = stream.states.flatMap((now) => (now._tag === "Reconnecting" ? [String(now.cause)] : []))
      for (const cause of causes) assert.include(cause, "57014", "not once the server was silent for too long")
    })
  )
})

/** Commits one row after the other, whatever the server does, until it is told to stop; a commit in doubt stays so. */
const writeThroughout = Effect.fnUntraced(function* (workspace: Workspace) {
  const isOver = yield* Ref.make(false)
  const written = yield* Ref.make(0)
  const loop = Effect.gen(function* () {
    let id = 0
    while (!(yield* Ref.get(isOver))) {
      id += 3
      yield* workspace.sql(`INSERT INTO t VALUES (${id}), (${id + 1}), (${id + 2})`).pipe(
        Effect.andThen(Ref.update(written, (count) => count + 1)),
        Effect.catch(() => Effect.sleep("5 millis"))
      )
    }
  })
  const fiber = yield* Effect.forkScoped(loop)
  return {
    more: Effect.gen(function* () {
      const before = yield* Ref.get(written)
      yield* eventually(Effect.map(Ref.get(written), (count) => count > before + 10))
    }),
    end: Effect.andThen(Ref.set(isOver, true), Fiber.join(fiber))
  }
})

describe("a server that crashes", () => {
  fault(
    ["V2", "N2"],
    "loses no commit, aborted, killed, or for a killed backend; nor is one handled twice that was acknowledged",
    () =>
      Effect.gen(function* () {
        const server = yield* ownServer({ checkpoint_timeout: "1h" })
        const workspace = yield* makeWorkspace(server, { sql: table })
        const stream = yield* follow(workspace, { options: soon })
        const writer = yield* writeThroughout(workspace)
        const crashes: ReadonlyArray<Effect.Effect<void, unknown>> = [
          server.restart("immediate"),
          Effect.andThen(server.kill, server.start),
          Effect.flatMap(eventually(activePid(workspace)), (pid) =>
            Effect.gen(function* () {
              process.kill(pid, "SIGKILL")
              yield* eventually(
                Effect.map(server.log, (log) => log.includes(`(PID ${pid}) was terminated by signal 9`))
              )
              yield* eventually(server.query("SELECT 1"), { what: "crash recovery is over" })
            })
          )
        ]
        for (const crash of [...crashes, ...crashes]) {
          yield* writer.more
          yield* crash
          yield* eventually(workspace.isStreaming(), { what: "streaming again" })
        }
        yield* writer.more
        yield* writer.end
        const committed = (yield* workspace.sql("SELECT id FROM t ORDER BY id")).map((row) => row.id as number)
        yield* eventually(
          Effect.sync(() => arrived(stream.changes).length >= committed.length),
          { what: "all has arrived" }
        )
        assert.deepStrictEqual(arrived(stream.changes), committed, "all, and in the order of their commits")
        const ends = stream.changes.flatMap((change) => (change._tag === "Commit" ? [change.endLsn] : []))
        // The server has forgotten what was acknowledged since its checkpoint (fact 10); within one process we have
        // not.
        assert.strictEqual(new Set(ends).size, ends.length, "no commit was handled twice")
      })
  )
})

describe("a server that stops", () => {
  fault(
    "V3",
    "fast is let go at once, idle, time after time",
    () =>
      Effect.gen(function* () {
        const rounds = Number(process.env.REPLICANT_STOP_ROUNDS ?? 8)
        const server = yield* ownServer()
        const workspace = yield* makeWorkspace(server, { sql: table })
        const layer = walSender(workspace, unhurried)
        const stream = yield* follow(workspace, { layer, options: { ...soon, timing: unhurried.timing } })
        const times: Array<number> = []
        for (let round = 1; round <= rounds; round++) {
          yield* workspace.sql(`INSERT INTO t VALUES (${round})`)
          yield* stream.saw("Insert", round)
          const began = yield* millis
          yield* server.stop("fast")
          times.push((yield* millis) - began)
          yield* server.start
          yield* eventually(workspace.isStreaming())
        }
        yield* Effect.logInfo(`${rounds} stops, the longest ${Math.round(Math.max(...times))} ms`)
        assert.deepStrictEqual(
          ids(stream.changes),
          Array.from({ length: rounds }, (_, index) => index + 1)
        )
      }),
    { since: 18, timeout: 300_000 }
  )

  fault("V3", "fast while a handler is at work waits for it, and is let go once it has ended", () =>
    Effect.gen(function* () {
      const server = yield* ownServer()
      const workspace = yield* makeWorkspace(server, { sql: table })
      const gate = yield* Latch.make()
      const stream = yield* follow(workspace, {
        layer: walSender(workspace, unhurried),
        options: { ...soon, timing: { ...unhurried.timing, acknowledgeDelay: "1 second" } },
        handler: (change) => Effect.as(ids([change])[0] === 1 ? gate.await : Effect.void, nextLsn(change))
      })
      // A server that was never told of any flush waits for no more than that all is received.
      yield* workspace.sql("INSERT INTO t VALUES (0)")
      yield* stream.saw("Commit", 1)
      yield* untilConfirmed(workspace, stream.changes)
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* stream.saw("Insert", 2)
      const stopping = yield* Effect.forkScoped(server.stop("fast"))
      yield* eventually(Effect.map(server.log, (log) => log.includes("received fast shutdown request")))
      yield* Effect.sleep("1 second") // Not a wait: for how long the handler goes on.
      assert.isUndefined(stopping.pollUnsafe(), "the server waits for what it has sent to be handled")
      yield* gate.open
      yield* Fiber.join(stopping)
      yield* server.start
      yield* workspace.sql("INSERT INTO t VALUES (2)")
      yield* stream.saw("Insert", 3)
      assert.deepStrictEqual(ids(stream.changes), [0, 1, 2], "what was handled meanwhile does not come again")
    })
  )

  fault("V3", "smart is let go as well, once it has told us so", () =>
    Effect.gen(function* () {
      const server = yield* ownServer()
      const workspace = yield* makeWorkspace(server, { sql: table })
      const stream = yield* follow(workspace, {
        layer: walSender(workspace, unhurried),
        options: { ...soon, timing: unhurried.timing }
      })
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* stream.saw("Commit", 1)
      yield* server.stop("smart")
      yield* server.start
      yield* workspace.sql("INSERT INTO t VALUES (2)")
      yield* stream.saw("Insert", 2)
      assert.deepStrictEqual(ids(stream.changes), [1, 2])
    })
  )
})

describe("wal_sender_timeout", () => {
  const limit = 2
  const seconds = Number(process.env.REPLICANT_BUSY_SECONDS ?? 3 * limit)

  fault(
    "V5",
    `of ${limit} s ends no connection of a handler that is busy for ${seconds} s`,
    (server) =>
      Effect.gen(function* () {
        const layer = (workspace: Workspace) => walSender(workspace, { settings: { wal_sender_timeout: `${limit}s` } })
        // Once with nothing left to send, once with a server that waits for room in the socket.
        const busy = Effect.fnUntraced(function* (rows: number) {
          const workspace = yield* makeWorkspace(server, { sql: table })
          const tap = yield* tapWalSender(layer(workspace))
          const statuses = () => tap.said.filter((said) => said._tag === "StandbyStatusUpdate").length
          // Every third of the limit one is due: so many are as long, and on a slow machine longer.
          const work = Effect.suspend(() => {
            const before = statuses()
            const isDone = Effect.sync(() => statuses() >= before + (3 * seconds) / limit)
            return eventually(isDone, { what: "status updates go on", deadline: seconds * 20_000 })
          })
          const stream = yield* follow(workspace, {
            layer: tap.layer,
            handler: (change) => Effect.as(change._tag === "Begin" ? work : Effect.void, nextLsn(change))
          })
          const pid = yield* activePid(workspace)
          const before = Lsn.fromString((yield* workspace.findSlot())?.confirmed_flush_lsn ?? "")!
          yield* workspace.sql(`INSERT INTO t SELECT generate_series(1, ${rows})`)
          yield* stream.saw("Begin", 1)
          yield* eventually(
            Effect.sync(() => stream.changes.some((change) => change._tag === "Commit")),
            { what: "the handler was done", deadline: seconds * 20_000 }
          )
          assert.strictEqual(yield* activePid(workspace), pid, "one connection all along")
          const first = stream.changes[0]!
          assert(first._tag === "Begin")
          assert.isTrue(before <= first.commitLsn)
        })
        yield* Effect.all([busy(1), busy(60_000)], { concurrency: 2 })
      }),
    { since: 18, timeout: 60_000 + seconds * 20_000 }
  )

  fault("V6", "of 0 is no reason to be busy, to be alarmed, or not to ping", () =>
    Effect.gen(function* () {
      // A server of its own: one on which others write is never silent for long.
      const server = yield* ownServer()
      const workspace = yield* makeWorkspace(server, { sql: table })
      const tap = yield* tapWalSender(walSender(workspace, { settings: { wal_sender_timeout: 0 } }))
      const stream = yield* follow(workspace, {
        layer: tap.layer,
        options: { timing: { receiverTimeout: "2 seconds" } }
      })
      const pid = yield* activePid(workspace)
      const statuses = () => tap.said.filter((said) => said._tag === "StandbyStatusUpdate")
      const pings = () => statuses().filter((said) => said._tag === "StandbyStatusUpdate" && said.replyRequested).length
      const before = { statuses: statuses().length, pings: pings() }
      const began = yield* millis
      yield* eventually(
        Effect.sync(() => pings() >= before.pings + 4),
        { what: "pings go on" }
      )
      const passed = (yield* millis) - began
      // Of these the first was under way.
      assert.isAtLeast(passed, 3 * 950, "one at half of the limit, not more")
      // What the server writes by itself moves the idle position, which is told as often as an acknowledgement may be.
      assert.isAtMost(statuses().length - before.statuses, 8 + Math.ceil(passed / 20), "and little else")
      assert.strictEqual(yield* activePid(workspace), pid)
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* stream.saw("Commit", 1)
    })
  )
})

describe("a server without room", () => {
  fault("V10", "for another walsender is asked again until there is", () =>
    Effect.gen(function* () {
      const server = yield* ownServer({ max_wal_senders: 1 })
      const workspace = yield* makeWorkspace(server, { sql: table })
      const first = yield* follow(workspace)
      const changes: Array<Change> = []
      const options = { ...logicalOptions(workspace), ...soon, slot: `${workspace.slot}_2` }
      const second = yield* withLogicalStream(options, (change) => {
        changes.push(change)
        return Effect.succeed(nextLsn(change))
      }).pipe(Effect.provide(walSender(workspace)), Effect.forkScoped)
      yield* eventually(
        Effect.map(server.log, (log) => log.split(/exceeds "?max_wal_senders/).length > 3),
        { what: "it was refused some times" }
      )
      assert.isUndefined(second.pollUnsafe())
      yield* first.stop
      yield* eventually(workspace.isStreaming(options.slot))
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* eventually(Effect.sync(() => ids(changes).length === 1))
    })
  )
})

describe("a server that is busy with other things", () => {
  fault("V11", "keeps no WAL for an idle stream: its slot follows what other tables and databases write", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, {
        sql: `${table}; CREATE TABLE others (id int)`,
        publication: "FOR TABLE t"
      })
      const elsewhere = yield* makeWorkspace(server, { sql: table })
      yield* follow(workspace, {
        options: { timing: { statusInterval: "500 millis", acknowledgeDelay: "500 millis" } }
      })
      for (const [place, insert] of [
        [workspace, "INSERT INTO others SELECT generate_series(1, 20000)"],
        [elsewhere, "INSERT INTO t SELECT generate_series(1, 20000)"]
      ] as const) {
        yield* place.sql(insert)
        const end = Lsn.fromString(yield* place.currentWalLsn)!
        yield* eventually(
          Effect.gen(function* () {
            const slot = yield* workspace.findSlot()
            return Lsn.fromString(slot?.confirmed_flush_lsn ?? "")! >= end
          }),
          { what: "confirmed" }
        )
        yield* eventually(
          Effect.gen(function* () {
            // Where it may restart is told by the list of running transactions that a checkpoint writes.
            yield* workspace.sql("CHECKPOINT")
            return Lsn.fromString((yield* workspace.findSlot())?.restart_lsn ?? "")! >= end
          }),
          { what: "no WAL is kept from before" }
        )
      }
    })
  )
})
