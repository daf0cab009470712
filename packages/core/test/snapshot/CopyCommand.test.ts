import { assert, describe, it } from "@effect/vitest"
import { copyPieces, lockCommand } from "../../src/snapshot/CopyCommand.ts"
import type { PublishedTable } from "../../src/snapshot/PublishedTables.ts"

const part = (overrides: Partial<PublishedTable["parts"][number]> = {}): PublishedTable["parts"][number] => ({
  oid: 16384,
  schema: "public",
  name: 'o"dd',
  isReadable: true,
  fileNode: 0,
  pages: 0,
  isHeap: true,
  estimatedRows: null,
  hasRowSecurity: false,
  ...overrides
})

const table = (overrides: Partial<PublishedTable> = {}): PublishedTable => ({
  oid: 16384,
  schema: "public",
  name: 'o"dd',
  replicaIdentity: "d",
  columns: [
    { name: "id", isKey: true, typeOid: 23, typeModifier: -1, type: null },
    { name: "a b", isKey: false, typeOid: 25, typeModifier: -1, type: null }
  ],
  keyLength: 1,
  columnLists: 1,
  filters: [null],
  parts: [part()],
  ancestors: [],
  ...overrides
})

const commands = (overrides: Partial<PublishedTable>) => copyPieces(table(overrides)).map(({ command }) => command)

describe("the commands that copy a table", () => {
  it("read a small one whole", () => {
    assert.deepStrictEqual(commands({}), [`COPY (SELECT "id", "a b" FROM ONLY "public"."o""dd") TO STDOUT`])
    assert.deepStrictEqual(commands({ columns: [] }), [`COPY (SELECT  FROM ONLY "public"."o""dd") TO STDOUT`])
  })

  it("read a large one in pieces that meet, of which the first and the last are open", () => {
    const ranges = commands({ parts: [part({ pages: 6500 })] }).map((command) => / WHERE (.*)\) TO/.exec(command)?.[1])
    assert.deepStrictEqual(ranges, [
      "ctid < '(2048,0)'::pg_catalog.tid",
      "ctid >= '(2048,0)'::pg_catalog.tid AND ctid < '(4096,0)'::pg_catalog.tid",
      "ctid >= '(4096,0)'::pg_catalog.tid"
    ])
  })

  it("do not part what has no pages to part it by", () => {
    assert.lengthOf(commands({ parts: [part({ pages: 6500, isHeap: false })] }), 1)
  })

  it("take the rows of any filter, and every row where one publication has none", () => {
    const where = (filters: ReadonlyArray<string | null>) => / WHERE (.*)\) TO/.exec(commands({ filters })[0]!)?.[1]
    assert.strictEqual(where(["(a = 1)", "(b)"]), "(((a = 1)) OR ((b)))")
    assert.isUndefined(where(["(a = 1)", null]))
  })

  it("lock each table and each partitioned table above it once, and nothing where there is none", () => {
    const root = { schema: "public", name: "root", isReadable: true }
    assert.strictEqual(
      lockCommand([table({ ancestors: [root] }), table()]),
      `LOCK TABLE ONLY "public"."root", ONLY "public"."o""dd" IN ACCESS SHARE MODE`
    )
    assert.isUndefined(lockCommand([]))
  })
})
