import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { inspect } from "node:util"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger, Redacted, Result } from "effect"
import * as PgConfig from "../../src/pg/PgConfig.ts"
import { askPassword, findPassword, passwordFromFile } from "../../src/pg/PgPassword.ts"

const directory = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "replicant-pass-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true }))
)

/** A file of that text, which only we may read unless told otherwise. */
const file = Effect.fnUntraced(function* (text: string, mode = 0o600) {
  const path = join(yield* directory, "pgpass")
  yield* Effect.promise(() => writeFile(path, text))
  yield* Effect.promise(() => chmod(path, mode))
  return path
})

const ask = (options: PgConfig.Options) =>
  Effect.map(
    askPassword(Result.getOrThrow(PgConfig.resolve({ host: "db", user: "me", database: "shop", ...options }))),
    (password) => password && Redacted.value(password)
  )

/** What was logged meanwhile. */
const logged = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const lines: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => void lines.push(`${logLevel}: ${String(message)}`))
    const result = yield* Effect.provide(effect, Layer.fresh(Logger.layer([logger])))
    return { result, lines }
  })

const wanted = ["db", "5432", "shop", "me"]

describe("findPassword", () => {
  it("[X1] takes the first line that fits", () => {
    const text = "other:5432:shop:me:no\ndb:5432:shop:me:yes\ndb:5432:shop:me:late"
    assert.strictEqual(findPassword(text, wanted), "yes")
  })

  it("[X1] lets a star fit anything, and only a whole and unprotected one", () => {
    assert.strictEqual(findPassword("*:*:*:*:any", wanted), "any")
    assert.isUndefined(findPassword("d*:*:*:*:no", wanted))
    assert.isUndefined(findPassword("\\*:*:*:*:no", wanted))
    assert.strictEqual(findPassword("\\*:*:*:*:yes", ["*", "1", "d", "u"]), "yes")
  })

  it("[X1] reads colons and backslashes that a backslash protects, and needs none in the password", () => {
    assert.strictEqual(
      findPassword("\\:\\:1:5432:sh\\\\op:me:p\\:a\\\\b:c", ["::1", "5432", "sh\\op", "me"]),
      "p:a\\b:c"
    )
  })

  it("[X1] passes over comments, empty lines, and lines with fields missing, and reads line ends of either kind", () => {
    assert.strictEqual(
      findPassword("# db:5432:shop:me:no\r\n\r\ndb:5432:shop\r\ndb:5432:shop:me:yes\r\n", wanted),
      "yes"
    )
  })

  it("[X1] compares every field exactly", () => {
    for (const line of ["db:543:shop:me:no", "db:5432:Shop:me:no", "db:5432:shop:me2:no", "d:5432:shop:me:no"]) {
      assert.isUndefined(findPassword(line, wanted), line)
    }
  })
})

describe("askPassword", () => {
  it.effect("[X1] looks into the password file for this server, anew each time", () =>
    Effect.gen(function* () {
      const passfile = yield* file("db:*:*:*:first\n[x]:*:*:*:other")
      assert.strictEqual(yield* ask({ passfile }), "first")
      yield* Effect.promise(() => writeFile(passfile, "db:*:*:*:second"))
      assert.strictEqual(yield* ask({ passfile }), "second")
      assert.isUndefined(yield* ask({ passfile, host: "elsewhere" }))
    })
  )

  it.effect("[X1] takes the usual sockets for localhost, as libpq does", () =>
    Effect.gen(function* () {
      const passfile = yield* file("localhost:*:*:*:local\n/other/place:*:*:*:by path")
      assert.strictEqual(yield* ask({ passfile, host: "/tmp" }), "local")
      assert.strictEqual(yield* ask({ passfile, host: "/var/run/postgresql" }), "local")
      assert.strictEqual(yield* ask({ passfile, host: "/other/place" }), "by path")
    })
  )

  it.effect("[X1] does not look into a file that others may read, or that is none, and says so", () =>
    Effect.gen(function* () {
      for (const mode of [0o640, 0o604, 0o620, 0o601]) {
        const passfile = yield* file("*:*:*:*:seen", mode)
        const { lines, result } = yield* logged(ask({ passfile }))
        assert.isUndefined(result, mode.toString(8))
        assert.deepStrictEqual(lines, [
          `Warn: password file ${passfile} can be read by others: its permissions should be 0600 or less`
        ])
      }
      assert.strictEqual(yield* ask({ passfile: yield* file("*:*:*:*:ours", 0o400) }), "ours")
      const passfile = join(yield* directory, "pgpass")
      yield* Effect.promise(() => mkdir(passfile))
      const { lines, result } = yield* logged(ask({ passfile }))
      assert.isUndefined(result)
      assert.deepStrictEqual(lines, [`Warn: password file ${passfile} is not a plain file`])
    })
  )

  it.effect("[X1] knows of no password, and says nothing, where there is no file", () =>
    Effect.gen(function* () {
      const { lines, result } = yield* logged(ask({ passfile: "/nonexistent/pgpass" }))
      assert.isUndefined(result)
      assert.deepStrictEqual(lines, [])
    })
  )

  it.effect("[X6] refuses what PostgreSQL cannot be sent, without quoting it", () =>
    Effect.gen(function* () {
      for (const password of ["hunter2\0", "hunter2\uD800"]) {
        const error = yield* Effect.flip(ask({ password: Redacted.make(password) }))
        assert.deepInclude(error, { _tag: "InvalidOption", option: "password", isRetryable: false })
        assert.notInclude(inspect(error, { depth: 9 }) + JSON.stringify(error), "hunter2")
      }
      assert.isUndefined(yield* ask({ password: Redacted.make("") }))
    })
  )
})

describe("passwordFromFile", () => {
  it.effect("[X1] gives the file's text without its line end, anew each time", () =>
    Effect.gen(function* () {
      const path = yield* file(" with spaces \n", 0o644)
      const password = passwordFromFile(path)
      assert.strictEqual(yield* ask({ password }), " with spaces ")
      yield* Effect.promise(() => writeFile(path, "two\n\r\n"))
      assert.strictEqual(yield* ask({ password }), "two\n")
    })
  )

  it.effect("[X1] tells a file that cannot be read", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(ask({ password: passwordFromFile("/nonexistent/secret") }))
      assert.deepInclude(error, { _tag: "InvalidOption", option: "password" })
      assert.include(error.message, "/nonexistent/secret cannot be read: ENOENT")
    })
  )
})
