import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { copyPieces, endOfTable, lockCommand, pieceSize } from "../../src/snapshot/CopyCommand.ts"
import type { PublishedTable } from "../../src/snapshot/PublishedTables.ts"
import { part, table } from "../support/PublishedTable.ts"

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

  it("read of a part only what is asked for: pages, or of them the rows written since a transaction", () => {
    const ranges = new Map([
      [
        16384,
        [
          { from: 10, to: 30 },
          { from: 30, to: 40, since: 4_000_000_000 },
          { from: 90, to: endOfTable }
        ]
      ]
    ])
    const pieces = copyPieces(table({ parts: [part({ pages: 100 })] }), { piecePages: 10, ranges })
    const since = "pg_catalog.age(xmin) <= (SELECT pg_catalog.age('4000000000'::pg_catalog.xid))"
    const at = (page: number) => `'(${page},0)'::pg_catalog.tid`
    assert.deepStrictEqual(
      pieces.map(({ command, index }) => [index, / WHERE (.*)\) TO/.exec(command)?.[1]]),
      [
        [0, `ctid >= ${at(10)} AND ctid < ${at(20)}`],
        [1, `ctid >= ${at(20)} AND ctid < ${at(30)}`],
        [2, `ctid >= ${at(30)} AND ctid < ${at(40)} AND ${since}`],
        [3, `ctid >= ${at(90)}`]
      ]
    )
    assert.deepStrictEqual(pieces.map(pieceSize), [10, 10, 10, 10])
  })

  it.prop(
    "cover what is asked for, each page once",
    [
      Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 300 })),
      Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 50 }))
    ],
    ([pages, piecePages]) => {
      const ranges = copyPieces(table({ parts: [part({ pages })] }), { piecePages }).map((piece) => piece.pages)
      assert.strictEqual(ranges[0]!.from, 0)
      assert.strictEqual(ranges.at(-1)!.to, endOfTable)
      for (const [index, { from, to }] of ranges.entries()) {
        assert.isAbove(to, from)
        if (index > 0) assert.strictEqual(from, ranges[index - 1]!.to)
      }
    }
  )

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
