import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import {
  alterPublicationCommands,
  type CommandContext,
  createPublicationCommand,
  type TablePublicationOptions
} from "../../src/table/PublicationCommand.ts"
import * as Table from "../../src/table/Table.ts"
import { Customers, Orders } from "./shop.ts"

const context: CommandContext = { serverVersion: 150_000, columnsOf: (table) => Array.from(table.columns.values()) }

const create = (
  tables: ReadonlyArray<Table.Any>,
  options: Partial<TablePublicationOptions>,
  serverVersion = context.serverVersion
) => createPublicationCommand(tables, { name: "shop", ...options }, { ...context, serverVersion })

const text = (result: ReturnType<typeof create>) => Result.getOrThrow(result)
const refusal = (result: ReturnType<typeof create>) => Result.getOrThrow(Result.flip(result))

const defaults = "WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = false)"

describe("createPublicationCommand", () => {
  it("names whole tables, quoted, on any server", () => {
    assert.strictEqual(
      text(create([Orders, Customers], { name: 'My "Pub"' }, 140_000)),
      `CREATE PUBLICATION "My ""Pub""" FOR TABLE "public"."orders", "crm.eu"."customers" ${defaults}`
    )
  })

  it("lists declared columns by their names in the database, and filters rows", () => {
    const options = { columns: "declared", filters: { "public.orders": "total > 1 -- big" } } as const
    assert.strictEqual(
      text(create([Orders], options)),
      `CREATE PUBLICATION "shop" FOR TABLE "public"."orders" ("id", "total", "note", "placed_at") WHERE (total > 1 -- big\n) ${defaults}`
    )
  })

  it("publishes what it is told to, under the name that it is told to", () => {
    const command = text(create([Orders], { operations: ["insert", "delete"], publishViaPartitionRoot: true }))
    assert.include(command, "WITH (publish = 'insert, delete', publish_via_partition_root = true)")
  })

  it("refuses column lists and row filters before PostgreSQL 15, by name", () => {
    for (const options of [{ columns: "declared" }, { filters: { "public.orders": "true" } }] as const) {
      assert.deepInclude(refusal(create([Orders], options, 140_011)), {
        _tag: "UnsupportedByServer",
        serverVersion: 140_011,
        neededVersion: 150_000
      })
    }
  })

  const mistakes: ReadonlyArray<
    readonly [title: string, tables: ReadonlyArray<Table.Any>, options: Partial<TablePublicationOptions>]
  > = [
    ["no table", [], {}],
    ["a table declared twice", [Orders, Table.make("orders", Schema.Struct({}))], {}],
    ["a name with a zero byte", [Table.make("a\0b", Schema.Struct({}))], {}],
    ["a publication without a name", [Orders], { name: "" }],
    ["a name that PostgreSQL would cut", [Orders], { name: "x".repeat(64) }],
    ["no operation", [Orders], { operations: [] }],
    ["an empty filter", [Orders], { filters: { "public.orders": "  " } }],
    ["a filter with a zero byte", [Orders], { filters: { "public.orders": "\0" } }],
    ["a filter of a table that is not declared", [Orders], { filters: { orders: "true" } }],
    ["a list of no columns", [Table.make("t", Schema.Struct({}))], { columns: "declared" }]
  ]
  for (const [title, tables, options] of mistakes) {
    it(`refuses ${title}`, () => assert.strictEqual(refusal(create(tables, options))._tag, "InvalidOption"))
  }

  it("takes no filter from the prototype", () => {
    const table = Table.make("constructor", Schema.Struct({}))
    assert.notInclude(text(create([table], { filters: {} })), "WHERE")
  })

  it("does not compile with a filter of a table that is not declared", () => {
    const options: TablePublicationOptions<typeof Orders> = {
      name: "shop",
      // @ts-expect-error: it is declared as public.orders.
      filters: { orders: "true" }
    }
    assert.isDefined(options)
  })
})

describe("alterPublicationCommands", () => {
  it("has the tables before the parameters, unless partitioned tables need those first", () => {
    const commands = (publishViaPartitionRoot: boolean) =>
      Result.getOrThrow(alterPublicationCommands([Orders], { name: "shop", publishViaPartitionRoot }, context))
    assert.deepStrictEqual(commands(false), [
      `ALTER PUBLICATION "shop" SET TABLE "public"."orders"`,
      `ALTER PUBLICATION "shop" SET (publish = 'insert, update, delete, truncate', publish_via_partition_root = false)`
    ])
    assert.match(commands(true)[0]!, /publish_via_partition_root = true/)
  })
})
