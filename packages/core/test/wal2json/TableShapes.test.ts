import { assert, describe, it } from "@effect/vitest"
import { TableShapes } from "../../src/wal2json/TableShapes.ts"
import type { Column, RowMessage } from "../../src/wal2json/Wal2JsonMessage.ts"
import { brief, changesOf, columnsOf, type Format, relationsOf } from "./decodeMessages.ts"

const oids: Record<string, string> = { integer: "23", text: "25" }
const column = (definition: string): Column => {
  const [name = "", type = "integer"] = definition.split(":")
  return { name, type, typeoid: oids[type] ?? "16400", value: "1" }
}
const columns = (definitions: string): ReadonlyArray<Column> =>
  definitions === "" ? [] : definitions.split(" ").map(column)

const row = (
  action: "I" | "U" | "D",
  now: string,
  identity?: string,
  primaryKey: ReadonlyArray<string> = []
): RowMessage => ({
  action,
  schema: "public",
  table: "t",
  columns: columns(now),
  identity: identity === undefined ? undefined : columns(identity),
  primaryKey
})

const makeShapes = () => new TableShapes({ types: {}, hasWholeIdentity: true })

/** What each row in turn makes of the table: its columns, and `!` where it contradicts what was known. */
const learn = (...rows: ReadonlyArray<RowMessage>): ReadonlyArray<string> => {
  const shapes = makeShapes()
  return rows.map((each) => {
    const { before, shape } = shapes.describe(each)
    return `${before === undefined ? "" : "!"}${columnsOf(shape.relation)}`
  })
}

describe("TableShapes", () => {
  it("keeps one relation for as long as its shape holds", () => {
    for (const format of [2, 1] satisfies Array<Format>) {
      const [first, ...others] = relationsOf(changesOf("identityDefault", format))
      assert.strictEqual(others.length, 4)
      for (const other of others) assert.strictEqual(other, first)
    }
  })

  it("describes columns with their types and modifiers, and says what it cannot know", () => {
    const [relation] = relationsOf(changesOf("texts"))
    assert.strictEqual(relation?.oid, 0)
    assert.isUndefined(relation?.replicaIdentity)
    assert.deepStrictEqual(relation?.columns.slice(0, 3), [
      { name: "a", isKey: false, typeOid: 25, typeName: "text", typeModifier: -1 },
      { name: "b", isKey: false, typeOid: 1043, typeName: "character varying", typeModifier: 24 },
      { name: "c", isKey: false, typeOid: 1042, typeName: "character", typeModifier: 9 }
    ])
    assert.strictEqual(relationsOf(changesOf("identityFull"))[0]?.columns[2]?.typeModifier, ((10 << 16) | 2) + 4)
  })

  it("learns in silence what an update left out, and what an identity adds to the primary key", () => {
    assert.deepStrictEqual(
      learn(
        row("D", "", "a", ["a"]),
        row("U", "a c", "a", ["a"]),
        row("I", "a b:text c", undefined, ["a"]),
        row("U", "a c", "a", ["a"]),
        row("I", "a b:text c", undefined, ["a"])
      ),
      ["a*", "a* c", "a* b:text c", "a* b:text c", "a* b:text c"].map((names) => names.replaceAll(":text", ""))
    )
    assert.deepStrictEqual(learn(row("I", "a b", undefined, ["a"]), row("U", "a b", "a b", ["a"])), ["a* b", "a* b*"])
  })

  it("tells of a column that came, one that went, and one that changed its type", () => {
    const known = row("I", "a b:text c", undefined, ["a"])
    assert.deepStrictEqual(learn(known, row("I", "a b:text c d", undefined, ["a"])).at(-1), "!a* b c d")
    assert.deepStrictEqual(learn(known, row("I", "a c", undefined, ["a"])).at(-1), "!a* c")
    assert.deepStrictEqual(learn(known, row("U", "a b:text", "a", ["a"])).at(-1), "!a* b")
    assert.deepStrictEqual(learn(known, row("U", "a b:integer c", "a", ["a"])).at(-1), "!a* b c")
    assert.deepStrictEqual(learn(known, row("U", "a b:text c d", "a", ["a"])).at(-1), "!a* b c d")
    assert.deepStrictEqual(learn(row("U", "a c", "a", ["a"]), row("U", "a c d", "a", ["a"])).at(-1), "!a* c d")
  })

  it("takes a column that may be TOASTed for unchanged until an insert says that it is gone", () => {
    const known = row("I", "a b:text c", undefined, ["a"])
    const update = row("U", "a c", "a", ["a"])
    assert.deepStrictEqual(learn(known, update, row("I", "a c", undefined, ["a"])).slice(1), ["a* b c", "!a* c"])
    assert.deepStrictEqual(learn(known, row("U", "a c", "a c", ["a"])).at(-1), "!a* c*")
  })

  it("follows a column that was dropped and added again to its new place", () => {
    const known = row("I", "a b:text c", undefined, ["a"])
    assert.deepStrictEqual(learn(known, row("U", "a c b:text", "a", ["a"])).at(-1), "!a* c b")
  })

  it("tells of another identity, and of another primary key", () => {
    assert.deepStrictEqual(learn(row("D", "", "a"), row("D", "", "b")).at(-1), "!a b*")
    assert.deepStrictEqual(learn(row("I", "a b", undefined, ["a"]), row("I", "a b", undefined, ["b"])).at(-1), "!a b*")
    assert.deepStrictEqual(brief(changesOf("identitySwitched")).slice(1), [
      ["U", { a: 1, b: 2 }],
      ["R", "a* b", "a* b*"],
      ["U", { a: 1, b: 3 }, { Full: { a: 1, b: 2 } }],
      ["D", { Full: { a: 1, b: 3 } }]
    ])
  })

  it("keeps tables apart whose names only look alike", () => {
    const shapes = makeShapes()
    const of = (schema: string, table: string) => shapes.named(schema, table)
    assert.notStrictEqual(of("a.b", "c"), of("a", "b.c"))
    assert.strictEqual(of("__proto__", "constructor"), of("__proto__", "constructor"))
  })

  it("refuses a row that names a column twice", () => {
    assert.throws(() => learn(row("I", "a a")), /twice/)
  })
})
