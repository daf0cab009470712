/** Everything that libpq can be told is obeyed or refused, by its name: none of it is passed over. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Redacted, Result } from "effect"
import * as PgConfig from "../../src/pg/PgConfig.ts"

const options = (variables: Record<string, string>) =>
  Effect.provide(PgConfig.fromEnvironment, ConfigProvider.layer(ConfigProvider.fromEnv({ env: variables })))

const resolved = (variables: Record<string, string>) =>
  Effect.flatMap(options(variables), (found) => Effect.fromResult(PgConfig.resolve(found)))

/** A value that is obeyed, and what it comes to; or one that is refused, under the parameter's name. */
type Fate = { readonly value: string; readonly gives: object } | { readonly value: string; readonly refused: string }

const gives = (value: string, config: object): Fate => ({ value, gives: config })
const refused = (value: string, name: string): Fate => ({ value, refused: name })

/** Every variable of libpq 18, as its library holds them, but for the two of how it speaks itself. */
const variables: Readonly<Record<string, Fate>> = {
  PGAPPNAME: gives("mine", { applicationName: "mine" }),
  PGCHANNELBINDING: gives("disable", { channelBinding: "disable" }),
  PGCLIENTENCODING: gives("LATIN1", {}),
  PGCONNECT_TIMEOUT: gives("0", { connectTimeout: undefined }),
  PGDATABASE: gives("shop", { database: "shop" }),
  PGDATESTYLE: refused("German", "DateStyle"),
  PGGEQO: gives("off", {}),
  PGGSSDELEGATION: refused("1", "gssdelegation"),
  PGGSSENCMODE: refused("require", "gssencmode"),
  PGGSSLIB: refused("gssapi", "gsslib"),
  PGHOST: gives("db", { host: "db" }),
  PGHOSTADDR: gives("10.0.0.1", { host: "10.0.0.1" }),
  PGKRBSRVNAME: refused("postgres", "krbsrvname"),
  PGLOADBALANCEHOSTS: refused("random", "load_balance_hosts"),
  PGMAXPROTOCOLVERSION: refused("2.0", "max_protocol_version"),
  PGMINPROTOCOLVERSION: refused("3.2", "min_protocol_version"),
  PGOPTIONS: gives("-c x.y=1", {}),
  PGPASSFILE: gives("/tmp/none", { passfile: "/tmp/none" }),
  PGPASSWORD: gives("secret", { passfile: undefined }),
  PGPORT: gives("1234", { port: 1234 }),
  PGREQUIREAUTH: gives("md5", { requireAuth: new Set(["md5"]) }),
  PGREQUIREPEER: refused("postgres", "requirepeer"),
  PGREQUIRESSL: gives("1", { sslmode: "require" }),
  PGSERVICE: refused("nowhere", "service"),
  PGSERVICEFILE: gives("/tmp/none", {}),
  PGSSLCERT: refused("/tmp/none", "sslkey"),
  PGSSLCERTMODE: refused("require", "sslcertmode"),
  PGSSLCOMPRESSION: refused("yes", "sslcompression"),
  PGSSLCRL: gives("/tmp/none", { sslcrl: "/tmp/none" }),
  PGSSLCRLDIR: refused("/tmp", "sslcrldir"),
  PGSSLKEY: refused("/tmp/none", "sslcert"),
  PGSSLMAXPROTOCOLVERSION: gives("TLSv1.2", { sslMaxProtocolVersion: "TLSv1.2" }),
  PGSSLMINPROTOCOLVERSION: gives("TLSv1.3", { sslMinProtocolVersion: "TLSv1.3" }),
  PGSSLMODE: gives("require", { sslmode: "require" }),
  PGSSLNEGOTIATION: refused("direct", "sslnegotiation"),
  PGSSLROOTCERT: gives("system", { sslrootcert: "system" }),
  PGSSLSNI: refused("0", "sslsni"),
  PGSYSCONFDIR: gives("/etc", {}),
  PGTARGETSESSIONATTRS: gives("primary", { targetSessionAttrs: "primary" }),
  PGTZ: refused("Asia/Tokyo", "TimeZone"),
  PGUSER: gives("me", { user: "me" })
}

/** Every parameter of libpq 18 that a URL may have and that is no variable's. */
const parameters: Readonly<Record<string, Fate>> = {
  fallback_application_name: gives("mine", { applicationName: "mine" }),
  keepalives: gives("0", { keepAlive: false }),
  keepalives_idle: gives("9", {}),
  keepalives_interval: gives("9", {}),
  keepalives_count: gives("9", {}),
  tcp_user_timeout: refused("1", "tcp_user_timeout"),
  replication: refused("false", "replication"),
  sslpassword: gives("secret", {}),
  sslkeylogfile: refused("/tmp/none", "sslkeylogfile"),
  scram_client_key: refused("a", "scram_client_key"),
  scram_server_key: refused("a", "scram_server_key"),
  oauth_issuer: refused("a", "oauth_issuer"),
  oauth_client_id: refused("a", "oauth_client_id"),
  oauth_client_secret: refused("a", "oauth_client_secret"),
  oauth_scope: refused("a", "oauth_scope"),
  service: refused("nowhere", "service"),
  servicefile: gives("/tmp/none", {})
}

const holds = Effect.fnUntraced(function* (env: Record<string, string>, fate: Fate) {
  const found = yield* Effect.result(resolved(env))
  if ("refused" in fate) {
    assert(Result.isFailure(found), `${JSON.stringify(env)} is passed over`)
    assert.deepInclude(found.failure, { _tag: "InvalidOption", option: fate.refused })
    return
  }
  assert.deepInclude(Result.getOrThrow(found), fate.gives)
})

describe("what libpq can be told", () => {
  for (const [name, fate] of Object.entries(variables)) {
    it.effect(`[X11] is ${"refused" in fate ? "refused" : "obeyed"} in ${name}`, () =>
      holds({ [name]: fate.value }, fate)
    )
  }
  for (const [name, fate] of Object.entries(parameters)) {
    it.effect(`is ${"refused" in fate ? "refused" : "obeyed"} as ${name}`, () =>
      holds({ DATABASE_URL: `postgres://db?${name}=${encodeURIComponent(fate.value)}` }, fate)
    )
  }

  it.effect("counts as said where it asks for what happens anyway", () =>
    Effect.gen(function* () {
      const env = { PGGSSENCMODE: "prefer", PGSSLSNI: "1", PGLOADBALANCEHOSTS: "disable", PGSSLCERTMODE: "allow" }
      const more = { PGMAXPROTOCOLVERSION: "latest", PGMINPROTOCOLVERSION: "3.0", PGSSLCOMPRESSION: "0" }
      assert.strictEqual((yield* resolved({ ...env, ...more, PGHOST: "db" })).host, "db")
    })
  )

  it.effect("is a name only where no place has one, as a fallback", () =>
    Effect.gen(function* () {
      const url = "postgres://db?fallback_application_name=fallback"
      assert.strictEqual((yield* resolved({ DATABASE_URL: url })).applicationName, "fallback")
      assert.strictEqual((yield* resolved({ DATABASE_URL: url, PGAPPNAME: "mine" })).applicationName, "mine")
      const both = { DATABASE_URL: `${url}&application_name=its`, PGAPPNAME: "mine" }
      assert.strictEqual((yield* resolved(both)).applicationName, "its")
    })
  )

  it.effect("is a setting of the session in PGGEQO", () =>
    Effect.map(resolved({ PGGEQO: "off" }), (config) => assert.include(config.startupOptions, "-c geqo=off"))
  )

  it("refuses an address beside another host, and versions of TLS that exclude each other", () => {
    const failure = (url: string) => {
      const found = PgConfig.resolve({ url: Redacted.make(url) })
      return Result.isFailure(found) ? found.failure.option : undefined
    }
    assert.strictEqual(failure("postgres://db?hostaddr=10.0.0.1"), "hostaddr")
    assert.strictEqual(
      failure("postgres://db?ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2"),
      "sslMaxProtocolVersion"
    )
    assert.strictEqual(failure("postgres://db?ssl_max_protocol_version=TLSv1.1"), "ssl_max_protocol_version")
    assert.strictEqual(failure("postgres://db?service=shop"), "service")
  })
})

const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "replicant-service-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

describe("a service file", () => {
  const text = `# all of them
[other]
host=other

  [shop]
host=first
host=second
port=6000
dbname=shop
  user=me
[last]
host=last
`

  it.effect("says what the URL does not, and beats the variables", () =>
    Effect.gen(function* () {
      const path = join(yield* directory, "services")
      writeFileSync(path, text)
      const env = { PGSERVICE: "shop", PGSERVICEFILE: path, PGUSER: "somebody", PGPASSWORD: "p", PGPORT: "1" }
      assert.deepInclude(yield* resolved(env), { host: "first", port: 6000, database: "shop", user: "me" })
      const url = { ...env, DATABASE_URL: "postgres://you@/else" }
      assert.deepInclude(yield* resolved(url), { host: "first", database: "else", user: "you" })
      const named = { DATABASE_URL: `postgres:///?service=last&servicefile=${path}` }
      assert.deepInclude(yield* resolved(named), { host: "last", port: 5432 })
    }).pipe(Effect.scoped)
  )

  it.effect("is the system's where the user's has no such service", () =>
    Effect.gen(function* () {
      const path = yield* directory
      mkdirSync(join(path, "etc"))
      writeFileSync(join(path, "own"), "[mine]\nhost=mine\n")
      writeFileSync(join(path, "etc", "pg_service.conf"), text)
      const env = { PGSERVICEFILE: join(path, "own"), PGSYSCONFDIR: join(path, "etc") }
      assert.strictEqual((yield* options({ ...env, PGSERVICE: "mine" })).host, "mine")
      assert.strictEqual((yield* options({ ...env, PGSERVICE: "shop" })).host, "first")
    }).pipe(Effect.scoped)
  )

  it.effect("[X11] is refused by line where it cannot be obeyed, and quotes nothing", () =>
    Effect.gen(function* () {
      const path = join(yield* directory, "services")
      const failure = (lines: string, PGSERVICE = "shop") => {
        writeFileSync(path, lines)
        return Effect.flip(options({ PGSERVICE, PGSERVICEFILE: path }))
      }
      for (const line of [
        "SECRET",
        "SECRET=",
        "SECRET==",
        "ldap://SECRET",
        "service=SECRET",
        "nonsense=SECRET",
        "requirepeer=SECRET"
      ]) {
        const error = yield* failure(`[shop]\n${line}\n`)
        assert.strictEqual(error._tag, "InvalidOption", line)
        assert.notInclude(error.message, "SECRET")
      }
      assert.match((yield* failure(text, "none")).message, /service: "none" is in none of /)
      rmSync(path)
      const missing = yield* Effect.flip(options({ PGSERVICE: "shop", PGSERVICEFILE: path }))
      assert.match(missing.message, /cannot be read/)
    }).pipe(Effect.scoped)
  )
})
