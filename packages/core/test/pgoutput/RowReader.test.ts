import { execFileSync } from "node:child_process"
import { assert, describe, it } from "@effect/vitest"
import type { Row } from "../../src/change/Change.ts"
import { compileRowReader, makeRowSource, partLength, rowReaderSource } from "../../src/pgoutput/CompiledRowReader.ts"
import { interpretedRowReader, makeRowReader } from "../../src/pgoutput/RowReader.ts"
import { type ColumnReader, type RowReader, TupleScratch } from "../../src/pgoutput/Tuple.ts"
import { ByteReader, portableText, tooLong } from "../../src/protocol/ByteReader.ts"
import { DecodeError } from "../../src/ReplicationError.ts"
import { decoderForOid, type TypeDecoders } from "../../src/values/TypeDecoder.ts"
import { hostileNames } from "../fixtures/goldens.ts"
import { type Cell, decodeErrorOf, message, tuple, unchanged } from "../support/PgoutputBytes.ts"

const columnsOf = (
  columns: ReadonlyArray<readonly [name: string, typeOid: number, isRead?: boolean]>,
  types: TypeDecoders = {}
): ReadonlyArray<ColumnReader> =>
  columns.map(([name, typeOid, isRead]) => ({
    name,
    isRead: isRead ?? true,
    decoder: decoderForOid(typeOid, types),
    place: { schema: "public", relation: "t", column: name, type: String(typeOid) },
    onUndecodable: types.onUndecodable
  }))

/** Not under `npm run unit:nocodegen`, where there is no compiled reader to test. */
const canCompile = ((): boolean => {
  try {
    return new Function("return true")() as boolean
  } catch {
    return false
  }
})()

const compiled = (columns: ReadonlyArray<ColumnReader>): RowReader =>
  compileRowReader(columns) ?? assert.fail("no code")

/** Both readers, where there are two. */
const makers: ReadonlyArray<readonly [name: string, make: (columns: ReadonlyArray<ColumnReader>) => RowReader]> = [
  ["the loop", interpretedRowReader],
  ...(canCompile ? [["the compiled reader", compiled] as const] : [])
]

interface Read {
  readonly row: Row
  readonly unchanged: ReadonlyArray<string>
}

/** Reads a tuple that stands in the middle of other bytes, and insists that all of it was read. */
const readBytes = (read: RowReader, bytes: Uint8Array, old?: Row): Read => {
  const whole = Buffer.concat([Buffer.from("ttt"), bytes, Buffer.from("nnnnnnnn")])
  const reader = new ByteReader().reset(whole, 3, 3 + bytes.length)
  const scratch = new TupleScratch()
  const row = read(reader, scratch, old)
  reader.expectEnd()
  return { row, unchanged: scratch.unchanged }
}

const tupleData = (...cells: ReadonlyArray<Cell>): Uint8Array => tuple("N", cells).subarray(1)

const six = columnsOf([
  ["id", 20],
  ["n", 23],
  ["ok", 16],
  ["x", 701],
  ["name", 25],
  ["raw", 17]
])
const sixCells = ["123456789012", "-5", "t", "1.5", "naïve", "\\x00ff"] as const
const sixValues = { id: 123456789012n, n: -5, ok: true, x: 1.5, name: "naïve", raw: Uint8Array.of(0, 255) }

for (const [name, make] of makers) {
  describe(`a row, read by ${name},`, () => {
    it("holds every column by its name, in their order", () => {
      const { row, unchanged } = readBytes(make(six), tupleData(...sixCells))
      assert.deepStrictEqual(row, sixValues)
      assert.deepStrictEqual(Object.keys(row), ["id", "n", "ok", "x", "name", "raw"])
      assert.deepStrictEqual(unchanged, [])
    })

    it("has null for NULL, in any column", () => {
      for (let at = 0; at < sixCells.length; at++) {
        const cells = sixCells.map((cell, index) => (index === at ? null : cell))
        const key = Object.keys(sixValues)[at]!
        assert.deepStrictEqual(readBytes(make(six), tupleData(...cells)).row, { ...sixValues, [key]: null })
      }
    })

    it("goes without an unchanged column, and names it", () => {
      const { row, unchanged: names } = readBytes(make(six), tupleData("1", unchanged, "f", "2", unchanged, null))
      assert.deepStrictEqual(row, { id: 1n, ok: false, x: 2, raw: null })
      assert.deepStrictEqual(names, ["n", "name"])
    })

    it("takes an unchanged column from the old row, and only what that row has of its own", () => {
      const columns = columnsOf([
        ["a", 25],
        ["toString", 25],
        ["b", 25]
      ])
      const old = { a: null, b: "before" }
      const { row, unchanged: names } = readBytes(make(columns), tupleData(unchanged, unchanged, unchanged), old)
      assert.deepStrictEqual(row, old)
      assert.deepStrictEqual(names, ["toString"])
    })

    it("forgets what was unchanged in the row before", () => {
      const read = make(columnsOf([["a", 25]]))
      const scratch = new TupleScratch()
      for (const [cell, expected] of [
        [unchanged, ["a"]],
        ["x", []]
      ] as const) {
        const bytes = tupleData(cell)
        read(new ByteReader().reset(bytes, 0, bytes.length), scratch, undefined)
        assert.deepStrictEqual(scratch.unchanged, expected)
      }
    })

    it("holds only the columns that are read, of a key tuple", () => {
      const columns = columnsOf([
        ["a", 23, false],
        ["k", 23],
        ["b", 25, false],
        ["k2", 25],
        ["c", 25, false]
      ])
      assert.deepStrictEqual(readBytes(make(columns), tupleData(null, "1", unchanged, "x", "not an error")).row, {
        k: 1,
        k2: "x"
      })
    })

    it("takes any name for a name, and has it as a property of its own", () => {
      const columns = columnsOf(hostileNames.map((each) => [each, 25]))
      for (const missing of [undefined, 0, 3]) {
        const cells = hostileNames.map((_, index) => (index === missing ? unchanged : `value ${index}`))
        const { row } = readBytes(make(columns), tupleData(...cells))
        assert.strictEqual(Object.getPrototypeOf(row), Object.prototype)
        assert.strictEqual(Object.keys(row).length, hostileNames.length - (missing === undefined ? 0 : 1))
        for (const [index, each] of hostileNames.entries()) {
          assert.strictEqual(
            Object.getOwnPropertyDescriptor(row, each)?.value,
            index === missing ? undefined : `value ${index}`
          )
        }
      }
    })

    it("may have no columns, and may have 1,600", () => {
      assert.deepStrictEqual(readBytes(make([]), tupleData()).row, {})
      const many = Array.from({ length: 1600 }, (_, index) => `c${index}`)
      const { row } = readBytes(
        make(columnsOf(many.map((each) => [each, 23]))),
        tupleData(...many.map((_, index) => String(index)))
      )
      assert.deepStrictEqual(row, Object.fromEntries(many.map((each, index) => [each, index])))
    })

    it("is what a replaced decoder makes of the text, and never calls it for NULL", () => {
      const types: TypeDecoders = { byOid: new Map([[23, (text) => ({ text })]]) }
      const columns = columnsOf(
        [
          ["a", 23],
          ["b", 23]
        ],
        types
      )
      assert.deepStrictEqual(readBytes(make(columns), tupleData("1", null)).row, { a: { text: "1" }, b: null })
    })

    it("fails by column and type on a value its decoder refuses, and does not tell the value", () => {
      const throwing: TypeDecoders = { byOid: new Map([[25, (text) => assert.fail(text)]]) }
      const refused: ReadonlyArray<readonly [oid: number, text: string, types?: TypeDecoders]> = [
        [16, "secret"],
        [23, "secret"],
        [20, "secret"],
        [701, "secret"],
        [17, "\\xsecret"],
        [114, "secret"],
        [1007, "secret"],
        [25, "secret", throwing]
      ]
      for (const [oid, text, types] of refused) {
        const error = decodeErrorOf(() => readBytes(make(columnsOf([["c", oid]], types)), tupleData(text)))
        assert.strictEqual(error.problem, `a value of column "c" of "public"."t" that is no ${oid} its decoder takes`)
        assert.notInclude(`${error}${error.stack}${JSON.stringify(error)}${error.cause}`, "secret")
        // 3 bytes before the tuple, its count, a kind and a length.
        assert.strictEqual(error.offset, 3 + 2 + 5)
        const lenient = columnsOf([["c", oid]], { ...types, onUndecodable: "text" })
        assert.deepStrictEqual(readBytes(make(lenient), tupleData(text)).row, { c: text })
      }
    })

    const broken: ReadonlyArray<readonly [what: string, bytes: Uint8Array, problem: string]> = [
      ["an empty tuple", message(), "2 bytes wanted where 0 are left"],
      ["too few columns", tupleData("1"), "a row of 1 columns where its relation has 2"],
      ["too many columns", tupleData("1", "2", "3"), "a row of 3 columns where its relation has 2"],
      [
        "a binary value",
        message([2, 2], "b", [4, 1], "x", "n"),
        'column "a" of "public"."t" in binary format, which was not asked for'
      ],
      ["an unknown kind", message([2, 2], "n", "x"), 'column "b" of "public"."t" of unknown kind 0x78'],
      [
        "a negative length",
        message([2, 2], "t", [4, -1], "n"),
        'a value of column "a" of "public"."t" that reaches beyond its message'
      ],
      [
        "a huge length",
        message([2, 2], "t", [4, 0x7fff_ffff], "n"),
        'a value of column "a" of "public"."t" that reaches beyond its message'
      ],
      [
        "a length one too long",
        message([2, 2], "n", "t", [4, 2], "1"),
        'a value of column "b" of "public"."t" that reaches beyond its message'
      ],
      [
        "a cut length",
        message([2, 2], "n", "t", [2, 0]),
        'a value of column "b" of "public"."t" that reaches beyond its message'
      ],
      [
        "a missing column",
        message([2, 2], "n"),
        'a value of column "b" of "public"."t" that reaches beyond its message'
      ],
      ["text that is not UTF-8", message([2, 2], "n", "t", [4, 1], Uint8Array.of(0xff)), "text that is not UTF-8"]
    ]
    for (const [what, bytes, problem] of broken) {
      it(`fails on ${what}`, () => {
        assert.strictEqual(
          decodeErrorOf(() =>
            readBytes(
              make(
                columnsOf([
                  ["a", 25],
                  ["b", 25]
                ])
              ),
              bytes
            )
          ).problem,
          problem
        )
      })
    }
  })
}

/** What `length` groups of columns hold, each with one that is not read. */
const groups = (length: number): readonly [columns: ReadonlyArray<ColumnReader>, tuple: Uint8Array] => {
  const columns = Array.from({ length }, (_, group) => [
    ...six.map((column) => ({ ...column, name: `${column.name}${group || ""}` })),
    ...columnsOf([
      [`skipped${group}`, 25, false],
      [`json${group}`, 114],
      [`array${group}`, 1007]
    ])
  ]).flat()
  const cells = Array.from({ length }, () => [...sixCells, "not read", '{"a":1}', "{1,2}"]).flat()
  return [columns, tupleData(...cells)]
}

describe.runIf(canCompile)("the two readers", () => {
  const many = Math.ceil((2 * partLength) / 9)
  for (const [title, length] of [
    ["agree on every damaged tuple: the same row, or the same error at the same byte", 1],
    ["agree on those of a relation with more columns than one function reads", many]
  ] as const)
    it(title, () => {
      const [columns, whole] = groups(length)
      let state = 7
      const random = (below: number): number => {
        state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
        return Math.floor((state / 0x1_0000_0000) * below)
      }
      const outcome = (read: RowReader, bytes: Uint8Array): unknown => {
        try {
          return readBytes(read, bytes, { n: 3 })
        } catch (error) {
          assert.instanceOf(error, DecodeError)
          return [error.problem, error.offset]
        }
      }
      const [loop, code] = [interpretedRowReader(columns), compiled(columns)]
      let failures = 0
      for (let round = 0; round < 20_000 / length; round++) {
        const bytes = Uint8Array.from(whole.subarray(0, random(4) === 0 ? random(whole.length) : whole.length))
        for (let hits = random(3); hits > 0 && bytes.length > 0; hits--) {
          bytes[random(bytes.length)] = [0x74, 0x6e, 0x75, 0x62, 0, 1, 0xff, random(256)][random(8)]!
        }
        const expected = outcome(loop, bytes)
        if (Array.isArray(expected)) failures += 1
        assert.deepStrictEqual(outcome(code, bytes), expected)
      }
      assert.isAbove(failures, 5_000 / length)
    })
})

describe("makeRowReader", () => {
  it("gives the same rows before and after it has compiled itself", () => {
    const read = makeRowReader(six)
    for (let row = 0; row < 1000; row++) {
      assert.deepStrictEqual(readBytes(read, tupleData(String(row), ...sixCells.slice(1))).row, {
        ...sixValues,
        id: BigInt(row)
      })
    }
  })

  it("names the column of a text that is no string, before and after it has compiled itself", () => {
    const read = makeRowReader(
      columnsOf([
        ["id", 23],
        ["none", 25],
        ["note", 25]
      ])
    )
    const bytes = tupleData("1", null, Buffer.from([0x6f, 0xff]))
    for (let row = 0; row < 300; row++) {
      const error = decodeErrorOf(() => readBytes(read, bytes))
      assert.strictEqual(error.problem, 'column "note" of "public"."t": text that is not UTF-8')
    }
    const cure = "leave its column out of the publication"
    const slices = {
      ...portableText,
      utf8: (_: Uint8Array, start: number): never => {
        throw tooLong(600_000_000, start)
      }
    }
    const long = tupleData("1", "x".repeat(40), "y")
    const error = decodeErrorOf(() => read(ByteReader.over(long, slices), new TupleScratch(), undefined))
    assert.match(
      error.message,
      /column "none" of "public"."t": 600000000 bytes of text are more than a string can hold/
    )
    assert.include(error.remedy, cure)
  })

  it("does without compiling where the runtime refuses to generate code", () => {
    const script = `
      import { compileRowReader } from "${new URL("../../src/pgoutput/CompiledRowReader.ts", import.meta.url)}"
      import { makeRowReader } from "${new URL("../../src/pgoutput/RowReader.ts", import.meta.url)}"
      import { TupleScratch } from "${new URL("../../src/pgoutput/Tuple.ts", import.meta.url)}"
      import { ByteReader } from "${new URL("../../src/protocol/ByteReader.ts", import.meta.url)}"
      import { decoderForOid } from "${new URL("../../src/values/TypeDecoder.ts", import.meta.url)}"
      const columns = [{ name: "a", isRead: true, decoder: decoderForOid(23), place: {}, onUndecodable: undefined }]
      const read = makeRowReader(columns)
      const bytes = Uint8Array.of(0, 1, 0x74, 0, 0, 0, 1, 0x37)
      let sum = 0
      for (let row = 0; row < 1000; row++) sum += read(new ByteReader().reset(bytes, 0, 8), new TupleScratch(), undefined).a
      process.stdout.write(compileRowReader(columns) === undefined ? String(sum) : "compiled")
    `
    const output = execFileSync(
      process.execPath,
      ["--disallow-code-generation-from-strings", "--input-type=module", "--no-warnings", "--eval", script],
      { encoding: "utf8" }
    )
    assert.strictEqual(output, "7000")
  })
})

describe.runIf(canCompile)("readers of relations with the same types", () => {
  it("share the code that reads, and keep their own names, values and failures", () => {
    const make = (prefix: string) => columnsOf(["id", "__proto__", "raw"].map((name) => [`${prefix}${name}`, 20]))
    const [first, second] = [compiled(make("")), compiled(make("other "))]
    assert.strictEqual(rowReaderSource(make("")), rowReaderSource(make("other ")))
    for (let row = 0; row < 3; row++) {
      const bytes = tupleData(String(row), unchanged, "7")
      const old = { ["__proto__"]: 5n, "other __proto__": 6n }
      const values = (prefix: string, value: bigint): Array<[string, unknown]> => [
        [`${prefix}id`, BigInt(row)],
        [`${prefix}__proto__`, value],
        [`${prefix}raw`, 7n]
      ]
      assert.deepStrictEqual(Object.entries(readBytes(first, bytes, old).row), values("", 5n))
      assert.deepStrictEqual(Object.entries(readBytes(second, bytes, old).row), values("other ", 6n))
      assert.deepStrictEqual(readBytes(second, bytes).unchanged, ["other __proto__"])
      assert.include(decodeErrorOf(() => readBytes(second, tupleData("x", "1", "1"))).problem, '"other id"')
    }
  })
})

describe("the code of a compiled reader", () => {
  const hostile = columnsOf(hostileNames.map((name) => [name, 25]))
  const harmless = columnsOf(hostileNames.map((_, index) => [`c${index}`, 25]))

  it("holds no name where it reads", () => {
    assert.strictEqual(rowReaderSource(hostile), rowReaderSource(harmless))
  })

  it("holds a name only as a string literal where it makes rows, so that no name can be code", () => {
    const withoutStrings = (code: string) => code.replaceAll(/"(?:[^"\\]|\\.)*"/g, '""').replaceAll('[""]', '""')
    assert.strictEqual(withoutStrings(makeRowSource(hostile)), withoutStrings(makeRowSource(harmless)))
  })
})
