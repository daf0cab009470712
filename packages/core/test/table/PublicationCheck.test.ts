import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { DeclarationMismatch } from "../../src/table/DeclarationMismatch.ts"
import { type CheckContext, problemsOf, type TableFacts } from "../../src/table/PublicationCheck.ts"
import * as Table from "../../src/table/Table.ts"
import { Orders } from "./shop.ts"

const all = ["insert", "update", "delete", "truncate"]

const context: CheckContext = {
  publications: [{ name: "shop", operations: all }],
  operations: all,
  types: {},
  serverVersion: 180_000
}

const column = (name: string, type = "text", typeOid = 25, generated = "") => ({
  name,
  typeOid,
  type,
  generated,
  base: { schema: "pg_catalog", name: type }
})

const columns = [column("id", "integer", 23), column("total", "numeric", 1700), column("note"), column("placed_at")]
const names = columns.map(({ name }) => name)

const sent = { publication: "shop", columns: names, hasColumnList: false, filter: null, filterColumns: [] }

const facts: TableFacts = {
  schema: "public",
  name: "orders",
  kind: "r",
  persistence: "p",
  replicaIdentity: "d",
  identity: ["id"],
  columns,
  published: [sent],
  namedBy: ["shop"],
  sentAs: [],
  bare: []
}

const check = (more: Partial<TableFacts>, given: Partial<CheckContext> = {}, table: Table.Any = Orders) =>
  problemsOf([table], [{ ...facts, ...more }], { ...context, ...given })

const only = (...of: Parameters<typeof check>) => {
  const problems = check(...of)
  assert.lengthOf(problems, 1)
  return problems[0]!
}

const unpublished = { published: [], namedBy: [] }

describe("problemsOf", () => {
  it("has none where all is as declared", () => {
    assert.deepStrictEqual(check({}), [])
    assert.deepStrictEqual(check({ replicaIdentity: "f", identity: [] }), [])
  })

  it("tells a table that is missing, cannot be published, or is not", () => {
    assert.deepInclude(only({ kind: null, columns: [], ...unpublished }), { problem: "tableMissing", names: [] })
    assert.strictEqual(only({ kind: "v", ...unpublished }).problem, "notPublishable")
    assert.strictEqual(only({ persistence: "u", ...unpublished }).remedy, 'ALTER TABLE "public"."orders" SET LOGGED')
    assert.deepStrictEqual(only(unpublished), {
      problem: "notPublished",
      table: { schema: "public", name: "orders" },
      names: [],
      detail: '"public"."orders" is not published',
      remedy: 'ALTER PUBLICATION "shop" ADD TABLE "public"."orders"'
    })
  })

  it("tells under which name a partition or its root is sent", () => {
    const root = { schema: "public", name: "root" }
    assert.deepInclude(only({ ...unpublished, sentAs: [root] }), { problem: "sentAsRoot", names: ["public.root"] })
    assert.strictEqual(only({ kind: "p", published: [] }).problem, "sentAsPartitions")
    assert.strictEqual(only({ kind: "p", ...unpublished }).problem, "notPublished")
  })

  it("tells declared columns that the table lacks, and none that may be missing", () => {
    const published = [{ ...sent, columns: ["id", "total"] }]
    assert.deepInclude(only({ columns: columns.slice(0, 2), published }), { problem: "columnMissing", names: ["note"] })
  })

  it("tells columns that a list leaves out, and cures it without losing its filter", () => {
    const published = [{ ...sent, columns: ["id", "note"], hasColumnList: true, filter: "(id > 1)" }]
    assert.strictEqual(
      only({ published }).remedy,
      'BEGIN; ALTER PUBLICATION "shop" DROP TABLE "public"."orders"; ALTER PUBLICATION "shop" ADD TABLE ' +
        '"public"."orders" ("id", "total", "note") WHERE (id > 1); COMMIT'
    )
  })

  it("cures an unpublished generated column as far as the server can", () => {
    const generated = (kind: string) => ({
      columns: columns.map((of) => (of.name === "note" ? { ...of, generated: kind } : of)),
      published: [{ ...sent, columns: ["id", "total", "placed_at"] }]
    })
    assert.include(only(generated("s")).remedy, "publish_generated_columns = stored")
    assert.include(only(generated("s"), { serverVersion: 170_000 }).remedy, "optionalKey")
    assert.include(only(generated("v")).remedy, "optionalKey")
  })

  it("tells column lists that differ between publications, which the walsender fails on", () => {
    const publications = [...context.publications, { name: "other", operations: all }]
    const other = { ...sent, publication: "other", columns: [...names, "internal"] }
    assert.deepInclude(only({ published: [sent, other] }, { publications }), {
      problem: "columnListsDiffer",
      names: ["shop", "other"]
    })
    const reordered = { ...other, columns: names.toReversed() }
    assert.deepStrictEqual(check({ published: [sent, reordered] }, { publications }), [])
  })

  it("tells a type whose values the Schema does not take, a domain's by its base, and goes by the plugin's types", () => {
    const id = { ...column("id", "bigint", 20_000), base: { schema: "pg_catalog", name: "int8" } }
    const problem = only({ columns: [id, ...columns.slice(1)] })
    assert.deepInclude(problem, { problem: "typeMismatch", names: ["id"] })
    assert.include(problem.detail, "bigint")
    const types = { byOid: new Map([[20_000, Number]]) }
    assert.deepStrictEqual(check({ columns: [id, ...columns.slice(1)] }, { types }), [])
  })

  it("tells operations once for a publication, and counts those of all that send the table", () => {
    const publications = [
      { name: "shop", operations: ["insert"] },
      { name: "other", operations: ["delete", "truncate"] }
    ]
    const both = { ...facts, published: [sent, { ...sent, publication: "other" }] }
    const problems = problemsOf([Orders, Orders], [both, both], { ...context, publications })
    assert.deepStrictEqual(problems, [
      {
        problem: "operationNotPublished",
        names: ["update"],
        detail: 'publication "shop" does not publish update',
        remedy: `ALTER PUBLICATION "shop" SET (publish = 'insert, update')`
      }
    ])
  })

  it("tells a table whose UPDATE and DELETE the source refuses, unless only inserts are published", () => {
    for (const replicaIdentity of ["d", "n", "i"]) {
      assert.strictEqual(only({ replicaIdentity, identity: [] }).problem, "noReplicaIdentity")
    }
    assert.include(only({ identity: [] }).remedy, 'ADD PRIMARY KEY ("id")')
    const inserts = { publications: [{ name: "shop", operations: ["insert"] }], operations: ["insert"] }
    assert.deepStrictEqual(check({ identity: [] }, inserts), [])
  })

  it("tells the partitions without identity by name", () => {
    const bare = [{ schema: "public", name: "orders_1" }]
    assert.deepInclude(only({ kind: "p", bare }), {
      problem: "noReplicaIdentity",
      names: ["public.orders_1"],
      remedy: 'ALTER TABLE "public"."orders_1" REPLICA IDENTITY FULL'
    })
  })

  it("tells a column list that lacks the identity, and any list under FULL", () => {
    const listing = (listed: ReadonlyArray<string>) => [{ ...sent, columns: listed, hasColumnList: true }]
    const Notes = Table.make("orders", Schema.Struct({ note: Schema.String }))
    assert.deepInclude(only({ published: listing(["note"]) }, {}, Notes), {
      problem: "identityNotPublished",
      names: ["id"]
    })
    const full = { replicaIdentity: "f", identity: [] }
    assert.strictEqual(only({ ...full, published: listing(names) }).problem, "identityNotPublished")
  })

  it("tells a row filter on columns outside the identity, but not under FULL", () => {
    const published = [{ ...sent, filter: "(total > 1)", filterColumns: ["id", "total"] }]
    assert.deepInclude(only({ published }), { problem: "filterNotInIdentity", names: ["total"] })
    assert.deepStrictEqual(check({ published, replicaIdentity: "f", identity: [] }), [])
  })

  it("tells a declared key that old rows will not have, as the stream would at the first row", () => {
    const Keyed = Table.make("orders", Schema.Struct({ total: Schema.String }), { key: ["total"] })
    assert.deepInclude(only({}, {}, Keyed), { problem: "keyNotInIdentity", names: ["total"] })
    assert.deepStrictEqual(check({ replicaIdentity: "f", identity: [] }, {}, Keyed), [])
  })
})

describe("DeclarationMismatch", () => {
  it("says all that is wrong, and all that cures it, each once", () => {
    const [first] = check(unpublished)
    const [second] = check({ identity: [] })
    const error = new DeclarationMismatch({ publications: ["shop"], problems: [first!, second!, second!] })
    assert.match(error.message, /^publication "shop" and the declared tables do not fit:\n- .* is not published\n- /)
    assert.lengthOf(error.remedy.split("\n"), 2)
    assert.isFalse(error.isRetryable)
  })
})
