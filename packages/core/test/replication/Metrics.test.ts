import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as TestClock from "effect/testing/TestClock"
import { nextLsn } from "../../src/change/Change.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import * as Metrics from "../../src/replication/Metrics.ts"
import { withLogicalStream } from "../../src/stream/LogicalStream.ts"
import * as Fake from "../support/FakeWalSender.ts"

const options = { slot: "orders", plugin: Pgoutput.make({ publications: ["orders"] }) }

const settle = Effect.andThen(
  TestClock.adjust(0),
  Effect.forEach(Array.from({ length: 50 }), () => Effect.yieldNow)
)

/** A metric of one test: its label keeps it apart from those of others. */
const ofSlot = <I, S>(metric: Metric.Metric<I, S>) => Metric.value(Metric.withAttributes(metric, { slot: "orders" }))

describe("Metrics", () => {
  it.effect("count what arrived and show how far it is acknowledged, labelled with the slot", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make()
      const before = {
        changes: (yield* ofSlot(Metrics.changes)).count,
        transactions: (yield* ofSlot(Metrics.transactions)).count,
        reconnects: (yield* ofSlot(Metrics.reconnects)).count
      }
      yield* withLogicalStream(options, (change) => Effect.succeed(nextLsn(change))).pipe(
        Effect.provide(fake.layer),
        Effect.forkChild
      )
      const server = yield* fake.accept
      yield* server.say(Fake.relation(), Fake.transaction("0/100", "0/130", 1), Fake.begin("0/200"))
      yield* settle
      yield* TestClock.adjust("1 second")
      yield* settle
      assert.strictEqual((yield* ofSlot(Metrics.changes)).count - before.changes, 4)
      assert.strictEqual((yield* ofSlot(Metrics.transactions)).count - before.transactions, 1)
      assert.strictEqual((yield* ofSlot(Metrics.receivedLsn)).value, 0x130n)
      assert.strictEqual((yield* ofSlot(Metrics.flushedLsn)).value, 0x130n)
      yield* server.drop
      yield* settle
      yield* TestClock.adjust("250 millis")
      yield* fake.accept
      yield* settle
      assert.strictEqual((yield* ofSlot(Metrics.reconnects)).count - before.reconnects, 1)
    })
  )
})
