import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as TestClock from "effect/testing/TestClock"
import { serverError } from "../../src/refineServerError.ts"
import * as Tables from "../../src/server/Tables.ts"
import type { QueryRow } from "../../src/server/WalSender.ts"

const facts = {
  oid: 16384,
  schema: "public",
  name: "t",
  kind: "r",
  persistence: "p",
  isPartition: false,
  replicaIdentity: "d"
}

const row = (overrides: object = {}): QueryRow => ({ facts: JSON.stringify({ ...facts, ...overrides }), types: null })

const options = {
  selection: { _tag: "Publications", publications: ["shop"] },
  aspects: ["primaryKey"]
} as const satisfies Tables.DescribeOptions<Tables.Aspect>

/** What was logged, by a program that may log. */
const listening = () => {
  const logged: Array<string> = []
  const layer = Logger.layer([Logger.make(({ message }) => void logged.push(String(message)))])
  return { logged, layer }
}

describe("Tables.describe", () => {
  it.effect("tells tables by OID, of each what was asked", () =>
    Effect.gen(function* () {
      const answer = [row({ oid: 2, primaryKey: ["id"] }), row({ oid: 1, name: "s", primaryKey: [] })]
      const session = { serverVersion: 180_000, query: () => Effect.succeed(answer) }
      const tables = yield* Tables.describe(session, options)
      assert.deepStrictEqual(
        tables.map(({ name, oid, primaryKey }) => ({ name, oid, primaryKey })),
        [
          { name: "s", oid: 1, primaryKey: [] },
          { name: "t", oid: 2, primaryKey: ["id"] }
        ]
      )
    })
  )

  it.effect("fails with DecodeError where an aspect or a column's type is missing from the answer", () =>
    Effect.gen(function* () {
      const session = { serverVersion: 180_000, query: () => Effect.succeed([row()]) }
      assert.strictEqual((yield* Effect.flip(Tables.describe(session, options)))._tag, "DecodeError")
      const column = {
        name: "id",
        typeOid: 23,
        typeModifier: -1,
        type: "integer",
        dimensions: 0,
        isNullable: false,
        takesNull: false,
        generated: "",
        identity: "",
        hasDefault: false
      }
      const untyped = { serverVersion: 180_000, query: () => Effect.succeed([row({ columns: [column] })]) }
      const error = yield* Effect.flip(Tables.describe(untyped, { ...options, aspects: ["columns"] }))
      assert.strictEqual(error._tag, "DecodeError")
    })
  )

  it.effect("names a server error by what it was about", () =>
    Effect.gen(function* () {
      const refused = serverError({ severity: "ERROR", sqlState: "42501", message: "permission denied" }, "Query")
      const session = { serverVersion: 180_000, query: () => Effect.fail(refused) }
      assert.strictEqual((yield* Effect.flip(Tables.describe(session, options)))._tag, "PermissionDenied")
    })
  )

  it.effect("says so after two seconds, and how long it took; of what is quick nothing", () =>
    Effect.gen(function* () {
      const { layer, logged } = listening()
      const answered = yield* Deferred.make<ReadonlyArray<QueryRow>>()
      const session = { serverVersion: 180_000, query: () => Deferred.await(answered) }
      const asking = yield* Effect.forkChild(Effect.provide(Tables.describe(session, options), layer))
      yield* TestClock.adjust("1999 millis")
      assert.deepStrictEqual(logged, [])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(logged, ['listing what "shop" publishes: the server is still at it'])
      yield* TestClock.adjust("5 seconds")
      yield* Deferred.succeed(answered, [row({ primaryKey: [] })])
      yield* Fiber.join(asking)
      assert.deepStrictEqual(logged.slice(1), ["listed 1 table in 7.0 s"])

      const quick = { serverVersion: 180_000, query: () => Effect.succeed([row({ primaryKey: [] })]) }
      yield* Effect.provide(Tables.describe(quick, options), layer)
      assert.lengthOf(logged, 2)
    })
  )
})
