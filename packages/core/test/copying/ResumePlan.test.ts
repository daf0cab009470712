import { assert, describe, it } from "@effect/vitest"
import * as SnapshotCheckpoint from "../../src/copying/CopyCheckpoint.ts"
import { nextStep, planResume } from "../../src/copying/ResumePlan.ts"
import { workingSlotName } from "../../src/copying/WorkingSlot.ts"
import * as Lsn from "../../src/Lsn.ts"
import type { ReplicationSlot } from "../../src/server/SlotCatalog.ts"
import { endOfTable } from "../../src/snapshot/CopyCommand.ts"
import type { PublishedTable } from "../../src/snapshot/PublishedTables.ts"
import * as TransactionSnapshot from "../../src/snapshot/TransactionSnapshot.ts"
import { part, table } from "../support/PublishedTable.ts"

const at = Lsn.make(100n)!

const begun = SnapshotCheckpoint.begin({
  slot: "orders",
  systemId: "7",
  timeline: 1,
  consistentPoint: at,
  snapshot: "10:20:14"
})

const record = (
  checkpoint: SnapshotCheckpoint.SnapshotCheckpoint,
  of: PublishedTable,
  ...ranges: ReadonlyArray<readonly [number, number]>
) =>
  ranges.reduce(
    (before, [from, to]) => SnapshotCheckpoint.record(before, { table: of, part: of.parts[0]!.oid, from, to }),
    checkpoint
  )

const named = (oid: number, name: string, overrides: Partial<PublishedTable> = {}) =>
  table({ oid, name, parts: [part({ oid, name, pages: 100 })], ...overrides })

const snapshot = TransactionSnapshot.fromString("50:60:")!
const plan = (before: SnapshotCheckpoint.SnapshotCheckpoint, ...tables: ReadonlyArray<PublishedTable>) =>
  planResume(before, { tables, fingerprint: "", role: "" }, { snapshot, seam: Lsn.make(200n)! })

const states = (planned: ReturnType<typeof plan>) => planned.tables.map(({ state, table: { name } }) => [name, state])

describe("what is left of a copy", () => {
  const slot = (overrides: Partial<ReplicationSlot> = {}): ReplicationSlot => ({
    name: "orders_copying",
    type: "logical",
    plugin: "pgoutput",
    database: "shop",
    isTemporary: false,
    activePid: undefined,
    restartLsn: at,
    confirmedFlushLsn: at,
    walStatus: "reserved",
    invalidationReason: undefined,
    retainedBytes: 0n,
    ...overrides
  })
  const copying = record(begun, table(), [0, 5])
  const completed = { ...copying, phase: "completed" as const }
  const step = (
    checkpoint: typeof copying | undefined,
    final: ReplicationSlot | undefined,
    working: ReplicationSlot | undefined,
    isDiverged = false
  ) => nextStep({ checkpoint, slot: final, workingSlot: working, isDiverged })._tag

  it("is gone on with, finished, or begun anew, by its checkpoint and its slots", () => {
    assert.strictEqual(step(copying, undefined, slot()), "Resume")
    assert.strictEqual(step(completed, undefined, slot()), "Finish")
    assert.strictEqual(step(completed, slot(), slot()), "Stream")
    assert.strictEqual(step(undefined, slot(), undefined), "Stream")
    assert.strictEqual(step(undefined, undefined, slot()), "Begin")
    assert.strictEqual(step(begun, undefined, slot()), "Begin")
    assert.strictEqual(step(copying, slot(), slot()), "Refuse")
  })

  it("[V7, V9] is begun anew, or refused where its slot is made, on a server whose history lacks what was copied", () => {
    const beyond = { ...completed, seam: Lsn.make(101n)! }
    assert.strictEqual(step(copying, undefined, slot(), true), "Begin")
    assert.strictEqual(step(completed, undefined, slot(), true), "Begin")
    assert.strictEqual(step(beyond, slot(), undefined, true), "Diverged")
    assert.strictEqual(step(beyond, slot(), undefined, false), "Stream")
    // Once the stream is past the seam, its own position has to hold.
    assert.strictEqual(step(beyond, slot({ confirmedFlushLsn: beyond.seam }), undefined, true), "Stream")
  })

  it("is lost with its slot: when that is gone, given up, or not where it was", () => {
    const lost = [
      undefined,
      slot({ walStatus: "lost" }),
      slot({ confirmedFlushLsn: Lsn.make(101n)! }),
      slot({ confirmedFlushLsn: Lsn.make(99n)! })
    ]
    for (const working of lost) {
      for (const checkpoint of [copying, completed]) {
        const next = nextStep({ checkpoint, slot: undefined, workingSlot: working, isDiverged: false })
        assert(next._tag === "Begin" && next.lost !== undefined)
      }
    }
  })

  it("diverges after a failover while the slot stands before its seam, and only where a history lacks what was copied", () => {
    const seam = Lsn.make(200n)!
    const done = { ...completed, seam }
    const at = (confirmedFlushLsn: Lsn.Lsn | undefined) => slot({ confirmedFlushLsn })
    assert.strictEqual(step(done, at(Lsn.make(199n)), undefined, true), "Diverged")
    assert.strictEqual(step(done, at(seam), undefined, true), "Stream")
    assert.strictEqual(step(done, at(undefined), undefined, true), "Diverged")
    assert.strictEqual(step(done, at(Lsn.make(199n)), undefined), "Stream")
    assert.strictEqual(step(undefined, at(undefined), undefined, true), "Stream")
    assert.deepStrictEqual(nextStep({ checkpoint: copying, slot: undefined, workingSlot: slot(), isDiverged: true }), {
      _tag: "Begin",
      lost: "rows of it are of a history that the server does not have, after a failover"
    })
  })

  it("says what it is lost for, and says nothing where nothing had been copied", () => {
    const lost = (working: ReplicationSlot | undefined, checkpoint: SnapshotCheckpoint.SnapshotCheckpoint = copying) =>
      nextStep({ checkpoint, slot: undefined, workingSlot: working, isDiverged: false })
    const because = (lost: string) => ({ _tag: "Begin", lost }) as const
    assert.deepStrictEqual(lost(undefined), because("its slot is gone"))
    assert.deepStrictEqual(lost(slot({ walStatus: "lost" })), because("its slot was invalidated (lost)"))
    const removed = slot({ walStatus: "lost", invalidationReason: "wal_removed" })
    assert.deepStrictEqual(lost(removed), because("its slot was invalidated (wal_removed)"))
    assert.deepStrictEqual(
      lost(slot({ confirmedFlushLsn: undefined }), completed),
      because("its slot was moved by somebody")
    )
    assert.deepStrictEqual(lost(undefined, begun), { _tag: "Begin" })
    assert.deepStrictEqual(
      nextStep({ checkpoint: undefined, slot: undefined, workingSlot: undefined, isDiverged: false }),
      {
        _tag: "Begin"
      }
    )
  })

  it("has a slot of a name of its own, however long the other is", () => {
    assert.strictEqual(workingSlotName("orders"), "orders_copying")
    const long = [`${"o".repeat(62)}a`, `${"o".repeat(62)}b`].map(workingSlotName)
    assert.notStrictEqual(long[0], long[1])
    for (const name of long) assert.match(name, /^[a-z0-9_]{40,63}$/)
  })
})

describe("the plan of a copy that goes on", () => {
  it("leaves what is whole, and reads of the rest what is missing and what was written since", () => {
    const [whole, some, none] = [named(1, "whole"), named(2, "some"), named(3, "none")]
    const before = record(record(begun, whole, [0, endOfTable]), some, [10, 20], [40, 60])
    const planned = plan(before, whole, some, none)
    assert.deepStrictEqual(states(planned), [
      ["whole", "complete"],
      ["some", "partial"],
      ["none", "pending"]
    ])
    assert.deepStrictEqual(planned.tables[1]?.ranges?.get(2), [
      { from: 0, to: 10 },
      { from: 10, to: 20, since: 10 },
      { from: 20, to: 40 },
      { from: 40, to: 60, since: 10 },
      { from: 60, to: endOfTable }
    ])
    assert.deepStrictEqual(planned.tables[1]?.deletedUpTo, TransactionSnapshot.fromString("10:20:14"))
    assert.deepStrictEqual(planned.checkpoint.snapshots, ["10:20:14", "50:60:"])
    assert.strictEqual(planned.checkpoint.seam, 200n)
  })

  it("reads no empty range where the first or the last page has been copied", () => {
    const some = named(2, "some", { replicaIdentity: "i" })
    const planned = plan(record(begun, some, [0, 10], [20, endOfTable]), some)
    assert.deepStrictEqual(planned.tables[0]?.ranges?.get(2), [
      { from: 0, to: 10, since: 10 },
      { from: 10, to: 20 },
      { from: 20, to: endOfTable, since: 10 }
    ])
  })

  it("does not take a table for whole of which one part is, nor for begun of which no part is", () => {
    const two = table({ oid: 1, name: "two", parts: [part({ oid: 10 }), part({ oid: 11 })] })
    const half = plan(record(begun, two, [0, endOfTable]), two)
    assert.deepStrictEqual(states(half), [["two", "partial"]])
    assert.deepStrictEqual(Array.from(half.tables[0]!.ranges!.keys()), [10])
    const begins = record(begun, two, [0, 5])
    const nothing = {
      ...begins,
      tables: begins.tables.map((each) => ({ ...each, parts: each.parts.map((one) => ({ ...one, ranges: [] })) }))
    }
    assert.deepStrictEqual(states(plan(nothing, two)), [["two", "pending"]])
    const [whole] = plan(record(begun, named(3, "t"), [0, endOfTable]), named(3, "t")).tables
    assert.deepInclude(whole, { state: "complete", ranges: new Map(), deletedUpTo: undefined })
    const [pending] = plan(begun, named(3, "t")).tables
    assert.deepInclude(pending, { state: "pending", ranges: undefined, deletedUpTo: undefined })
  })

  it("begins a table anew of which a part that was copied is gone, or is another file now", () => {
    const of = (...parts: ReadonlyArray<ReturnType<typeof part>>) => table({ oid: 1, name: "t", parts })
    const before = record(begun, of(part({ oid: 10 }), part({ oid: 11, fileNode: 5 })), [0, 5])
    // Told by the parts that were copied, were the descriptions alike.
    const isPending = (now: PublishedTable) => {
      const [entered] = before.tables
      const alike = { ...before, tables: [{ ...entered!, description: SnapshotCheckpoint.describe(now) }] }
      return plan(alike, now).tables[0]!.state === "pending"
    }
    assert.isFalse(isPending(of(part({ oid: 10 }))))
    assert.isTrue(isPending(of(part({ oid: 11, fileNode: 0 }))))
    assert.isTrue(isPending(of(part({ oid: 10, fileNode: 5 }))))
    const both = SnapshotCheckpoint.record(before, {
      table: of(part({ oid: 10 }), part({ oid: 11 })),
      ...{ part: 11, from: 0, to: 5 }
    })
    assert.deepStrictEqual(states(plan(both, of(part({ oid: 10 }), part({ oid: 11 })))), [["t", "partial"]])
    assert.deepStrictEqual(states(plan(both, of(part({ oid: 10 }), part({ oid: 11, fileNode: 6 })))), [
      ["t", "pending"]
    ])
  })

  it("begins a table anew that had left, whatever is recorded of it", () => {
    const before = record(begun, named(1, "t"), [0, endOfTable])
    const left = { ...before, tables: before.tables.map((each) => ({ ...each, goneAt: 0 })) }
    assert.deepStrictEqual(states(plan(left, named(1, "t"))), [["t", "pending"]])
  })

  it("keeps of the snapshots those that something is of, in their order, and numbers them anew", () => {
    const [one, two, gone] = [named(1, "one"), named(2, "two"), named(3, "gone")]
    const whole: readonly [number, number] = [0, endOfTable]
    const at1 = record({ ...begun, snapshots: ["10:20:14", "30:30:"] }, one, whole)
    const at3 = record({ ...at1, snapshots: ["10:20:14", "30:30:", "40:40:", "45:45:"] }, two, whole)
    const asOf = (planned: ReturnType<typeof plan>) =>
      planned.checkpoint.tables.map((each) => [each.name, each.goneAt ?? SnapshotCheckpoint.wholeAsOf(each)])
    const planned = plan({ ...at3, tables: at3.tables.toReversed() }, one, two)
    assert.deepStrictEqual(planned.checkpoint.snapshots, ["10:20:14", "30:30:", "45:45:", "50:60:"])
    assert.deepStrictEqual(asOf(planned), [
      ["two", 2],
      ["one", 1]
    ])
    const left = { ...record(begun, gone, [0, 5]).tables[0]!, goneAt: 2, parts: [] }
    const withGone = plan({ ...at3, tables: [...at3.tables, left] }, one, two)
    assert.deepStrictEqual(withGone.checkpoint.snapshots, ["10:20:14", "30:30:", "40:40:", "45:45:", "50:60:"])
    assert.deepStrictEqual(asOf(withGone), [
      ["one", 1],
      ["two", 3],
      ["gone", 2]
    ])
    assert.deepStrictEqual(withGone.unpublished, [], "that was told when it left")
  })

  it("does not tell of a table as gone whose name another has now, of the same schema", () => {
    const before = record(begun, named(1, "t"), [0, 5])
    assert.deepStrictEqual(plan(before, named(9, "t")).unpublished, [])
    assert.deepStrictEqual(plan(before, named(9, "t", { schema: "s" })).unpublished, [{ schema: "public", name: "t" }])
  })

  it("counts from the snapshot that each range was copied under, and deletions from the last of them", () => {
    const some = named(2, "some")
    const second = record(plan(record(begun, some, [0, 50]), some).checkpoint, some, [0, 20])
    const third = planResume(
      second,
      { tables: [some], fingerprint: "", role: "" },
      { snapshot: TransactionSnapshot.fromString(`${(1n << 32n) + 70n}:${(1n << 32n) + 80n}:`)!, seam: Lsn.make(300n)! }
    )
    assert.deepStrictEqual(third.tables[0]?.ranges?.get(2)?.slice(0, 2), [
      { from: 0, to: 20, since: 50 },
      { from: 20, to: 50, since: 10 }
    ])
    assert.deepStrictEqual(third.tables[0]?.deletedUpTo, snapshot)
    // Rows bear 32 bits.
    const fourth = plan(record(third.checkpoint, some, [0, endOfTable], [5, 6]), some)
    assert.strictEqual(SnapshotCheckpoint.wholeAsOf(fourth.checkpoint.tables[0]!), 1)
    assert.deepStrictEqual(fourth.checkpoint.snapshots, ["10:20:14", "4294967366:4294967376:", "50:60:"])
  })

  it("begins a table anew when some of it is there and rows cannot be told apart", () => {
    const [id, note] = table().columns
    const unlike = [
      named(1, "nothing", { replicaIdentity: "n" }),
      named(2, "full", { replicaIdentity: "f" }),
      named(3, "nokey", { keyLength: 0, columns: [{ ...id!, isKey: false }, note!] }),
      named(4, "half", { keyLength: 2 }),
      named(5, "noheap", { parts: [part({ oid: 5 }), part({ oid: 6, isHeap: false })] })
    ]
    for (const one of unlike) {
      const planned = plan(record(begun, one, [0, 50]), one)
      assert.deepStrictEqual(states(planned), [[one.name, "pending"]])
      assert.lengthOf(planned.checkpoint.tables, 0)
    }
    const whole = plan(record(begun, unlike[0]!, [0, endOfTable]), unlike[0]!)
    assert.deepStrictEqual(states(whole), [["nothing", "complete"]])
  })

  it("begins a table anew that is not what it was, and forgets what was recorded of it", () => {
    const before = record(record(begun, named(1, "t"), [0, 50]), named(2, "kept"), [0, endOfTable])
    const changed = [
      named(1, "t", { filters: ["(a)"] }),
      named(1, "t", { parts: [part({ oid: 1, name: "t", fileNode: 99 })] }),
      named(1, "t", { parts: [part({ oid: 1, name: "t" }), part({ oid: 8 })] })
    ]
    for (const now of changed) {
      const planned = plan(before, now, named(2, "kept"))
      assert.deepStrictEqual(states(planned), [
        ["t", "pending"],
        ["kept", "complete"]
      ])
      assert.deepStrictEqual(planned.unpublished, [])
      assert.deepStrictEqual(
        planned.checkpoint.tables.map(({ name }) => name),
        ["kept"]
      )
    }
  })

  it("tells what is no longer published, under the name that it had, once", () => {
    const before = record(record(begun, named(1, "gone"), [0, 50]), named(2, "renamed"), [0, 5])
    const first = plan(before, named(2, "otherwise"))
    assert.deepStrictEqual(first.unpublished, [
      { schema: "public", name: "gone" },
      { schema: "public", name: "renamed" }
    ])
    assert.deepStrictEqual(
      first.checkpoint.tables.map(({ goneAt, name, parts }) => [name, goneAt, parts]),
      [["gone", 1, []]]
    )
    const second = plan(first.checkpoint, named(2, "otherwise"))
    assert.deepStrictEqual(second.unpublished, [])
    // Back again, it begins with nothing.
    assert.deepStrictEqual(states(plan(first.checkpoint, named(1, "gone"))), [["gone", "pending"]])
  })
})
