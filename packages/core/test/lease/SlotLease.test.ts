/** Leases over a server in memory, on the test's clock: who runs, who waits, and what becomes of either. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as TestClock from "effect/testing/TestClock"
import { nextLsn } from "../../src/change/Change.ts"
import * as SlotLease from "../../src/lease/SlotLease.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { ConnectionError } from "../../src/ReplicationError.ts"
import * as Metrics from "../../src/replication/Metrics.ts"
import { WalSender } from "../../src/server/WalSender.ts"
import * as LogicalStream from "../../src/stream/LogicalStream.ts"
import { insert, relation, TestWalSender, tx } from "../../src/testing/index.ts"

const plugin = Pgoutput.make({ publications: ["orders"] })
const orders = relation("public.orders", { columns: { id: "int4" }, key: ["id"] })
const row = (id: number) => tx(insert(orders, { id }))

const onServer = <A, E, R>(test: Effect.Effect<A, E, R>) =>
  Effect.provide(test, TestWalSender.layer({ slot: "orders", publications: ["orders"] }))

/** Lets every fiber run as far as it can, and a tenth of a second pass. */
const settle = Effect.andThen(
  TestClock.adjust("100 millis"),
  Effect.forEach(Array.from({ length: 50 }), () => Effect.yieldNow)
)

/** Waits until `isSo`, for a minute of the test's clock. */
const until = Effect.fnUntraced(function* (isSo: () => boolean, what: string) {
  for (let round = 0; round < 600 && !isSo(); round++) yield* settle
  assert.isTrue(isSo(), what)
})

/** The states that a lease goes through, each once. */
const watch = Effect.fnUntraced(function* ({ state }: SlotLease.SlotLease) {
  const states: Array<SlotLease.State> = []
  yield* Effect.forkScoped(
    Stream.runForEach(SubscriptionRef.changes(state), (now) => Effect.sync(() => states.push(now))),
    { startImmediately: true }
  )
  return states
})

const tags = (states: ReadonlyArray<SlotLease.State>) => states.map(({ _tag }) => _tag)

/** A process that would run, and says when it does. */
const contender = Effect.fnUntraced(function* (name: string, log: Array<string>, options = { slot: "orders" }) {
  const lease = yield* SlotLease.make(options)
  const states = yield* watch(lease)
  const work = Effect.acquireUseRelease(
    Effect.sync(() => log.push(`${name} begins`)),
    () => Effect.never,
    () => Effect.sync(() => log.push(`${name} ends`))
  )
  const fiber = yield* Effect.forkScoped(lease.run(work), { startImmediately: true })
  return { lease, states, fiber, isHeld: () => states.at(-1)?._tag === "Held" }
})

/** The test's clock for a process that is stopped for a while: nobody in it runs, and time goes on. */
const freezingClock = Effect.gen(function* () {
  const clock = yield* Clock.Clock
  let frozen = 0n
  const freezing: Clock.Clock = {
    currentTimeMillis: clock.currentTimeMillis,
    currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe(),
    currentTimeNanos: clock.currentTimeNanos,
    currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe(),
    monotonicTimeNanos: Effect.sync(() => freezing.monotonicTimeNanosUnsafe()),
    monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe() + frozen,
    sleep: (duration) => clock.sleep(duration)
  }
  return {
    clock: freezing,
    freeze: (millis: number): Effect.Effect<void> =>
      Effect.sync(() => {
        frozen += BigInt(millis) * 1_000_000n
      })
  }
})

class Broken extends Data.TaggedError("Broken") {}

describe("a lease", () => {
  it.effect(
    "is one's at a time; who waits takes no walsender, is told who has it, and has it once that is given back",
    () =>
      onServer(
        Effect.gen(function* () {
          const log: Array<string> = []
          const first = yield* contender("first", log)
          yield* until(first.isHeld, "the first holds it")
          const second = yield* contender("second", log)
          yield* until(() => second.states.at(-1)?._tag === "Waiting", "the second waits")
          const { pid } = first.states.find((now) => now._tag === "Held")!
          assert.deepStrictEqual(second.states.at(-1), {
            _tag: "Waiting",
            owner: { pid, applicationName: "replicant" }
          })
          // An hour, in which whoever has it keeps it.
          for (let minute = 0; minute < 600; minute++) yield* settle
          assert.deepStrictEqual(log, ["first begins"])
          yield* Fiber.interrupt(first.fiber)
          yield* until(second.isHeld, "the second holds it")
          assert.deepStrictEqual(log, ["first begins", "first ends", "second begins"])
          assert.deepStrictEqual(tags(first.states), ["Idle", "Connecting", "Held", "Stopped"])
        })
      )
  )

  it.effect("of another slot is another's", () =>
    onServer(
      Effect.gen(function* () {
        const log: Array<string> = []
        const first = yield* contender("first", log)
        const second = yield* contender("second", log, { slot: "order" })
        yield* until(() => first.isHeld() && second.isHeld(), "both hold theirs")
      })
    )
  )

  it.effect("that is lost ends what runs; that waits for it again, behind whoever has it by then", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        const log: Array<string> = []
        const first = yield* contender("first", log)
        yield* until(first.isHeld, "the first holds it")
        yield* server.endSessions
        const second = yield* contender("second", log)
        yield* until(second.isHeld, "the second holds it")
        yield* until(() => first.states.at(-1)?._tag === "Waiting", "the first waits")
        assert.deepStrictEqual(tags(first.states), ["Idle", "Connecting", "Held", "Lost", "Connecting", "Waiting"])
        assert.sameMembers(log, ["first begins", "first ends", "second begins"])
        yield* Fiber.interrupt(second.fiber)
        yield* until(first.isHeld, "the first holds it again")
        assert.strictEqual(log.at(-1), "first begins")
      })
    )
  )

  it.effect("is held until what runs has ended, also where that takes longer than the term", () =>
    onServer(
      Effect.gen(function* () {
        const log: Array<string> = []
        const slow = Effect.onInterrupt(Effect.never, () =>
          Effect.andThen(
            Effect.sleep("10 seconds"),
            Effect.sync(() => log.push("first ends"))
          )
        )
        const first = yield* Effect.forkScoped(SlotLease.withLease({ slot: "orders" }, slow), {
          startImmediately: true
        })
        yield* settle
        const second = yield* contender("second", log)
        yield* until(() => second.states.at(-1)?._tag === "Waiting", "the second waits")
        yield* Effect.forkScoped(Fiber.interrupt(first), { startImmediately: true })
        yield* until(second.isHeld, "the second holds it")
        assert.deepStrictEqual(log, ["first ends", "second begins"])
      })
    )
  )

  it.effect("is given up by itself where the server does not answer, before the server does", () =>
    Effect.gen(function* () {
      const network = yield* Latch.make(true)
      const silent = Layer.effect(
        WalSender,
        Effect.map(WalSender, (sender) =>
          WalSender.of({
            ...sender,
            openSession: Effect.map(sender.openSession, (session) => ({
              ...session,
              query: (text: string) => network.whenOpen(session.query(text))
            }))
          })
        )
      )
      yield* Effect.gen(function* () {
        const log: Array<string> = []
        const first = yield* contender("first", log).pipe(Effect.provide(silent))
        yield* until(first.isHeld, "the first holds it")
        const second = yield* contender("second", log)
        yield* until(() => second.states.at(-1)?._tag === "Waiting", "the second waits")
        yield* network.close
        yield* until(() => log.includes("first ends"), "the first has ended")
        assert.include(tags(first.states), "Lost")
        yield* until(second.isHeld, "the second holds it")
        assert.deepStrictEqual(log, ["first begins", "first ends", "second begins"])
      })
    }).pipe(onServer)
  )

  it.effect("is lost by a process that was frozen for longer than the term, whatever the server says", () =>
    onServer(
      Effect.gen(function* () {
        const freezer = yield* freezingClock
        const log: Array<string> = []
        const first = yield* contender("first", log).pipe(Effect.provideService(Clock.Clock, freezer.clock))
        yield* until(first.isHeld, "the first holds it")
        yield* freezer.freeze(10_000)
        yield* until(() => tags(first.states).includes("Lost"), "it is lost")
        const cause = first.states.find((now) => now._tag === "Lost")?.cause
        assert.strictEqual(cause?._tag, "ConnectionError")
      })
    )
  )

  it.effect("ends with what runs under it, as that ends, and says so to the metric", () =>
    onServer(
      Effect.gen(function* () {
        const held = Effect.map(Metric.value(Metrics.leaseHeld), ({ value }) => value).pipe(
          Effect.provideService(Metric.CurrentMetricAttributes, { slot: "orders" })
        )
        const lease = yield* SlotLease.make({ slot: "orders" })
        assert.strictEqual(yield* lease.run(held), 1)
        assert.strictEqual(yield* held, 0)
        assert.strictEqual((yield* Effect.flip(lease.run(new Broken())))._tag, "Broken")
        // It is given back each time.
        const again = yield* SlotLease.withLease({ slot: "orders" }, Effect.succeed(7))
        assert.strictEqual(again, 7)
      })
    )
  )

  it.effect("does not take the failure of what runs for its own, also where that is of a connection", () =>
    onServer(
      Effect.gen(function* () {
        const error = new ConnectionError({ reason: "Closed", detail: "of something else" })
        let runs = 0
        const failing = Effect.suspend(() => {
          runs++
          return Effect.fail(error)
        })
        assert.strictEqual(yield* Effect.flip(SlotLease.withLease({ slot: "orders" }, failing)), error)
        assert.strictEqual(runs, 1)
      })
    )
  )

  it.effect("is waited for over a server that is away, and fails for what no waiting mends", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        yield* server.refuse(new ConnectionError({ reason: "Refused", detail: "nobody listens" }), 3)
        const log: Array<string> = []
        const first = yield* contender("first", log)
        yield* until(first.isHeld, "it holds it")
        const attempts = first.states.flatMap((now) => (now._tag === "Reconnecting" ? [now.attempt] : []))
        assert.deepStrictEqual(attempts, [1, 2, 3])
        for (const options of [
          { slot: "No Slot" },
          { slot: "s", term: "1 millis" },
          { slot: "s", term: "1 day" }
        ] as const) {
          const error = yield* Effect.flip(SlotLease.withLease(options, Effect.void))
          assert.strictEqual(error._tag, "InvalidOption")
        }
      })
    )
  )

  it.effect("through a pool of transactions, where no lock is anybody's, is refused", () =>
    Effect.gen(function* () {
      const pooling = Layer.effect(
        WalSender,
        Effect.map(WalSender, (sender) =>
          WalSender.of({
            ...sender,
            // Each question goes to whichever backend is free.
            openSession: Effect.map(Effect.all([sender.openSession, sender.openSession]), ([one, other]) => {
              let count = 0
              return { ...one, query: (text: string) => (count++ % 2 === 0 ? one : other).query(text) }
            })
          })
        )
      )
      const error = yield* Effect.flip(
        SlotLease.withLease({ slot: "orders" }, Effect.void).pipe(Effect.provide(pooling))
      )
      assert.deepInclude(error, { _tag: "InvalidOption", option: "lease" })
    }).pipe(onServer)
  )
})

/** A stream under a lease. */
const follower = Effect.fnUntraced(function* (seen: Array<unknown>, gate: Latch.Latch) {
  const lease = yield* SlotLease.make({ slot: "orders" })
  const states = yield* watch(lease)
  const stream = yield* LogicalStream.make({ slot: "orders", plugin, timing: { acknowledgeDelay: 0 } })
  const run = stream.run((change) => {
    if (change._tag === "Insert") seen.push(change.row.id)
    return change._tag === "Commit" ? gate.whenOpen(Effect.succeed(nextLsn(change))) : Effect.undefined
  })
  const fiber = yield* Effect.forkScoped(lease.run(run), { startImmediately: true })
  return { states, stream, fiber, isHeld: () => states.at(-1)?._tag === "Held" }
})

describe("a stream under a lease", () => {
  it.effect("takes the slot over from an owner that has lost it, who acknowledges nothing from then on", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        const old: Array<unknown> = []
        const young: Array<unknown> = []
        const [gate, shut] = [yield* Latch.make(false), yield* Latch.make(false)]
        const first = yield* follower(old, gate)
        yield* server.awaitStreaming
        yield* server.write(row(1), row(2))
        yield* until(() => old.includes(1), "the first has row 1 under way")
        const confirmed = yield* server.confirmedFlushLsn
        const second = yield* follower(young, shut)
        yield* until(() => second.states.at(-1)?._tag === "Waiting", "the second stands by")
        yield* server.endSessions
        yield* until(() => young.includes(1), "the second has row 1 under way")
        assert.include(["Held", "Lost"], tags(first.states).at(-1), "without waiting for the first to leave")
        // What the first had under way is done, too late.
        yield* gate.open
        for (let step = 0; step < 100; step++) yield* settle
        assert.strictEqual(yield* server.confirmedFlushLsn, confirmed)
        yield* shut.open
        yield* until(() => young.includes(2), "the second goes on")
        yield* server.awaitConfirmed
        assert.deepStrictEqual(young, [1, 2])
        assert.notInclude(
          first.states.slice(-1).map(({ _tag }) => _tag),
          "Held"
        )
      })
    )
  )

  it.effect("goes on from where it stood itself, when it runs again in the same process", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        const seen: Array<unknown> = []
        const gate = yield* Latch.make(true)
        const first = yield* follower(seen, gate)
        yield* server.awaitStreaming
        yield* server.checkpoint
        yield* server.write(row(1))
        yield* until(() => seen.includes(1), "it has row 1")
        yield* settle
        yield* server.awaitConfirmed
        // The server has forgotten what was acknowledged since its checkpoint.
        yield* server.crash
        yield* until(() => tags(first.states).includes("Lost"), "the lease is lost")
        yield* server.start
        yield* server.write(row(2))
        yield* until(() => seen.includes(2), "it has row 2")
        assert.deepStrictEqual(seen, [1, 2])
      })
    )
  )

  it.effect("is handed changes for as long as the lease is kept", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        const seen: Array<unknown> = []
        yield* follower(seen, yield* Latch.make(true))
        yield* server.awaitStreaming
        for (let minute = 0; minute < 600; minute++) yield* settle
        yield* server.write(row(1))
        yield* until(() => seen.includes(1), "it has row 1")
      })
    )
  )

  it.effect("is handed nothing by a process that was frozen for longer than the term", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        const freezer = yield* freezingClock
        const seen: Array<unknown> = []
        const { states } = yield* follower(seen, yield* Latch.make(true)).pipe(
          Effect.provideService(Clock.Clock, freezer.clock)
        )
        yield* server.awaitStreaming
        yield* settle
        // What came meanwhile lies in its socket, and is read before any timer is looked at.
        yield* freezer.freeze(10_000)
        yield* server.write(row(1))
        yield* Effect.forEach(Array.from({ length: 50 }), () => Effect.yieldNow)
        assert.deepStrictEqual(seen, [])
        yield* until(() => tags(states).includes("Lost"), "it is lost")
        yield* until(() => seen.includes(1), "it is held again, and row 1 comes")
      })
    )
  )

  it.effect("without one begins each run at what the slot has", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        const seen: Array<unknown> = []
        const stream = yield* LogicalStream.make({ slot: "orders", plugin, timing: { acknowledgeDelay: 0 } })
        const run = stream.run((change) => {
          if (change._tag === "Insert") seen.push(change.row.id)
          return Effect.succeed(nextLsn(change))
        })
        const first = yield* Effect.forkScoped(run)
        yield* server.awaitStreaming
        yield* server.checkpoint
        yield* server.write(row(1))
        yield* settle
        yield* server.awaitConfirmed
        yield* Fiber.interrupt(first)
        yield* server.crash
        yield* server.start
        yield* Effect.forkScoped(run)
        yield* until(() => seen.length === 2, "row 1 comes again")
        assert.deepStrictEqual(seen, [1, 1])
      })
    )
  )

  it.effect("leaves in good order and then gives the lease back, when it is interrupted", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* TestWalSender
        const gate = yield* Latch.make(false)
        const seen: Array<unknown> = []
        const { fiber } = yield* follower(seen, gate)
        yield* server.awaitStreaming
        yield* server.write(row(1))
        yield* until(() => seen.includes(1), "it has row 1 under way")
        const left = yield* Deferred.make<Exit.Exit<unknown, unknown>>()
        yield* Effect.forkScoped(
          Effect.andThen(
            Fiber.interrupt(fiber),
            Effect.flatMap(Fiber.await(fiber), (exit) => Deferred.succeed(left, exit))
          )
        )
        yield* settle
        yield* gate.open
        const exit = yield* Deferred.await(left)
        assert.isTrue(Exit.hasInterrupts(exit))
        assert.deepStrictEqual(yield* server.unconfirmed, [])
        assert.strictEqual(yield* SlotLease.withLease({ slot: "orders" }, Effect.succeed("free")), "free")
      })
    )
  )
})
