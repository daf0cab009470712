import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { Lsn, type Snapshot, Table } from "../../src/index.ts"
import { begin, commit, insert, Orders, order, orders, others } from "../table/shop.ts"

const started: Snapshot.Started = {
  _tag: "SnapshotStarted",
  attempt: 1,
  consistentPoint: Lsn.fromString("0/90")!,
  tables: [{ relation: orders, estimatedRows: 1 }]
}
const resumed: Snapshot.Resumed = {
  ...started,
  _tag: "SnapshotResumed",
  tables: [{ relation: orders, estimatedRows: 1, state: "partial" }],
  unpublished: [],
  checkpoint: ""
}
const row = (relation = orders, values: Snapshot.Row["row"] = order): Snapshot.Row => ({
  _tag: "SnapshotRow",
  snapshot: started,
  relation,
  row: values
})
const gone = (id: unknown): Snapshot.RowDeleted => ({
  _tag: "SnapshotRowDeleted",
  snapshot: resumed,
  relation: orders,
  old: { _tag: "Key", row: { id } }
})
const completed: Snapshot.Completed = { _tag: "SnapshotCompleted", snapshot: started, rows: 1, bytes: 1 }

const typed = (...changes: ReadonlyArray<Snapshot.ChangeAfterSnapshot>) =>
  Stream.fromIterable(changes).pipe(Table.changes([Orders], { onMismatch: "untyped" }), Stream.runCollect)

const decoded = { id: 1, total: "12.50", note: null, placedAt: new Date("2024-02-29") }

describe("Table.changes of a stream with a snapshot", () => {
  it.effect("types the rows of its tables, and passes marks as the very objects they are", () =>
    Effect.gen(function* () {
      const [first, second, third, ...rest] = yield* typed(started, row(), row(others, { id: 1 }), completed)
      assert.strictEqual(first, started)
      assert.deepStrictEqual(second, {
        _tag: "SnapshotRow",
        table: "public.orders",
        snapshot: started,
        relation: orders,
        row: decoded
      })
      // By which it is acknowledged.
      assert.strictEqual(third, completed)
      assert.deepStrictEqual(rest, [])
    })
  )

  it.effect("goes on with typed changes, each as what it was", () =>
    Effect.gen(function* () {
      const all = yield* typed(row(), begin, insert(orders, order), commit)
      assert.deepStrictEqual(
        all.map(({ _tag }) => _tag),
        ["SnapshotRow", "Begin", "Insert", "Commit"]
      )
      assert.strictEqual(all[3], commit)
    })
  )

  it.effect("types the key of a row that is gone", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* typed(gone(7)), [
        {
          _tag: "SnapshotRowDeleted",
          table: "public.orders",
          snapshot: resumed,
          relation: orders,
          old: { _tag: "Key", row: { id: 7 } }
        }
      ])
    })
  )

  it.effect("hands a row over as it came where it does not fit", () =>
    Effect.gen(function* () {
      const misfits = [row(orders, { ...order, id: "1" }), gone("7")]
      const all = yield* typed(...misfits)
      assert.deepStrictEqual(
        all.map((change) => (change._tag === "UntypedSnapshotRow" ? [change.row, change.mismatch.operation] : [])),
        [
          [misfits[0], "Insert"],
          [misfits[1], "Delete"]
        ]
      )
    })
  )
})
