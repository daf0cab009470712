import Dns from "node:dns"
import { assert, describe, it } from "@effect/vitest"
import { ConnectionError } from "@replicant/core"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type * as PgConfig from "../../src/pg/PgConfig.ts"
import {
  authenticated,
  connect,
  errorResponse,
  failure,
  fakeServer,
  int32,
  message,
  notice,
  row,
  until,
  version
} from "../support/FakeServer.ts"

const silentAt: Record<string, { readonly answers: ReadonlyArray<Uint8Array>; readonly options?: PgConfig.Options }> = {
  "the TLS answer": { answers: [], options: { sslmode: "require" } },
  "the TLS handshake": { answers: [Buffer.from("S")], options: { sslmode: "require" } },
  "the direct TLS handshake": { answers: [], options: { sslmode: "require", sslnegotiation: "direct" } },
  "the startup message": { answers: [] },
  "the password": { answers: [message("R", int32(5), "salt")] },
  "the first query": { answers: [authenticated] }
}

describe("PgWalSender.connect", () => {
  it.live("[N7] tells a port where nobody listens", () =>
    Effect.gen(function* () {
      const { port } = yield* Effect.scoped(fakeServer([]))
      assert.deepInclude(yield* failure(port), { _tag: "ConnectionError", reason: "Refused" })
    })
  )

  it.live("[N7] tells a name that does not resolve", () =>
    Effect.gen(function* () {
      assert.deepInclude(yield* failure(5432, { host: "no-such-host.invalid" }), {
        _tag: "ConnectionError",
        reason: "HostNotFound"
      })
    })
  )

  it.live("tells a socket's directory without a socket", () =>
    Effect.gen(function* () {
      assert.deepInclude(yield* failure(5432, { host: "/nonexistent" }), { _tag: "ConnectionError", reason: "Refused" })
    })
  )

  for (const [step, { answers, options }] of Object.entries(silentAt)) {
    it.effect(`[N6] gives up on a peer that falls silent before answering ${step}, and closes the socket`, () =>
      Effect.gen(function* () {
        const server = yield* fakeServer(answers)
        const attempt = yield* Effect.forkChild(failure(server.port, options), { startImmediately: true })
        yield* until(() => server.heard.length > answers.length)
        yield* TestClock.adjust("9999 millis")
        assert.isUndefined(attempt.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.deepInclude(yield* Fiber.join(attempt), { _tag: "ConnectionError", reason: "TimedOut" })
        // The scope of the attempt is still open.
        yield* until(() => server.open() === 0)
        assert.strictEqual(server.accepted(), 1)
      })
    )

    it.live(`[N6] closes the socket when interrupted before the answer to ${step}`, () =>
      Effect.gen(function* () {
        const server = yield* fakeServer(answers)
        const attempt = yield* Effect.forkChild(connect(server.port, options), { startImmediately: true })
        yield* until(() => server.heard.length > answers.length)
        yield* Fiber.interrupt(attempt)
        yield* until(() => server.open() === 0)
      })
    )
  }

  it.effect("[N6] counts the password provider's time, and interrupts it", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer([])
      const attempt = yield* Effect.forkChild(failure(server.port, { password: Effect.never }), {
        startImmediately: true
      })
      yield* TestClock.adjust("10 seconds")
      assert.deepInclude(yield* Fiber.join(attempt), { _tag: "ConnectionError", reason: "TimedOut" })
      assert.strictEqual(server.accepted(), 0)
    })
  )

  it.live("passes on what the password provider fails with", () =>
    Effect.gen(function* () {
      const { port } = yield* fakeServer([])
      const expired = new ConnectionError({ reason: "Refused", detail: "no token" })
      assert.strictEqual(yield* failure(port, { password: Effect.fail(expired) }), expired)
    })
  )

  it.live("tells a server that closes before it is ready", () =>
    Effect.gen(function* () {
      const { port } = yield* fakeServer(["end"])
      assert.deepInclude(yield* failure(port), { _tag: "ConnectionError", reason: "Closed" })
      const { port: inQuery } = yield* fakeServer([authenticated, "end"])
      assert.deepInclude(yield* failure(inQuery), { _tag: "ConnectionError", reason: "Closed" })
    })
  )

  it.live("[N12] tells a pooler, and what to do", () =>
    Effect.gen(function* () {
      const { port } = yield* fakeServer([errorResponse("08P01", "unsupported startup parameter: replication")])
      assert.deepInclude(yield* failure(port), { _tag: "InvalidOption", remedy: "connect to PostgreSQL directly" })
    })
  )

  it.live("fails with a DecodeError, not with an uncaught one, where the peer does not speak PostgreSQL", () =>
    Effect.gen(function* () {
      const nonsense = [
        Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n"),
        message("!", "?"),
        Buffer.from([0x5a, 0, 0, 0, 1]),
        message("E", "SFATAL\0", "C08P01\0", "Mno end"),
        message("E", "SFATAL\0"),
        message("D", "\0\x09"),
        Buffer.concat([authenticated, message("T", "\0\x01", "no end")])
      ]
      for (const bytes of nonsense) {
        const { port } = yield* fakeServer([bytes])
        assert.strictEqual((yield* failure(port))._tag, "DecodeError")
      }
    })
  )

  it.live("fails for good where the server asks for a way to authenticate that we do not have", () =>
    Effect.gen(function* () {
      const { port } = yield* fakeServer([message("R", int32(7))])
      const error = yield* failure(port)
      assert.strictEqual(error._tag, "AuthenticationFailed")
      assert.isFalse(error.isRetryable)
    })
  )

  it.live("[X5] never hands the password to a server that asks for it in plain text without TLS", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer([message("R", int32(3))])
      const error = yield* failure(server.port)
      assert.strictEqual(error._tag, "AuthenticationFailed")
      yield* until(() => server.open() === 0)
      assert.notInclude(Buffer.concat(server.heard).toString("latin1"), "hunter2")
    })
  )

  it.live("tells that the server asks for a password where none is given", () =>
    Effect.gen(function* () {
      const { port } = yield* fakeServer([message("R", int32(5), "salt")])
      const error = yield* failure(port, { password: undefined })
      assert.strictEqual(error._tag, "AuthenticationFailed")
      assert.include(error.message, "none is given")
    })
  )

  it.live("[X3] never goes on in plain text from sslmode=require on, and with prefer goes on without TLS", () =>
    Effect.gen(function* () {
      for (const sslmode of ["require", "verify-full"] as const) {
        const server = yield* fakeServer([Buffer.from("N")])
        const error = yield* failure(server.port, { sslmode })
        assert.deepInclude(error, { _tag: "ConnectionError", reason: "Tls" })
        assert.isFalse(error.isRetryable)
        assert.deepStrictEqual(Buffer.concat(server.heard), Buffer.concat([int32(8), int32(80_877_103)]))
      }
      const server = yield* fakeServer([Buffer.from("N")])
      yield* Effect.forkChild(connect(server.port, { sslmode: "prefer" }), { startImmediately: true })
      yield* until(() => server.heard.length === 2)
      assert.include(server.heard[1]!.toString("latin1"), "replication\0database\0")
    })
  )

  it.live("[X3] does not take for an answer what follows the answer about TLS in one packet", () =>
    Effect.gen(function* () {
      const { port } = yield* fakeServer([Buffer.concat([Buffer.from("S"), authenticated])])
      assert.strictEqual((yield* failure(port, { sslmode: "require" }))._tag, "ConnectionError")
    })
  )

  it.live("says in the startup message what was configured, and nothing from libpq's variables", () =>
    Effect.gen(function* () {
      const ambient = {
        PGUSER: "other",
        PGDATABASE: "other",
        PGOPTIONS: "-c a=b",
        PGAPPNAME: "other",
        PGSSLMODE: "require"
      }
      Object.assign(process.env, ambient)
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          for (const name of Object.keys(ambient)) delete process.env[name]
        })
      )
      const server = yield* fakeServer([authenticated, version])
      yield* connect(server.port, { database: "shop", settings: { wal_sender_timeout: "30s" } })
      const startup = server.heard[0]!.subarray(8).toString().split("\0")
      const said = Object.fromEntries(startup.flatMap((word, at) => (at % 2 === 0 ? [[word, startup[at + 1]]] : [])))
      assert.deepInclude(said, {
        user: "me",
        database: "shop",
        replication: "database",
        application_name: "replicant",
        client_encoding: "UTF8"
      })
      assert.match(said.options ?? "", /-c datestyle=ISO .* -c wal_sender_timeout=30s$/)
    })
  )
})

/** Node's handles by kind: sockets, timers, look-ups. */
const handles = (): Readonly<Record<string, number>> => {
  const counts: Record<string, number> = {}
  for (const name of process.getActiveResourcesInfo()) counts[name] = (counts[name] ?? 0) + 1
  return counts
}

const listeners = (): number => process.eventNames().reduce((sum, name) => sum + process.listenerCount(name), 0)

describe("PgWalSender.connect, again and again", () => {
  it.live("[N7] leaves no socket, timer or listener of 1,000 attempts that are refused", () =>
    Effect.gen(function* () {
      const { port: nobody } = yield* Effect.scoped(fakeServer([]))
      const full = yield* fakeServer([errorResponse("53300", "sorry, too many clients already")])
      const starting = yield* fakeServer([errorResponse("57P03", "the database system is starting up")])
      yield* failure(nobody)
      yield* failure(full.port)
      yield* until(() => full.open() === 0)
      const before = { handles: handles(), listeners: listeners() }
      for (let attempt = 0; attempt < 500; attempt++) {
        assert.deepInclude(yield* failure(nobody), { reason: "Refused", isRetryable: true })
      }
      for (let attempt = 0; attempt < 250; attempt++) {
        assert.deepInclude(yield* failure(full.port), { sqlState: "53300", isRetryable: true })
        assert.deepInclude(yield* failure(starting.port), { sqlState: "57P03", isRetryable: true })
      }
      yield* until(() => full.open() + starting.open() === 0)
      assert.strictEqual(full.accepted() + starting.accepted(), 501)
      yield* until(() => Object.entries(handles()).every(([kind, count]) => count <= (before.handles[kind] ?? 0)))
      assert.strictEqual(listeners(), before.listeners)
    })
  )

  it.live("[N11] looks the name up at each attempt, so that a host may move", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer([authenticated, version])
      const { lookup } = Dns
      const restore = Effect.sync(() => {
        Dns.lookup = lookup
      })
      yield* Effect.addFinalizer(() => restore)
      const asked: Array<string> = []
      const answers = ["192.0.2.1", "127.0.0.1"]
      // Where `net` finds it, too.
      Dns.lookup = ((name: string, _: unknown, answer: (error: null, found: unknown) => void) => {
        asked.push(name)
        answer(null, [{ address: answers[asked.length - 1], family: 4 }])
      }) as typeof Dns.lookup
      const options = { host: "db.example.com", connectTimeout: "200 millis" } as const
      const walSender = connect(server.port, options)
      assert.strictEqual((yield* Effect.flip(walSender))._tag, "ConnectionError")
      yield* walSender
      assert.deepStrictEqual(asked, ["db.example.com", "db.example.com"])
    })
  )
})

/** Of a standby or a primary. */
const session = (standby: boolean, readOnly = standby) => [
  authenticated,
  row({ standby: standby ? "t" : "f", read_only: readOnly ? "on" : "off" }),
  version
]

describe("PgWalSender.connect to several hosts", () => {
  const hosts = "127.0.0.1,127.0.0.1"

  it.live("[N11] tries them in order, and passes over those that do not answer, or cannot yet", () =>
    Effect.gen(function* () {
      const { port: nobody } = yield* Effect.scoped(fakeServer([]))
      const silent = yield* fakeServer([])
      const starting = yield* fakeServer([errorResponse("57P03", "the database system is starting up")])
      const good = yield* fakeServer([authenticated, version])
      const unused = yield* fakeServer([authenticated, version])
      const port = [nobody, silent.port, starting.port, good.port, unused.port]
      yield* connect(0, { host: port.map(() => "127.0.0.1").join(","), port, connectTimeout: "300 millis" })
      assert.deepStrictEqual(
        [silent, starting, good, unused].map((server) => server.accepted()),
        [1, 1, 1, 0]
      )
      assert.deepStrictEqual(
        [silent, starting, good].map((server) => server.open()),
        [0, 0, 1]
      )
    })
  )

  it.live("[N11] does not pass over one that refuses us, or that TLS finds wrong", () =>
    Effect.gen(function* () {
      const refusing = yield* fakeServer([errorResponse("28P01", "no")])
      const withoutTls = yield* fakeServer([Buffer.from("N")])
      const good = yield* fakeServer([authenticated, version])
      const refused = yield* failure(0, { host: hosts, port: [refusing.port, good.port] })
      assert.strictEqual(refused._tag, "AuthenticationFailed")
      const tls = yield* failure(0, { host: hosts, port: [withoutTls.port, good.port], sslmode: "require" })
      assert.deepInclude(tls, { reason: "Tls" })
      assert.strictEqual(good.accepted(), 0)
    })
  )

  it.live("[N11] fails with what the last one said, to be tried again", () =>
    Effect.gen(function* () {
      const { port: nobody } = yield* Effect.scoped(fakeServer([]))
      const starting = yield* fakeServer([errorResponse("57P03", "the database system is starting up")])
      const error = yield* failure(0, { host: hosts, port: [nobody, starting.port] })
      assert.deepInclude(error, { sqlState: "57P03", isRetryable: true })
    })
  )

  it.live("[N11] finds the server that target_session_attrs asks for", () =>
    Effect.gen(function* () {
      const cases = {
        primary: [false, true, false],
        "read-write": [false, false, true],
        "read-only": [true, false, false],
        standby: [true, false, false],
        "prefer-standby": [true, false, false]
      } as const
      for (const [targetSessionAttrs, expected] of Object.entries(cases)) {
        const standby = yield* fakeServer(session(true))
        const primaryReadOnly = yield* fakeServer(session(false, true))
        const primary = yield* fakeServer(session(false))
        const servers = [standby, primaryReadOnly, primary]
        yield* connect(0, {
          host: "127.0.0.1,127.0.0.1,127.0.0.1",
          port: servers.map(({ port }) => port),
          targetSessionAttrs: targetSessionAttrs as keyof typeof cases
        })
        yield* until(() => servers.reduce((sum, server) => sum + server.open(), 0) === 1)
        assert.deepStrictEqual(
          servers.map((server) => server.open() === 1),
          [...expected],
          targetSessionAttrs
        )
      }
    })
  )

  it.live(
    "[N11] takes any server for prefer-standby once no standby is found, and waits for a primary with primary",
    () =>
      Effect.gen(function* () {
        const scripts = [session(false), [authenticated, version]]
        const primary = yield* fakeServer(() => scripts.shift() ?? [])
        yield* connect(primary.port, { targetSessionAttrs: "prefer-standby" })
        assert.strictEqual(primary.accepted(), 2)
        const standby = yield* fakeServer(session(true))
        const error = yield* failure(standby.port, { targetSessionAttrs: "primary" })
        assert.deepInclude(error, { _tag: "ConnectionError", reason: "Refused", isRetryable: true })
        assert.include(error.message, "standby")
        yield* until(() => standby.open() === 0)
      })
  )
})

describe("ReplicantConnection", () => {
  it.live("knows the server's version, and says goodbye as its scope closes", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer([authenticated, version])
      const connection = yield* Effect.scoped(connect(server.port))
      assert.strictEqual(connection.serverVersion, 180_004)
      yield* until(() => server.open() === 0)
      assert.deepStrictEqual(server.heard.at(-1), message("X"))
    })
  )

  it.live("hands over the socket between two messages, where one is half read", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer([
        authenticated,
        Buffer.concat([version, notice.subarray(0, 7)]),
        message("W", "x")
      ])
      const connection = yield* connect(server.port)
      const taking = yield* Effect.forkChild(connection.copyBoth("START_REPLICATION"), { startImmediately: true })
      yield* Effect.sleep("20 millis")
      assert.isUndefined(taking.pollUnsafe())
      server.say(notice.subarray(7))
      const copy = yield* Fiber.join(taking)
      assert.deepStrictEqual(Buffer.from(yield* copy.pull), message("W", "x"))
      assert.deepStrictEqual(server.heard.at(-1), message("Q", "START_REPLICATION\0"))
    })
  )

  it.live("fails a query when the connection ends, with what the server said before", () =>
    Effect.gen(function* () {
      const gone = Buffer.from(errorResponse("57P01", "going down"))
      const server = yield* fakeServer([authenticated, Buffer.concat([version, gone])])
      const connection = yield* connect(server.port)
      yield* Effect.sleep("20 millis")
      assert.deepInclude(yield* Effect.flip(connection.query("SELECT 1")), { _tag: "ServerError", sqlState: "57P01" })
    })
  )

  it.live("refuses a NUL character, which would end the command early", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer([authenticated, version])
      const connection = yield* connect(server.port)
      assert.strictEqual((yield* Effect.flip(connection.query("SELECT 1\0;")))._tag, "InvalidOption")
      assert.strictEqual((yield* Effect.flip(connection.copyBoth("START\0")))._tag, "InvalidOption")
      assert.strictEqual(server.heard.length, 2)
    })
  )

  it.live("dies of a query after copyBoth", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer([authenticated, version])
      const connection = yield* connect(server.port)
      yield* connection.copyBoth("START_REPLICATION")
      const exit = yield* Effect.exit(connection.query("SELECT 1"))
      assert.include(String(exit), "after copyBoth")
    })
  )
})
