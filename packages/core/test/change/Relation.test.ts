import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { difference, isSame, keyColumns, type Relation, type RelationColumn } from "../../src/change/Relation.ts"

const column = (name: string, fields: Partial<RelationColumn> = {}): RelationColumn => ({
  name,
  isKey: false,
  typeOid: 25,
  typeName: "text",
  typeModifier: -1,
  ...fields
})

const orders: Relation = {
  oid: 16_385,
  schema: "public",
  name: "orders",
  replicaIdentity: "default",
  columns: [column("id", { isKey: true, typeOid: 23, typeName: "int4" }), column("note"), column("total")]
}

const nothing = { renamed: false, replicaIdentity: false, added: [], dropped: [], retyped: [], rekeyed: [] }

describe("keyColumns", () => {
  it("names the columns that identify a row, in table order", () => {
    const columns = [column("b", { isKey: true }), column("x"), column("a", { isKey: true })]
    assert.deepStrictEqual(keyColumns({ ...orders, columns }), ["b", "a"])
    assert.deepStrictEqual(keyColumns({ ...orders, columns: [column("x")] }), [])
  })
})

describe("difference", () => {
  const cases: ReadonlyArray<readonly [what: string, after: Relation, expected: Partial<typeof nothing>]> = [
    ["nothing", { ...orders, columns: [...orders.columns] }, {}],
    ["a table renamed", { ...orders, name: "sales" }, { renamed: true }],
    ["a table moved to another schema", { ...orders, schema: "archive" }, { renamed: true }],
    ["another replica identity", { ...orders, replicaIdentity: "full" }, { replicaIdentity: true }]
  ]
  it.each(cases)("tells %s", (_what, after, expected) => {
    assert.deepStrictEqual(difference(orders, after), { ...nothing, ...expected })
  })

  it("tells columns added and dropped by name", () => {
    const [id, note] = orders.columns
    const after = { ...orders, columns: [id!, note!, column("due"), column("paid")] }
    assert.deepStrictEqual(difference(orders, after), { ...nothing, added: ["due", "paid"], dropped: ["total"] })
    assert.deepStrictEqual(difference(after, orders), { ...nothing, added: ["total"], dropped: ["due", "paid"] })
  })

  it("shows a renamed column as one dropped and one added, as the wire does", () => {
    const after = { ...orders, columns: orders.columns.map((was) => ({ ...was, name: `${was.name}_2` })) }
    const { added, dropped } = difference(orders, after)
    assert.deepStrictEqual(added, ["id_2", "note_2", "total_2"])
    assert.deepStrictEqual(dropped, ["id", "note", "total"])
  })

  it("tells columns of another type, of another length, and those that joined or left the key", () => {
    const [id, note, total] = orders.columns
    const after = {
      ...orders,
      columns: [
        { ...id!, isKey: false },
        { ...note!, typeModifier: 14 },
        { ...total!, typeOid: 1700, isKey: true }
      ]
    }
    assert.deepStrictEqual(difference(orders, after), {
      ...nothing,
      retyped: ["note", "total"],
      rekeyed: ["id", "total"]
    })
  })

  it("is not misled by columns named like parts of an object", () => {
    const names = ["__proto__", "constructor", "toString", "length"]
    const odd = { ...orders, columns: names.map((name) => column(name)) }
    assert.deepStrictEqual(difference(odd, odd), nothing)
    assert.deepStrictEqual(difference({ ...orders, columns: [] }, odd).added, names)
  })
})

describe("isSame", () => {
  const others: ReadonlyArray<readonly [what: string, that: Relation]> = [
    ["another OID", { ...orders, oid: 1 }],
    ["another schema", { ...orders, schema: "archive" }],
    ["another name", { ...orders, name: "sales" }],
    ["another replica identity", { ...orders, replicaIdentity: "nothing" }],
    ["a column less", { ...orders, columns: orders.columns.slice(0, 2) }],
    ["columns in another order", { ...orders, columns: orders.columns.toReversed() }],
    ...(["name", "isKey", "typeOid", "typeModifier"] as const).map((property) => {
      const changed = { name: "other", isKey: true, typeOid: 1, typeModifier: 1 }[property]
      const columns = orders.columns.map((was, index) => (index === 2 ? { ...was, [property]: changed } : was))
      return [`another ${property} of a column`, { ...orders, columns }] as const
    })
  ]
  it.each(others)("is false for %s", (_what, that) => {
    assert.isFalse(isSame(orders, that))
    assert.isFalse(isSame(that, orders))
  })

  it("is true for the same description sent again", () => {
    assert.isTrue(isSame(orders, structuredClone(orders)))
  })

  it("does not mind that a type's name has become known", () => {
    const columns = orders.columns.map((was) => ({ ...was, typeName: undefined }))
    assert.isTrue(isSame(orders, { ...orders, columns }))
  })

  const shape = Schema.Struct({
    oid: Schema.Literals([1, 2]),
    schema: Schema.Literals(["public", "archive"]),
    name: Schema.Literals(["a", "b"]),
    replicaIdentity: Schema.Literals(["default", "full"]),
    columns: Schema.UniqueArray(Schema.Literals(["a", "b", "c"]))
  })
  it.prop("is true only where there is no difference to tell", { before: shape, after: shape }, ({ after, before }) => {
    const relation = ({ columns, ...rest }: typeof shape.Type): Relation => ({
      ...rest,
      columns: columns.map((name) => column(name))
    })
    if (isSame(relation(before), relation(after))) {
      assert.deepStrictEqual(difference(relation(before), relation(after)), nothing)
    }
  })
})
