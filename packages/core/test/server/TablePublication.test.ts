import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { portableText } from "../../src/protocol/ByteReader.ts"
import { ServerError } from "../../src/ReplicationError.ts"
import type { QueryRow, ReplicantConnection } from "../../src/server/WalSender.ts"
import * as Table from "../../src/stream/Table.ts"
import { Orders } from "../table/shop.ts"

const column = (name: string, typeOid: number) => ({
  name,
  typeOid,
  base: { schema: "pg_catalog", name: "t" },
  type: "t",
  generated: ""
})

const columns = [column("id", 23), column("total", 25), column("note", 25)]

/** What the catalog says before the publication is there, and once it is. */
const factsRow = (isPublished: boolean): QueryRow => ({
  facts: JSON.stringify({
    schema: "public",
    name: "orders",
    kind: "r",
    persistence: "p",
    replicaIdentity: "d",
    identity: ["id"],
    columns,
    published: isPublished
      ? [{ publication: "p", columns: ["id", "total", "note"], hasColumnList: false, filter: null, filterColumns: [] }]
      : [],
    namedBy: [],
    sentAs: [],
    bare: []
  })
})

const publicationRow = {
  pubname: "p",
  puballtables: "f",
  pubinsert: "t",
  pubupdate: "t",
  pubdelete: "t",
  pubtruncate: "t"
}

/** A server that has one table, and what it was told. `publishes`: whether CREATE PUBLICATION has the effect it should. */
const server = (create: Effect.Effect<unknown, ServerError>, publishes = true) => {
  const told: Array<string> = []
  let isMade = false
  const query = (text: string): Effect.Effect<ReadonlyArray<QueryRow>, ServerError> => {
    if (text.includes("json_build_object")) return Effect.succeed([factsRow(isMade && publishes)])
    if (text.includes("FROM pg_catalog.pg_publication")) return Effect.succeed([publicationRow])
    told.push(text.split(" ")[0]!)
    if (!text.startsWith("CREATE")) return Effect.succeed([])
    isMade = true
    return Effect.as(create, [])
  }
  const connection: ReplicantConnection = {
    serverVersion: 180_000,
    query,
    copyBoth: () => Effect.die("no stream"),
    slices: portableText
  }
  return { connection, told }
}

describe("Table.createPublication", () => {
  it.effect("commits what passes the check", () =>
    Effect.gen(function* () {
      const { connection, told } = server(Effect.void)
      yield* Table.createPublication(connection, [Orders], { name: "p" })
      assert.deepStrictEqual(told, ["BEGIN", "CREATE", "COMMIT"])
    })
  )

  it.effect("rolls back what does not", () =>
    Effect.gen(function* () {
      const { connection, told } = server(Effect.void, false)
      const error = yield* Effect.flip(Table.createPublication(connection, [Orders], { name: "p" }))
      assert.strictEqual(error._tag, "DeclarationMismatch")
      assert.deepStrictEqual(told, ["BEGIN", "CREATE", "ROLLBACK"])
    })
  )

  it.effect("rolls back when the server refuses, or the program gives up", () =>
    Effect.gen(function* () {
      const refusal = new ServerError({ stage: "Query", severity: "ERROR", sqlState: "42601", serverMessage: "no" })
      const refusing = server(Effect.fail(refusal))
      const error = yield* Effect.flip(Table.createPublication(refusing.connection, [Orders], { name: "p" }))
      assert.deepInclude(error, { _tag: "ServerError", sqlState: "42601" })
      assert.deepStrictEqual(refusing.told, ["BEGIN", "CREATE", "ROLLBACK"])

      const reached = yield* Deferred.make<void>()
      const slow = server(Effect.andThen(Deferred.succeed(reached, undefined), Effect.never))
      const fiber = yield* Effect.forkChild(Table.createPublication(slow.connection, [Orders], { name: "p" }))
      yield* Deferred.await(reached)
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(slow.told, ["BEGIN", "CREATE", "ROLLBACK"])
    })
  )

  it.effect("sends nothing for options that make no sense", () =>
    Effect.gen(function* () {
      const { connection, told } = server(Effect.void)
      for (const tables of [[], [Orders, Orders]]) {
        const error = yield* Effect.flip(Table.createPublication(connection, tables, { name: "p" }))
        assert.strictEqual(error._tag, "InvalidOption")
      }
      const none = yield* Effect.flip(Table.checkPublication(connection, [Orders], { publications: [] }))
      assert.strictEqual(none._tag, "InvalidOption")
      assert.deepStrictEqual(told, [])
    })
  )
})
