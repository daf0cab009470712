/** A type that no server has, added as the docs say: by its row, and by nothing else. */
import { afterAll, assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { vi } from "vitest"
import type { Change, Row } from "../../../core/src/change/Change.ts"
import type { BuiltinType } from "../../../core/src/values/BuiltinTypes.ts"

/** A number of one digit, printed as a letter: 1 is `a`. */
const letter: BuiltinType = {
  oid: 9901,
  arrayOid: 9902,
  form: {
    form: "letter",
    decode: (text) => text.charCodeAt(0) - 96,
    at: (bytes, start) => bytes[start]! - 96,
    kind: "number",
    schema: "Schema.Letter"
  },
  binary: {
    form: "letter",
    text: (reader) => String.fromCharCode(reader.uint8() + 96),
    native: { read: (reader) => reader.uint8(), fixed: { length: 1, at: (bytes, start) => bytes[start] } }
  },
  name: "letter",
  sqlName: "letter of one",
  delimiter: ","
}

// Modules are shared with other files: those that have read the table are loaded anew, for this one and after it.
const rows = "../../../core/src/values/BuiltinTypes.ts"
vi.resetModules()
vi.doMock(rows, async (original) => {
  const known = await original<typeof import("../../../core/src/values/BuiltinTypes.ts")>()
  return { ...known, builtinTypes: [...known.builtinTypes, letter] }
})
const Pgoutput = await import("../../../core/src/pgoutput/Pgoutput.ts")
const { compileAfter } = await import("../../../core/src/pgoutput/RowReader.ts")
const { ByteReader, portableText } = await import("../../../core/src/protocol/ByteReader.ts")
const { takesValues } = await import("../../../core/src/table/EncodedForm.ts")
const { decoderForName, decoderForOid } = await import("../../../core/src/values/TypeDecoder.ts")
const { begin, decodeAll, insert, message, relation } = await import("../../../core/test/support/PgoutputBytes.ts")
const { tableModule } = await import("../../src/codegen/TableModule.ts")
afterAll(() => {
  vi.doUnmock(rows)
  vi.resetModules()
})

const columns = [
  { name: "one", typeOid: 9901 },
  { name: "many", typeOid: 9902 }
]

const rowsOf = (changes: ReadonlyArray<Change>): ReadonlyArray<Row> =>
  changes.flatMap((change) => (change._tag === "Insert" ? [change.row] : []))

/** More rows than it takes until readers are compiled. */
const often = <A>(value: A): ReadonlyArray<A> => Array.from({ length: compileAfter + 2 }, () => value)

const value = { one: 3, many: [1, null] }

describe("a type that is one row in the table of types", () => {
  it("is decoded from its text, by OID and by either name, alone and in arrays", () => {
    assert.strictEqual(decoderForOid(9901).decode("c"), 3)
    for (const name of ["letter", "letter of one"]) assert.strictEqual(decoderForName(name).decode("c"), 3)
    assert.deepStrictEqual(decoderForName("letter of one[]").decode("{a,NULL}"), [1, null])
  })

  it("is read out of the stream's tuples, by the loop and by what it compiles to", () => {
    const changes = decodeAll([relation(1, columns), begin(), ...often(insert(1, "c", "{a,NULL}"))])
    for (const row of rowsOf(changes)) assert.deepStrictEqual(row, value)
    assert.strictEqual(changes[1]?._tag === "Insert" && changes[1].relation.columns[0]?.typeName, "letter of one")
  })

  it("is read out of a copy's rows, by the loop and by what it compiles to", () => {
    const { readRow } = Pgoutput.make({ publications: ["p"] }).makeDecoder(portableText).copiedRows!({
      oid: 1,
      schema: "public",
      name: "t",
      replicaIdentity: "d",
      columns: columns.map((column) => ({ ...column, isKey: false, typeModifier: -1, type: null }))
    })
    const bytes = new TextEncoder().encode("c\t{a,NULL}\n")
    const reader = new ByteReader(portableText)
    for (const _ of often("row")) assert.deepStrictEqual(readRow(reader.reset(bytes, 0, bytes.length)), value)
  })

  it("is read in binary format", () => {
    const array = message([4, 1], [4, 1], [4, 9901], [4, 2], [4, 1], [4, 1], [1, 1], [4, -1])
    const cells = message([2, 2], "b", [4, 1], [1, 3], "b", [4, array.length], array)
    const binary = Pgoutput.make({ publications: ["p"], format: "binary" }).makeDecoder(portableText)
    const messages = [relation(1, columns), begin(), ...often(message("I", [4, 1], "N", cells))]
    for (const row of rowsOf(decodeAll(messages, {}, binary))) assert.deepStrictEqual(row, value)
  })

  it("is known to the check of declared tables", () => {
    assert.isTrue(takesValues(Schema.Number, decoderForOid(9901)))
    assert.isFalse(takesValues(Schema.String, decoderForOid(9901)))
    assert.isTrue(takesValues(Schema.Array(Schema.NullOr(Schema.Number)), decoderForOid(9902)))
    assert.isFalse(takesValues(Schema.Array(Schema.String), decoderForOid(9902)))
  })

  it("is declared by what the generator writes", () => {
    const declared = columns.map(({ name, typeOid }) => ({
      name,
      typeOid,
      base: { schema: "pg_catalog", name },
      type: name,
      labels: null,
      dimensions: 0,
      isNullable: false
    }))
    const table = { schema: "public", name: "t", replicaIdentity: "f", identity: [], primaryKey: [], columns: declared }
    const source = tableModule([table], [])
    assert.include(source, "one: Schema.Letter,")
    assert.include(source, "many: Schema.Array(Schema.NullOr(Schema.Letter))")
  })
})
