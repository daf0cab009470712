import { inspect } from "node:util"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Redacted, Result } from "effect"
import { Random } from "../../../core/test/support/Random.ts"
import * as PgConfig from "../../src/pg/PgConfig.ts"

const resolve = (options: PgConfig.Options) => Result.getOrThrow(PgConfig.resolve(options))

const refused = (options: PgConfig.Options) => {
  const result = PgConfig.resolve(options)
  assert.isTrue(Result.isFailure(result), inspect(options))
  return Result.isFailure(result) ? result.failure : assert.fail("unreachable")
}

const url = (text: string) => ({ url: Redacted.make(text) })

const environment = (variables: Record<string, string>) =>
  PgConfig.fromEnvironment.pipe(
    Effect.flatMap((options) => Effect.fromResult(PgConfig.resolve(options))),
    Effect.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env: variables })))
  )

const limitSettings =
  "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0 -c client_min_messages=notice"
const ownSettings = `-c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=3 -c bytea_output=hex ${limitSettings}`

/** As `pg_split_opts` reads bytes: white space is C's, and a backslash protects the byte after it. */
const splitOptions = (options: string): ReadonlyArray<string> => {
  const words: Array<Array<number>> = []
  let word: Array<number> | undefined
  let isProtected = false
  for (const byte of Buffer.from(options)) {
    if (!isProtected && (byte === 0x20 || (byte >= 0x09 && byte <= 0x0d))) word = undefined
    else {
      if (word === undefined) {
        word = []
        words.push(word)
      }
      if (!isProtected && byte === 0x5c) isProtected = true
      else {
        word.push(byte)
        isProtected = false
      }
    }
  }
  return words.map((bytes) => Buffer.from(bytes).toString())
}

describe("PgConfig.resolve", () => {
  it("knows what libpq would take where nothing is said, and localhost", () => {
    const config = resolve({ user: "me" })
    assert.strictEqual(config.host, "localhost")
    assert.strictEqual(config.port, 5432)
    assert.strictEqual(config.database, "me")
    assert.strictEqual(config.sslmode, "prefer")
    assert.strictEqual(config.applicationName, "replicant")
    assert.deepStrictEqual(config.connectTimeout, Duration.seconds(10))
    assert.isTrue(config.keepAlive)
    assert.notStrictEqual(resolve({}).user, "")
  })

  it("reads a URL, which what stands beside it beats", () => {
    const config = resolve({ ...url("postgresql://me@db:5433/shop?sslmode=verify-full"), host: "other" })
    assert.deepInclude(config, { host: "other", port: 5433, database: "shop", user: "me", sslmode: "verify-full" })
  })

  it("does not let an option that is present but undefined hide the URL", () => {
    assert.strictEqual(resolve({ ...url("postgresql://db"), host: undefined }).host, "db")
  })

  it("sets what keeps the text of values, and the session, apart from the role's settings", () => {
    assert.strictEqual(resolve({}).startupOptions, ownSettings)
  })

  it("escapes backslashes and white space in settings, which beat ours in any spelling", () => {
    const settings = { search_path: 'a, "b\\c"', wal_sender_timeout: 0, DateStyle: "German" }
    assert.strictEqual(
      resolve({ settings }).startupOptions,
      "-c datestyle=German -c intervalstyle=postgres -c extra_float_digits=3 -c bytea_output=hex " +
        `${limitSettings} ` +
        '-c search_path=a,\\ "b\\\\c" -c wal_sender_timeout=0'
    )
  })

  it("[X6] keeps 10,000 hostile values whole, each in its own setting, as the backend splits them", () => {
    const pieces = [..." \t\n\v\f\\'\";=-,.\u00A0\u2028é😀a", " -c ", "-c", "\\ ", "\\\\", " -c fsync=off", "--", "$$"]
    const random = new Random(41)
    for (let round = 0; round < 10_000; round++) {
      const value = Array.from({ length: random.below(9) }, () => random.pick(pieces)).join("")
      const given = splitOptions(resolve({ settings: { "a.b": value, "c.d": "after" } }).startupOptions)
      assert.deepStrictEqual(given.slice(-4), ["-c", `a.b=${value}`, "-c", "c.d=after"], JSON.stringify(value))
      assert.strictEqual(given.length, 22)
    }
  })

  it("puts options as they are before the settings that beat them", () => {
    assert.strictEqual(
      resolve(url("postgresql://db?options=-c%20geqo%3Doff")).startupOptions,
      `-c geqo=off ${ownSettings}`
    )
  })

  it("refuses what cannot be, by the option's name", () => {
    const cases: ReadonlyArray<readonly [string, PgConfig.Options]> = [
      ["port", { port: 0 }],
      ["port", { port: 65_536 }],
      ["port", { port: 1.5 }],
      ["port", url("postgresql://db:no/shop")],
      ["host", { host: "" }],
      ["host", { host: "a,,b" }],
      ["port", { host: "a,b", port: [1, 2, 3] }],
      ["port", { host: "a", port: [1, 2] }],
      ["port", url("postgresql://a:1,b:no/shop")],
      ["targetSessionAttrs", { targetSessionAttrs: "master" as "primary" }],
      ["target_session_attrs", url("postgresql://a,b?target_session_attrs=master")],
      ["requireAuth", { requireAuth: [] }],
      ["requireAuth", { requireAuth: ["scram" as "md5"] }],
      ["require_auth", url("postgresql://a?require_auth=scram")],
      ["require_auth", url("postgresql://a?require_auth=md5,!password")],
      ["host", { host: "a\0b" }],
      ["user", { user: "" }],
      ["database", { database: "a\0" }],
      ["database", { database: "x".repeat(64) }],
      ["database", { database: "é".repeat(32) }],
      ["database", { database: "\uD800" }],
      ["user", { user: "x".repeat(10_000) }],
      ["sslmode", { sslmode: "allow" as "require" }],
      ["sslmode", url("postgresql://db?sslmode=allow")],
      ["sslmode", url("postgresql://db?sslmode=on")],
      ["sslnegotiation", { sslnegotiation: "direct" }],
      ["sslnegotiation", url("postgresql://db?sslnegotiation=maybe")],
      ["sslrootcert", { sslmode: "verify-ca" }],
      ["sslrootcert", { sslmode: "verify-ca", sslrootcert: "system" }],
      ["sslcert", { sslkey: "/key.pem" }],
      ["sslkey", { sslcert: "/cert.pem" }],
      ["channelBinding", { channelBinding: "require" }],
      ["channelBinding", { channelBinding: "require", sslmode: "require", host: "/tmp" }],
      ["connectTimeout", { connectTimeout: "-1 second" }],
      ["connectTimeout", { connectTimeout: "soon" as "1 second" }],
      ["connect_timeout", url("postgresql://db?connect_timeout=soon")],
      ["keepalives", url("postgresql://db?keepalives=yes")],
      ["applicationName", { applicationName: "" }],
      ["settings", { settings: { "a b": "c" } }],
      ["settings", { settings: { a: "b\0c" } }],
      ["url", url("postgresql://db?sslmod=verify-full")],
      ["url", url("mysql://db")]
    ]
    for (const [option, options] of cases) assert.strictEqual(refused(options).option, option)
  })

  it("ignores what other clients put into URLs", () => {
    assert.strictEqual(resolve(url("postgresql://db?schema=public&pgbouncer=true")).host, "db")
  })

  it("takes require with a root certificate for verify-ca, as libpq does", () => {
    assert.strictEqual(resolve({ sslmode: "require", sslrootcert: "/ca.pem" }).sslmode, "verify-ca")
    assert.strictEqual(resolve({ sslmode: "require" }).sslmode, "require")
    assert.strictEqual(resolve(url("postgresql://db?ssl=true")).sslmode, "require")
  })

  it("has no TLS on a Unix-domain socket, whatever sslmode says", () => {
    assert.strictEqual(resolve({ host: "/var/run/postgresql", sslmode: "verify-full" }).sslmode, "disable")
  })

  it("[N11] keeps several hosts in order, one port for all or one for each, and TLS for those that are no sockets", () => {
    const config = resolve({ ...url("postgresql://a:5433,b,[::1]:5434/shop"), sslmode: "require" })
    assert.deepInclude(config, { host: "a", port: 5433, targetSessionAttrs: "any" })
    assert.deepStrictEqual(config.others, [
      { host: "b", port: 5432, sslmode: "require" },
      { host: "::1", port: 5434, sslmode: "require" }
    ])
    const mixed = resolve({ host: "/tmp,b", port: 6000, sslmode: "verify-full", targetSessionAttrs: "primary" })
    assert.deepInclude(mixed, { host: "/tmp", port: 6000, sslmode: "disable", targetSessionAttrs: "primary" })
    assert.deepStrictEqual(mixed.others, [{ host: "b", port: 6000, sslmode: "verify-full" }])
  })

  it("[X5] reads which ways to authenticate are allowed, or with a ! which are not", () => {
    const allowed = (text: string) => [...(resolve(url(`postgresql://db?require_auth=${text}`)).requireAuth ?? [])]
    assert.isUndefined(resolve({}).requireAuth)
    assert.deepStrictEqual(allowed("scram-sha-256"), ["scram-sha-256"])
    assert.deepStrictEqual(allowed("md5,gss,scram-sha-256"), ["md5", "scram-sha-256"])
    assert.deepStrictEqual(allowed("!password,!md5"), ["scram-sha-256", "none"])
  })

  it("[X1] looks into a password file only where no password was said", () => {
    assert.match(resolve({}).passfile ?? "", /pgpass/)
    assert.strictEqual(resolve({ passfile: "/secrets/pgpass" }).passfile, "/secrets/pgpass")
    assert.strictEqual(resolve(url("postgresql://db?passfile=/p")).passfile, "/p")
    assert.isUndefined(resolve({ passfile: "/p", password: Redacted.make("said") }).passfile)
    assert.isUndefined(resolve(url("postgresql://me:said@db?passfile=/p")).passfile)
  })

  it("takes a timeout of 0 for no limit", () => {
    assert.isUndefined(resolve({ connectTimeout: 0 }).connectTimeout)
    assert.isUndefined(resolve(url("postgresql://db?connect_timeout=0")).connectTimeout)
    assert.deepStrictEqual(resolve(url("postgresql://db?connect_timeout=3")).connectTimeout, Duration.seconds(3))
  })

  it.effect("asks a password provider each time", () =>
    Effect.gen(function* () {
      let asked = 0
      const password = Effect.sync(() => Redacted.make(`token ${++asked}`))
      const config = resolve({ password })
      assert.strictEqual(Redacted.value((yield* config.password)!), "token 1")
      assert.strictEqual(Redacted.value((yield* config.password)!), "token 2")
    })
  )

  it("shows no secret, however it is printed", () => {
    const secret = "hunter2"
    const given: PgConfig.Options = {
      ...url(`postgresql://me:${secret}@db/shop?sslkey=${secret}&sslcert=c&sslpassword=${secret}&sslmode=require`),
      password: Redacted.make(secret)
    }
    const key = resolve({ sslcert: "c", sslkey: secret })
    for (const printed of [given, resolve(given), resolve(url(`postgresql://me:${secret}@db/shop`)), key]) {
      assert.notInclude(String(printed), secret)
      assert.notInclude(JSON.stringify(printed), secret)
      assert.notInclude(inspect(printed, { depth: 20, showHidden: true }), secret)
    }
  })

  it("shows no secret in what it refuses", () => {
    const secret = "hunter2"
    for (const text of [`postgresql://me:${secret}@x@db`, `postgresql://me:${secret}@db:${secret}/shop`]) {
      const error = refused(url(text))
      assert.notInclude(String(error) + JSON.stringify(error) + inspect(error, { depth: 20 }), secret)
    }
  })
})

describe("PgConfig.fromEnvironment", () => {
  it.effect("reads libpq's variables", () =>
    Effect.gen(function* () {
      const config = yield* environment({
        PGHOST: "db",
        PGPORT: "5433",
        PGDATABASE: "shop",
        PGUSER: "me",
        PGPASSWORD: "secret",
        PGREQUIREAUTH: "scram-sha-256",
        PGTARGETSESSIONATTRS: "primary",
        PGSSLMODE: "verify-full",
        PGSSLROOTCERT: "/ca.pem",
        PGSSLCERT: "/cert.pem",
        PGSSLKEY: "/key.pem",
        PGAPPNAME: "app",
        PGCONNECT_TIMEOUT: "3",
        PGOPTIONS: "-c geqo=off"
      })
      assert.deepInclude(config, {
        host: "db",
        port: 5433,
        database: "shop",
        user: "me",
        targetSessionAttrs: "primary",
        sslmode: "verify-full",
        sslrootcert: "/ca.pem",
        sslcert: "/cert.pem",
        applicationName: "app",
        startupOptions: `-c geqo=off ${ownSettings}`
      })
      assert.deepStrictEqual([...(config.requireAuth ?? [])], ["scram-sha-256"])
      assert.strictEqual(Redacted.value((yield* config.password)!), "secret")
      assert.strictEqual(Redacted.value(config.sslkey!), "/key.pem")
      assert.deepStrictEqual(config.connectTimeout, Duration.seconds(3))
    })
  )

  it.effect("[X1] reads PGPASSFILE", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* environment({ PGPASSFILE: "/secrets/pgpass" })).passfile, "/secrets/pgpass")
    })
  )

  it.effect("lets DATABASE_URL beat the variables, which fill what it leaves out", () =>
    Effect.gen(function* () {
      const config = yield* environment({ DATABASE_URL: "postgresql://db/shop", PGHOST: "other", PGUSER: "me" })
      assert.deepInclude(config, { host: "db", database: "shop", user: "me" })
    })
  )

  it.effect("takes an empty variable for one that is not set", () =>
    Effect.gen(function* () {
      assert.deepInclude(yield* environment({ PGHOST: "", PGPORT: "", DATABASE_URL: "" }), {
        host: "localhost",
        port: 5432
      })
    })
  )

  it.effect("fails with the option that is wrong", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(environment({ PGPORT: "many" }))
      assert.strictEqual(error._tag, "InvalidOption")
      assert.include(error.message, "port")
    })
  )
})
