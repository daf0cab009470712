/** One connection by hand, and a program that is begun anew with each: over a server in memory, on the test's clock. */
import { assert, describe, it } from "@effect/vitest"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as TestClock from "effect/testing/TestClock"
import { type Change, nextLsn } from "../../src/change/Change.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { ConnectionError } from "../../src/ReplicationError.ts"
import { type QueryRow, WalSender } from "../../src/server/WalSender.ts"
import { make } from "../../src/stream/LogicalStream.ts"
import * as Replication from "../../src/stream/Replication.ts"
import type { StreamState } from "../../src/stream/StreamState.ts"
import { insert, relation, TestWalSender, tx } from "../../src/testing/index.ts"
import * as Fake from "../support/FakeWalSender.ts"

const plugin = Pgoutput.make({ publications: ["orders"] })
const options = { slot: "orders", plugin }
const orders = relation("public.orders", { columns: { id: "int4" }, key: ["id"] })
const row = (id: number) => tx(insert(orders, { id }))
const idsOf = (changes: ReadonlyArray<Change>) =>
  changes.flatMap((change) => (change._tag === "Insert" ? [change.row.id] : []))

const onServer = <A, E, R>(test: Effect.Effect<A, E, R>) =>
  Effect.provide(test, TestWalSender.layer({ slot: "orders", publications: ["orders"] }))

/** Lets every fiber run as far as it can, and half a second pass. */
const settle = Effect.andThen(
  TestClock.adjust("500 millis"),
  Effect.forEach(Array.from({ length: 50 }), () => Effect.yieldNow)
)

/** Waits until `isSo`, for a minute of the test's clock. */
const until = Effect.fnUntraced(function* (isSo: () => boolean) {
  for (let round = 0; round < 120 && !isSo(); round++) yield* settle
  assert.isTrue(isSo())
})

/** The states that a stream goes through. */
const watch = Effect.fnUntraced(function* (state: SubscriptionRef.SubscriptionRef<StreamState>) {
  const states: Array<StreamState["_tag"]> = []
  yield* Effect.forkScoped(
    Stream.runForEach(SubscriptionRef.changes(state), (now) => Effect.sync(() => states.push(now._tag))),
    { startImmediately: true }
  )
  return states
})

class Broken extends Data.TaggedError("Broken") {}

describe("a stream that is opened by hand", () => {
  it.effect("is one connection, which its scope ends with the last acknowledgement, and which is not tried again", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        const stream = yield* make(options)
        yield* server.write(row(1), row(2))
        const seen = yield* Effect.scoped(
          Effect.gen(function* () {
            const { acknowledgeChange, changes } = yield* stream.open
            return yield* changes.pipe(Stream.take(6), Stream.tap(acknowledgeChange), Stream.runCollect)
          })
        )
        assert.deepStrictEqual(idsOf(seen), [1, 2])
        assert.deepStrictEqual(yield* server.unconfirmed, [])
        const error = yield* Effect.scoped(
          Effect.gen(function* () {
            const { changes } = yield* stream.open
            yield* server.drop
            return yield* Effect.flip(Stream.runDrain(changes))
          })
        )
        assert.strictEqual(error._tag, "ConnectionError")
        assert.strictEqual(yield* server.attempts, 2)
      })
    )
  )

  it.effect("cannot be run while it is, and can be afterwards", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        const { follow, open, run } = yield* make(options)
        const first = yield* Effect.forkChild(run((change) => Effect.succeed(nextLsn(change))))
        yield* server.awaitStreaming
        const others = [run(() => Effect.undefined), Effect.scoped(open), follow(() => Effect.void)]
        for (const other of others) {
          assert.deepInclude(yield* Effect.flip(other), { _tag: "InvalidOption", option: "run" })
        }
        yield* Fiber.interrupt(first)
        yield* follow(() => Effect.void)
        assert.strictEqual(yield* server.attempts, 2)
      })
    )
  )

  it.effect("waits at a mark until that is acknowledged, whatever else is", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make(() => ({ slot: "missing" }))
      const made: Array<string> = []
      /** A publication of no table: its copy is nothing but marks. */
      const answer = (command: string): ReadonlyArray<QueryRow> | undefined => {
        if (command.includes("pg_try_advisory_lock")) return [{ locked: "t" }]
        if (command.startsWith("CREATE_REPLICATION_SLOT")) {
          return [{ slot_name: "orders_copy", consistent_point: "0/1", snapshot_name: "s" }]
        }
        if (command.includes("pg_copy_logical_replication_slot")) {
          made.push("orders")
          return []
        }
        if (command.includes("pg_replication_slots") && made.length > 0) {
          const free = { slot_type: "logical", plugin: "pgoutput", database: "shop", temporary: "f", active_pid: null }
          const kept = { restart_lsn: "0/1", confirmed_flush_lsn: "0/1", wal_status: "reserved", retained: "0" }
          return [{ slot_name: "orders", ...free, ...kept, invalidation_reason: null }]
        }
        if (command.includes("AS fingerprint")) return [{ fingerprint: "", role: "me" }]
        if (command.includes("pg_get_publication_tables")) return []
        return /^(BEGIN|SET|COMMIT|ROLLBACK)/.test(command) ? [] : undefined
      }
      const layer = Layer.effect(
        WalSender,
        Effect.map(WalSender, (sender) =>
          WalSender.of({
            ...sender,
            connect: Effect.map(sender.connect, (connection) => ({
              ...connection,
              query: (command: string) => {
                const rows = command === "IDENTIFY_SYSTEM" ? undefined : answer(command)
                return rows === undefined ? connection.query(command) : Effect.succeed(rows)
              }
            }))
          })
        )
      ).pipe(Layer.provide(fake.layer))
      yield* Effect.gen(function* () {
        const stream = yield* make({ ...options, snapshot: "initial" })
        const states = yield* watch(stream.state)
        const { acknowledgeChange, changes } = yield* stream.open
        const seen: Array<Parameters<typeof acknowledgeChange>[0]> = []
        yield* Effect.forkScoped(Stream.runForEach(changes, (change) => Effect.sync(() => seen.push(change))))
        const [started, completed] = yield* Effect.as(
          until(() => seen.length === 2),
          seen
        )
        assert.deepStrictEqual([started?._tag, completed?._tag], ["SnapshotStarted", "SnapshotCompleted"])
        yield* acknowledgeChange(started!)
        yield* settle
        assert.deepStrictEqual(made, [], "the slot is not there before the rows are durable")
        yield* acknowledgeChange(completed!)
        const server = yield* fake.accept
        assert.deepStrictEqual(made, ["orders"])
        yield* server.say(Fake.relation(), Fake.transaction("0/100", "0/130", 1))
        yield* until(() => seen.length === 5)
        assert.deepStrictEqual(
          states.filter((state, index) => state !== states[index - 1]),
          ["Idle", "Connecting", "Copying", "Streaming"]
        )
      }).pipe(Effect.provide(layer))
    })
  )
})

describe("a program that follows", () => {
  it.effect(
    "is interrupted when its connection ends, though its consumer is a fiber, and begun anew with the next",
    () =>
      onServer(
        Effect.gen(function* () {
          const server = yield* TestWalSender
          const seen: Array<Change> = []
          let begun = 0
          let left = 0
          const stream = yield* make(options)
          const states = yield* watch(stream.state)
          const fiber = yield* stream
            .follow(({ acknowledgeChange, changes }) =>
              Effect.gen(function* () {
                begun++
                yield* Effect.addFinalizer(() => Effect.sync(() => left++))
                yield* changes.pipe(
                  Stream.runForEach((change) =>
                    Effect.andThen(
                      acknowledgeChange(change),
                      Effect.sync(() => seen.push(change))
                    )
                  ),
                  Effect.forkScoped
                )
                return yield* Effect.never
              }).pipe(Effect.scoped)
            )
            .pipe(Effect.forkChild)
          yield* server.write(row(1))
          yield* until(() => idsOf(seen).length === 1)
          yield* settle
          yield* settle
          yield* settle
          yield* server.drop
          yield* until(() => begun === 2)
          assert.strictEqual(left, 1)
          yield* server.write(row(2))
          yield* until(() => idsOf(seen).length === 2)
          assert.deepStrictEqual(idsOf(seen), [1, 2])
          yield* Fiber.interrupt(fiber)
          assert.strictEqual(left, 2)
          yield* until(() => states.at(-1) === "Stopped")
          assert.deepStrictEqual(states, ["Idle", "Connecting", "Streaming", "Reconnecting", "Streaming", "Stopped"])
        })
      )
  )

  it.effect("ends the stream by ending, and by failing with what is its own, which is not retried", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        const { follow } = yield* make(options)
        assert.strictEqual(yield* follow(({ system }) => Effect.succeed(system.database)), "test")
        assert.deepStrictEqual(yield* Effect.flip(follow(() => new Broken())), new Broken())
        // Of another connection than the stream's: a target's, for instance.
        const refused = new ConnectionError({ reason: "Refused", detail: "the target" })
        assert.strictEqual(yield* Effect.flip(follow(() => refused)), refused)
        assert.strictEqual(yield* server.attempts, 3)
      })
    )
  )
})

describe("a service that is kept retrying", () => {
  it.effect("begins a program anew whose forked follower ends with the connection", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        /** As of the last change that was followed, per connection. */
        const caches: Array<Map<unknown, number>> = []
        const serve = yield* Deferred.make<void>()
        const program = Effect.gen(function* () {
          const { acknowledgeChange, changes } = yield* Replication.Replication
          const cache = new Map<unknown, number>()
          caches.push(cache)
          yield* changes.pipe(
            Stream.runForEach((change) => {
              if (change._tag === "Insert") cache.set(change.row.id, 1)
              return acknowledgeChange(change)
            }),
            Effect.forkScoped
          )
          yield* Deferred.await(serve)
          return cache.size
        }).pipe(Effect.scoped, Replication.retrying(options))
        const fiber = yield* Effect.forkChild(program)
        yield* server.awaitStreaming
        yield* server.write(row(1))
        yield* until(() => caches[0]?.has(1) === true)
        yield* settle
        yield* settle
        yield* settle
        yield* server.drop
        yield* until(() => caches.length === 2)
        yield* server.write(row(2))
        yield* until(() => caches[1]?.has(2) === true)
        yield* Deferred.succeed(serve, undefined)
        assert.strictEqual(yield* Fiber.join(fiber), 1, "of its own connection, and nothing of the one before")
      })
    )
  )

  it.effect("lives in one program beside another, each under its own tag", () => {
    class First extends Replication.Service<First>()("test/First", options) {}
    class Second extends Replication.Service<Second>()("test/Second", { ...options, slot: "second" }) {}
    return onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        const { connect } = yield* WalSender
        yield* Effect.scoped(
          Effect.flatMap(connect, ({ query }) => query('CREATE_REPLICATION_SLOT "second" LOGICAL "pgoutput"'))
        )
        const take = (changes: Stream.Stream<Change, unknown>) => Stream.runCollect(Stream.take(changes, 3))
        const program = Effect.gen(function* () {
          const [first, second] = [yield* First, yield* Second]
          yield* server.write(row(7))
          const seen = yield* Effect.all([take(first.changes), take(second.changes)], { concurrency: "unbounded" })
          const states = yield* Effect.all([SubscriptionRef.get(first.state), SubscriptionRef.get(second.state)])
          return { ids: seen.map(idsOf), states: states.map(({ _tag }) => _tag) }
        })
        const told = yield* program.pipe(First.retrying, Second.retrying)
        assert.deepStrictEqual(told, { ids: [[7], [7]], states: ["Streaming", "Streaming"] })
        assert.deepStrictEqual([First.options.slot, Second.options.slot], ["orders", "second"])
      })
    )
  })
})
