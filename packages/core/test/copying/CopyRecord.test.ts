import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as CheckpointStore from "../../src/checkpoint/CheckpointStore.ts"
import * as SnapshotCheckpoint from "../../src/copying/CopyCheckpoint.ts"
import { CopyRecord } from "../../src/copying/CopyRecord.ts"
import * as Lsn from "../../src/Lsn.ts"
import { copyPieces } from "../../src/snapshot/CopyCommand.ts"
import { part, table } from "../support/PublishedTable.ts"

describe("the record of a copy", () => {
  it.effect("is saved after so many pages, and has by then all that was entered", () =>
    Effect.gen(function* () {
      const store = yield* CheckpointStore.CheckpointStore
      const checkpoint = SnapshotCheckpoint.begin({
        slot: "s",
        systemId: "7",
        timeline: 1,
        consistentPoint: Lsn.make(1n)!,
        snapshot: "3:3:"
      })
      const record = new CopyRecord({ store, checkpoint, piecePages: 10 })
      const small = Array.from({ length: 25 }, (_, index) =>
        table({ oid: index + 1, parts: [part({ oid: index + 1, pages: 1 })] })
      )
      const due = small.map((one) => record.enter(copyPieces(one)[0]!) !== undefined)
      assert.deepStrictEqual(
        due.flatMap((isDue, index) => (isDue ? [index] : [])),
        [9, 19]
      )
      const large = copyPieces(table({ oid: 99, parts: [part({ oid: 99, pages: 30 })] }), { piecePages: 10 })
      for (const piece of large) assert.isDefined(record.enter(piece))
      const text = record.complete()
      yield* record.save(text)
      assert.deepStrictEqual(yield* store.load("snapshot/s"), Option.some(text))
      assert.strictEqual(record.checkpoint.phase, "completed")
      assert.lengthOf(record.checkpoint.tables, 26)
    }).pipe(Effect.provide(CheckpointStore.memory))
  )
})
