import { assert, describe, it } from "@effect/vitest"
import type { Relation, Snapshot } from "@replicant/core"
import { formatCopying } from "../../src/cli/CopyStatus.ts"

const table = (rows: number, estimatedRows: number | undefined, isDone: boolean): Snapshot.TableProgress =>
  ({ relation: {} as Relation.Relation, rows, bytes: 0, estimatedRows, isDone }) as Snapshot.TableProgress

const progress = (...tables: ReadonlyArray<Snapshot.TableProgress>): Snapshot.SnapshotProgress =>
  ({ phase: "copying", attempt: 1, tables }) as unknown as Snapshot.SnapshotProgress

describe("CopyStatus", () => {
  it("tells how many rows of how many, how fast, and for how long yet", () => {
    const line = formatCopying(progress(table(1000, 700, true), table(500, 9000, false)), 500)
    assert.strictEqual(line, "copying 1 of 2 tables | 1,500 of about 10,000 rows | 500/s | 17 s left")
  })

  it("tells no total that it does not know", () => {
    const line = formatCopying(progress(table(1000, undefined, false)), 0)
    assert.strictEqual(line, "copying 0 of 1 tables | 1,000 rows | 0/s")
  })
})
