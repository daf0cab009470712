import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { DecodeError } from "../../src/ReplicationError.ts"
import { CopyText } from "../../src/snapshot/CopyText.ts"

const encoder = new TextEncoder()
const decoder = new TextDecoder()

/** The columns of an Insert message: a text, or null. */
const columnsOf = (bytes: Uint8Array, length: number): ReadonlyArray<string | null> => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, length)
  const columns: Array<string | null> = []
  let at = 8
  for (let column = 0; column < view.getUint16(6); column++) {
    if (bytes[at] === 0x6e) {
      columns.push(null)
      at += 1
      continue
    }
    assert.strictEqual(bytes[at], 0x74)
    const size = view.getInt32(at + 1)
    columns.push(decoder.decode(bytes.subarray(at + 5, at + 5 + size)))
    at += 5 + size
  }
  assert.strictEqual(at, length)
  return columns
}

const encode = (text: CopyText, row: string, columns: number): ReadonlyArray<string | null> => {
  // Within other rows, as a read holds them.
  const bytes = encoder.encode(`before\n${row}after`)
  const start = 7
  const length = text.encodeInsert(0x89abcdef, columns, bytes, start, start + encoder.encode(row).length)
  assert.deepStrictEqual([...text.bytes.subarray(0, 6)], [0x49, 0x89, 0xab, 0xcd, 0xef, 0x4e])
  return columnsOf(text.bytes, length)
}

/** As `CopyAttributeOutText` writes it. */
const escaped = (value: string | null): string =>
  value === null
    ? "\\N"
    : value.replace(/[\\\b\f\n\r\t\v]/g, (character) => {
        const letter = { "\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", "\v": "v" }[character]
        return `\\${letter}`
      })

describe("a row of COPY's text format", () => {
  it("becomes the insert of its columns", () => {
    const text = new CopyText()
    assert.deepStrictEqual(encode(text, "1\tnaïve ☕\t\n", 3), ["1", "naïve ☕", ""])
    assert.deepStrictEqual(encode(text, "\\N\t\\\\N\tN\t\\N\n", 4), [null, "\\N", "N", null])
    assert.deepStrictEqual(encode(text, "\\\\.\\b\\f\\n\\r\\t\\v\n", 1), ["\\.\b\f\n\r\t\v"])
    assert.deepStrictEqual(encode(text, "\n", 1), [""])
    assert.deepStrictEqual(encode(text, "\n", 0), [])
  })

  it("may be long, and the next is none the worse for it", () => {
    const text = new CopyText()
    const long = "x".repeat(3_000_000)
    assert.deepStrictEqual(encode(text, `${long}\t\\N\n`, 2), [long, null])
    assert.deepStrictEqual(encode(text, "1\t2\n", 2), ["1", "2"])
  })

  it("is refused when it is not one of so many columns", () => {
    const rows: ReadonlyArray<readonly [string, number]> = [
      ["1\t2\n", 1],
      ["1\t2\n", 3],
      ["\\N\n", 2],
      ["\\N\t\n", 1],
      ["\\Nx\n", 1],
      ["1", 1],
      ["", 1],
      ["x\n", 0],
      ["a\nb\n", 1],
      ["\\q\n", 1],
      ["1\\\n", 1]
    ]
    for (const [row, columns] of rows) {
      assert.throws(() => encode(new CopyText(), row, columns), DecodeError, undefined, JSON.stringify([row, columns]))
    }
  })

  it.prop(
    "keeps every value",
    { values: Schema.Array(Schema.NullOr(Schema.String)).check(Schema.isMinLength(1)) },
    ({ values }) => {
      // Half a surrogate pair is no text of PostgreSQL's.
      const wellFormed = values.map((value) => value?.toWellFormed() ?? null)
      const row = `${wellFormed.map(escaped).join("\t")}\n`
      assert.deepStrictEqual(encode(new CopyText(), row, wellFormed.length), wellFormed)
    }
  )
})
