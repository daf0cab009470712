import { assert, describe, it } from "@effect/vitest"
import type { Change } from "../../src/change/Change.ts"
import { NextLsn, Run } from "../../src/change/NextLsn.ts"
import * as Lsn from "../../src/Lsn.ts"
import { type ChangeAfterSnapshot, isSnapshotChange } from "../../src/snapshot/SnapshotChange.ts"

const consistentPoint = Lsn.zero
const started = { _tag: "SnapshotStarted", attempt: 1, consistentPoint, tables: [] } as const
const nextLsn = NextLsn.deliver(Lsn.zero, new Run())
const gap: Change = { _tag: "Gap", slot: "a", reason: "missing", lastLsn: undefined, consistentPoint, nextLsn }

describe("isSnapshotChange", () => {
  it("tells what is of a snapshot, and leaves the stream's changes to the compiler", () => {
    const delivered: ReadonlyArray<ChangeAfterSnapshot> = [started, gap]
    const changes: Array<Change> = []
    for (const change of delivered) if (!isSnapshotChange(change)) changes.push(change)
    assert.deepStrictEqual(changes, [gap])
  })

  it("knows a table that is read anew, and no tag that only looks like one", () => {
    assert.isTrue(isSnapshotChange({ _tag: "TableSnapshotCompleted" }))
    for (const _tag of ["Snapshot", "SnapshotOf", "toString", "Insert"]) assert.isFalse(isSnapshotChange({ _tag }))
  })
})
