import { execFileSync } from "node:child_process"
import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import type { Row } from "../../src/change/Change.ts"
import { compileCopyReader, copyReaderSource, makeCopyReader } from "../../src/pgoutput/CompiledCopyReader.ts"
import { type CopyRowReader, CopyScratch, interpretedCopyReader } from "../../src/pgoutput/CopyRow.ts"
import { interpretedRowReader } from "../../src/pgoutput/RowReader.ts"
import { type ColumnReader, TupleScratch } from "../../src/pgoutput/Tuple.ts"
import { ByteReader } from "../../src/protocol/ByteReader.ts"
import { DecodeError } from "../../src/ReplicationError.ts"
import { decoderForOid, type TypeDecoders } from "../../src/values/TypeDecoder.ts"
import { hostileNames } from "../fixtures/goldens.ts"
import { decodeErrorOf, tuple } from "../support/PgoutputBytes.ts"
import { Random } from "../support/Random.ts"

const encode = (text: string): Uint8Array => new TextEncoder().encode(text)

const columnsOf = (typeOids: ReadonlyArray<number>, types: TypeDecoders = {}): ReadonlyArray<ColumnReader> =>
  typeOids.map((typeOid, index) => ({
    name: `c${index}`,
    isRead: true,
    decoder: decoderForOid(typeOid, types),
    place: { schema: "public", relation: "t", column: `c${index}`, type: String(typeOid) },
    onUndecodable: types.onUndecodable
  }))

const texts = (count: number) => columnsOf(Array.from({ length: count }, () => 25))

/** Not under `npm run unit:nocodegen`, where there is no compiled reader to test. */
const canCompile = ((): boolean => {
  try {
    return new Function("return true")() as boolean
  } catch {
    return false
  }
})()

const compiled = (columns: ReadonlyArray<ColumnReader>): CopyRowReader =>
  compileCopyReader(columns) ?? assert.fail("no code")

const makers: ReadonlyArray<readonly [name: string, make: (columns: ReadonlyArray<ColumnReader>) => CopyRowReader]> = [
  ["the loop", interpretedCopyReader],
  ...(canCompile ? [["the compiled reader", compiled] as const] : [])
]

/** What stands before each row here, as other rows do in a read. */
const before = encode("before\n")

/** Reads a row that stands in the middle of other bytes, and insists that all of it was read. */
const readBytes = (read: CopyRowReader, bytes: Uint8Array, scratch = new CopyScratch()): Row => {
  const whole = Buffer.concat([before, bytes, encode("after")])
  const reader = new ByteReader().reset(whole, before.length, before.length + bytes.length)
  const row = read(reader, scratch)
  reader.expectEnd()
  return row
}

const values = (row: Row): ReadonlyArray<unknown> => Object.values(row)

/** As `CopyAttributeOutText` writes it. */
const escaped = (value: string | null): string =>
  value === null
    ? "\\N"
    : value.replace(/[\\\b\f\n\r\t\v]/g, (character) => {
        const letter = { "\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", "\v": "v" }[character]
        return `\\${letter}`
      })

const copied = (cells: ReadonlyArray<string | null>): Uint8Array => encode(`${cells.map(escaped).join("\t")}\n`)

/** Values of every form, some of which their decoder refuses; json and an array among those that are neither. */
const forms: ReadonlyArray<readonly [typeOid: number, texts: ReadonlyArray<string>]> = [
  [16, ["t", "f", "true", ""]],
  [20, ["0", "-9223372036854775808", "9223372036854775808", "1x", ""]],
  [23, ["2147483647", "-1", "", "-", "1\t2"]],
  [701, ["1.5", "-0", "NaN", "Infinity", "1e300", "x", "1.5\\"]],
  [17, ["\\x", "\\x00ff5c", "a\\\\b\\001", "\\xq"]],
  [
    25,
    ["", "N", "\\N", "\\.", "\\", "\b\f\n\r\t\v\\", "naïve ☕ 🐘", "x".repeat(33), "ä".repeat(20), "\\x".repeat(99)]
  ],
  [114, ['{"a":"tab\\tq\\"uote"}', "{}", "{"]],
  [1009, ["{a,NULL}", '{"a\\\\b","c\nd"}', "{"]],
  [1700, ["1.25", "-12345678901234567890.000"]],
  [99999, ["whatever", "☕"]]
]

const policies: ReadonlyArray<TypeDecoders> = [
  {},
  { onUndecodable: "text" },
  { json: "text", arrays: "text", onUndecodable: "text" },
  { byOid: new Map([[23, (text) => ({ text })]]), onUndecodable: "text" }
]

for (const [name, make] of makers) {
  describe(`a row of COPY's text format, read by ${name},`, () => {
    it("holds every column by its name, in their order", () => {
      const read = make(columnsOf([20, 23, 16, 701, 25, 17]))
      assert.deepStrictEqual(
        Object.entries(readBytes(read, copied(["123456789012", "-5", "t", "1.5", "naïve", "\\x00ff"]))),
        [
          ["c0", 123456789012n],
          ["c1", -5],
          ["c2", true],
          ["c3", 1.5],
          ["c4", "naïve"],
          ["c5", Uint8Array.of(0, 255)]
        ]
      )
    })

    it("tells NULL from texts that look like it, and knows every escape", () => {
      const rows: ReadonlyArray<readonly [string, ReadonlyArray<string | null>]> = [
        ["\\N\t\\\\N\tN\t\\N\n", [null, "\\N", "N", null]],
        ["\\\\.\\b\\f\\n\\r\\t\\v\n", ["\\.\b\f\n\r\t\v"]],
        ["1\tnaïve ☕\t\n", ["1", "naïve ☕", ""]],
        ["\n", [""]],
        ["\n", []]
      ]
      for (const [row, expected] of rows) {
        assert.deepStrictEqual(values(readBytes(make(texts(expected.length)), encode(row))), expected)
      }
    })

    it("has of every text the value that the stream gives it, or its failure", () => {
      for (const types of policies) {
        for (const [typeOid, each] of forms) {
          const columns = columnsOf([25, typeOid, 25], types)
          const [read, stream] = [make(columns), interpretedRowReader(columns)]
          for (const text of [...each, null]) {
            const cells = ["before", text, "after"]
            const outcome = (run: () => Row): unknown => {
              try {
                return run()
              } catch (error) {
                assert.instanceOf(error, DecodeError)
                return error.problem
              }
            }
            const sent = tuple("N", cells).subarray(1)
            const streamed = outcome(() => stream(ByteReader.over(sent), new TupleScratch(), undefined))
            assert.deepStrictEqual(
              outcome(() => readBytes(read, copied(cells))),
              streamed,
              `${typeOid}: ${text}`
            )
          }
        }
      }
    })

    it("may be long, and the next is none the worse for it", () => {
      const read = make(texts(2))
      const scratch = new CopyScratch()
      for (const long of ["x".repeat(3_000_000), "a\\b\n".repeat(1_000_000), "☕\t".repeat(400_000)]) {
        assert.deepStrictEqual(values(readBytes(read, copied([long, null]), scratch)), [long, null])
        assert.deepStrictEqual(values(readBytes(read, copied(["1", "\\2"]), scratch)), ["1", "\\2"])
      }
    })

    it("is one of many in a read, and in the next", () => {
      const read = make(columnsOf([23, 25, 25]))
      const scratch = new CopyScratch()
      const reader = new ByteReader()
      for (const word of ["plain", "naïve", "tab\tbed"]) {
        const rows = Array.from({ length: 300 }, (_, index) => [
          String(index),
          `${word} ${index % 7}`,
          "x".repeat(index)
        ])
        const lines = rows.map(copied)
        const bytes = Buffer.concat(lines)
        let at = 0
        for (const [index, line] of lines.entries()) {
          const [, first, second] = rows[index]!
          assert.deepStrictEqual(read(reader.reset(bytes, at, at + line.length), scratch), {
            c0: index,
            c1: first,
            c2: second
          })
          at += line.length
        }
      }
    })

    it("takes any name for a name, and has it as a property of its own", () => {
      const harmless = hostileNames.filter((name) => !(name in Object.prototype))
      for (const names of [hostileNames, harmless, ...hostileNames.map((name) => [name])]) {
        const columns = texts(names.length).map((column, index) => ({ ...column, name: names[index]! }))
        const row = readBytes(make(columns), copied(names.map((_, index) => `value ${index}`)))
        assert.strictEqual(Object.getPrototypeOf(row), Object.prototype)
        assert.strictEqual(Object.keys(row).length, names.length)
        for (const [index, value] of names.map((_, at) => `value ${at}`).entries()) {
          const descriptor = { value, configurable: true, enumerable: true, writable: true }
          assert.deepStrictEqual(Object.getOwnPropertyDescriptor(row, names[index]!), descriptor)
        }
      }
    })

    it("is refused when it is not one of so many columns", () => {
      const rows: ReadonlyArray<readonly [row: string, columns: number, offset: number]> = [
        ["1\t2\n", 1, 1],
        ["1\t2\n", 3, 3],
        ["\\N\n", 2, 2],
        ["\\N\t\n", 1, 2],
        ["\\Nx\n", 1, 2],
        ["1", 1, 0],
        ["", 1, 0],
        ["x\n", 0, 1],
        ["a\nb\n", 1, 2],
        ["\\q\n", 1, 1],
        ["x\\N\n", 1, 2],
        ["\\\n", 1, 1],
        ["1\\\n", 1, 2],
        ["1\\\\\\\n", 1, 4]
      ]
      for (const [row, columns, offset] of rows) {
        const error = decodeErrorOf(() => readBytes(make(texts(columns)), encode(row)))
        assert.strictEqual(error.offset - before.length, offset, JSON.stringify([row, columns]))
        assert.match(error.problem, /row of a copy/)
      }
    })

    it("fails by column and type on a value its decoder refuses, and does not tell the value", () => {
      for (const text of ["secret", "sec\tret"]) {
        const error = decodeErrorOf(() => readBytes(make(columnsOf([25, 23])), copied(["x", text])))
        assert.strictEqual(error.problem, `a value of column "c1" of "public"."t" that is no 23 its decoder takes`)
        assert.strictEqual(error.offset, before.length + 2)
        assert.notMatch(`${error}${error.stack}${JSON.stringify(error)}${error.cause}`, /secret|ret/)
      }
    })

    it.prop(
      "keeps every value",
      { values: Schema.Array(Schema.NullOr(Schema.String)).check(Schema.isMinLength(1)) },
      ({ values: cells }) => {
        // Half a surrogate pair is no text of PostgreSQL's.
        const wellFormed = cells.map((value) => value?.toWellFormed() ?? null)
        assert.deepStrictEqual(values(readBytes(make(texts(wellFormed.length)), copied(wellFormed))), wellFormed)
      }
    )
  })
}

describe.runIf(canCompile)("the two readers of copied rows", () => {
  it("agree on every damaged row: the same row, or the same error at the same byte", () => {
    const random = new Random(11)
    const columns = columnsOf([20, 23, 16, 701, 25, 17, 114, 1007])
    const whole = copied(["123", "-5", "t", "1.5", "naï\\ve\t", "\\x00ff", '{"a":1}', "{1,2}"])
    const telling = [0x09, 0x0a, 0x5c, 0x4e, 0x00, 0xff]
    const outcome = (read: CopyRowReader, bytes: Uint8Array): unknown => {
      try {
        return readBytes(read, bytes)
      } catch (error) {
        assert.instanceOf(error, DecodeError)
        return [error.problem, error.offset]
      }
    }
    const [loop, code] = [interpretedCopyReader(columns), compiled(columns)]
    let failures = 0
    for (let round = 0; round < 20_000; round++) {
      const bytes = Uint8Array.from(
        whole.subarray(0, random.below(4) === 0 ? random.below(whole.length) : whole.length)
      )
      for (let hits = random.below(3); hits > 0 && bytes.length > 0; hits--) {
        bytes[random.below(bytes.length)] = telling[random.below(7)] ?? random.below(256)
      }
      const expected = outcome(loop, bytes)
      if (Array.isArray(expected)) failures += 1
      assert.deepStrictEqual(outcome(code, bytes), expected)
    }
    assert.isAbove(failures, 5_000)
  })
})

describe("makeCopyReader", () => {
  it("gives the same rows before and after it has compiled itself", () => {
    const read = makeCopyReader(columnsOf([23, 25]), new CopyScratch())
    for (let row = 0; row < 1000; row++) {
      const bytes = copied([String(row), "naïve\t"])
      assert.deepStrictEqual(read(ByteReader.over(bytes)), { c0: row, c1: "naïve\t" })
    }
  })

  it("names the column of a text that is no string, and of nothing else that fails", () => {
    const read = makeCopyReader(texts(3), new CopyScratch())
    const row = Buffer.concat([encode("a\\t\t\\N\t"), Buffer.from([0x6f, 0xff, 0x0a])])
    for (let count = 0; count < 300; count++) {
      const error = decodeErrorOf(() => read(ByteReader.over(row)))
      assert.strictEqual(error.problem, 'column "c2" of "public"."t": text that is not UTF-8')
    }
    const escaped = Buffer.concat([encode("a\t\\n"), Buffer.from([0xff]), encode("\tc\n")])
    assert.include(decodeErrorOf(() => read(ByteReader.over(escaped))).problem, 'column "c1" of')
    assert.notInclude(decodeErrorOf(() => read(ByteReader.over(encode("a\tb\n")))).problem, "c1")
  })

  it("does without compiling where there are very many columns", () => {
    const cells = Array.from({ length: 1600 }, (_, index) => String(index))
    const read = makeCopyReader(texts(1600), new CopyScratch())
    for (let row = 0; row < 200; row++) assert.deepStrictEqual(values(read(ByteReader.over(copied(cells)))), cells)
  })

  it("does without compiling where the runtime refuses to generate code", () => {
    const script = `
      import { compileCopyReader, makeCopyReader } from "${new URL("../../src/pgoutput/CompiledCopyReader.ts", import.meta.url)}"
      import { CopyScratch } from "${new URL("../../src/pgoutput/CopyRow.ts", import.meta.url)}"
      import { ByteReader } from "${new URL("../../src/protocol/ByteReader.ts", import.meta.url)}"
      import { decoderForOid } from "${new URL("../../src/values/TypeDecoder.ts", import.meta.url)}"
      const columns = [{ name: "a", isRead: true, decoder: decoderForOid(23), place: {}, onUndecodable: undefined }]
      const read = makeCopyReader(columns, new CopyScratch())
      let sum = 0
      for (let row = 0; row < 1000; row++) sum += read(ByteReader.over(Uint8Array.of(0x37, 0x0a))).a
      process.stdout.write(compileCopyReader(columns) === undefined ? String(sum) : "compiled")
    `
    const output = execFileSync(
      process.execPath,
      ["--disallow-code-generation-from-strings", "--input-type=module", "--no-warnings", "--eval", script],
      { encoding: "utf8" }
    )
    assert.strictEqual(output, "7000")
  })
})

describe("copyReaderSource", () => {
  it("holds a name only as a string literal, so that no name can be code", () => {
    const withoutStrings = (code: string) => code.replaceAll(/"(?:[^"\\]|\\.)*"/g, '""').replaceAll('[""]', '""')
    const source = (names: ReadonlyArray<string>) =>
      withoutStrings(copyReaderSource(texts(names.length).map((column, index) => ({ ...column, name: names[index]! }))))
    // Of the one kind rows are made by a literal, of the other by a constructor.
    const inherited = hostileNames.filter((name) => name in Object.prototype)
    const others = hostileNames.filter((name) => !(name in Object.prototype))
    assert.isNotEmpty(inherited)
    assert.isNotEmpty(others)
    assert.strictEqual(source(inherited), source(inherited.map((_, index) => (index === 0 ? "valueOf" : `c${index}`))))
    assert.strictEqual(source(others), source(others.map((_, index) => `c${index}`)))
  })
})
