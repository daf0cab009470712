import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { CopyBuffer, copyLine } from "../../src/copy/CopyRows.ts"

/** COPY's text format read back, as PostgreSQL does. */
const parse = (line: string): ReadonlyArray<string | null> =>
  line
    .slice(0, -1)
    .split("\t")
    .map((field) =>
      field === "\\N"
        ? null
        : field.replaceAll(/\\(.)/g, (_, letter: string) => ({ t: "\t", n: "\n", r: "\r" })[letter] ?? letter)
    )

describe("CopyRows", () => {
  it("writes NULL apart from every text", () => {
    assert.strictEqual(copyLine(["a", "b", "c"], { a: null, b: "\\N", c: "" }), "\\N\t\\\\N\t\n")
  })

  it("writes columns in the order of the command, whatever that of the row", () => {
    assert.strictEqual(copyLine(["b", "a"], { a: "1", b: "2" }), "2\t1\n")
  })

  const Value = Schema.NullOr(Schema.String)

  it.prop("reads back as it was written, on one line", { a: Value, b: Value }, ({ a, b }) => {
    for (const text of [a, a === null ? null : `${a}\\\t\n\r\\N`]) {
      const line = copyLine(["a", "b"], { a: text, b })
      assert.strictEqual(line.indexOf("\n"), line.length - 1)
      assert.deepStrictEqual(parse(line), [text, b])
    }
  })

  it("gathers rows until they are taken", () => {
    const buffer = new CopyBuffer(["a"])
    buffer.add({ a: "é" })
    buffer.add({ a: null })
    assert.strictEqual(buffer.rows, 2)
    assert.strictEqual(new TextDecoder().decode(buffer.take()), "é\n\\N\n")
    assert.deepStrictEqual([buffer.rows, buffer.size], [0, 0])
  })
})
