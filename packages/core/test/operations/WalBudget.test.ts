/** Budgets and overviews as streams, and what is done by them, with a walsender in memory. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import { SlotOverview, WalBudget } from "../../src/operations.ts"
import { AuthenticationFailed } from "../../src/ReplicationError.ts"
import * as Table from "../../src/stream/Table.ts"
import { insert, TestWalSender, tx } from "../../src/testing/index.ts"

const Orders = Table.make("public.orders", Schema.Struct({ id: Schema.Number }), { key: ["id"] })

const server = TestWalSender.layer({ slot: "orders", publications: ["orders"] })

/** Lets every fiber run as far as it can without time passing. */
const settle = Effect.andThen(
  TestClock.adjust(0),
  Effect.forEach(Array.from({ length: 50 }), () => Effect.yieldNow)
)

const pass = (duration: `${number} ${"millis" | "seconds" | "minutes"}`) =>
  Effect.andThen(settle, Effect.andThen(TestClock.adjust(duration), settle))

const order = (id: number) => tx(insert(Orders, { id }))

/** What a budget says by the way, for streams that are made of them. */
const budget = (level: WalBudget.Level): WalBudget.WalBudget => ({
  slot: "orders",
  walStatus: "reserved",
  retainedBytes: 1024,
  safeBytes: undefined,
  limitBytes: undefined,
  freeBytes: undefined,
  writtenPerSecond: undefined,
  growthPerSecond: undefined,
  millisUntilLost: undefined,
  millisUntilDiskFull: undefined,
  unseenMillis: 0,
  level,
  reasons: []
})

const fresh = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, Metric.MetricRegistry, new Map() as Metric.MetricRegistry)

/** What the registry has now of WAL, by name. */
const told = Effect.map(Metric.snapshot, (all) =>
  Object.fromEntries(
    all.flatMap(({ attributes, id, state }) => {
      if (!id.startsWith("replicant_wal_")) return []
      assert.strictEqual(attributes?.slot, "orders")
      return [[id.slice("replicant_wal_".length), (state as Metric.GaugeState<number>).value]]
    })
  )
)

describe("the metrics of a budget", () => {
  it.effect("say what the last look saw, how old that is, and nothing once nobody looks", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      let last: WalBudget.WalBudget | undefined
      const watching = yield* WalBudget.watch("orders", { freeBytes: Effect.succeed(1_000_000) }).pipe(
        Stream.runForEach((each) =>
          Effect.sync(() => {
            last = each
          })
        ),
        Effect.forkChild
      )
      yield* settle
      assert.deepStrictEqual(yield* told, { level: 0, retained_bytes: 0, unseen_seconds: 0 })
      for (let id = 0; id < 7; id++) {
        yield* test.write(order(id))
        yield* pass("10 seconds")
      }
      const left = last!.millisUntilDiskFull! / 1000
      assert.isAbove(last!.retainedBytes!, 0)
      assert.deepStrictEqual(yield* told, {
        level: ["ok", "warning", "critical"].indexOf(last!.level),
        retained_bytes: last!.retainedBytes!,
        growth_bytes_per_second: last!.growthPerSecond!,
        left_seconds: left,
        unseen_seconds: 0
      })
      yield* pass("4 seconds")
      const later = yield* told
      assert.deepInclude(later, { unseen_seconds: 4 })
      assert.approximately(later.left_seconds!, left - 4, 0.001)

      yield* test.crash
      yield* pass("2 minutes")
      const away = yield* told
      assert.sameMembers(Object.keys(away), ["level", "unseen_seconds"])
      assert.isAbove(away.unseen_seconds!, 100)
      assert.isAtLeast(away.level!, 1)

      yield* test.start
      yield* test.invalidateSlot()
      yield* pass("10 seconds")
      assert.deepInclude(yield* told, { level: 3 })
      assert.notProperty(yield* told, "retained_bytes")
      yield* Fiber.interrupt(watching)
      assert.deepStrictEqual(yield* told, {})
    }).pipe(Effect.provide(server), fresh)
  )

  it.effect("stay while one of two who watch a slot goes on", () =>
    Effect.gen(function* () {
      yield* Effect.forkChild(Stream.runDrain(WalBudget.watch("orders")))
      const other = yield* Effect.forkChild(Stream.runDrain(WalBudget.watch("orders", { interval: "1 second" })))
      yield* pass("1 seconds")
      yield* Fiber.interrupt(other)
      yield* pass("10 seconds")
      assert.deepInclude(yield* told, { level: 0 })
    }).pipe(Effect.provide(server), fresh)
  )
})

describe("watching a budget", () => {
  it.effect("looks every ten seconds, and tells when the disk is full by what was handed in", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      const seen: Array<WalBudget.WalBudget> = []
      const freeBytes = Effect.succeed(1_000_000)
      yield* WalBudget.watch("orders", { freeBytes }).pipe(
        Stream.runForEach((each) => Effect.sync(() => seen.push(each))),
        Effect.forkChild
      )
      for (let id = 0; id < 10; id++) {
        yield* pass("10 seconds")
        yield* test.write(order(id))
      }
      assert.lengthOf(seen, 11)
      const last = seen.at(-1)!
      assert.isAbove(last.growthPerSecond ?? 0, 0)
      assert.strictEqual(last.growthPerSecond, last.writtenPerSecond)
      assert.approximately(last.millisUntilDiskFull!, 1_000_000_000 / last.growthPerSecond!, 1)
      assert.isUndefined(seen[3]?.millisUntilDiskFull, "of less than a minute nothing is forecast")
      yield* test.invalidateSlot()
      yield* pass("10 seconds")
      assert.deepInclude(seen.at(-1), { level: "lost", reasons: ["Lost"], retainedBytes: undefined })
    }).pipe(Effect.provide(server))
  )

  it.effect("tells how old the last one is while it cannot look, warns of that, and goes on", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      const seen: Array<WalBudget.WalBudget> = []
      yield* WalBudget.watch("orders", { calm: 0 }).pipe(
        Stream.runForEach((each) => Effect.sync(() => seen.push(each))),
        Effect.forkChild
      )
      yield* pass("10 seconds")
      yield* test.crash
      yield* pass("2 minutes")
      assert.strictEqual(seen.at(-1)?.level, "warning")
      assert.deepStrictEqual(seen.at(-1)?.reasons, ["Unseen"])
      assert.isAtLeast(seen.at(-1)?.unseenMillis ?? 0, 100_000)
      yield* test.start
      yield* pass("10 seconds")
      assert.deepInclude(seen.at(-1), { level: "ok", unseenMillis: 0 })
    }).pipe(Effect.provide(server))
  )

  it.effect("fails when there is no such slot, and with what no later look mends", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      const missing = yield* Effect.flip(Stream.runDrain(WalBudget.watch("other")))
      assert.strictEqual(missing._tag, "SlotNotFound")
      assert.strictEqual((yield* Effect.flip(Stream.runDrain(WalBudget.watch("No!"))))._tag, "InvalidOption")
      const refused = new AuthenticationFailed({ sqlState: "28P01", detail: "no" })
      yield* test.refuse(refused)
      assert.strictEqual(yield* Effect.flip(Stream.runDrain(WalBudget.watch("orders"))), refused)
    }).pipe(Effect.provide(server))
  )

  it.effect("keeps its connection where it looks often, and has none meanwhile where it does not", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      const often = yield* Effect.forkChild(Stream.runDrain(WalBudget.watch("orders", { interval: "2 seconds" })))
      yield* pass("2 seconds")
      yield* pass("2 seconds")
      assert.strictEqual(yield* test.attempts, 1)
      yield* Fiber.interrupt(often)
      yield* Effect.forkChild(Stream.runDrain(WalBudget.watch("orders", { interval: "1 minutes" })))
      yield* pass("1 minutes")
      yield* pass("1 minutes")
      assert.strictEqual(yield* test.attempts, 4)
    }).pipe(Effect.provide(server))
  )
})

describe("what is done by budgets", () => {
  const course = Stream.make(...(["ok", "warning", "critical", "warning", "ok", "lost"] as const)).pipe(
    Stream.map(budget)
  )

  it.effect("is done once as a level is reached, also by a worse one, and once as it is left", () =>
    Effect.gen(function* () {
      const did: Array<string> = []
      const act = {
        enter: ({ level }: WalBudget.WalBudget) => Effect.sync(() => did.push(`enter ${level}`)),
        leave: ({ level }: WalBudget.WalBudget) => Effect.sync(() => did.push(`leave ${level}`))
      }
      const passed = yield* course.pipe(WalBudget.onLevel("warning", act), Stream.runCollect)
      assert.lengthOf(passed, 6)
      assert.deepStrictEqual(did, ["enter warning", "leave ok", "enter lost"])
      did.length = 0
      yield* course.pipe(WalBudget.onLevel("critical", { enter: act.enter }), Stream.runDrain)
      assert.deepStrictEqual(did, ["enter critical", "enter lost"])
    })
  )

  it.effect("may be to fail, with what makes it so and what mends it", () =>
    Effect.gen(function* () {
      const passed: Array<string> = []
      const error = yield* course.pipe(
        WalBudget.failAt("critical"),
        Stream.runForEach(({ level }) => Effect.sync(() => passed.push(level))),
        Effect.flip
      )
      assert.deepStrictEqual(passed, ["ok", "warning"])
      assert.strictEqual(error._tag, "WalBudgetExceeded")
      assert.strictEqual(error.message, "slot orders keeps 1 kB of WAL")
      assert.include(error.remedy, "pg_drop_replication_slot('orders')")
      assert.isFalse(error.isRetryable)
    })
  )
})

describe("watching all slots", () => {
  it.effect("tells what keeps it from looking as well, and goes on in a new session", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      const seen: Array<string> = []
      yield* SlotOverview.watch({ interval: "1 second" }).pipe(
        Stream.runForEach((looked) =>
          Effect.sync(() =>
            seen.push(
              Result.match(looked, {
                onSuccess: ({ slots }) => slots.map(({ lagBytes, name }) => `${name} ${lagBytes}`).join(),
                onFailure: ({ _tag }) => _tag
              })
            )
          )
        ),
        Effect.forkChild
      )
      yield* pass("1 seconds")
      yield* test.crash
      yield* pass("1 seconds")
      yield* test.start
      yield* pass("1 seconds")
      assert.deepStrictEqual(seen, ["orders 0", "orders 0", "ConnectionError", "orders 0"])
    }).pipe(Effect.provide(server))
  )

  it.effect("knows by its own looks how long somebody is behind, and how fast they confirm", () =>
    Effect.gen(function* () {
      const test = yield* TestWalSender
      let last: SlotOverview.SlotStatus | undefined
      yield* SlotOverview.watch({ interval: "10 seconds" }).pipe(
        Stream.runForEach((looked) =>
          Effect.sync(() => {
            last = Result.getOrThrow(looked).slots[0]
          })
        ),
        Effect.forkChild
      )
      yield* pass("10 seconds")
      assert.deepInclude(last, { lagBytes: 0, lagMillis: 0, confirmedPerSecond: 0 })
      yield* test.write(order(1))
      yield* pass("30 seconds")
      assert.isAbove(last?.lagBytes ?? 0, 0)
      assert.deepInclude(last, { lagMillis: 30_000, lagIsLonger: false, activePid: undefined, walSender: undefined })
    }).pipe(Effect.provide(server))
  )
})
