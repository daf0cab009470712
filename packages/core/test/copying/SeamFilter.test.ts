import { assert, describe, it } from "@effect/vitest"
import type { Begin, Change, Insert, Truncate } from "../../src/change/Change.ts"
import type { Relation } from "../../src/change/Relation.ts"
import * as SnapshotCheckpoint from "../../src/copying/CopyCheckpoint.ts"
import { deletedRows } from "../../src/copying/DeletedRows.ts"
import { SeamFilter } from "../../src/copying/SeamFilter.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as PgTimestamp from "../../src/PgTimestamp.ts"
import { endOfTable } from "../../src/snapshot/CopyCommand.ts"
import type { SnapshotResumed } from "../../src/snapshot/SnapshotChange.ts"
import * as TransactionSnapshot from "../../src/snapshot/TransactionSnapshot.ts"

const relation = (oid: number): Relation => ({
  oid,
  schema: "public",
  name: `t${oid}`,
  replicaIdentity: "default",
  columns: []
})

const begin = (xid: number, commitLsn: bigint): Begin => ({
  _tag: "Begin",
  xid,
  commitLsn: Lsn.make(commitLsn)!,
  commitTime: PgTimestamp.make(0)
})

const insert = (of: Begin, oid: number): Insert => ({
  _tag: "Insert",
  begin: of,
  ordinal: 0,
  relation: relation(oid),
  row: {},
  unchanged: []
})

const part = (oid: number, snapshot: number) => ({
  oid,
  fileNode: 1,
  ranges: [[0, endOfTable, snapshot] as const]
})
const copied = (oid: number, snapshot: number): SnapshotCheckpoint.CopiedTable => ({
  oid,
  schema: "public",
  name: `t${oid}`,
  description: "",
  parts: [part(oid, snapshot)]
})

/** Table 1 is as of the slot, 2 and 3 as of later snapshots, and 4 has gone. */
const checkpoint: SnapshotCheckpoint.SnapshotCheckpoint = {
  ...SnapshotCheckpoint.begin({
    slot: "s",
    systemId: "7",
    timeline: 1,
    consistentPoint: Lsn.make(100n)!,
    snapshot: "10:20:"
  }),
  snapshots: ["10:20:", "30:40:35", "50:60:"],
  seam: Lsn.make(500n)!,
  tables: [copied(1, 0), copied(2, 1), copied(3, 2), { ...copied(4, 0), parts: [], goneAt: 2 }]
}

const filter = SeamFilter.make(checkpoint)!

/** The tables whose inserts are left. */
const kept = (of: Begin) => [1, 2, 3, 4, 5].filter((oid) => filter.keep(insert(of, oid)) !== undefined)

describe("SeamFilter", () => {
  it("leaves out of each table exactly the transactions that it was copied with", () => {
    assert.deepStrictEqual(kept(begin(25, 200n)), [1, 5])
    assert.deepStrictEqual(kept(begin(35, 210n)), [1, 2, 5])
    assert.deepStrictEqual(kept(begin(45, 220n)), [1, 2, 5])
    assert.deepStrictEqual(kept(begin(65, 230n)), [1, 2, 3, 4, 5])
  })

  it("judges changes of all kinds by their transaction, and what is of no table not at all", () => {
    const of = begin(45, 220n)
    const old = { _tag: "Key", row: { id: 1 } } as const
    const changes = (oid: number): ReadonlyArray<Change> => [
      insert(of, oid),
      { ...insert(of, oid), _tag: "Update", old: undefined },
      { _tag: "Delete", begin: of, ordinal: 0, relation: relation(oid), old },
      { _tag: "RelationChanged", begin: of, ordinal: 0, relation: relation(oid), before: relation(oid) }
    ]
    assert.deepStrictEqual(filter.keepAll(changes(1)), changes(1))
    assert.deepStrictEqual(filter.keepAll(changes(3)), [])
    const commit = { _tag: "Commit", begin: of } as unknown as Change
    assert.deepStrictEqual(filter.keepAll([of, commit]), [of, commit])
  })

  it("forgets with each transaction what it found of the one before", () => {
    const [early, late] = [begin(45, 220n), begin(65, 230n)]
    const left = (of: Begin) => filter.keep(insert(of, 3)) !== undefined
    assert.deepStrictEqual(
      [left(early), left(early), left(late), left(early), left(late)],
      [...[false, false], ...[true, false, true]]
    )
  })

  it("leaves out nothing from the seam on, whatever the transaction is called", () => {
    assert.deepStrictEqual(kept(begin(25, 499n)), [1, 5])
    assert.deepStrictEqual(kept(begin(25, 500n)), [1, 2, 3, 4, 5])
  })

  it("keeps of a truncate the other tables, and what opens and closes a transaction", () => {
    const of = begin(45, 220n)
    const truncate = (...oids: ReadonlyArray<number>): Truncate => ({
      _tag: "Truncate",
      begin: of,
      ordinal: 0,
      relations: oids.map(relation),
      cascade: false,
      restartIdentity: false
    })
    assert.deepStrictEqual(filter.keep(truncate(1, 3)), truncate(1))
    assert.isUndefined(filter.keep(truncate(3)))
    const untouched = truncate(1, 2)
    assert.strictEqual(filter.keep(untouched), untouched)
    assert.strictEqual(filter.keep(of), of)
    const left = filter.keepAll([of, insert(of, 3), insert(of, 1)])
    assert.deepStrictEqual(
      left.map(({ _tag }) => _tag),
      ["Begin", "Insert"]
    )
  })

  it("is not there for a copy in one go", () => {
    assert.isUndefined(SeamFilter.make({ ...checkpoint, tables: [copied(1, 0)] }))
  })
})

describe("what is gone since an earlier snapshot", () => {
  const resumed: SnapshotResumed = {
    _tag: "SnapshotResumed",
    attempt: 1,
    consistentPoint: Lsn.make(100n)!,
    tables: [],
    unpublished: [],
    checkpoint: ""
  }
  const snapshot = TransactionSnapshot.fromString("50:60:55")!
  const tables = new Map([[1, { relation: relation(1), deletedUpTo: TransactionSnapshot.fromString("30:40:35")! }]])
  const old = { _tag: "Key", row: { id: 1 } } as const
  const gone = (changes: ReadonlyArray<Change>) => deletedRows({ resumed, snapshot, tables }, changes)
  const remove = (xid: number, oid = 1): Change => ({
    _tag: "Delete",
    begin: begin(xid, 1n),
    ordinal: 0,
    relation: relation(oid),
    old
  })

  it("is every key deleted or changed by a transaction that the new one sees and the old one does not", () => {
    const seen = [25, 35, 39, 45, 55, 59, 65].filter((xid) => gone([remove(xid)]).length === 1)
    assert.deepStrictEqual(seen, [35, 45, 59])
    const update = (before: typeof old | undefined): Change => ({
      ...insert(begin(45, 1n), 1),
      _tag: "Update",
      old: before
    })
    assert.deepStrictEqual(gone([update(old), update(undefined), insert(begin(45, 1n), 1), remove(45, 2)]), [
      { _tag: "SnapshotRowDeleted", snapshot: resumed, relation: relation(1), old }
    ])
  })
})
