import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import { formatOrigins, formatPrefixes, formatTableFilters } from "../../src/wal2json/TableFilter.ts"

describe("TableFilter", () => {
  it("writes a table, a schema's tables and a name in all schemas", () => {
    assert.deepStrictEqual(
      formatTableFilters("filterTables", [{ schema: "public", table: "t" }, { schema: "audit" }, { table: "log" }]),
      Result.succeed("public.t,audit.*,*.log")
    )
  })

  it("puts a backslash before each character that wal2json reads as its own, and before no other", () => {
    const escaped: Record<string, string> = {
      "Foo bar": "Foo\\ bar",
      "a.b": "a\\.b",
      "a,b": "a\\,b",
      "*": "\\*",
      "it's": "it\\'s",
      "a\\b": "a\\\\b",
      "a\tb\nc": "a\\\tb\\\nc",
      'q"q': 'q"q',
      "é😀": "é😀"
    }
    for (const [name, text] of Object.entries(escaped)) {
      assert.deepStrictEqual(
        formatTableFilters("addTables", [{ schema: name, table: name }]),
        Result.succeed(`${text}.${text}`)
      )
    }
  })

  it("refuses names that PostgreSQL cannot have, and lists that name nothing", () => {
    const long = "é".repeat(32)
    for (const filters of [[], [{ table: "" }], [{ schema: long }], [{ schema: "a", table: "a\0b" }]]) {
      const refused = Result.getFailure(formatTableFilters("addTables", filters))
      assert.strictEqual(refused._tag === "Some" ? refused.value.option : undefined, "addTables")
    }
    assert.isTrue(Result.isFailure(formatTableFilters("addTables", [{} as { readonly table: string }])))
    assert.isTrue(Result.isSuccess(formatTableFilters("addTables", [{ table: "x".repeat(63) }])))
  })

  it("refuses prefixes that wal2json would cut, as it knows no escape for them", () => {
    assert.deepStrictEqual(formatPrefixes("addMsgPrefixes", ["outbox", "é*.'"]), Result.succeed("outbox,é*.'"))
    for (const prefix of ["", "a b", "a,b", "a\\", "a\tb", "a\nb", "a\0"]) {
      assert.isTrue(Result.isFailure(formatPrefixes("addMsgPrefixes", ["fine", prefix])), JSON.stringify(prefix))
    }
    assert.isTrue(Result.isFailure(formatPrefixes("addMsgPrefixes", [])))
  })

  it("takes origins by their number, which has sixteen bits and is never 0", () => {
    assert.deepStrictEqual(formatOrigins("filterOrigins", [1, 65_535]), Result.succeed("1,65535"))
    for (const origin of [0, -1, 1.5, 65_536, Number.NaN]) {
      assert.isTrue(Result.isFailure(formatOrigins("filterOrigins", [origin])), String(origin))
    }
  })
})
