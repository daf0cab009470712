import * as Net from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { ConnectionError, type ReplicationError } from "@replicant/core"
import { Effect, Fiber, Redacted, Result, type Scope } from "effect"
import { TestClock } from "effect/testing"
import * as PgConfig from "../src/PgConfig.ts"
import * as PgWalSender from "../src/PgWalSender.ts"

const message = (type: string, ...parts: ReadonlyArray<string | Uint8Array>): Buffer => {
  const payload = Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part) : part)))
  const header = Buffer.alloc(5)
  header.write(type)
  header.writeInt32BE(payload.length + 4, 1)
  return Buffer.concat([header, payload])
}

const int32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value)
  return bytes
}

const ready = message("Z", "I")
const authenticated = Buffer.concat([message("R", int32(0)), ready])
const version = Buffer.concat([
  message("T", "\0\x01", "server_version_num\0", Buffer.alloc(6), int32(25), Buffer.alloc(8)),
  message("D", "\0\x01", int32(6), "180004"),
  message("C", "SHOW\0"),
  ready
])
const notice = message("N", "SWARNING\0", "C01000\0", "Mmind\0", "\0")
const errorResponse = (code: string, text: string): Buffer => message("E", "SFATAL\0", `C${code}\0`, `M${text}\0`, "\0")

interface FakeServer {
  readonly port: number
  /** Everything the client said, a chunk a turn. */
  readonly heard: ReadonlyArray<Buffer>
  /** How many connections are open, and how many ever were. */
  readonly open: () => number
  readonly accepted: () => number
  readonly say: (bytes: Uint8Array) => void
}

/** A server that answers the client's n-th chunk with the n-th answer: bytes, or `end` to close. After that, silence. */
const fakeServer = (answers: ReadonlyArray<Uint8Array | "end">): Effect.Effect<FakeServer, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<FakeServer & { readonly stop: () => void }>((resume) => {
      const sockets = new Set<Net.Socket>()
      const heard: Array<Buffer> = []
      let accepted = 0
      const server = Net.createServer((socket) => {
        let turn = 0
        accepted += 1
        sockets.add(socket)
        socket.on("error", () => undefined)
        socket.on("close", () => sockets.delete(socket))
        socket.on("data", (chunk) => {
          heard.push(chunk)
          const answer = answers[turn++]
          if (answer === "end") socket.end()
          else if (answer !== undefined) socket.write(answer)
        })
      })
      server.listen(0, "127.0.0.1", () =>
        resume(
          Effect.succeed({
            port: (server.address() as Net.AddressInfo).port,
            heard,
            open: () => sockets.size,
            accepted: () => accepted,
            say: (bytes) => sockets.forEach((socket) => void socket.write(bytes)),
            stop: () => {
              for (const socket of sockets) socket.destroy()
              server.close()
            }
          })
        )
      )
    }),
    (server) => Effect.sync(server.stop)
  )

const connect = (port: number, options: PgConfig.Options = {}) =>
  PgWalSender.make(
    Result.getOrThrow(
      PgConfig.resolve({
        host: "127.0.0.1",
        port,
        user: "me",
        password: Redacted.make("hunter2"),
        sslmode: "disable",
        ...options
      })
    )
  ).connect

const failure = (port: number, options?: PgConfig.Options): Effect.Effect<ReplicationError, unknown, Scope.Scope> =>
  Effect.flip(connect(port, options))

/** Waits in real time, also under a `TestClock`. */
const until = (condition: () => boolean): Effect.Effect<void> =>
  Effect.callback((resume) => {
    let timer: NodeJS.Timeout | undefined
    const look = (): void => {
      if (condition()) resume(Effect.void)
      else timer = setTimeout(look, 2)
    }
    look()
    return Effect.sync(() => clearTimeout(timer))
  })

const silentAt: Record<string, { readonly answers: ReadonlyArray<Uint8Array>; readonly options?: PgConfig.Options }> = {
  "the TLS answer": { answers: [], options: { sslmode: "require" } },
  "the TLS handshake": { answers: [Buffer.from("S")], options: { sslmode: "require" } },
  "the direct TLS handshake": { answers: [], options: { sslmode: "require", sslnegotiation: "direct" } },
  "the startup message": { answers: [] },
  "the password": { answers: [message("R", int32(5), "salt")] },
  "the first query": { answers: [authenticated] }
}

describe("PgWalSender.connect", () => {
  it.live("tells a port where nobody listens", () =>
    Effect.gen(function* () {
      const { port } = yield* Effect.scoped(fakeServer([]))
      assert.deepInclude(yield* failure(port), { _tag: "ConnectionError", reason: "Refused" })
    })
  )

  it.live("tells a name that does not resolve", () =>
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
    it.effect(`gives up on a peer that falls silent before answering ${step}, and closes the socket`, () =>
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

    it.live(`closes the socket when interrupted before the answer to ${step}`, () =>
      Effect.gen(function* () {
        const server = yield* fakeServer(answers)
        const attempt = yield* Effect.forkChild(connect(server.port, options), { startImmediately: true })
        yield* until(() => server.heard.length > answers.length)
        yield* Fiber.interrupt(attempt)
        yield* until(() => server.open() === 0)
      })
    )
  }

  it.effect("counts the password provider's time, and interrupts it", () =>
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

  it.live("tells a pooler, and what to do", () =>
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

  it.live("never hands the password to a server that asks for it in plain text without TLS", () =>
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

  it.live("never goes on in plain text from sslmode=require on, and with prefer goes on without TLS", () =>
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

  it.live("does not take for an answer what follows the answer about TLS in one packet", () =>
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
