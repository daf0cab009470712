import { assert, describe, it } from "@effect/vitest"
import type { Begin, Delete, Insert, Relation, Row, Update } from "@replicant/core"
import { TableStatements } from "../../src/copy/TableStatements.ts"
import type { TargetTable } from "../../src/copy/TargetCatalog.ts"
import { column, table } from "./TargetTables.ts"

const relation = (replicaIdentity: Relation.ReplicaIdentity = "default"): Relation.Relation => ({
  oid: 1,
  schema: "public",
  name: "t",
  replicaIdentity,
  columns: ["id", "a", "b"].map((name) => ({
    name,
    isKey: replicaIdentity === "full" || name === "id",
    typeOid: 23,
    typeName: "int4",
    typeModifier: -1
  }))
})

const of = (target: TargetTable = table(), identity?: Relation.ReplicaIdentity, triggers: "quiet" | "fire" = "quiet") =>
  new TableStatements(relation(identity), target, { id: 0, triggers })

const place = { begin: {} as Begin, ordinal: 0, relation: relation() }
const insert = (row: Row): Insert => ({ _tag: "Insert", ...place, row, unchanged: [] })
const update = (row: Row, old?: Update["old"], unchanged: ReadonlyArray<string> = []): Update => ({
  _tag: "Update",
  ...place,
  row,
  unchanged,
  old
})
const gone = (old: Delete["old"]): Delete => ({ _tag: "Delete", ...place, old })
const row = { id: "1", a: "2", b: null }

describe("TableStatements", () => {
  it("inserts every published column, identity columns too", () => {
    const { statement, values } = of().insert(insert(row))
    assert.strictEqual(
      statement.text,
      'INSERT INTO "public"."t" ("id", "a", "b") OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3)'
    )
    assert.deepStrictEqual(values, ["1", "2", null])
  })

  it("leaves out what the target generates", () => {
    const target = table({ columns: [column("id"), column("a"), column("b", { isGenerated: true })] })
    assert.deepStrictEqual(of(target).insert(insert(row)).values, ["1", "2"])
  })

  it("prepares one statement for each shape of change, and no more", () => {
    const statements = of()
    const first = statements.update(update(row))
    assert.strictEqual(statements.update(update({ ...row, a: "9" }))?.statement, first?.statement)
    assert.notStrictEqual(statements.update(update({ id: "1", b: "3" }, undefined, ["a"]))?.statement, first?.statement)
  })

  it("leaves a key that did not change and an unchanged TOAST column alone", () => {
    const step = of().update(update({ id: "1", b: "3" }, undefined, ["a"]))
    assert.strictEqual(
      step?.statement.text,
      'UPDATE ONLY "public"."t" SET "b" = $1 WHERE "id" OPERATOR(pg_catalog.=) $2'
    )
    assert.deepStrictEqual(step?.values, ["3", "1"])
  })

  it("finds the row by its old key, and sets the new", () => {
    const step = of().update(update(row, { _tag: "Key", row: { id: "7" } }))
    assert.include(step?.statement.text, 'SET "id" = $1')
    assert.deepStrictEqual(step?.values, ["1", "2", null, "7"])
  })

  it("has nothing to do where only a key was touched and not changed", () => {
    assert.isUndefined(of().update(update({ id: "1" }, undefined, ["a", "b"])))
  })

  it("updates a row whose identity column is what it was, and takes it out and puts it in again where it is not", () => {
    const target = table({ columns: [column("id"), column("a", { isAlwaysIdentity: true }), column("b")] })
    const { statement, values } = of(target).update(update(row))!
    assert.include(statement.text, 'WITH same AS (UPDATE ONLY "public"."t" SET "b" = $1 WHERE "id" OPERATOR')
    assert.include(statement.text, '"a" IS NOT DISTINCT FROM CAST($3 AS integer) RETURNING 1)')
    assert.include(statement.text, "gone AS (DELETE FROM")
    assert.include(statement.text, "OVERRIDING SYSTEM VALUE SELECT")
    assert.deepStrictEqual(values.slice(0, 3), [null, "1", "2"])
    // What did not come is what it was.
    const unsent = of(target).update(update({ id: "1", a: "2" }, undefined, ["b"]))!
    assert.include(unsent.statement.text, 'gone."b"')
  })

  it("deletes nothing where triggers would act on it", () => {
    const target = table({ columns: [column("id"), column("a", { isAlwaysIdentity: true }), column("b")] })
    const { statement } = of(target, "default", "fire").update(update(row))!
    assert.notInclude(statement.text, "DELETE")
    assert.include(statement.text, '"a" = DEFAULT WHERE')
  })

  it("says of which type a key is whose operator takes rows of any", () => {
    const pair = { name: "id", operator: "OPERATOR(pg_catalog.=)", record: "public.pair" }
    const step = of(table({ uniqueKeys: [{ isPrimary: true, columns: [pair] }] })).delete(gone({ _tag: "Key", row }))
    assert.include(step.statement.text, '"id" OPERATOR(pg_catalog.=) CAST($1 AS public.pair)')
  })

  it("puts rows in of which no column is written", () => {
    assert.strictEqual(of().defaultRows(3), 'INSERT INTO "public"."t" SELECT FROM pg_catalog.generate_series(1, 3)')
  })

  it("finds rows under FULL by the target's primary key, and without one by all columns, one of equal rows", () => {
    const old = { _tag: "Full", row } as const
    const keyed = of(table(), "full").delete(gone(old))
    assert.strictEqual(keyed.statement.text, 'DELETE FROM ONLY "public"."t" WHERE "id" OPERATOR(pg_catalog.=) $1')
    const { statement, values } = of(table({ uniqueKeys: [] }), "full").delete(gone(old))
    assert.include(statement.text, "WHERE (ctid) = (SELECT ctid FROM ONLY")
    assert.include(statement.text, "LIMIT 1")
    assert.deepStrictEqual(values, ["1", "2", null])
  })

  it("tells the partition of a row beside its place", () => {
    const statements = of(table({ uniqueKeys: [], isPartitioned: true }), "full")
    assert.include(
      statements.delete(gone({ _tag: "Full", row })).statement.text,
      "(tableoid, ctid) = (SELECT tableoid, ctid"
    )
  })

  it("writes over a row by its key alone", () => {
    assert.strictEqual(of().onConflict(), ' ON CONFLICT ("id") DO UPDATE SET "a" = excluded."a", "b" = excluded."b"')
    assert.isFalse(of(table({ uniqueKeys: [] })).canUpsert)
  })
})
