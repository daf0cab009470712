import { assert, describe, it } from "@effect/vitest"
import { type ChunkTable, chunkCommand, chunkEndQuery, rereadCommand } from "../../src/rereading/Chunk.ts"
import { keyText, keyValues } from "../../src/rereading/Key.ts"
import type { PublishedTable } from "../../src/snapshot/PublishedTables.ts"

const column = (name: string, typeOid: number, isKey = false) => ({
  name,
  isKey,
  typeOid,
  typeModifier: -1,
  type: null
})

const part = { schema: "public", name: "t", isReadable: true, hasRowSecurity: false, isHeap: true, pages: 1 }

const table = (more: Partial<PublishedTable> = {}): PublishedTable =>
  ({
    oid: 1,
    schema: "public",
    name: "t",
    replicaIdentity: "d",
    columns: [column("a", 23, true), column("b", 25, true), column("c", 3802)],
    columnLists: 1,
    filters: [null],
    parts: [{ ...part, oid: 1, estimatedRows: null }],
    ancestors: [],
    ...more
  }) as PublishedTable

const own = (name: string) => ({ name, operators: "pg_catalog" })
const single: ChunkTable = { table: table(), key: [own("a")], where: undefined }
const composite: ChunkTable = { table: table(), key: [own("a"), own("b")], where: undefined }

describe("chunks of a table", () => {
  it("begin at the first row, in the order of the key", () => {
    assert.strictEqual(
      chunkCommand(single, undefined, 10),
      'COPY (SELECT "a", "b", "c" FROM ONLY "public"."t" ORDER BY "a" LIMIT 10) TO STDOUT'
    )
  })

  it("go on after a key, by an operator that the search path does not choose", () => {
    assert.include(chunkCommand(single, ["7"], 10), `WHERE "a" OPERATOR("pg_catalog".>) '7' ORDER BY`)
  })

  it("compare keys of several columns as an index over them is searched", () => {
    assert.include(
      chunkCommand(composite, ["7", "it's \\"], 10),
      `WHERE ROW("a", "b") OPERATOR("pg_catalog".>) ROW('7',  E'it''s \\\\') ORDER BY "a", "b" LIMIT 10`
    )
  })

  it("compare column by column where their operators are of different schemas", () => {
    const mixed = { ...composite, key: [own("a"), { name: "b", operators: "ext" }] }
    assert.include(
      chunkCommand(mixed, ["7", "x"], 10),
      `"a" OPERATOR("pg_catalog".>=) '7' AND ("a" OPERATOR("pg_catalog".>) '7' OR "a" OPERATOR("pg_catalog".=) '7' AND "b" OPERATOR("ext".>) 'x')`
    )
  })

  it("have the rows of the publication's filters and of the request's condition, whatever that ends with", () => {
    const filtered = { ...single, table: table({ filters: ["(c IS NULL)", "(a > 1)"] }), where: "a < 9 -- mine" }
    for (const text of [
      chunkCommand(filtered, ["7"], 10),
      chunkEndQuery(filtered, ["7"], { rows: 10, bytes: 100 }),
      rereadCommand(filtered, [["7"]])
    ]) {
      assert.include(text, "AND (((c IS NULL)) OR ((a > 1))) AND (a < 9 -- mine\n)")
    }
  })

  it("are of those leaves of a partitioned table that are streamed", () => {
    const ancestors = [{ schema: "public", name: "t", isReadable: true }]
    const root = { ...single, table: table({ ancestors }) }
    assert.include(chunkCommand(root, undefined, 10), 'FROM "public"."t" WHERE tableoid IN (1) ORDER BY')
    const empty = { ...single, table: table({ ancestors, parts: [] }) }
    assert.include(chunkCommand(empty, undefined, 10), "tableoid IN (0)")
  })

  it("end by count and by size, which fetches no value out of line where text or bytea is", () => {
    const text = chunkEndQuery(single, undefined, { rows: 10, bytes: 100 })
    assert.include(text, 'coalesce(octet_length("b"), 0) + coalesce(pg_column_size("c"), 0)')
    assert.include(text, "n = 1 OR before < 100 ORDER BY n DESC LIMIT 1")
  })

  it("give single rows by their whole key", () => {
    assert.include(
      rereadCommand(composite, [
        ["7", "x"],
        ["8", "y"]
      ]),
      `WHERE (("a" OPERATOR("pg_catalog".=) '7' AND "b" OPERATOR("pg_catalog".=) 'x') OR ("a" OPERATOR("pg_catalog".=) '8' AND "b" OPERATOR("pg_catalog".=) 'y'))`
    )
  })
})

describe("keys", () => {
  it("are told by every plain value as PostgreSQL reads it", () => {
    const row = { a: 7, b: 8n, c: "ü'", d: true, e: Uint8Array.of(0, 255), f: -0, g: Number.NaN }
    assert.deepStrictEqual(keyValues(Object.keys(row), row), ["7", "8", "ü'", "true", "\\x00ff", "-0", "NaN"])
  })

  it("name the column that cannot be compared", () => {
    for (const value of [null, undefined, new Date(0), [1], {}]) {
      assert.deepStrictEqual(keyValues(["a", "b"], { a: 1, b: value }), { column: "b" })
    }
  })

  it("are the same text for the same values alone", () => {
    const keys = [
      ["1", "11"],
      ["11", "1"],
      ["1:1", ""],
      ["", "1:1"],
      ["a", "2:b"],
      ["a2:", "b"]
    ]
    assert.strictEqual(new Set(keys.map(keyText)).size, keys.length)
  })
})
