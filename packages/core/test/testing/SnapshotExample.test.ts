import { assert, it } from "@effect/vitest"
import { CheckpointStore, Handler, Pgoutput, Table, withLogicalStream } from "@replicant/core"
import { insert, remove, TestWalSender, tx } from "@replicant/core/testing"
import { Effect, Schema } from "effect"
import { TestClock } from "effect/testing"

const Articles = Table.make("public.articles", Schema.Struct({ id: Schema.Number, title: Schema.String }), {
  key: ["id"]
})

/** The program under test. */
const fill = (index: Map<number, string>) =>
  withLogicalStream(
    {
      slot: "search",
      plugin: Pgoutput.make({ publications: ["articles"] }),
      snapshot: "initial",
      copy: { piecePages: 1, connections: 1 }
    },
    Table.handler(
      [Articles],
      Handler.durable((changes) =>
        Effect.sync(() => {
          for (const change of changes) {
            if (change._tag === "SnapshotStarted") index.clear()
            if (change._tag === "SnapshotRow" || change._tag === "Insert") index.set(change.row.id, change.row.title)
            if (change._tag === "SnapshotRowDeleted" || change._tag === "Delete") index.delete(change.old.row.id)
          }
        })
      )
    )
  )

it.effect("what is deleted while the copy is broken off is gone from the index, too", () =>
  Effect.gen(function* () {
    const server = yield* TestWalSender
    const index = new Map<number, string>()
    yield* server.breakCopyAfter(4)
    yield* Effect.forkChild(fill(index))
    yield* server.awaitBroken
    yield* server.write(tx(remove(Articles, { id: 1 }), insert(Articles, { id: 7, title: "tea" })))
    yield* TestClock.adjust("10 seconds")
    yield* server.awaitStreaming
    assert.deepStrictEqual([...index.keys()].sort(), [2, 3, 4, 5, 6, 7])
  }).pipe(
    Effect.provide([
      TestWalSender.layer({
        slot: "search",
        slotExists: "no",
        publications: ["articles"],
        rows: [1, 2, 3, 4, 5, 6].map((id) => insert(Articles, { id, title: `article ${id}` }))
      }),
      CheckpointStore.memory
    ])
  )
)
