import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { type CatalogColumn, type CatalogTable, tableModule } from "../../src/codegen/TableModule.ts"

const column = (name: string, type: string, typeOid: number, more: Partial<CatalogColumn> = {}): CatalogColumn => ({
  name,
  typeOid,
  base: { schema: "pg_catalog", name: type },
  type,
  labels: null,
  dimensions: 0,
  isNullable: false,
  ...more
})

const table = (
  name: string,
  columns: ReadonlyArray<CatalogColumn>,
  more: Partial<CatalogTable> = {}
): CatalogTable => ({
  schema: "public",
  name,
  replicaIdentity: "d",
  identity: columns.slice(0, 1).map((first) => first.name),
  primaryKey: columns.slice(0, 1).map((first) => first.name),
  columns,
  ...more
})

const mood = { base: { schema: "public", name: "mood" }, labels: ["sad", 'so "so"'] }

const orders = table("orders", [
  column("id", "bigint", 20),
  column("note", "text", 25, { isNullable: true }),
  column("tags", "text[]", 1009, { base: { schema: "pg_catalog", name: "_text" }, dimensions: 1 }),
  column("grid", "integer[]", 1007, { base: { schema: "pg_catalog", name: "_int4" }, dimensions: 2, isNullable: true }),
  column("data", "jsonb", 3802, { isNullable: true }),
  column("bytes", "bytea", 17),
  column("mood", "mood", 16_400, { ...mood, isNullable: true })
])

const expected = `/**
 * Tables as the database has them, made by
 *
 *     replicant codegen --publication shop
 *
 * What is changed here by hand is lost when it is made again.
 */
import { Table } from "@replicant/core"
import * as Schema from "effect/Schema"

/** The type public.mood. */
export const Mood = Schema.Literals(["sad", 'so "so"'])

export const Orders = Table.make(
  "public.orders",
  Schema.Struct({
    id: Schema.BigInt, // bigint
    note: Schema.NullOr(Schema.String), // text
    tags: Schema.Array(Schema.NullOr(Schema.String)), // text[]
    grid: Schema.NullOr(Schema.Array(Schema.Array(Schema.NullOr(Schema.Number)))), // integer[]
    data: Schema.Unknown, // jsonb
    bytes: Schema.Uint8Array, // bytea
    mood: Schema.NullOr(Mood) // mood
  }),
  { key: ["id"] }
)

export const tables = [Orders] as const
`

const args = ["--publication", "shop"]

const root = fileURLToPath(new URL("../../../..", import.meta.url))

/** The source as Biome leaves it, under this repository's settings. */
const formatted = (source: string): string => {
  const biome = spawnSync(
    process.execPath,
    ["node_modules/@biomejs/biome/bin/biome", "check", "--write", "--stdin-file-path=test/tables.ts"],
    {
      cwd: root,
      input: source,
      encoding: "utf8"
    }
  )
  assert.strictEqual(biome.status, 0, biome.stderr)
  return biome.stdout
}

describe("tableModule", () => {
  it("declares each column by what its decoder gives", () => {
    assert.strictEqual(tableModule([orders], args), expected)
  })

  it("names properties as JavaScript does, and takes a Schema of the program's own, as Biome leaves it", () => {
    const wide = Array.from({ length: 9 }, (_, index) => column(`a_long_name_of_column_${index}`, "int4", 23))
    const items = table(
      "order_items",
      [column("order_id", "int8", 20), column("placed_at", "timestamptz", 1184), column("meta", "jsonb", 3802)],
      { primaryKey: ["order_id"] }
    )
    const columns = [
      { schema: "public", table: "order_items", column: "meta", module: "./schemas.ts", name: "Meta" },
      { schema: "public", table: "wide", column: "a_long_name_of_column_0", module: "./schemas.ts", name: "Wide" }
    ]
    const source = tableModule([items, table("wide", wide)], args, { casing: "camel", columns })
    assert.include(source, 'import { Meta, Wide } from "./schemas.ts"')
    assert.include(source, "    placedAt: Schema.String, // timestamptz\n    meta: Meta // jsonb\n")
    assert.include(source, '  { key: ["orderId"], columns: { orderId: "order_id", placedAt: "placed_at" } }\n')
    assert.include(source, 'columns: {\n      aLongNameOfColumn0: "a_long_name_of_column_0",')
    assert.include(source, "export const WideTable = ", "a table's constant hides no Schema of the program's")
    assert.strictEqual(formatted(source), source)
  })

  it("is the same whatever order the catalog answers in", () => {
    const others = [orders, table("a", []), { ...orders, schema: "Crm", name: "Orders" }]
    assert.strictEqual(tableModule(others, args), tableModule(others.toReversed(), args))
  })

  it("takes the identity for the key, or the primary key, and neither where the module lacks a part of it", () => {
    const columns = [column("a", "int4", 23), column("b", "int4", 23)]
    const keyed = (more: Partial<CatalogTable>) => tableModule([table("t", columns, more)], args)
    assert.include(keyed({ replicaIdentity: "i", identity: ["b", "a"] }), '{ key: ["b", "a"] }')
    assert.include(keyed({ replicaIdentity: "f", identity: [], primaryKey: ["a"] }), '{ key: ["a"] }')
    assert.notInclude(keyed({ replicaIdentity: "f", identity: [] }), "no replica identity")
    assert.notInclude(keyed({ identity: ["a", "gone"] }), "key:")
    const bare = keyed({ identity: [], primaryKey: [] })
    assert.notInclude(bare, "key:")
    assert.include(bare, "It has no replica identity")
  })

  it("leaves what has no decoder text, an array of an enum among it", () => {
    const source = tableModule(
      [
        table("t", [
          column("moods", "mood[]", 16_401, { base: { schema: "public", name: "_mood" }, dimensions: 1 }),
          column("none", "empty", 16_402, { base: { schema: "public", name: "empty" }, labels: [] }),
          column("domain", "positive", 16_403, { base: { schema: "pg_catalog", name: "int4" } })
        ])
      ],
      args
    )
    assert.include(source, "moods: Schema.String,")
    assert.include(source, "none: Schema.String,")
    assert.include(source, "domain: Schema.Number ")
  })

  it("quotes a name where its parts could not be told from each other", () => {
    const source = tableModule(
      [
        { ...orders, schema: "crm.eu" },
        { ...orders, name: "a.b" }
      ],
      args
    )
    assert.include(source, '  { schema: "crm.eu", name: "orders" },')
    assert.include(source, '  "public.a.b",')
  })

  it("is formatted and free of warnings, with names and texts of any kind and length", () => {
    const long = "x".repeat(63)
    const wide = ["", "y".repeat(50), 'say "hi"', "größe", "1", "__proto__", "constructor", "*/", "a'b", "\u202e"]
    const deep = { base: { schema: "pg_catalog", name: "_text" }, dimensions: 4, isNullable: true }
    const columns = [...wide, long].flatMap((name) => [
      column(name, "int4", 23, { type: "a */\n b" }),
      column(`${name}2`.slice(-63), "_text", 1009, deep)
    ])
    const labels = Array.from({ length: 12 }, (_, index) => `a rather long label ${index}`)
    const tables = [
      orders,
      table("empty", [], { identity: [], primaryKey: [] }),
      table(long, columns, { identity: [long, `${long.slice(1)}2`], primaryKey: [] }),
      table(`${long.slice(1)}z`, [column("e", "e", 20_000, { base: { schema: "s", name: "e" }, labels })]),
      ...wide.map((name) => table(`t ${name}`, [column(name, "int4", 23)], { schema: `s.${name}` }))
    ]
    const source = tableModule(tables, ["--table", "odd */ name"])
    assert.strictEqual(formatted(source), source)
  })
})
