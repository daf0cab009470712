/** A server that asks for what it should not have, or proves nothing. It is told nothing, and fails by name. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { maxScramIterations } from "../../src/pg/PgAuthentication.ts"
import type * as PgConfig from "../../src/pg/PgConfig.ts"
import {
  type Answer,
  authenticated,
  connect,
  failure,
  fakeServer,
  int32,
  message,
  scram,
  secret,
  until,
  version
} from "../support/FakeServer.ts"

const saslFinal = (text: string) => message("R", int32(12), text)
const md5Request = message("R", int32(5), "salt")
const clearTextRequest = message("R", int32(3))

/** A connection that fails because we refuse, and what the server has heard by then. */
const refusal = Effect.fnUntraced(function* (answers: ReadonlyArray<Answer>, options?: PgConfig.Options) {
  const server = yield* fakeServer(answers)
  const error = yield* failure(server.port, options)
  yield* until(() => server.open() === 0)
  assert.isFalse(error.isRetryable, String(error))
  return { error, heard: Buffer.concat(server.heard).toString("latin1"), turns: server.heard.length }
})

describe("authentication", () => {
  it.live("[X5] is let in by a server that shows that it knows the password", () =>
    Effect.gen(function* () {
      const server = yield* fakeServer(scram({ password: secret }))
      assert.strictEqual((yield* connect(server.port)).serverVersion, 180_004)
      assert.notInclude(Buffer.concat(server.heard).toString("latin1"), secret)
    })
  )

  it.live("[X5] refuses a server whose signature does not hold, or is missing, or comes too soon", () =>
    Effect.gen(function* () {
      const wrong = Buffer.alloc(32, 7).toString("base64")
      const mangled: ReadonlyArray<(honest: string) => Buffer> = [
        () => Buffer.concat([saslFinal(`v=${wrong}`), authenticated, version]),
        (honest) => Buffer.concat([saslFinal(`v=${honest.slice(0, -4)}`), authenticated]),
        (honest) =>
          Buffer.concat([saslFinal(`v=${honest.replace(/^./, (c) => (c === "A" ? "B" : "A"))}`), authenticated]),
        () => Buffer.concat([saslFinal("e=other-error"), authenticated]),
        () => Buffer.concat([saslFinal(""), authenticated]),
        () => authenticated
      ]
      for (const final of mangled) {
        const { error } = yield* refusal(scram({ password: secret, final }))
        assert.deepInclude(error, { _tag: "AuthenticationFailed", sqlState: "" })
      }
      const other = yield* refusal(scram({ password: "another" }))
      assert.include(other.error.message, "signature")
    })
  )

  it.live("[X5] refuses a server that lets us in amid SCRAM, and asks it nothing", () =>
    Effect.gen(function* () {
      const [methods, first] = scram({ password: secret })
      for (const answers of [
        [methods!, authenticated, version],
        [methods!, first!, authenticated, version]
      ]) {
        const { error, heard } = yield* refusal(answers)
        assert.include(error.message, "without showing that it knows the password")
        assert.notInclude(heard, "SHOW")
      }
    })
  )

  it.live("[X5] refuses an absurd number of iterations before it counts one", () =>
    Effect.gen(function* () {
      for (const iterations of [2 ** 31, 2 ** 31 - 1, maxScramIterations + 1]) {
        const before = process.cpuUsage()
        const { error, turns } = yield* refusal(scram({ password: secret, iterations }))
        assert.isBelow(process.cpuUsage(before).user, 1_000_000, "microseconds of all threads")
        assert.include(error.message, "iteration count")
        assert.strictEqual(turns, 2)
      }
    })
  )

  it.live("[X5] refuses authentication messages out of order", () =>
    Effect.gen(function* () {
      const [methods] = scram({ password: secret })
      const outOfOrder = [
        [message("R", int32(11), "r=x,s=eA==,i=1")],
        [saslFinal("v=eA==")],
        [Buffer.concat([methods as Buffer, saslFinal("v=eA==")])],
        [Buffer.concat([methods as Buffer, md5Request])],
        [Buffer.concat([md5Request, clearTextRequest])]
      ]
      for (const answers of outOfOrder) {
        const { error, heard } = yield* refusal(answers)
        assert.include(["DecodeError", "AuthenticationFailed"], error._tag)
        assert.notInclude(heard, secret)
      }
    })
  )

  it.live("[X5] refuses methods of SASL that it does not know", () =>
    Effect.gen(function* () {
      const { error } = yield* refusal(scram({ password: secret, mechanisms: ["OAUTHBEARER", "SCRAM-SHA-1"] }))
      assert.strictEqual(error._tag, "AuthenticationFailed")
    })
  )

  it.live("[X5] never answers a request for clear text without TLS, whatever is allowed", () =>
    Effect.gen(function* () {
      for (const requireAuth of [undefined, ["password"] as const]) {
        const { error, heard } = yield* refusal([clearTextRequest], { requireAuth })
        assert.include(error.message, "in plain text")
        assert.notInclude(heard, secret)
      }
    })
  )

  it.live("[X5] does not answer a request for MD5 without TLS beyond this machine, unless MD5 is allowed by name", () =>
    Effect.gen(function* () {
      // Of no interface on this machine by its text, and yet it leads here.
      const host = "0.0.0.0"
      const { error, turns } = yield* refusal([md5Request], { host })
      assert.include(error.message, "MD5")
      assert.strictEqual(turns, 1)
      const server = yield* fakeServer([md5Request, authenticated, version])
      yield* connect(server.port, { host, requireAuth: ["md5"] })
      const local = yield* fakeServer([md5Request, authenticated, version])
      yield* connect(local.port)
    })
  )

  it.live("[X5] takes no way to authenticate but those that requireAuth allows", () =>
    Effect.gen(function* () {
      const cases: ReadonlyArray<readonly [PgConfig.Options["requireAuth"], ReadonlyArray<Answer>]> = [
        [["scram-sha-256"], [md5Request]],
        [["scram-sha-256"], [authenticated, version]],
        [["md5", "none"], scram({ password: secret })]
      ]
      for (const [requireAuth, answers] of cases) {
        const { error, heard } = yield* refusal(answers, { requireAuth })
        assert.include(error.message, "requireAuth does not allow")
        assert.notInclude(heard, "SHOW")
      }
      const server = yield* fakeServer(scram({ password: secret }))
      yield* connect(server.port, { requireAuth: ["scram-sha-256"] })
      const trusting = yield* fakeServer([authenticated, version])
      yield* connect(trusting.port, { requireAuth: ["none"] })
    })
  )
})
