/** What a stream does under a lease, beside what `SlotLease` does: nothing is handed over in doubt, nothing is skipped later. */
import { assert, describe, it } from "@effect/vitest"
import { type Change, Handler, LogicalStream, type Lsn, nextLsn, Pgoutput, type Snapshot } from "@replicant/core"
import { Effect, Fiber } from "effect"
import * as TestClock from "effect/testing/TestClock"
import { HeldLease } from "../../src/replication/HeldLease.ts"
import { insert, relation, TestWalSender, tx } from "../../src/testing/index.ts"

const plugin = Pgoutput.make({ publications: ["orders"] })
const orders = relation("public.orders", { columns: { id: "int4" }, key: ["id"] })

const settle = Effect.andThen(
  TestClock.adjust("100 millis"),
  Effect.forEach(Array.from({ length: 50 }), () => Effect.yieldNow)
)

const until = Effect.fnUntraced(function* (isSo: () => boolean, what: string) {
  for (let round = 0; round < 600 && !isSo(); round++) yield* settle
  assert.isTrue(isSo(), what)
})

describe("a stream under a lease", () => {
  it.effect("hands no row of its first copy over while the lease may be another's", () =>
    Effect.gen(function* () {
      let isCertain = false
      const seen: Array<unknown> = []
      const stream = yield* LogicalStream.make({ slot: "copy", plugin, snapshot: "initial" })
      const fiber = yield* stream
        .run((change: Change | Snapshot.ChangeAfterSnapshot) => {
          if (change._tag === "SnapshotRow") seen.push(change.row.id)
          return Effect.undefined
        })
        .pipe(
          Effect.provideService(HeldLease, { slot: "copy", isCertain: Effect.sync(() => isCertain) }),
          Effect.forkScoped
        )
      for (let round = 0; round < 20; round++) yield* settle
      assert.deepStrictEqual(seen, [])
      assert.isUndefined(fiber.pollUnsafe())
      isCertain = true
      yield* until(() => seen.length === 2, "its rows come once it is certain")
    }).pipe(
      Effect.provide(
        TestWalSender.layer({
          slot: "copy",
          slotExists: "no",
          publications: ["orders"],
          rows: [insert(orders, { id: 1 }), insert(orders, { id: 2 })]
        })
      )
    )
  )

  it.effect("does not go on, in a later run, where its handler's store knows less than was confirmed", () =>
    Effect.gen(function* () {
      const server = yield* TestWalSender
      const ends: Array<Lsn.Lsn> = []
      const stream = yield* LogicalStream.make({ slot: "orders", plugin, timing: { acknowledgeDelay: 0 } })
      const handler = (stored: () => Lsn.Lsn): Handler.Handler<Change> => ({
        ...Handler.each((change: Change) => {
          if (change._tag === "Commit") ends.push(change.endLsn)
          return Effect.succeed(nextLsn(change))
        }),
        position: () => Effect.sync(() => ({ checkpoint: { endLsn: stored() }, storeIdleFlush: () => Effect.void }))
      })
      const held = { slot: "orders", isCertain: Effect.succeed(true) }
      const run = (stored: () => Lsn.Lsn) =>
        stream.run(handler(stored)).pipe(Effect.provideService(HeldLease, held), Effect.forkScoped)
      const first = yield* run(() => 0n as Lsn.Lsn)
      yield* server.awaitStreaming
      yield* server.write(tx(insert(orders, { id: 1 })), tx(insert(orders, { id: 2 })))
      yield* until(() => ends.length === 2, "both rows are handled")
      yield* settle
      yield* server.awaitConfirmed
      yield* Fiber.interrupt(first)
      // Its database was put back to where it stood after row 1.
      const second = yield* run(() => ends[0]!)
      yield* until(() => second.pollUnsafe() !== undefined, "it ends")
      const error = yield* Effect.flip(Fiber.join(second))
      assert.deepInclude(error, { _tag: "SlotAheadOfCheckpoint", checkpoint: ends[0]! })
    }).pipe(Effect.provide(TestWalSender.layer({ slot: "orders", publications: ["orders"] })))
  )
})
