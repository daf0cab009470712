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
      assert.isTrue(Result.isFailure(decoded), damaged)
    }
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
    assert.isTrue(SnapshotCheckpoint.hasCopied(SnapshotCheckpoint.record(begun, copied(0, 1))))
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
