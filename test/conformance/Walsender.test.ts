/**
 * Slots and the walsender, third part: a walsender that stops, that gives its client up, and whose slot is given up.
 * Servers are stopped and starved of WAL here, so each test that does it has one of its own.
 */
import { assert, describe } from "@effect/vitest"
import { Lsn, nextLsn } from "@replicant/core"
import { PgServer, type PgServerOptions } from "@replicant/node/testing"
import { Deferred, Effect, Fiber } from "effect"
import { scenario } from "../support/Conformance.ts"
import { eventually } from "../support/eventually.ts"
import { follow, insertedRows, walSender } from "../support/Follow.ts"
import { unhurried } from "../support/limits.ts"
import * as PostgresVersion from "../support/PostgresVersion.ts"
import { connectRaw, type Heard, isA, type RawStream, startCommand, startRaw } from "../support/RawWalSender.ts"
import { makeSlot } from "../support/Slot.ts"
import { type Said, tapWalSender } from "../support/WalSenderTap.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"

const table = "CREATE TABLE t (id int PRIMARY KEY, note text)"

const ownServer = (settings: PgServerOptions["settings"] = {}) =>
  PgServer.make({ ...PostgresVersion.serverOptions(), settings })

const lsnOf = (text: unknown): Lsn.Lsn => Lsn.fromString(String(text))!

const millis = Effect.sync(() => performance.now())

const isDemand = (said: Heard): said is Extract<Heard, { readonly _tag: "PrimaryKeepAlive" }> =>
  said._tag === "PrimaryKeepAlive" && said.replyRequested

/** An idle raw stream that has been sent all there is, on a slot made before. */
const idle = Effect.fnUntraced(function* (workspace: Workspace, answer?: Parameters<typeof startRaw>[2]) {
  const connection = yield* connectRaw(workspace.url())
  const raw = yield* startRaw(connection, startCommand(workspace.slot, workspace.publication), answer)
  yield* raw.hears("its acceptance", isA("CopyBothResponse"))
  yield* raw.sentThrough(lsnOf(yield* workspace.currentWalLsn))
  return raw
})

/** What is said last of all, but for keep-alives. */
const ending = (raw: RawStream) => raw.heard.filter((said) => said._tag !== "PrimaryKeepAlive").slice(1)

/** The end of WAL as the last keep-alive announced it. */
const announced = (raw: RawStream): Lsn.Lsn => raw.heard.filter(isA("PrimaryKeepAlive")).at(-1)!.walEnd

const cleanEnd: ReadonlyArray<unknown> = [{ _tag: "CommandComplete", command: "COPY 0" }, { _tag: "Closed" }]

/** What a client confirms when it is asked for a reply. */
type Reply = "the announced end" | "an older position" | "nothing"

/** Stops the server while an idle raw client, to which all was sent, replies so. The client leaves with the scope. */
const stopUnder = Effect.fnUntraced(function* (server: PgServer["Service"], workspace: Workspace, reply: Reply) {
  let older: Lsn.Lsn | undefined
  let demands = 0
  const raw = yield* idle(workspace, (said, stream) => {
    if (!isDemand(said) || older === undefined) return Effect.void
    demands++
    if (reply === "nothing") return Effect.void
    return stream.acknowledge(reply === "the announced end" ? said.walEnd : older)
  })
  older = announced(raw)
  yield* workspace.sql("INSERT INTO t SELECT coalesce(max(id), 0) + 1 FROM t")
  yield* raw.sentThrough(lsnOf(yield* workspace.currentWalLsn))
  // It outlives the client: that is what it waits for.
  const stopping = yield* Effect.forkDetach(server.stop("fast"), { startImmediately: true })
  yield* eventually(
    Effect.sync(() => demands > 0),
    { what: "the stopping server asked for a reply" }
  )
  return { raw, stopping, demands: () => demands }
})

describe("a fast shutdown", () => {
  scenario("fast-shutdown", "waits until the announced end is confirmed, and asks for it in a loop", () =>
    Effect.gen(function* () {
      const server = yield* ownServer()
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* makeSlot(workspace)

      yield* Effect.scoped(
        Effect.gen(function* () {
          const { raw, stopping } = yield* stopUnder(server, workspace, "the announced end")
          yield* Fiber.join(stopping)
          yield* raw.hears("the end of the connection", isA("Closed"))
          assert.deepStrictEqual<unknown>(ending(raw).slice(-2), cleanEnd)
        })
      )

      yield* server.start
      const lagging = yield* Effect.scoped(
        Effect.gen(function* () {
          const { demands, raw, stopping } = yield* stopUnder(server, workspace, "an older position")
          yield* eventually(
            Effect.sync(() => demands() > 300),
            { what: "it asks again and again" }
          )
          assert.isUndefined(stopping.pollUnsafe())
          assert.isFalse(raw.heard.some(isA("Closed")))
          return stopping
        })
      )
      yield* Fiber.join(lagging)

      yield* server.start
      const silent = yield* Effect.scoped(
        Effect.gen(function* () {
          const { raw, stopping } = yield* stopUnder(server, workspace, "nothing")
          const stopped = yield* Effect.timeoutOption(Fiber.join(stopping), "1500 millis")
          assert.strictEqual(stopped._tag, "None", "it hangs")
          assert.isFalse(raw.heard.some(isA("Closed")))
          return stopping
        })
      )
      yield* Fiber.join(silent)
    })
  )

  scenario("fast-shutdown", "of an idle server is answered by us at once", () =>
    Effect.gen(function* () {
      const server = yield* ownServer()
      const workspace = yield* makeWorkspace(server, { sql: table })
      const { timing } = unhurried
      const stream = yield* follow(workspace, { layer: walSender(workspace, unhurried), options: { timing } })
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* stream.saw("Commit", 1)
      // What nobody publishes must be confirmed as well.
      yield* workspace.sql("CREATE TABLE unpublished (id int)")
      yield* server.stop("fast")
      yield* server.start
      yield* workspace.sql("INSERT INTO t VALUES (2)")
      yield* stream.saw("Insert", 2)
      assert.deepStrictEqual(
        insertedRows(stream.changes).map((row) => row.id),
        [1, 2]
      )
    })
  )

  scenario("fast-shutdown", "under a busy handler waits for it, is not asked to death, and loses nothing", () =>
    Effect.gen(function* () {
      const server = yield* ownServer()
      const workspace = yield* makeWorkspace(server, { sql: table })
      const gate = yield* Deferred.make<void>()
      const tap = yield* tapWalSender(walSender(workspace, unhurried))
      const stream = yield* follow(workspace, {
        layer: tap.layer,
        options: { timing: { ...unhurried.timing, acknowledgeDelay: "20 millis" } },
        handler: (change) =>
          change._tag === "Insert" && change.row.id === 1
            ? Effect.as(Deferred.await(gate), undefined)
            : Effect.succeed(nextLsn(change))
      })
      // Of a client that has confirmed nothing yet, the server takes what is received for confirmed.
      yield* workspace.sql("INSERT INTO t VALUES (0)")
      yield* eventually(
        Effect.map(workspace.sql("SELECT FROM pg_stat_replication WHERE flush_lsn > '0/0'"), (rows) => rows.length > 0),
        { what: "something was confirmed" }
      )
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* stream.saw("Insert", 2)
      const count = (tag: Said["_tag"]) => tap.said.filter((said) => said._tag === tag).length
      const before = count("StandbyStatusUpdate")
      const began = yield* millis
      const stopping = yield* Effect.forkScoped(server.stop("fast"))
      const stopped = yield* Effect.timeoutOption(Fiber.join(stopping), "500 millis")
      assert.strictEqual(stopped._tag, "None", "the transaction is not confirmed yet")
      // It asks in a loop, and is answered ten times a second at most.
      assert.isBelow(count("StandbyStatusUpdate") - before, ((yield* millis) - began) / 100 + 5)
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(stopping)
      yield* server.start
      yield* workspace.sql("INSERT INTO t VALUES (2)")
      yield* stream.saw("Commit", 3)
      assert.deepStrictEqual(
        insertedRows(stream.changes).map((row) => row.id),
        [0, 1, 2]
      )
    })
  )
})

const limit = 2000

/** The settings of one session; the shared server's own limit is a minute. */
const impatient = { settings: { wal_sender_timeout: limit } }

describe("wal_sender_timeout", () => {
  scenario("walsender-timeout", "asks a silent client for a reply at half time, then ends without a word", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* makeSlot(workspace)
      const connection = yield* connectRaw(workspace.url(), impatient)
      const began = yield* millis
      const raw = yield* startRaw(connection, startCommand(workspace.slot, workspace.publication))
      yield* raw.hears("its acceptance", isA("CopyBothResponse"))
      const [started] = yield* workspace.sql(
        `SELECT extract(epoch FROM a.query_start - '2000-01-01 00:00Z')::float8 * 1000 AS millis
         FROM pg_stat_activity a JOIN pg_replication_slots s ON s.active_pid = a.pid
         WHERE s.slot_name = '${workspace.slot}'`
      )
      const demand = yield* raw.hears("a demand for a reply", isDemand)
      const asked = demand.sendTime / 1000 - Number(started?.millis)
      yield* raw.hears("the end of the connection", isA("Closed"))
      const ended = (yield* millis) - began
      assert.isAtLeast(asked, limit / 2)
      assert.isBelow(asked, ended, "and not at its end")
      assert.isAbove(ended, limit * 0.9)
      assert.lengthOf(raw.heard.filter(isDemand), 1)
      assert.deepStrictEqual(ending(raw), [{ _tag: "Closed" }], "no error, and no end of the copy")
    })
  )

  scenario("walsender-timeout", "leaves a client alone that sends status unasked, though it reads nothing", (server) =>
    Effect.gen(function* () {
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* makeSlot(workspace)
      // More than fits the buffers of both sockets, so that the server has to wait for its client.
      const rows = 20_000
      yield* workspace.sql(`INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, ${rows}) i`)
      const gate = yield* Deferred.make<void>()
      const stream = yield* follow(workspace, {
        layer: walSender(workspace, impatient),
        options: { createSlot: undefined },
        handler: (change) => {
          const done = Effect.succeed(nextLsn(change))
          return change._tag === "Begin" ? Effect.andThen(Deferred.await(gate), done) : done
        }
      })
      yield* stream.saw("Begin", 1)
      const { active_pid } = (yield* workspace.findSlot())!
      // Twice its limit by the server's own clock, and status updates to the last.
      yield* eventually(
        Effect.map(
          workspace.sql(
            `SELECT reply_time > backend_start + interval '${2 * limit} milliseconds' AS late
             FROM pg_stat_replication WHERE pid = ${active_pid}`
          ),
          ([row]) => row?.late === true
        ),
        { what: "the server still hears of a busy client after twice its limit" }
      )
      assert.deepStrictEqual(
        stream.changes.map((change) => change._tag),
        ["Begin"]
      )
      yield* Deferred.succeed(gate, undefined)
      yield* stream.saw("Commit", 1)
      assert.strictEqual(insertedRows(stream.changes).length, rows)
      assert.strictEqual((yield* workspace.findSlot())?.active_pid, active_pid, "on the same connection")
      assert.lengthOf(
        stream.changes.filter((change) => change._tag === "Begin"),
        1
      )
    })
  )
})

describe("a slot that is given up", () => {
  /** As small as it goes: whatever is older than the current segment is not kept, from the next checkpoint on. */
  const starving = { max_slot_wal_keep_size: "1MB", wal_keep_size: 0, min_wal_size: "32MB", max_wal_size: "32MB" }

  const giveUp = (workspace: Workspace) =>
    Effect.gen(function* () {
      for (let segment = 1; segment <= 4; segment++) {
        yield* workspace.sql("CREATE TABLE filler (id int); DROP TABLE filler")
        yield* workspace.sql("SELECT pg_switch_wal()")
      }
      yield* workspace.sql("CHECKPOINT")
    })

  /** To 17 other words, and another place: the version is told by text alone, since both are 55000. */
  const words = PostgresVersion.current() >= 18 ? /^can no longer access/ : /^can(not read from| no longer get changes)/

  scenario("invalidated", "ends as an administrator would end it, and is refused ever after", () =>
    Effect.gen(function* () {
      const server = yield* ownServer(starving)
      const workspace = yield* makeWorkspace(server, { sql: table })
      yield* makeSlot(workspace)
      const raw = yield* idle(workspace)
      yield* giveUp(workspace)
      yield* raw.hears("the end of the connection", isA("Closed"))
      const [error, closed] = ending(raw).slice(-2)
      assert.deepStrictEqual(closed, { _tag: "Closed" })
      assert(error?._tag === "ErrorResponse")
      assert.deepInclude(error.message, { severity: "FATAL", sqlState: "57P01" })
      yield* eventually(Effect.map(workspace.findSlot(), (slot) => slot?.wal_status === "lost"))
      for (const attempt of [1, 2]) {
        const again = yield* startRaw(
          yield* connectRaw(workspace.url()),
          startCommand(workspace.slot, workspace.publication)
        )
        const { message } = yield* again.hears(`refusal ${attempt}`, isA("ErrorResponse"))
        assert.strictEqual(message.sqlState, "55000")
        assert.match(message.message, words)
      }
    })
  )

  scenario("invalidated", "fails our stream for good, with a word for it, and no slot is made anew", () =>
    Effect.gen(function* () {
      const server = yield* ownServer(starving)
      const workspace = yield* makeWorkspace(server, { sql: table })
      const stream = yield* follow(workspace, { handler: () => Effect.succeed(undefined) })
      yield* workspace.sql("INSERT INTO t VALUES (1)")
      yield* stream.saw("Commit", 1)
      const before = yield* workspace.findSlot()
      yield* giveUp(workspace)
      const expected = {
        _tag: "SlotInvalidated",
        slot: workspace.slot,
        reason: PostgresVersion.current() >= 17 ? "wal_removed" : "unknown",
        isRetryable: false
      } as const
      assert.deepInclude(yield* stream.failure, expected)
      const again = yield* follow(workspace)
      assert.deepInclude(yield* again.failure, expected, "also where a missing slot may be made")
      const after = yield* workspace.findSlot()
      assert.deepInclude(after, { wal_status: "lost", active: false })
      assert.strictEqual(after?.confirmed_flush_lsn, before?.confirmed_flush_lsn)
    })
  )
})
