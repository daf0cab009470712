import { assert, describe, it } from "@effect/vitest"
import { DecodeError } from "../../src/ReplicationError.ts"
import { builtinByName, builtinByOid, builtinTypeName } from "../../src/values/BuiltinCatalog.ts"
import { builtinTypes } from "../../src/values/BuiltinTypes.ts"
import { timestampDate } from "../../src/values/TimestampText.ts"
import {
  arrayOf,
  decoderForName,
  decoderForOid,
  guarded,
  type TypeDecoders,
  withoutModifiers
} from "../../src/values/TypeDecoder.ts"

const place = { schema: "public", relation: "t", column: "c", type: "integer" }

describe("the built-in types", () => {
  it("have one entry an OID, and one a name", () => {
    const oids = builtinTypes.flatMap((type) => [type.oid, type.arrayOid])
    assert.strictEqual(new Set(oids).size, oids.length)
    assert.strictEqual(new Set(builtinTypes.map((type) => type.name)).size, builtinTypes.length)
    assert.strictEqual(new Set(builtinTypes.map((type) => type.sqlName)).size, builtinTypes.length)
  })

  it("are found under either name, and so are their arrays", () => {
    assert.deepStrictEqual(builtinByName("int4"), builtinByOid(23))
    assert.deepStrictEqual(builtinByName("integer"), builtinByOid(23))
    assert.deepStrictEqual(builtinByName("_int4"), builtinByOid(1007))
    assert.deepStrictEqual(builtinByName("integer[]"), builtinByOid(1007))
    assert.strictEqual(builtinTypeName(builtinByOid(1185)!), "timestamp with time zone[]")
    assert.isUndefined(builtinByName("mood"))
  })
})

describe("decoderForOid and decoderForName", () => {
  it("leave every text as it is, of any type and any array, where text is asked for", () => {
    for (const { arrayOid, name, oid } of builtinTypes) {
      for (const decoder of [
        decoderForOid(oid, "text"),
        decoderForOid(arrayOid, "text"),
        decoderForName(name, "text")
      ]) {
        assert.strictEqual(decoder.form, "text")
        assert.strictEqual(decoder.decode(" t{1}"), " t{1}")
      }
    }
    assert.strictEqual(decoderForName("public.mood[]", "text").decode("{sad}"), "{sad}")
  })

  const cases: ReadonlyArray<readonly [oid: number, name: string, text: string, value: unknown]> = [
    [16, "boolean", "t", true],
    [21, "smallint", "-32768", -32768],
    [23, "integer", "7", 7],
    [20, "bigint", "7", 7n],
    [26, "oid", "4294967295", 4294967295],
    [701, "double precision", "-Infinity", Number.NEGATIVE_INFINITY],
    [1700, "numeric(10,2)", "1.10", "1.10"],
    [790, "money", "$1.00", "$1.00"],
    [17, "bytea", "\\x01", Uint8Array.of(1)],
    [3802, "jsonb", '{"a": 1}', { a: 1 }],
    [1043, "character varying(20)", "NULL", "NULL"],
    [18, '"char"', "x", "x"],
    [1042, "character(3)", "ab ", "ab "],
    [2950, "uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    [1184, "timestamp(3) with time zone", "infinity", "infinity"],
    [1186, "interval day to second(3)", "1 day", "1 day"],
    [1005, "smallint[]", "{1,NULL}", [1, null]],
    [1231, "numeric(10,2)[]", "{1.10}", ["1.10"]],
    [1020, "box[]", "{(1,1),(0,0);(2,2),(0,0)}", ["(1,1),(0,0)", "(2,2),(0,0)"]],
    [3807, "jsonb[]", '{"{\\"a\\": 1}",NULL}', [{ a: 1 }, null]],
    [16_400, "mood", "sad", "sad"],
    [16_401, "mood[]", "{sad}", "{sad}"]
  ]
  for (const [oid, name, text, value] of cases) {
    it(`make the same of ${name}, by OID and by name`, () => {
      assert.deepStrictEqual(decoderForOid(oid).decode(text), value)
      assert.deepStrictEqual(decoderForName(name).decode(text), value)
    })
  }

  const upper = (text: string) => text.toUpperCase()

  it("prefer a replacement by OID to one by name, and serve arrays with either", () => {
    const types: TypeDecoders = {
      byOid: new Map([[25, upper]]),
      byName: new Map<string, (text: string) => unknown>([
        ["text", () => "by name"],
        ["timestamptz", timestampDate],
        ["double precision", (text) => text]
      ])
    }
    assert.strictEqual(decoderForOid(25, types).decode("a"), "A")
    assert.strictEqual(decoderForName("text", types).decode("a"), "A")
    assert.deepStrictEqual(decoderForOid(1009, types).decode("{a,NULL}"), ["A", null])
    assert.strictEqual(decoderForName("double precision", types).decode("1"), "1")
    for (const decoder of [decoderForOid(1185, types), decoderForName("timestamp with time zone[]", types)]) {
      assert.deepStrictEqual(decoder.decode('{"2024-01-01 00:00:00+00"}'), [new Date("2024-01-01T00:00:00Z")])
    }
  })

  it("let a replacement for an array type go before its element's", () => {
    const whole = () => "whole"
    for (const name of ["integer[]", "int4[]", "_int4"]) {
      const types: TypeDecoders = { byName: new Map([[name, whole]]) }
      assert.strictEqual(decoderForOid(1007, types).decode("{1}"), "whole")
      assert.strictEqual(decoderForName("integer[]", types).decode("{1}"), "whole")
      assert.strictEqual(decoderForOid(23, types).decode("1"), 1)
    }
  })

  it("know a user's type by its name, qualified or not, and its arrays where the element is known", () => {
    for (const name of ["mood", "public.mood"]) {
      const types: TypeDecoders = { byName: new Map([[name, upper]]) }
      const one = { schema: "public", name: "mood" }
      assert.strictEqual(decoderForOid(16_400, types, one).decode("sad"), "SAD")
      assert.deepStrictEqual(decoderForOid(16_401, types, { ...one, name: "_mood" }).decode("{sad,NULL}"), [
        "SAD",
        null
      ])
      assert.strictEqual(decoderForName("public.mood", types).decode("sad"), "SAD")
      assert.deepStrictEqual(decoderForName("public.mood[]", types).decode("{sad,NULL}"), ["SAD", null])
      assert.strictEqual(decoderForOid(16_402, types, { schema: "other", name: "glad" }).decode("sad"), "sad")
    }
  })

  it("decode a domain as its base type, whose name the walsender gives without a schema", () => {
    assert.strictEqual(decoderForOid(16_500, {}, { schema: "", name: "int4" }).decode("7"), 7)
    assert.deepStrictEqual(decoderForOid(16_501, {}, { schema: "", name: "_int8" }).decode("{7}"), [7n])
    assert.strictEqual(decoderForOid(16_502, {}, { schema: "public", name: "int4" }).decode("7"), "7")
  })

  it("leave json and arrays as text where asked to", () => {
    const types: TypeDecoders = { json: "text", arrays: "text" }
    assert.strictEqual(decoderForOid(3802, types).decode("12345678901234567890"), "12345678901234567890")
    assert.strictEqual(decoderForName("integer[]", types).decode("[0:1]={1,2}"), "[0:1]={1,2}")
    assert.deepStrictEqual(decoderForOid(3807, { json: "text" }).decode("{1.10}"), ["1.10"])
  })

  it("give a form only to values that nobody replaced", () => {
    assert.strictEqual(decoderForOid(20).form, "bigint")
    assert.strictEqual(decoderForOid(20, { byOid: new Map([[20, Number]]) }).form, "custom")
  })
})

describe("withoutModifiers", () => {
  const cases: ReadonlyArray<readonly [name: string, bare: string]> = [
    ["integer", "integer"],
    ["numeric(10,-2)", "numeric"],
    ["numeric(10,2)[]", "numeric[]"],
    ["timestamp(3) without time zone", "timestamp without time zone"],
    ["time(0) with time zone[]", "time with time zone[]"],
    ["interval(3)", "interval"],
    ["interval day to second(3)", "interval"],
    ["interval year to month[]", "interval[]"],
    ['"char"', '"char"'],
    ['"odd(1)"', '"odd(1)"'],
    ['public."odd(1)"(3)', 'public."odd(1)"'],
    ["geometry(Point,4326)", "geometry"]
  ]
  for (const [name, bare] of cases) {
    it(`makes ${bare} of ${name}`, () => {
      assert.strictEqual(withoutModifiers(name), bare)
    })
  }
})

describe("arrayOf", () => {
  it("is a decoder of arrays", () => {
    assert.deepStrictEqual(arrayOf(Number)("{{1},{2}}"), [[1], [2]])
  })
})

describe("guarded", () => {
  const quoting = (text: string): never => {
    throw new Error(`cannot read ${text}`)
  }

  it("turns whatever a decoder throws into a DecodeError that names the place and not the value", () => {
    try {
      guarded(quoting, place, undefined)("secret")
      assert.fail("expected a DecodeError")
    } catch (error) {
      assert.instanceOf(error, DecodeError)
      assert.strictEqual(error.problem, 'a value of column "c" of "public"."t" that is no integer its decoder takes')
      assert.notInclude(`${error}${error.stack}${JSON.stringify(error)}${error.cause}`, "secret")
    }
  })

  it("gives the text instead where the policy says so", () => {
    assert.strictEqual(guarded(quoting, place, "text")("as it is"), "as it is")
  })
})
