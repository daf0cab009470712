/**
 * A network that ends, stalls, swallows and trickles. Each test holds what arrived against what was committed. Limits
 * are scaled: a `receiverTimeout` of 1 or 2 s stands for the 30 s that it is by default.
 */
import Dns from "node:dns"
import { assert, describe } from "@effect/vitest"
import { nextLsn, type Replication } from "@replicant/core"
import { type CopyBoth, WalSender } from "@replicant/core/driver"
import { FaultProxy, PgServer } from "@replicant/node/testing"
import { Array, Clock, Effect, Layer, Schedule } from "effect"
import { vi } from "vitest"
import { deliveryOf, insertedIds } from "../support/Delivery.ts"
import { eventually } from "../support/eventually.ts"
import { fault } from "../support/Faults.ts"
import { type Follower, follow, walSender } from "../support/Follow.ts"
import * as PostgresVersion from "../support/PostgresVersion.ts"
import { once, type Server } from "../support/Servers.ts"
import { makeWorkspace, type Workspace } from "../support/Workspace.ts"

type Handler = NonNullable<NonNullable<Parameters<typeof follow<never>>[1]>["handler"]>

interface LinkOptions {
  readonly options?: Partial<Replication.Options> | undefined
  readonly settings?: Readonly<Record<string, string>> | undefined
  readonly handler?: Handler | undefined
  /** Rules that hold from the first byte. */
  readonly rules?: ((proxy: FaultProxy["Service"]) => Effect.Effect<void>) | undefined
}

const quickly = Schedule.spaced("20 millis")

/** A stream through a proxy. TLS is not asked for: that would make two connections of one. */
const link = Effect.fnUntraced(function* (server: Server, { handler, options, rules, settings }: LinkOptions = {}) {
  const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int PRIMARY KEY, v text)" })
  const proxy = yield* FaultProxy.make(server)
  if (rules !== undefined) yield* rules(proxy)
  const layer = walSender(workspace, { host: proxy.host, port: proxy.port, sslmode: "disable", settings })
  const stream = yield* follow(workspace, { layer, handler, options: { reconnect: quickly, ...options } })
  return { workspace, proxy, stream }
})

/** One transaction of these rows, with 100 bytes each. */
const insert = (workspace: Workspace, from: number, to = from) =>
  workspace.sql(`INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(${from}, ${to}) i`)

const arrives = (stream: Follower<unknown>, row: number) =>
  eventually(
    Effect.sync(() => stream.changes.some((change) => change._tag === "Insert" && Number(change.row.id) === row)),
    { what: `row ${row} arrives` }
  )

/** Every row up to `last` has come, in whole transactions and in order. */
const brings = (stream: Follower<unknown>, last: number) =>
  arrives(stream, last).pipe(
    Effect.andThen(
      eventually(
        Effect.sync(() => stream.changes.at(-1)?._tag === "Commit"),
        { what: "its Commit" }
      )
    ),
    Effect.andThen(
      Effect.sync(() => {
        const delivery = deliveryOf(stream.changes)
        assert.deepStrictEqual(insertedIds(delivery), Array.range(1, last))
        return delivery
      })
    )
  )

/** Waits until the client has made its n-th connection. */
const untilConnection = (proxy: FaultProxy["Service"], n: number) =>
  eventually(
    Effect.map(proxy.accepted, (accepted) => accepted >= n),
    { what: `connection ${n}` }
  )

/** Waits until the client has given the first connection up and makes the next, by the limit of silence that was set. */
const givenUp = Effect.fnUntraced(function* (
  { proxy, stream }: { readonly proxy: FaultProxy["Service"]; readonly stream: Follower<unknown> },
  receiverTimeout: number
) {
  yield* untilConnection(proxy, nextAttempt)
  const cause = yield* eventually(
    Effect.sync(() => stream.states.flatMap((now) => (now._tag === "Reconnecting" ? [now.cause] : []))[0])
  )
  assert.deepInclude(cause, { _tag: "WalReceiverTimeout", receiverTimeout })
})

describe.concurrent("a connection that ends", () => {
  for (const ending of ["rst", "fin"] as const) {
    const id = ending === "rst" ? "N1" : "N2"
    fault(
      id,
      `by ${ending.toUpperCase()} is never the end of the stream: neither idle nor in a transaction`,
      (server) =>
        Effect.gen(function* () {
          const { proxy, stream, workspace } = yield* link(server)
          yield* insert(workspace, 1)
          yield* brings(stream, 1)
          yield* proxy.cut(ending)
          yield* insert(workspace, 2)
          yield* brings(stream, 2)
          // Ended only once a part has been handed over: what was read and not handed over, a reset may take along.
          const part = 50_000
          const before = yield* proxy.passed("toClient")
          yield* proxy.cutAfter(part, "silence")
          yield* insert(workspace, 3, 3000)
          yield* eventually(
            Effect.map(proxy.passed("toClient"), (passed) => passed >= before + part),
            { what: "a part has passed" }
          )
          yield* arrives(stream, 3)
          yield* proxy.cut(ending)
          assert.isAtLeast((yield* brings(stream, 3000)).halves, 1)
          assert.isAtLeast(yield* proxy.accepted, 3)
          assert.strictEqual(yield* proxy.mostOpen, 1)
        })
    )
  }

  fault(["N1", "N2"], "streams again at the first attempt, the server being there", (server) =>
    Effect.gen(function* () {
      const times = yield* Effect.forEach(
        Array.range(1, 6),
        Effect.fnUntraced(function* (n) {
          // Its own stream each: the usual schedule waits longer from one failure to the next.
          const { proxy, stream, workspace } = yield* link(server, { options: { reconnect: undefined } })
          yield* insert(workspace, 1)
          yield* brings(stream, 1)
          yield* proxy.cut(n % 2 === 0 ? "fin" : "rst")
          const before = yield* Clock.currentTimeMillis
          yield* insert(workspace, 2)
          yield* brings(stream, 2)
          assert.strictEqual(yield* proxy.accepted, 2)
          return (yield* Clock.currentTimeMillis) - before
        }, Effect.scoped)
      )
      times.sort((a, b) => a - b)
      yield* Effect.logInfo(`streaming again after ${times.map(Math.round).join(", ")} ms`)
    })
  )
})

/** The first connection falls silent, the second asks what it is doing, and the third is the next attempt. */
const nextAttempt = 3

describe.concurrent("a connection that falls silent", () => {
  fault(
    ["N3", "S2"],
    "both ways is dropped within its limit, and the stream goes on once the server has noticed, too",
    (server) =>
      Effect.gen(function* () {
        const { proxy, stream, workspace } = yield* link(server, {
          options: { timing: { receiverTimeout: "2 seconds" } },
          settings: { wal_sender_timeout: "4s" }
        })
        yield* insert(workspace, 1)
        yield* brings(stream, 1)
        yield* proxy.cut("silence")
        yield* insert(workspace, 2, 100)
        yield* givenUp({ proxy, stream }, 2000)
        yield* brings(stream, 100)
        // One that streams, one that asked about it, and the next while those are being closed.
        assert.isAtMost(yield* proxy.mostOpen, 3)
      })
  )

  fault("N4", "towards us is dropped within its limit, though everything that we write is taken", (server) =>
    Effect.gen(function* () {
      const { proxy, stream, workspace } = yield* link(server, { options: { timing: { receiverTimeout: "1 second" } } })
      yield* proxy.blackHole("toClient")
      yield* proxy.pass
      yield* insert(workspace, 1, 10)
      yield* givenUp({ proxy, stream }, 1000)
      yield* brings(stream, 10)
    })
  )

  fault(["N5", "N2"], "towards the server is ended by the server, and the stream goes on", (server) =>
    Effect.gen(function* () {
      const { proxy, stream, workspace } = yield* link(server, { settings: { wal_sender_timeout: "1500ms" } })
      yield* proxy.blackHole("toServer")
      yield* proxy.pass
      yield* insert(workspace, 1, 10)
      yield* brings(stream, 10)
      yield* untilConnection(proxy, 2)
      yield* insert(workspace, 11)
      yield* brings(stream, 11)
    })
  )

  fault(["F11", "N3"], "within a message is dropped within its limit, and the fragment is thrown away", (server) =>
    Effect.gen(function* () {
      const { proxy, stream, workspace } = yield* link(server, { options: { timing: { receiverTimeout: "1 second" } } })
      yield* proxy.cutAfter(1000, "silence")
      yield* insert(workspace, 1, 50)
      yield* givenUp({ proxy, stream }, 1000)
      // The server has not noticed: what it still holds open is ended for it.
      yield* proxy.cut("rst")
      assert.isAtLeast((yield* brings(stream, 50)).halves, 1)
    })
  )

  fault(
    "V6",
    "is noticed by our own pings where the server has no timeout; until then there are few, and no false alarm",
    (server) =>
      Effect.gen(function* () {
        const { proxy, stream, workspace } = yield* link(server, {
          options: { timing: { receiverTimeout: "2 seconds", acknowledgeDelay: "2 seconds" } },
          settings: { wal_sender_timeout: "0" }
        })
        yield* insert(workspace, 1)
        yield* brings(stream, 1)
        const before = yield* proxy.passed("toServer")
        const began = yield* Clock.currentTimeMillis
        // A status update has 39 bytes: in two seconds two pings, and one report of how far the server is.
        const sent = Effect.map(proxy.passed("toServer"), (bytes) => (bytes - before) / 39)
        yield* Effect.sleep("5 seconds") // Not a wait: how long nothing happens.
        yield* eventually(
          Effect.map(sent, (updates) => updates >= 3),
          { what: "three updates" }
        )
        assert.strictEqual(yield* proxy.accepted, 1)
        assert.isAtMost(yield* sent, ((yield* Clock.currentTimeMillis) - began) / 400)
        yield* proxy.cut("silence")
        yield* givenUp({ proxy, stream }, 2000)
        yield* proxy.cut("rst")
        yield* insert(workspace, 2)
        yield* brings(stream, 2)
      })
  )

  fault("N3", "for a third of its limit is kept, as ten seconds would be by default", (server) =>
    Effect.gen(function* () {
      const { proxy, stream, workspace } = yield* link(server, {
        options: { timing: { receiverTimeout: "4500 millis" } }
      })
      yield* insert(workspace, 1)
      yield* brings(stream, 1)
      for (let row = 2; row <= 4; row++) {
        yield* proxy.stall()
        yield* insert(workspace, row)
        yield* Effect.sleep("1500 millis") // Not a wait: for how long nothing passes.
        yield* proxy.pass
        yield* brings(stream, row)
      }
      assert.strictEqual(yield* proxy.accepted, 1)
    })
  )

  fault(["V5", "C9"], "because nobody reads it is kept: a busy handler suspends the watch", (server) =>
    Effect.gen(function* () {
      const { proxy, stream, workspace } = yield* link(server, {
        options: { timing: { receiverTimeout: "2 seconds" } },
        settings: { wal_sender_timeout: "2s" },
        handler: (change) =>
          Effect.as(Effect.sleep(change._tag === "Insert" && change.row.id === 1 ? "5 seconds" : 0), nextLsn(change))
      })
      yield* insert(workspace, 1, 30_000)
      yield* brings(stream, 30_000)
      assert.strictEqual(yield* proxy.accepted, 1)
      assert.strictEqual(deliveryOf(stream.changes).repeated, 0)
    })
  )
})

describe.concurrent("a connection that is slow", () => {
  const cases: ReadonlyArray<readonly [string, NonNullable<LinkOptions["rules"]>, string, number]> = [
    ["in pieces of 7 bytes", (proxy) => proxy.slice(7), "3 seconds", 200],
    ["with 200 ms each way", (proxy) => proxy.latency("200 millis"), "3 seconds", 1000],
    ["at 64 kB/s", (proxy) => proxy.throttle(64_000), "3 seconds", 500]
  ]
  for (const [title, rules, limit, rows] of cases) {
    fault("N8", `${title} brings the same stream, and no timeout while bytes flow`, (server) =>
      Effect.gen(function* () {
        const { proxy, stream, workspace } = yield* link(server, {
          rules,
          options: { timing: { receiverTimeout: limit as "3 seconds" } },
          settings: { wal_sender_timeout: "5s" }
        })
        const direct = yield* follow(workspace, { options: { slot: `${workspace.slot}_direct` } })
        for (const n of [0, 1, 2]) yield* insert(workspace, n * rows + 1, (n + 1) * rows)
        yield* brings(stream, 3 * rows)
        yield* brings(direct, 3 * rows)
        assert.deepStrictEqual(stream.changes, direct.changes)
        assert.strictEqual(yield* proxy.accepted, 1)
      })
    )
  }
})

/** Open TCP sockets of this process, those of tests beside us among them. */
const sockets = (): number =>
  process.getActiveResourcesInfo().filter((name) => name === "TCPSocketWrap" || name === "TCPWrap").length

describe("a connection that comes and goes", () => {
  fault("N10", "fifty times has one connection at a time, keeps no socket, and loses nothing", (server) =>
    Effect.gen(function* () {
      const { proxy, stream, workspace } = yield* link(server)
      yield* insert(workspace, 1)
      yield* brings(stream, 1)
      const before = sockets()
      for (let cycle = 1; cycle <= 50; cycle++) {
        const accepted = yield* proxy.accepted
        yield* proxy.refuse
        yield* proxy.cut(cycle % 2 === 0 ? "fin" : "rst")
        yield* insert(workspace, 2 * cycle, 2 * cycle + 1)
        yield* proxy.pass
        // Up for as long as it takes to connect, and now and then to stream.
        yield* eventually(Effect.map(proxy.accepted, (now) => now > accepted))
        if (cycle % 5 === 0) yield* brings(stream, 2 * cycle + 1)
      }
      yield* brings(stream, 101)
      assert.strictEqual(yield* proxy.mostOpen, 1)
      yield* eventually(
        Effect.sync(() => sockets() <= before),
        { what: `no more than ${before} sockets` }
      )
    })
  )

  fault(
    ["N7", "N11"],
    "resolves its host at each attempt: one that cannot be found for a while is found again",
    (server) =>
      Effect.gen(function* () {
        const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int PRIMARY KEY, v text)" })
        const proxies = [yield* FaultProxy.make(server), yield* FaultProxy.make(server)]
        let lookups = 0
        let isKnown = true
        const lookup = Dns.lookup
        yield* Effect.acquireRelease(
          Effect.sync(() =>
            vi.spyOn(Dns, "lookup").mockImplementation(((
              name: string,
              options: object,
              done: (error: Error) => void
            ) => {
              if (name !== "db.replicant.test") return lookup(name, options, done as never)
              lookups += 1
              if (isKnown) return lookup("127.0.0.1", options, done as never)
              done(Object.assign(new Error(`getaddrinfo ENOTFOUND ${name}`), { code: "ENOTFOUND" }))
            }) as never)
          ),
          (spy) => Effect.sync(() => spy.mockRestore())
        )
        const [proxy] = proxies
        const layer = walSender(workspace, { host: "db.replicant.test", port: proxy!.port, sslmode: "disable" })
        const stream = yield* follow(workspace, { layer, options: { reconnect: quickly } })
        yield* insert(workspace, 1)
        yield* brings(stream, 1)
        assert.strictEqual(lookups, 1)
        isKnown = false
        yield* proxy!.cut("rst")
        yield* insert(workspace, 2)
        yield* eventually(Effect.sync(() => lookups >= 5))
        isKnown = true
        yield* brings(stream, 2)
      }),
    once
  )
})

/** Nothing runs in this process meanwhile, as while the machine sleeps. */
const blockEventLoop = (millis: number) =>
  Effect.sync(() => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, millis))

/** A status update in CopyData that asks for a reply. */
const isPing = (bytes: Uint8Array): boolean => bytes[5] === 0x72 /* r */ && bytes.at(-1) === 1

/** What `walSender` makes, save that the process sleeps as soon as it has sent its first ping. */
const asleepAfterPing = (workspace: Workspace, millis: number, onSlept: () => void) => {
  let hasSlept = false
  const afterSend = (bytes: Uint8Array) =>
    Effect.suspend(() => {
      if (hasSlept || !isPing(bytes)) return Effect.void
      hasSlept = true
      return Effect.andThen(blockEventLoop(millis), Effect.sync(onSlept))
    })
  const drowsy = (copy: CopyBoth): CopyBoth => ({
    ...copy,
    send: (bytes) => Effect.andThen(copy.send(bytes), afterSend(bytes))
  })
  return Layer.effect(
    WalSender,
    Effect.map(WalSender, (real) =>
      WalSender.of({
        ...real,
        connect: Effect.map(real.connect, (connection) => ({
          ...connection,
          copyBoth: (command) => Effect.map(connection.copyBoth(command), drowsy)
        }))
      })
    )
  ).pipe(Layer.provide(walSender(workspace)))
}

describe("a process that sleeps", () => {
  fault("C10", "does not take its own lateness for the server's silence, even right after its ping", () =>
    Effect.gen(function* () {
      // A server of its own: one on which others write is never silent for long.
      const server = yield* PgServer.make(PostgresVersion.serverOptions())
      const workspace = yield* makeWorkspace(server, { sql: "CREATE TABLE t (id int PRIMARY KEY, v text)" })
      let hasSlept = false
      const layer = asleepAfterPing(workspace, 3000, () => {
        hasSlept = true
      })
      const stream = yield* follow(workspace, {
        layer,
        options: { timing: { receiverTimeout: "2 seconds" }, reconnect: quickly }
      })
      const pid = (yield* workspace.findSlot())?.active_pid
      yield* eventually(Effect.sync(() => hasSlept))
      yield* insert(workspace, 1)
      yield* brings(stream, 1)
      yield* blockEventLoop(3000)
      yield* insert(workspace, 2)
      yield* brings(stream, 2)
      assert.strictEqual((yield* workspace.findSlot())?.active_pid, pid, "one connection all along")
    })
  )
})
