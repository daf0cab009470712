import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { CatalogTable } from "../../src/codegen/TableModule.ts"
import {
  filledTables,
  mismatches,
  missingGrants,
  type TargetColumn,
  type TargetTable,
  tableKey
} from "../../src/copy/TargetCatalog.ts"
import { column, table } from "./TargetTables.ts"

const source = (type: string, base: string, labels: ReadonlyArray<string> | null = null): CatalogTable => ({
  schema: "public",
  name: "t",
  replicaIdentity: "d",
  identity: ["id"],
  primaryKey: ["id"],
  columns: [
    {
      name: "id",
      typeOid: 0,
      base: { schema: labels === null ? "pg_catalog" : "public", name: base },
      type,
      labels,
      dimensions: 0,
      isNullable: false
    }
  ]
})

const tables = (target: TargetTable | undefined) => ({
  tables: new Map(target === undefined ? [] : [[tableKey(target), target]]),
  role: "me"
})

const problems = (from: CatalogTable, to: Partial<TargetColumn>) =>
  mismatches([from], tables(table({ columns: [column("id", to)] })))

const pg = (name: string) => ({ schema: "pg_catalog", name })

describe("TargetCatalog", () => {
  it("takes the same type, and one that holds every value of it", () => {
    assert.deepStrictEqual(problems(source("integer", "int4"), {}), [])
    assert.deepStrictEqual(problems(source("integer", "int4"), { type: "bigint", base: pg("int8") }), [])
    assert.deepStrictEqual(problems(source("character varying(9)", "varchar"), { type: "text", base: pg("text") }), [])
    assert.deepStrictEqual(problems(source("numeric(9,2)", "numeric"), { type: "numeric", base: pg("numeric") }), [])
  })

  it("refuses one that is narrower or another, by both names", () => {
    const narrow = problems(source("bigint", "int8"), {})
    assert.deepStrictEqual(narrow, ['"public"."t", column "id" is integer, and bigint at the source'])
    const short = { type: "character varying(5)", base: pg("varchar") }
    assert.strictEqual(problems(source("character varying(9)", "varchar"), short).length, 1)
    assert.strictEqual(problems(source("text", "text"), { type: "jsonb", base: pg("jsonb") }).length, 1)
  })

  it("takes an enum with more labels, and refuses one that lacks some", () => {
    const mood = { type: "public.mood", base: { schema: "public", name: "mood" } }
    assert.deepStrictEqual(problems(source("public.mood", "mood", ["a"]), { ...mood, labels: ["a", "b"] }), [])
    const [problem] = problems(source("public.mood", "mood", ["a", "c"]), { ...mood, labels: ["a", "b"] })
    assert.include(problem, "lacks labels of the enum at the source: c")
  })

  it("takes whatever type there is where that is left to the target's input functions", () => {
    const found = tables(table({ columns: [column("id")] }))
    assert.deepStrictEqual(mismatches([source("text", "text")], found, "any"), [])
  })

  it("names a missing table, a missing column, and a column that nothing would fill", () => {
    assert.deepStrictEqual(mismatches([source("integer", "int4")], tables(undefined)), ['"public"."t" is missing'])
    const found = mismatches(
      [source("integer", "int4")],
      tables(table({ columns: [column("other", { isRequired: true })] }))
    )
    assert.deepStrictEqual(found, [
      '"public"."t", column "id" is missing',
      '"public"."t", column "other" is NOT NULL, has no default, and is not published'
    ])
  })

  it("says what to grant for each table", () => {
    const denied = missingGrants(tables(table({ denied: ["INSERT", "DELETE"] })))
    assert.deepStrictEqual(denied, ['GRANT INSERT, DELETE ON "public"."t" TO "me"'])
  })
})

describe("the tables that hold rows", () => {
  it.effect("are found by a statement for each five hundred, in the order in which they are asked about", () =>
    Effect.gen(function* () {
      const keys = Array.from({ length: 1001 }, (_, index) => `"public"."t${index}"`)
      const asked: Array<string> = []
      const query = (text: string) =>
        Effect.sync(() => {
          asked.push(text)
          // Each statement has found its last table, and the first one its second as well.
          const last = { place: String(text.split(" UNION ALL ").length - 1) }
          return asked.length === 1 ? [last, { place: "1" }] : [last]
        })
      assert.deepStrictEqual(yield* filledTables({ query }, keys), [
        '"public"."t1"',
        '"public"."t499"',
        '"public"."t999"',
        '"public"."t1000"'
      ])
      assert.lengthOf(asked, 3)
      assert.strictEqual(asked[2], 'SELECT 0 AS place WHERE EXISTS (SELECT FROM "public"."t1000")')
    })
  )
})
