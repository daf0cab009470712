import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as SnapshotCheckpoint from "../../src/copying/CopyCheckpoint.ts"
import * as Lsn from "../../src/Lsn.ts"
import { endOfTable } from "../../src/snapshot/CopyCommand.ts"
import { part, table } from "../support/PublishedTable.ts"
import { Random } from "../support/Random.ts"

const begun = SnapshotCheckpoint.begin({
  slot: "orders",
  systemId: "7",
  timeline: 1,
  consistentPoint: Lsn.make(0x1_0000_0010n)!,
  snapshot: "10:20:14"
})

const copied = (from: number, to: number) => ({ table: table(), part: 16384, from, to })

describe("a checkpoint", () => {
  it("is read as it was written", () => {
    const checkpoint = SnapshotCheckpoint.record(begun, copied(0, 120))
    assert.deepStrictEqual(
      SnapshotCheckpoint.decode("orders", SnapshotCheckpoint.encode(checkpoint)),
      Result.succeed(checkpoint)
    )
  })

  it("is refused when it is damaged, another slot's, of another version, or counts a snapshot that it has not", () => {
    const text = SnapshotCheckpoint.encode(SnapshotCheckpoint.record(begun, copied(0, 120)))
    const bad = [
      text.slice(0, -1),
      "",
      "null",
      text.replace('"version":1', '"version":2'),
      text.replace("[0,120,0]", "[0,120,1]"),
      text.replace("[0,120,0]", "[0,-1,0]"),
      text.replace("10:20:14", "20:10"),
      text.replace('"orders"', '"others"')
    ]
    for (const damaged of bad) {
      assert.notStrictEqual(damaged, text)
      const decoded = SnapshotCheckpoint.decode("orders", damaged)
      assert(Result.isFailure(decoded), damaged)
      assert.deepInclude(decoded.failure, {
        during: "read",
        key: "snapshot/orders",
        problem: "it is not one of this slot's, not of this version, or damaged"
      })
    }
  })

  it("is refused where it counts pages or snapshots that there cannot be", () => {
    const text = SnapshotCheckpoint.encode(SnapshotCheckpoint.record(begun, copied(0, 120)))
    const decoded = (range: string) =>
      Result.isSuccess(SnapshotCheckpoint.decode("orders", text.replace("[0,120,0]", range)))
    assert.isTrue(decoded(`[0,${endOfTable},0]`))
    for (const range of [`[0,${endOfTable + 1},0]`, "[0,1.5,0]", "[0.5,120,0]", "[0,120,0.5]", "[0,120,-1]"]) {
      assert.isFalse(decoded(range), range)
    }
    const gone = (goneAt: number) =>
      Result.isSuccess(
        SnapshotCheckpoint.decode(
          "orders",
          SnapshotCheckpoint.encode({
            ...begun,
            tables: [{ oid: 1, schema: "s", name: "t", description: "", parts: [], goneAt }]
          })
        )
      )
    assert.deepStrictEqual([gone(0), gone(1)], [true, false])
    assert.isTrue(
      Result.isSuccess(SnapshotCheckpoint.decode("orders", SnapshotCheckpoint.encode(begun))),
      "of none yet"
    )
    const sound = { oid: 1, schema: "s", name: "sound", description: "", parts: [] }
    const two = { ...begun, tables: [sound, { ...sound, oid: 2, name: "unsound", goneAt: 1 }] }
    assert.isTrue(Result.isFailure(SnapshotCheckpoint.decode("orders", SnapshotCheckpoint.encode(two))), "one of two")
    const phases = ["copying", "completed", "otherwise"].map((phase) =>
      Result.isSuccess(SnapshotCheckpoint.decode("orders", text.replace('"copying"', `"${phase}"`)))
    )
    assert.deepStrictEqual(phases, [true, true, false])
  })

  it("enters a part that its table has no more, under no file, so that it is copied anew", () => {
    const entered = SnapshotCheckpoint.record(begun, { ...copied(0, 120), part: 1 })
    assert.deepStrictEqual(
      entered.tables[0]?.parts.map(({ fileNode, oid, ranges }) => [oid, fileNode, ranges]),
      [[1, 0, [[0, 120, 0]]]]
    )
  })

  it("has a digest of sixteen digits of each table's description, the leading ones among them", () => {
    assert.strictEqual(SnapshotCheckpoint.digest("t0"), "0944ee69eb5e018a")
  })

  it("begins with the snapshot and the position that it is given, which is its seam, too", () => {
    assert.deepInclude(begun, {
      version: 1,
      phase: "copying",
      slot: "orders",
      systemId: "7",
      consistentPoint: Lsn.make(0x1_0000_0010n)!,
      snapshots: ["10:20:14"],
      seam: Lsn.make(0x1_0000_0010n)!,
      tables: []
    })
    assert.strictEqual(SnapshotCheckpoint.lastSnapshot({ ...begun, snapshots: ["3:3:", "4:4:"] }), 1)
    assert.strictEqual(SnapshotCheckpoint.snapshotAt({ ...begun, snapshots: ["3:3:", "4:5:"] }, 1).xmax, 5n)
  })

  it("enters each part of a table by itself, and each table by itself, with what it is now", () => {
    const two = table({ oid: 2, name: "t", parts: [part({ oid: 20, fileNode: 7 }), part({ oid: 21, fileNode: 8 })] })
    const pages = (of: number, from: number, to: number) => ({ table: two, part: of, from, to })
    const checkpoint = [copied(0, 5), pages(20, 0, 10), pages(21, 4, 6), pages(20, 10, 12)].reduce(
      SnapshotCheckpoint.record,
      begun
    )
    assert.deepStrictEqual(
      checkpoint.tables.map(({ name, oid, parts, schema }) => ({ name, oid, parts, schema })),
      [
        { oid: 16384, schema: "public", name: 'o"dd', parts: [{ oid: 16384, fileNode: 0, ranges: [[0, 5, 0]] }] },
        {
          oid: 2,
          schema: "public",
          name: "t",
          parts: [
            { oid: 21, fileNode: 8, ranges: [[4, 6, 0]] },
            { oid: 20, fileNode: 7, ranges: [[0, 12, 0]] }
          ]
        }
      ]
    )
    assert.strictEqual(checkpoint.tables[1]!.description, SnapshotCheckpoint.describe(two))
    const later = SnapshotCheckpoint.record({ ...checkpoint, snapshots: ["10:20:14", "30:30:"] }, pages(20, 2, 4))
    assert.deepStrictEqual(later.tables[1]!.parts[1]!.ranges, [
      [0, 2, 0],
      [2, 4, 1],
      [4, 12, 0]
    ])
  })

  it("is of one snapshot where each part is, from its first page to its last, under the same", () => {
    const wholeAsOf = (...parts: ReadonlyArray<ReadonlyArray<SnapshotCheckpoint.CopiedRange>>) =>
      SnapshotCheckpoint.wholeAsOf({
        ...{ oid: 1, schema: "s", name: "t", description: "" },
        parts: parts.map((ranges, oid) => ({ oid, fileNode: 0, ranges }))
      })
    assert.strictEqual(wholeAsOf([[0, endOfTable, 2]]), 2)
    assert.strictEqual(wholeAsOf([[0, endOfTable, 2]], [[0, endOfTable, 2]]), 2)
    assert.isUndefined(wholeAsOf([[0, endOfTable, 2]], [[0, endOfTable, 1]]))
    assert.isUndefined(wholeAsOf([[0, endOfTable, 2]], []))
    assert.isUndefined(wholeAsOf([]))
    assert.isUndefined(wholeAsOf())
    assert.isUndefined(wholeAsOf([[1, endOfTable, 2]]))
    assert.isUndefined(wholeAsOf([[0, 5, 2]]))
    assert.isUndefined(
      wholeAsOf([
        [0, endOfTable, 2],
        [5, 6, 2]
      ])
    )
  })

  it("has one range for pieces that meet, in whatever order they came", () => {
    const checkpoint = [copied(60, 120), copied(180, endOfTable), copied(0, 60)].reduce(
      SnapshotCheckpoint.record,
      begun
    )
    assert.deepStrictEqual(checkpoint.tables[0]?.parts[0]?.ranges, [
      [0, 120, 0],
      [180, endOfTable, 0]
    ])
    assert.isUndefined(SnapshotCheckpoint.wholeAsOf(checkpoint.tables[0]!))
    const whole = SnapshotCheckpoint.record(checkpoint, copied(120, 180))
    assert.strictEqual(SnapshotCheckpoint.wholeAsOf(whole.tables[0]!), 0)
  })

  it("is of no use while nothing is in it", () => {
    assert.isFalse(SnapshotCheckpoint.hasCopied(begun))
    const one = SnapshotCheckpoint.record(begun, copied(0, 1))
    assert.isTrue(SnapshotCheckpoint.hasCopied(one))
    const [entered] = one.tables
    const gone = { ...entered!, goneAt: 0 }
    const empty = { ...entered!, parts: entered!.parts.map((each) => ({ ...each, ranges: [] })) }
    assert.isFalse(SnapshotCheckpoint.hasCopied({ ...one, tables: [gone, empty] }))
    assert.isTrue(SnapshotCheckpoint.hasCopied({ ...one, tables: [gone, empty, entered!] }))
    const half = { ...entered!, parts: [...empty.parts, ...entered!.parts] }
    assert.isTrue(SnapshotCheckpoint.hasCopied({ ...one, tables: [half] }))
  })

  it("tells a table that is not what it was, and not one that has only grown", () => {
    const { describe: say } = SnapshotCheckpoint
    assert.strictEqual(say(table()), say(table({ parts: [part({ pages: 9, estimatedRows: 5 })] })))
    const [id, other] = table().columns
    const changed = [
      table({ name: "x" }),
      table({ schema: "x" }),
      table({ filters: ["(a > 1)"] }),
      table({ replicaIdentity: "f" }),
      table({ columns: [id!] }),
      table({ columns: [id!, { ...other!, typeModifier: 8 }] }),
      table({ columns: [{ ...id!, isKey: false }, other!] }),
      table({ parts: [part({ oid: 5 })] })
    ]
    const all = [table(), ...changed].map(say)
    assert.strictEqual(new Set(all).size, all.length)
  })

  it("describes a table as earlier versions did, whose checkpoints may be there still", () => {
    assert.strictEqual(SnapshotCheckpoint.describe(table()), "2073078cf84afb5c")
  })

  it("lays ranges over each other as pages would lie", () => {
    const random = new Random(16)
    for (let round = 0; round < 300; round++) {
      const pages: Array<number | undefined> = Array.from({ length: 40 }, () => undefined)
      let ranges: ReadonlyArray<SnapshotCheckpoint.CopiedRange> = []
      for (let step = 0; step < 12; step++) {
        const from = random.below(39)
        const to = from + 1 + random.below(40 - from)
        const snapshot = random.below(3)
        pages.fill(snapshot, from, Math.min(to, 40))
        ranges = SnapshotCheckpoint.overlay(ranges, [from, to, snapshot])
        const seen = pages.map((_, page) => ranges.find(([start, end]) => page >= start && page < end)?.[2])
        assert.deepStrictEqual(seen, pages)
        for (const [index, [start, end, of]] of ranges.entries()) {
          const before = ranges[index - 1]
          assert.isAbove(end, start)
          if (before !== undefined) assert(before[1] < start || (before[1] === start && before[2] !== of))
        }
      }
    }
  })
})
