import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as ConnectionUrl from "../../src/pg/ConnectionUrl.ts"

const parse = (url: string) => ({ ...Result.getOrThrow(ConnectionUrl.parse(url)) })

const problem = (url: string) => {
  const result = ConnectionUrl.parse(url)
  assert.isTrue(Result.isFailure(result), url)
  return Result.isFailure(result) ? result.failure : undefined
}

describe("ConnectionUrl.parse", () => {
  it("takes every part of a full URL, either scheme", () => {
    const expected = { user: "me", password: "secret", host: "db", port: "5433", dbname: "shop", sslmode: "require" }
    assert.deepStrictEqual(parse("postgresql://me:secret@db:5433/shop?sslmode=require"), expected)
    assert.deepStrictEqual(parse("postgres://me:secret@db:5433/shop?sslmode=require"), expected)
  })

  it("leaves out what is not said, so that the environment can say it", () => {
    assert.deepStrictEqual(parse("postgresql://"), {})
    assert.deepStrictEqual(parse("postgresql:///"), {})
    assert.deepStrictEqual(parse("postgresql://db"), { host: "db" })
    assert.deepStrictEqual(parse("postgresql:///shop"), { dbname: "shop" })
    assert.deepStrictEqual(parse("postgresql://me@/shop"), { user: "me", dbname: "shop" })
    assert.deepStrictEqual(parse("postgresql://db?sslmode="), { host: "db" })
  })

  it("decodes percent escapes in every part, and leaves a plus a plus", () => {
    assert.deepStrictEqual(parse("postgresql://m%40e:p%2Fw%3F%23+%25@db/my%20shop?application_name=a%26b"), {
      user: "m@e",
      password: "p/w?#+%",
      host: "db",
      dbname: "my shop",
      application_name: "a&b"
    })
  })

  it("keeps # and ? of an unescaped password, as libpq does", () => {
    assert.strictEqual(parse("postgresql://me:p#w?x=y@db/shop").password, "p#w?x=y")
  })

  it("reads an IPv6 address in brackets", () => {
    assert.deepStrictEqual(parse("postgresql://[2001:db8::1]:5433/shop"), {
      host: "2001:db8::1",
      port: "5433",
      dbname: "shop"
    })
    assert.deepStrictEqual(parse("postgresql://[::1]"), { host: "::1" })
  })

  it("[N11] reads several hosts, each with its port or without, and IPv6 addresses among them", () => {
    assert.deepStrictEqual(parse("postgresql://me@a:5433,b,[::1]:5434/shop?target_session_attrs=primary"), {
      user: "me",
      host: "a,b,::1",
      port: "5433,,5434",
      dbname: "shop",
      target_session_attrs: "primary"
    })
    assert.deepStrictEqual(parse("postgresql://a,b/shop"), { host: "a,b", dbname: "shop" })
  })

  it("reads a socket's directory, as a parameter or escaped as the host", () => {
    assert.deepStrictEqual(parse("postgresql://me@/shop?host=/var/run/postgresql"), {
      user: "me",
      dbname: "shop",
      host: "/var/run/postgresql"
    })
    assert.strictEqual(parse("postgresql://%2Fvar%2Frun%2Fpostgresql/shop").host, "/var/run/postgresql")
  })

  it("lets a parameter beat the part before it", () => {
    assert.strictEqual(parse("postgresql://db:1/shop?port=2&host=other").port, "2")
    assert.strictEqual(parse("postgresql://db:1/shop?port=2&host=other").host, "other")
  })

  it("[X7] tells what is malformed without quoting any of it", () => {
    const secret = "hunter2"
    const malformed = [
      `http://me:${secret}@db`,
      `me:${secret}@db`,
      `postgresql://me:${secret}@x@db/shop`,
      `postgresql://me:${secret}@db1,::2/shop`,
      `postgresql://me:${secret}@::1/shop`,
      `postgresql://me:${secret}@[::1/shop`,
      `postgresql://me:${secret}%@db/shop`,
      `postgresql://me:${secret}%zz@db/shop`,
      `postgresql://me:${secret}%ff@db/shop`,
      `postgresql://me:${secret}%00@db/shop`,
      `postgresql://db/shop?${secret}`,
      `postgresql://me:1/${secret}@db/shop`,
      `postgresql://me:p@${secret}/x@db/shop`,
      `postgresql://me/${secret}:x@db/shop`
    ]
    for (const url of malformed) {
      const error = problem(url)
      assert.strictEqual(error?.option, "url")
      assert.notInclude(JSON.stringify(error), secret)
      assert.notInclude(String(error), secret)
    }
  })

  it("[X7] tells a parameter by its name where that cannot be a part of a password", () => {
    for (const [url, name] of [
      ["postgresql://me:secret@db/shop?sslmod=require", "sslmod"],
      ["postgresql://db?connect_timeout=1&sslmod=require", "sslmod"],
      ["postgresql://db?sslmod=require&password=x", "sslmod"]
    ] as const) {
      assert.include(ConnectionUrl.unknownParameter(url, name).message, name, url)
    }
    for (const url of [
      "postgresql://me:1/x?hunter=rest@db/shop",
      "postgresql://me:p@ss?hunter=rest@db/shop",
      "postgresql://me:1/x?sslmode=require&hunter=rest@db/shop",
      "postgresql://db/shop?password=a&hunter=rest",
      "postgresql://db/shop?user=me&sslpassword=a&hunter=rest",
      "postgresql://db/shop?HUNTER=rest",
      "postgresql://db/shop?hunter2=rest",
      "postgresql://db/shop?hunt%65r=rest"
    ]) {
      for (const name of ["hunter", "HUNTER", "hunter2"]) {
        const error = ConnectionUrl.unknownParameter(url, name)
        assert.notMatch(`${error.message} ${JSON.stringify(error)}`, /hunt/i, url)
      }
    }
  })

  it.prop(
    "gives back any user, password and database that were percent-encoded",
    [Schema.Array(Schema.String)],
    ([parts]) => {
      const [user = "u", password = "p", dbname = "d"] = parts.map((part) => part.toWellFormed().replaceAll("\0", ""))
      const encoded = [user, password, dbname].map(encodeURIComponent)
      const expected = Object.entries({ user, password, host: "db", dbname }).filter(([, value]) => value !== "")
      assert.deepStrictEqual(
        parse(`postgresql://${encoded[0]}:${encoded[1]}@db/${encoded[2]}`),
        Object.fromEntries(expected)
      )
    }
  )
})
