import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { takesValues } from "../../src/table/EncodedForm.ts"
import { builtinByName } from "../../src/values/BuiltinCatalog.ts"
import { decoderForOid, type TypeDecoders } from "../../src/values/TypeDecoder.ts"

const takes = (field: Schema.Constraint, type: string, types: TypeDecoders = {}): boolean => {
  const { isArray, type: known } = builtinByName(type)!
  return takesValues(field, decoderForOid(isArray ? known.arrayOid : known.oid, types))
}

const kinds = ["boolean", "integer", "bigint", "float8", "numeric", "text", "bytea", "timestamptz", "integer[]"]

describe("takesValues", () => {
  const cases: ReadonlyArray<readonly [name: string, field: Schema.Constraint, types: ReadonlyArray<string>]> = [
    ["String", Schema.String, ["numeric", "text", "timestamptz"]],
    ["Number", Schema.Number, ["integer", "float8"]],
    ["Int", Schema.Int, ["integer", "float8"]],
    ["BigInt", Schema.BigInt, ["bigint"]],
    ["Boolean", Schema.Boolean, ["boolean"]],
    ["FiniteFromString", Schema.FiniteFromString, ["numeric", "text", "timestamptz"]],
    ["DateFromString", Schema.DateFromString, ["numeric", "text", "timestamptz"]],
    ["Date", Schema.Date, []],
    ["Uint8Array", Schema.Uint8Array, ["bytea"]],
    ["Literals", Schema.Literals(["a", 1]), ["integer", "float8", "numeric", "text", "timestamptz"]],
    ["NullOr", Schema.NullOr(Schema.BigInt), ["bigint"]],
    ["optionalKey", Schema.optionalKey(Schema.Boolean), ["boolean"]],
    ["Array of Number", Schema.Array(Schema.NullOr(Schema.Number)), ["integer[]"]],
    ["Array of Array of Number", Schema.Array(Schema.Array(Schema.Number)), ["integer[]"]],
    ["Array of String", Schema.Array(Schema.String), []],
    ["a Struct", Schema.Struct({ a: Schema.String }), []],
    ["Null", Schema.Null, []],
    ["Never", Schema.Never, []],
    ["Unknown", Schema.Unknown, kinds],
    ["Any", Schema.Any, kinds],
    [
      "a declaration of the program's own",
      Schema.declare((u): u is string => typeof u === "string" && u !== ""),
      kinds
    ],
    ["a predicate that throws", Schema.declare((u): u is string => (u as string).at(0) === "a"), kinds],
    ["Suspend", Schema.suspend((): Schema.Codec<string> => Schema.String), kinds]
  ]
  for (const [name, field, types] of cases) {
    it(`${name} takes ${types.length === kinds.length ? "all, for all that can be told" : types.join(", ") || "none"}`, () => {
      assert.deepStrictEqual(
        kinds.filter((type) => takes(field, type)),
        types
      )
    })
  }

  it("follows the plugin's own decoders, of which nothing can be told", () => {
    const types = { byName: new Map([["timestamptz", (text: string) => new Date(text)]]) }
    assert.isTrue(takes(Schema.Date, "timestamptz", types))
    assert.isFalse(takes(Schema.Date, "timestamp", types))
    assert.isTrue(takes(Schema.Array(Schema.Date), "timestamptz[]", types))
    assert.isTrue(takes(Schema.String, "integer[]", { arrays: "text" }))
    assert.isFalse(takes(Schema.Array(Schema.Number), "integer[]", { arrays: "text" }))
  })

  it("leaves JSON to the program, unless it is text", () => {
    assert.isTrue(takes(Schema.Struct({ a: Schema.String }), "jsonb"))
    assert.isFalse(takes(Schema.Struct({ a: Schema.String }), "jsonb", { json: "text" }))
  })
})
