import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Wal2Json from "../../src/wal2json/Wal2Json.ts"
import { brief, changesOf } from "./decodeMessages.ts"

const optionsOf = (options?: Wal2Json.Wal2JsonOptions) => Wal2Json.make(options).options(150_000)

describe("Wal2Json", () => {
  it("is a plugin of its own name that needs no publication", () => {
    const plugin = Wal2Json.make()
    assert.strictEqual(plugin.name, "wal2json")
    assert.deepStrictEqual(plugin.tells.publications, [])
  })

  it("[W3] asks for format 2 and for all that decoding rests on", () => {
    assert.deepStrictEqual(
      optionsOf(),
      Result.succeed([
        ["format-version", "2"],
        ["include-lsn", "true"],
        ["include-xids", "true"],
        ["include-timestamp", "true"],
        ["include-pk", "true"],
        ["include-type-oids", "true"],
        ["include-types", "true"],
        ["include-origin", "false"],
        ["include-transaction", "true"],
        ["include-domain-data-type", "true"]
      ])
    )
  })

  it("asks for format 1 without the option that only format 2 has", () => {
    const options = new Map(Result.getOrThrow(optionsOf({ formatVersion: 1, actions: ["insert"] })))
    assert.strictEqual(options.get("format-version"), "1")
    assert.strictEqual(options.get("actions"), "insert")
    assert.isFalse(options.has("include-transaction"))
  })

  const table: ReadonlyArray<readonly [Wal2Json.Wal2JsonOptions, string, string | undefined]> = [
    [{ includeOrigin: true }, "include-origin", "true"],
    [{ includeTypes: false }, "include-types", "false"],
    [{ includeTypes: false }, "include-domain-data-type", undefined],
    [{ numericDataTypesAsString: true }, "numeric-data-types-as-string", "true"],
    [{ numericDataTypesAsString: false }, "numeric-data-types-as-string", undefined],
    [{ filterTables: [{ schema: "a b", table: "c" }] }, "filter-tables", "a\\ b.c"],
    [{ addTables: [{ table: "c" }] }, "add-tables", "*.c"],
    [{ filterMsgPrefixes: ["a", "b"] }, "filter-msg-prefixes", "a,b"],
    [{ addMsgPrefixes: ["a"] }, "add-msg-prefixes", "a"],
    [{ filterOrigins: [1, 2] }, "filter-origins", "1,2"],
    [{ actions: ["insert", "truncate"] }, "actions", "insert,truncate"]
  ]
  for (const [options, name, value] of table) {
    it(`writes ${name} of ${JSON.stringify(options)}`, () => {
      assert.strictEqual(new Map(Result.getOrThrow(optionsOf(options))).get(name), value)
    })
  }

  it("gives InvalidOption under the option's own name", () => {
    const refused: Record<string, Wal2Json.Wal2JsonOptions> = {
      filterTables: { filterTables: [] },
      addTables: { addTables: [{ schema: "" }] },
      filterMsgPrefixes: { filterMsgPrefixes: ["a b"] },
      addMsgPrefixes: { addMsgPrefixes: [""] },
      filterOrigins: { filterOrigins: [0] },
      actions: { actions: [] }
    }
    for (const [option, options] of Object.entries(refused)) {
      const result = optionsOf(options)
      assert.isTrue(Result.isFailure(result), option)
      if (Result.isFailure(result)) {
        assert.strictEqual(result.failure._tag, "InvalidOption")
        assert.propertyVal(result.failure, "option", option)
      }
    }
  })

  it("has no way to write what would break the decoding, or what the format cannot do", () => {
    // @ts-expect-error: format 1 knows no truncates
    Wal2Json.make({ formatVersion: 1, actions: ["truncate"] })
    // @ts-expect-error: a filter names a schema, a table or both
    Wal2Json.make({ filterTables: [{}] })
    // @ts-expect-error: always on
    Wal2Json.make({ includeLsn: false })
    // @ts-expect-error: never on
    Wal2Json.make({ formatVersion: 1, writeInChunks: true })
    // @ts-expect-error: there are two formats
    Wal2Json.make({ formatVersion: 3 })
  })

  it("names tables, prefixes and actions so that wal2json itself takes them as meant", () => {
    assert.deepStrictEqual(
      brief(changesOf("filtered")).map((change) => (change as ReadonlyArray<unknown>)[0]),
      ["I", "I", "T", "M"]
    )
    assert.deepStrictEqual(
      brief(changesOf("filtered", 1)).map((change) => (change as ReadonlyArray<unknown>)[0]),
      ["I", "I", "M"]
    )
  })
})
