import { assert, describe, it } from "@effect/vitest"
import { formatBytes, formatTable } from "../../src/cli/Table.ts"

describe("formatTable", () => {
  const columns = [
    { heading: "name", value: (row: { name: string; size: number | undefined }) => row.name },
    { heading: "size", value: (row: { size: number | undefined }) => row.size?.toString(), align: "right" as const }
  ]

  it("makes columns as wide as they must be", () => {
    const rows = [
      { name: "a", size: 12_345 },
      { name: "long name", size: undefined }
    ]
    assert.strictEqual(formatTable(columns, rows), "NAME        SIZE\na          12345\nlong name      -\n")
  })

  it("is its headings where there are no rows", () => assert.strictEqual(formatTable(columns, []), "NAME  SIZE\n"))

  it("lets no value draw on the terminal", () => {
    assert.notInclude(formatTable(columns, [{ name: "\u001b[2J", size: 1 }]), "\u001b")
  })
})

describe("formatBytes", () => {
  for (const [bytes, text] of [
    [0, "0 B"],
    [1023n, "1023 B"],
    [1536, "1.5 kB"],
    [16_777_216, "16 MB"],
    [123_456_789_012n, "115 GB"],
    [2n ** 63n, "8192 PB"]
  ] as const) {
    it(`${bytes} is ${text}`, () => assert.strictEqual(formatBytes(bytes), text))
  }
})
