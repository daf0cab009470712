/** The handler that a sink is: each message once and in order, whatever becomes of the engine; and nothing acknowledged before. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import { CheckpointStore, memory as checkpointMemory } from "../../src/checkpoint/CheckpointService.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { type SinkError, SinkRejected } from "../../src/sink/SinkError.ts"
import { handler, run } from "../../src/sink/SinkHandler.ts"
import { type Append, Memory, MemoryEngine, memory } from "../../src/sink/SinkMemory.ts"
import { withLogicalStream } from "../../src/stream/LogicalStream.ts"
import { insert, TestWalSender, tx } from "../../src/testing/index.ts"
import { item, Transactions } from "../handling/delivering.ts"
import * as shop from "../table/shop.ts"
import { endOf, keysOf, lsns, sinking, system, turns } from "./sinking.ts"

describe("Sink.handler", () => {
  it.effect("acknowledges a transaction when the engine has it, and not before", () =>
    Effect.gen(function* () {
      const engine = new MemoryEngine()
      const { acknowledged, give, keys } = yield* sinking(engine)
      const of = new Transactions()
      const [first, second] = [of.of(item(1), item(2)), of.of(item(3))]
      yield* engine.stop
      yield* give([...first, ...second.slice(0, 2)])
      yield* turns
      assert.deepStrictEqual(lsns(acknowledged), [])
      yield* engine.resume
      yield* turns
      assert.deepStrictEqual([yield* keys, lsns(acknowledged)], [keysOf(1, 2), [endOf(first)]])
      yield* give(second.slice(2))
      yield* turns
      assert.deepStrictEqual([yield* keys, lsns(acknowledged)], [keysOf(1, 3), [endOf(first), endOf(second)]])
    })
  )

  it.effect("acknowledges what becomes no message as soon as all before it is durable", () =>
    Effect.gen(function* () {
      const engine = new MemoryEngine()
      const { acknowledged, give } = yield* sinking(engine)
      const of = new Transactions()
      const [empty, row, after] = [of.of(), of.of(item(1)), of.of()]
      yield* give(empty)
      assert.deepStrictEqual(lsns(acknowledged), [endOf(empty)])
      yield* engine.stop
      yield* give([...row, ...after])
      yield* turns
      assert.lengthOf(acknowledged, 1)
      yield* engine.resume
      yield* turns
      assert.strictEqual(acknowledged.at(-1)!.lsn, endOf(after))
    })
  )

  it.effect("holds the stream back while too much is under way, and keeps no more", () =>
    Effect.gen(function* () {
      const engine = new MemoryEngine()
      const { give, keys } = yield* sinking(engine, { kept: { messages: 10 }, batch: { messages: 3 } })
      const of = new Transactions()
      yield* engine.stop
      const fiber = yield* Effect.forkChild(
        Effect.forEach(Array.from({ length: 20 }), (_, n) => give(of.of(item(n * 2), item(n * 2 + 1))), {
          discard: true
        })
      )
      yield* turns
      assert.isUndefined(fiber.pollUnsafe(), "it goes on though nothing is taken")
      yield* engine.resume
      yield* Fiber.join(fiber)
      yield* turns
      assert.deepStrictEqual(yield* keys, keysOf(0, 39))
    })
  )

  it.effect("goes on from the engine's mark when the engine was restarted", () =>
    Effect.gen(function* () {
      const engine = new MemoryEngine()
      const { acknowledged, failures, give, keys } = yield* sinking(engine, { batch: { messages: 2 } })
      const of = new Transactions()
      yield* give(of.of(item(1), item(2), item(3)))
      yield* engine.stop
      const second = of.of(item(4), item(5), item(6))
      yield* give(second)
      yield* engine.restart
      yield* engine.resume
      yield* turns
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual([yield* keys, failures], [keysOf(1, 6), []])
      assert.strictEqual(acknowledged.at(-1)!.lsn, endOf(second))
    })
  )

  it.effect("waits for an engine that is full, and leaves no hole", () =>
    Effect.gen(function* () {
      const engine = new MemoryEngine()
      const { failures, give, keys } = yield* sinking(engine, { batch: { messages: 1 } })
      const of = new Transactions()
      yield* give(of.of(item(1)))
      yield* engine.setFull(true)
      yield* give(of.of(item(2), item(3), item(4)))
      yield* TestClock.adjust("1 minute")
      yield* engine.setFull(false)
      yield* TestClock.adjust("1 minute")
      yield* give(of.of(item(5)))
      yield* turns
      assert.deepStrictEqual([yield* keys, failures], [keysOf(1, 5), []])
    })
  )

  it.effect("gives up an engine that does not answer, and opens it anew", () =>
    Effect.gen(function* () {
      const engine = new MemoryEngine()
      const { failures, give, keys } = yield* sinking(engine, { answerTimeout: "10 seconds" })
      yield* engine.stop
      yield* give(new Transactions().of(item(1)))
      yield* TestClock.adjust("1 minute")
      yield* engine.resume
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual([yield* keys, failures], [keysOf(1, 1), []])
    })
  )

  it.effect("skips what the engine has when the slot brings it again", () =>
    Effect.gen(function* () {
      const engine = new MemoryEngine()
      const of = new Transactions()
      const [first, second] = [of.of(item(1), item(2)), of.of(item(3))]
      yield* Effect.scoped(
        Effect.flatMap(sinking(engine), ({ give }) => Effect.andThen(give([...first, ...second.slice(0, 2)]), turns))
      )
      const { acknowledged, give, keys } = yield* sinking(engine)
      yield* give([...first, ...second])
      yield* turns
      assert.deepStrictEqual(yield* keys, keysOf(1, 3))
      assert.strictEqual(acknowledged.at(-1)!.lsn, endOf(second))
    })
  )

  it.effect("a zombie is refused, acknowledges nothing more, and does not take its place again", () =>
    Effect.gen(function* () {
      const engine = new MemoryEngine()
      const of = new Transactions()
      const zombie = yield* sinking(engine)
      yield* zombie.give(of.of(item(1)))
      yield* turns
      const owner = yield* sinking(engine)
      yield* zombie.give(of.of(item(2)))
      yield* turns
      assert.deepStrictEqual(
        zombie.failures.map((error) => (error as SinkError)._tag),
        ["SinkFenced"]
      )
      assert.lengthOf(zombie.acknowledged, 1)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(zombie.give(of.of(item(9))))))
      yield* owner.give(of.of(item(3)))
      yield* turns
      assert.deepStrictEqual([yield* owner.keys, owner.failures], [['["1"]', '["3"]'], []])
    })
  )

  it.effect("fails when the engine goes back behind what it had acknowledged", () =>
    Effect.gen(function* () {
      const engine = new MemoryEngine()
      const of = new Transactions()
      const { failures, give } = yield* sinking(engine)
      yield* give(of.of(item(1), item(2)))
      yield* turns
      yield* engine.loseTail(1)
      yield* give(of.of(item(3)))
      yield* turns
      yield* TestClock.adjust("1 minute")
      assert.deepInclude(failures[0], {
        _tag: "SinkBehindSlot",
        mark: "0000000000000100-00000000",
        note: "0000000000000100-00000001"
      })
    })
  )

  it.effect("with a note it tells so at each start, too", () =>
    Effect.gen(function* () {
      const engine = new MemoryEngine()
      const note = yield* CheckpointStore
      const of = new Transactions()
      yield* Effect.scoped(
        Effect.flatMap(sinking(engine, { note }), ({ give }) => Effect.andThen(give(of.of(item(1), item(2))), turns))
      )
      yield* Effect.scoped(sinking(engine, { note }))
      for (const kept of [1, 0]) {
        yield* engine.loseTail(kept)
        const mark = kept === 0 ? undefined : "0000000000000100-00000000"
        for (let start = 0; start < 2; start++) {
          const error = yield* Effect.flip(Effect.scoped(sinking(engine, { note })))
          assert.deepInclude(error, { _tag: "SinkBehindSlot", mark, note: "0000000000000100-00000001" })
        }
      }
    }).pipe(Effect.provide(checkpointMemory))
  )

  it.effect("says that an engine is of another cluster, be it behind the note as well", () =>
    Effect.gen(function* () {
      const note = yield* CheckpointStore
      yield* note.save("sink/orders", "00000000FFFFFFFF")
      const engine = new MemoryEngine()
      yield* Effect.scoped(
        Effect.flatMap(sinking(engine), ({ give }) => Effect.andThen(give(new Transactions().of(item(1))), turns))
      )
      const other = { system: { ...system, systemId: "8" } }
      const error = yield* Effect.flip(Effect.scoped(sinking(engine, { note }, other)))
      assert.strictEqual(error._tag, "SinkMismatch")
    }).pipe(Effect.provide(checkpointMemory))
  )

  it.effect("refuses an engine that holds another cluster's messages, or what the server does not have", () =>
    Effect.gen(function* () {
      const engine = new MemoryEngine()
      yield* Effect.scoped(
        Effect.flatMap(sinking(engine), ({ give }) => Effect.andThen(give(new Transactions().of(item(1))), turns))
      )
      const problem = (more: object) =>
        Effect.map(Effect.flip(Effect.scoped(sinking(engine, {}, more))), (error) => error.message)
      assert.match(yield* problem({ system: { ...system, systemId: "8" } }), /came from the cluster 7, and this is 8/)
      assert.match(yield* problem({ system: { ...system, xLogPos: Lsn.zero } }), /the server's WAL ends at 0\/0/)
      yield* Effect.scoped(sinking(engine, {}, { system: { ...system, xLogPos: Lsn.zero, isInRecovery: true } }))
    })
  )

  it.effect("appends another message in the place of one that is rejected, if there is one", () =>
    Effect.gen(function* () {
      class Picky extends MemoryEngine {
        protected override admit(append: Append): SinkError | undefined {
          const large = append.batch.find(({ value }) => value !== "dropped" && value?.includes('"at":99'))
          return large === undefined
            ? super.admit(append)
            : new SinkRejected({ sink: "picky", id: large.id, detail: "too large" })
        }
      }
      const of = new Transactions()
      const changes = of.of(item(1), item(2, 99), item(3))
      const strict = yield* sinking(new Picky())
      yield* strict.give(changes)
      yield* turns
      assert.deepInclude(strict.failures[0], { _tag: "SinkRejected", id: "0000000000000100-00000001" })
      const engine = new Picky()
      const { acknowledged, failures, give } = yield* sinking(engine, {
        onRejected: (message) => ({ ...message, to: "rejected", value: "dropped" })
      })
      yield* give(changes)
      yield* turns
      assert.deepStrictEqual(
        (yield* engine.messages).map(({ key, to }) => [key, to]),
        [
          ['["1"]', "public.items"],
          ['["2"]', "rejected"],
          ['["3"]', "public.items"]
        ]
      )
      assert.deepStrictEqual([failures, lsns(acknowledged)], [[], [endOf(changes)]])
    })
  )

  it.effect("lets what is under way end as the session does", () =>
    Effect.gen(function* () {
      const engine = new MemoryEngine()
      const scope = yield* Scope.make()
      const { acknowledged, give, keys } = yield* Scope.provide(sinking(engine), scope)
      yield* engine.stop
      yield* give(new Transactions().of(item(1)))
      yield* turns
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* turns
      yield* engine.resume
      yield* Fiber.join(closing)
      assert.deepStrictEqual([yield* keys, acknowledged.length], [keysOf(1, 1), 1])
    })
  )
})

const server = TestWalSender.layer({ slot: "orders", publications: ["orders"] })
const plugin = Pgoutput.make({ publications: ["orders"] })

describe("Sink.run", () => {
  it.effect("brings each change once over lost connections, and the server hears of what is durable", () =>
    Effect.gen(function* () {
      const walSender = yield* TestWalSender
      const { messages } = yield* Memory
      yield* Effect.forkChild(run({ slot: "orders", plugin }))
      for (let id = 1; id <= 5; id++) {
        const [written] = yield* walSender.write(tx(insert(shop.Orders, { id, total: "1", note: null })))
        yield* walSender.drop
        yield* TestClock.adjust("20 seconds")
        yield* walSender.awaitConfirmed
        assert.strictEqual(yield* walSender.confirmedFlushLsn, written.endLsn)
      }
      assert.deepStrictEqual(
        (yield* messages).map(({ key }) => key),
        keysOf(1, 5)
      )
    }).pipe(Effect.provide([server, memory]))
  )

  it.effect("brings the rows that are there, then the changes", () =>
    Effect.gen(function* () {
      const walSender = yield* TestWalSender
      const { messages } = yield* Memory
      const options = { slot: "copied", plugin, snapshot: "initial" } as const
      yield* Effect.forkChild(withLogicalStream(options, handler()))
      yield* TestClock.adjust("5 seconds")
      yield* walSender.awaitStreaming
      yield* walSender.write(tx(insert(shop.Orders, { id: 3, total: "1", note: null })))
      yield* TestClock.adjust("5 seconds")
      yield* walSender.awaitConfirmed
      const told = yield* messages
      assert.deepStrictEqual(
        told.map(({ key, op, to }) => [op, to, key]),
        [
          ["s", "control", undefined],
          ["r", "public.orders", '["1"]'],
          ["r", "public.orders", '["2"]'],
          ["s", "control", undefined],
          ["s", "control", undefined],
          ["c", "public.orders", '["3"]']
        ]
      )
      assert.deepStrictEqual(
        told.map(({ id }) => id),
        told.map(({ id }) => id).sort()
      )
    }).pipe(
      Effect.provide([
        TestWalSender.layer({
          slot: "copied",
          slotExists: "no",
          publications: ["orders"],
          rows: [1, 2].map((id) => insert(shop.Orders, { id, total: "1", note: null }))
        }),
        memory
      ])
    )
  )
})
