import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import type { PublicationTarget } from "../../src/server/Publication.ts"
import * as Table from "../../src/table/Table.ts"
import { Customers, Orders } from "./shop.ts"

describe("Table.make", () => {
  it("keeps the name as it was declared, and its raw parts", () => {
    assert.strictEqual(Orders.name, "public.orders")
    assert.deepStrictEqual(Orders.relation, { schema: "public", name: "orders" })
    assert.strictEqual(Customers.name, "crm.eu.customers")
    assert.deepStrictEqual(Customers.relation, { schema: "crm.eu", name: "customers" })
    const bare = Table.make("orders", Schema.Struct({}))
    assert.deepStrictEqual([bare.name, bare.relation], ["orders", { schema: "public", name: "orders" }])
  })

  it("knows the column of each property", () => {
    assert.deepStrictEqual(Array.from(Orders.columns), [
      ["id", "id"],
      ["total", "total"],
      ["note", "note"],
      ["placedAt", "placed_at"]
    ])
  })

  it("is not misled by properties named like parts of an object", () => {
    const table = Table.make("t", Schema.Struct({ constructor: Schema.String, toString: Schema.String }))
    assert.deepStrictEqual(Array.from(table.columns.values()), ["constructor", "toString"])
  })

  it("does not compile with a key, or another name, for what is no property", () => {
    const schema = Schema.Struct({ id: Schema.Number })
    // @ts-expect-error: there is no property `uid`.
    Table.make("t", schema, { key: ["uid"] })
    // @ts-expect-error: there is no property `uid`.
    Table.make("t", schema, { columns: { uid: "id" } })
    // @ts-expect-error: a row has columns, and a string has none.
    assert.throws(() => Table.make("t", Schema.String))
  })

  it("does not compile with a Schema whose decoding needs a service", () => {
    interface Lookup {
      readonly lookup: string
    }
    const declared = (field: Schema.Codec<number, number, Lookup>) =>
      // @ts-expect-error: rows are decoded where no service is.
      Table.make("t", Schema.Struct({ id: field }))
    assert.isFunction(declared)
  })
})

describe("Table.publicationTarget", () => {
  it("names the tables as they are in the database", () => {
    const target: PublicationTarget = Table.publicationTarget([Orders, Customers])
    assert.deepStrictEqual(target, {
      _tag: "Tables",
      tables: [
        { schema: "public", name: "orders" },
        { schema: "crm.eu", name: "customers" }
      ]
    })
  })
})
