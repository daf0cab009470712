/** What is observed of a stream, and its health, in each state that it can be in: by the clock, against a server in memory. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Metric from "effect/Metric"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import { type Change, nextLsn } from "../../src/change/Change.ts"
import * as Lsn from "../../src/Lsn.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import * as BackendMessage from "../../src/protocol/BackendMessage.ts"
import { ConnectionError } from "../../src/ReplicationError.ts"
import * as Metrics from "../../src/replication/Metrics.ts"
import type { Health } from "../../src/stream/Health.ts"
import { make, type Options } from "../../src/stream/LogicalStream.ts"
import { Observation } from "../../src/stream/Observation.ts"
import * as Table from "../../src/stream/Table.ts"
import { insert, type TestEntry, TestWalSender, tx, unpublished } from "../../src/testing/index.ts"
import * as Fake from "../support/FakeWalSender.ts"

const Orders = Table.make("public.orders", Schema.Struct({ id: Schema.Number, note: Schema.NullOr(Schema.String) }), {
  key: ["id"]
})
const options = { slot: "orders", plugin: Pgoutput.make({ publications: ["orders"] }) } satisfies Options
const order = (id: number): TestEntry => tx(insert(Orders, { id, note: null }))
const server = TestWalSender.layer({ slot: "orders", publications: ["orders"] })

const settle = Effect.andThen(
  TestClock.adjust(0),
  Effect.forEach(Array.from({ length: 200 }), () => Effect.yieldNow)
)

const pass = (seconds: number) => Effect.andThen(TestClock.adjust(`${seconds} seconds`), settle)

/** A stream under way, whose handler waits while the gate is closed. */
const following = Effect.fnUntraced(function* (more: Partial<Options> = {}) {
  const gate = yield* Latch.make(true)
  const stream = yield* make({ ...options, ...more } as typeof options & Options)
  const fiber = yield* stream
    .run((change: Change) => gate.whenOpen(Effect.sync(() => nextLsn(change))))
    .pipe(Effect.forkChild)
  yield* settle
  return { gate, stream, fiber }
})

const codes = ({ reasons, status }: Health) => [status, ...reasons.map(({ code }) => code)]

/** What an exporter would send of one metric of this slot; `undefined` where it is absent. */
const exported = (id: string, labels: Readonly<Record<string, string>> = {}) =>
  Effect.map(
    Metric.snapshot,
    (all) =>
      all.find(
        (metric) =>
          metric.id === id &&
          metric.attributes?.slot === "orders" &&
          Object.entries(labels).every(([key, value]) => metric.attributes?.[key] === value)
      )?.state
  )
const valueOf = (id: string, labels?: Readonly<Record<string, string>>) =>
  Effect.map(exported(id, labels), (state) => (state as Metric.GaugeState<number | bigint> | undefined)?.value)

const fresh = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, Metric.MetricRegistry, new Map() as Metric.MetricRegistry)

describe("what is observed of a stream", () => {
  it.effect("tells of a handler that is stuck how long it is, how much is behind it, and never that all is well", () =>
    Effect.gen(function* () {
      const wal = yield* TestWalSender
      const { gate, stream } = yield* following()
      yield* wal.write(order(1))
      yield* pass(2)
      assert.deepStrictEqual(codes(yield* stream.health), ["ok"])
      yield* gate.close
      yield* wal.write(order(2))
      yield* settle
      const rows = yield* wal.write(...Array.from({ length: 1000 }, (_, index) => order(index + 3)))
      yield* pass(29)
      assert.deepStrictEqual(codes(yield* stream.health), ["ok"])
      yield* pass(6)
      const seen = yield* stream.observe
      const confirmed = yield* wal.confirmedFlushLsn
      const end = rows.at(-1)!.endLsn
      assert.strictEqual(seen.state, "Streaming")
      assert.strictEqual(seen.confirmed, confirmed)
      assert.strictEqual(seen.server, end)
      assert.strictEqual(seen.lagBytes, Number(end - confirmed))
      assert.strictEqual(seen.lagSeconds, 35)
      assert.strictEqual(seen.oldestUnacknowledgedSeconds, 35)
      assert.strictEqual(seen.handlingSeconds, 35)
      assert.isAtLeast(seen.pending, 1)
      const health = yield* stream.health
      assert.deepStrictEqual(codes(health), ["degraded", "HandlerStuck"])
      assert.strictEqual(health.since, seen.at - 35_000)
      yield* pass(90)
      assert.deepStrictEqual(codes(yield* stream.health), ["failing", "HandlerStuck", "Behind"])
      yield* gate.open
      yield* pass(3)
      yield* pass(1)
      const after = yield* stream.observe
      assert.strictEqual(after.lagBytes, 0)
      assert.strictEqual(after.lagSeconds, 0)
      assert.strictEqual(after.handled, end)
      assert.deepStrictEqual(codes(yield* stream.health), ["ok"])
    }).pipe(Effect.provide(server), fresh)
  )

  it.effect("is of a quiet stream that nothing is behind, before its first report and an hour after its last", () =>
    Effect.gen(function* () {
      const wal = yield* TestWalSender
      yield* wal.write(unpublished(100_000))
      const { stream } = yield* following()
      const first = yield* stream.observe
      // Not all of the WAL: from what the slot stands at.
      assert.isBelow(first.lagBytes!, 200_000)
      yield* wal.write(order(1))
      yield* pass(2)
      assert.deepInclude(yield* stream.observe, { lagBytes: 0, lagSeconds: 0, pending: 0, serverUnknownSeconds: 0 })
      yield* pass(3600)
      const seen = yield* stream.observe
      assert.deepInclude(seen, { lagBytes: 0, lagSeconds: 0, pending: 0, confirmed: yield* wal.confirmedFlushLsn })
      assert.isAtLeast(seen.sinceHandledSeconds!, 3600)
      const health = yield* stream.health
      assert.strictEqual(health.status, "ok")
      assert.isBelow(health.since, seen.at - 3600_000)
    }).pipe(Effect.provide(server), fresh)
  )

  it.effect("knows of a lost server since when it knows nothing, and recovers", () =>
    Effect.gen(function* () {
      const wal = yield* TestWalSender
      const { stream } = yield* following()
      yield* wal.write(order(1))
      yield* pass(2)
      yield* wal.crash
      yield* settle
      assert.strictEqual((yield* stream.health).status, "degraded")
      for (const seconds of [1, 20, 39]) {
        yield* pass(seconds)
        const health = yield* stream.health
        assert.notStrictEqual(health.status, "ok")
        assert.strictEqual(health.reasons[0]?.code, "NotStreaming")
        assert.match(health.reasons[0]?.says ?? "", /ConnectionError/)
      }
      const lost = yield* stream.observe
      assert.isUndefined(lost.lagBytes)
      assert.isUndefined(lost.server)
      assert.isAtLeast(lost.lagSeconds, 60)
      assert.isAtLeast(lost.serverUnknownSeconds, 60)
      assert.isAtLeast(lost.attempts, 3)
      assert.strictEqual(lost.lastFailure?.tag, "ConnectionError")
      assert.strictEqual((yield* stream.health).status, "failing")
      yield* wal.start
      yield* pass(12)
      yield* wal.write(order(2))
      yield* pass(3)
      assert.deepInclude(yield* stream.observe, { state: "Streaming", lagBytes: 0, lagSeconds: 0, attempts: 0 })
      assert.deepStrictEqual(codes(yield* stream.health), ["ok"])
    }).pipe(Effect.provide(server), fresh)
  )

  it.effect("tells of a failure its cure, where that is known", () =>
    Effect.gen(function* () {
      const stream = yield* make({ ...options, plugin: Pgoutput.make({ publications: ["nobodys"] }) })
      const failure = yield* Effect.flip(stream.run((change) => Effect.succeed(nextLsn(change))))
      const { lastFailure } = yield* stream.observe
      assert.strictEqual(lastFailure?.tag, failure._tag)
      assert.include(lastFailure?.remedy, "CREATE PUBLICATION")
    }).pipe(Effect.provide(server), fresh)
  )

  it.effect("knows that the connection is lost whose changes a stuck handler is still at", () =>
    Effect.gen(function* () {
      const wal = yield* TestWalSender
      const { gate, stream } = yield* following()
      yield* gate.close
      yield* wal.write(order(1))
      yield* settle
      yield* wal.drop
      yield* pass(5)
      const seen = yield* stream.observe
      assert.strictEqual(seen.state, "Streaming")
      assert.strictEqual(seen.lostSeconds, 5)
      assert.deepStrictEqual(codes(yield* stream.health), ["degraded", "ConnectionLost"])
      yield* gate.open
      yield* pass(3)
      assert.deepStrictEqual(codes(yield* stream.health), ["ok"])
    }).pipe(Effect.provide(server), fresh)
  )

  it.effect("is failing once it has stopped, and of a program's own failure tells nothing but that", () =>
    Effect.gen(function* () {
      const wal = yield* TestWalSender
      const stream = yield* make(options)
      assert.deepStrictEqual(codes(yield* stream.health), ["degraded", "NotRun"])
      const fiber = yield* Effect.forkChild(Effect.exit(stream.run(() => Effect.fail("a secret of a row" as const))))
      yield* settle
      yield* wal.write(order(1))
      yield* Fiber.join(fiber)
      const health = yield* stream.health
      assert.deepStrictEqual(codes(health), ["failing", "Stopped"])
      assert.notInclude(JSON.stringify(health), "secret")
      assert.strictEqual(yield* valueOf("replicant_health"), 2)
      assert.strictEqual(yield* valueOf("replicant_state", { state: "Stopped" }), 1)
      assert.isUndefined(yield* exported("replicant_lag_bytes"))
    }).pipe(Effect.provide(server), fresh)
  )

  it.effect("is of thresholds that can be set, each by itself", () =>
    Effect.gen(function* () {
      const wal = yield* TestWalSender
      const { gate, stream } = yield* following({ health: { handlerStuck: { degraded: 2, failing: 4 } } })
      yield* gate.close
      yield* wal.write(order(1))
      yield* settle
      for (const [seconds, status] of [
        [1, "ok"],
        [1, "degraded"],
        [2, "failing"]
      ] as const) {
        yield* pass(seconds)
        assert.strictEqual((yield* stream.health).status, status)
      }
      yield* gate.open
    }).pipe(Effect.provide(server), fresh)
  )

  it.effect("goes through JSON and back", () =>
    Effect.gen(function* () {
      const { stream } = yield* following()
      const seen = yield* stream.observe
      const json = JSON.stringify(yield* Schema.encodeEffect(Observation)(seen))
      assert.include(json, `"received":"${Lsn.format(seen.received)}"`)
      assert.deepStrictEqual(yield* Schema.decodeUnknownEffect(Observation)(JSON.parse(json)), seen)
    }).pipe(Effect.provide(server), fresh)
  )

  it.effect("asks the server while somebody looks, and nobody else", () =>
    Effect.gen(function* () {
      const wal = yield* TestWalSender
      const { gate, stream } = yield* following()
      yield* gate.close
      yield* wal.write(order(1))
      yield* pass(600)
      assert.strictEqual(yield* wal.attempts, 1)
      yield* stream.health
      yield* pass(20)
      const asked = yield* wal.attempts
      assert.isAtLeast(asked, 3)
      assert.isAtMost(asked, 6)
      yield* pass(600)
      const last = yield* wal.attempts
      yield* pass(600)
      assert.strictEqual(yield* wal.attempts, last)
      yield* gate.open
    }).pipe(Effect.provide(server), fresh)
  )

  it.effect("is degraded at once while the server holds the stream back", () =>
    Effect.gen(function* () {
      const held = { failover: "t", wait_event: "WaitForStandbyConfirmation", standbys: "standby" }
      const fake = yield* Fake.make(() => ({ hold: held, standbys: [] }))
      const stream = yield* make(options)
      yield* stream.run(() => Effect.succeed(undefined)).pipe(Effect.provide(fake.layer), Effect.forkChild)
      const walSender = yield* fake.accept
      yield* walSender.say(
        Fake.relation(),
        Fake.transaction("0/100", "0/130", 1),
        BackendMessage.noticeResponse({ severity: "WARNING", sqlState: "55000", message: "it waits" })
      )
      yield* pass(1)
      assert.deepStrictEqual(codes(yield* stream.health), ["degraded", "Stalled"])
      assert.strictEqual(yield* valueOf("replicant_stalled"), 1)
      assert.match((yield* stream.observe).stall!.reason, /synchronized_standby_slots/)
    }).pipe(fresh)
  )

  it.effect("is silent where the server is, though it is pinged, and not ok for longer than its threshold", () =>
    Effect.gen(function* () {
      const fake = yield* Fake.make(() => ({ isDeaf: true, standing: { wait_event_type: "IO" } }))
      const stream = yield* make(options)
      yield* stream.run(() => Effect.succeed(undefined)).pipe(Effect.provide(fake.layer), Effect.forkChild)
      const walSender = yield* fake.accept
      yield* walSender.say(Fake.keepAlive("0/1000"))
      yield* pass(29)
      assert.strictEqual((yield* stream.health).status, "ok")
      yield* pass(2)
      const health = yield* stream.health
      assert.deepStrictEqual(codes(health), ["degraded", "Silent"])
      yield* pass(120)
      assert.strictEqual((yield* stream.health).status, "failing")
      assert.isAtLeast((yield* stream.observe).lagSeconds, 120)
    }).pipe(fresh)
  )
})

describe("the metrics of a stream", () => {
  it.effect("are computed when they are read, and absent where they cannot be known", () =>
    Effect.gen(function* () {
      const wal = yield* TestWalSender
      const { gate, stream } = yield* following()
      yield* wal.write(order(1))
      yield* pass(2)
      assert.strictEqual(yield* valueOf("replicant_lag_seconds"), 0)
      yield* gate.close
      yield* wal.write(order(2))
      yield* pass(10)
      assert.strictEqual(yield* valueOf("replicant_lag_seconds"), 10)
      assert.strictEqual(yield* valueOf("replicant_handling_seconds"), 10)
      assert.strictEqual(yield* valueOf("replicant_lag_bytes"), (yield* stream.observe).lagBytes)
      yield* gate.open
      yield* wal.crash
      yield* pass(30)
      assert.isUndefined(yield* exported("replicant_lag_bytes"))
      assert.isUndefined(yield* exported("replicant_server_lsn"))
      assert.isAtLeast(Number(yield* valueOf("replicant_server_unknown_seconds")), 15)
      assert.strictEqual(yield* valueOf("replicant_state", { state: "Reconnecting" }), 1)
      assert.strictEqual(yield* valueOf("replicant_state", { state: "Streaming" }), 0)
      const retries = yield* exported("replicant_retries_total", { cause: "ConnectionError" })
      assert.isAtLeast((retries as Metric.CounterState<number>).count, 3)
    }).pipe(Effect.provide(server), fresh)
  )

  it.effect("have a histogram of the time from commit to acknowledgement, of each unit, and one of the handler's", () =>
    Effect.gen(function* () {
      const wal = yield* TestWalSender
      const { gate } = yield* following()
      yield* gate.close
      yield* wal.write(order(1), order(2), order(3))
      yield* pass(20)
      yield* gate.open
      yield* pass(2)
      const acknowledged = (yield* exported(Metrics.commitToAcknowledged.id)) as Metric.HistogramState
      assert.strictEqual(acknowledged.count, 3)
      assert.strictEqual(acknowledged.sum, 60)
      assert.deepStrictEqual(
        acknowledged.buckets.filter(([bound]) => bound === 10 || bound === 30),
        [
          [10, 0],
          [30, 3]
        ]
      )
      assert.strictEqual(((yield* exported(Metrics.handlerSeconds.id)) as Metric.HistogramState).max, 20)
    }).pipe(Effect.provide(server), fresh)
  )

  it.effect("are those of the table, all of them, and bear its units", () =>
    Effect.gen(function* () {
      const wal = yield* TestWalSender
      yield* following()
      yield* wal.write(order(1))
      yield* pass(2)
      for (const { attributes, id, type } of yield* Metric.snapshot) {
        if (!id.startsWith("replicant_")) continue
        const declared = Metrics.table.get(id)
        assert.strictEqual(declared?.kind, type, id)
        assert.strictEqual(attributes?.unit ?? "lsn", declared?.unit, id)
        assert.deepStrictEqual(
          Object.keys(attributes ?? {}).filter((label) => label !== "slot" && label !== "unit"),
          declared?.label === undefined ? [] : [declared.label],
          id
        )
      }
    }).pipe(Effect.provide(server), fresh)
  )

  it.effect("are of each stream its own, of any number in a program", () =>
    Effect.gen(function* () {
      const fakes = [
        yield* Fake.make(),
        yield* Fake.make(() => new ConnectionError({ reason: "Refused", detail: "no" }))
      ]
      const streams = [yield* make({ ...options, slot: "orders" }), yield* make({ ...options, slot: "returns" })]
      for (const [index, stream] of streams.entries()) {
        yield* stream.run(() => Effect.succeed(undefined)).pipe(Effect.provide(fakes[index]!.layer), Effect.forkChild)
      }
      yield* Effect.flatMap(fakes[0]!.accept, ({ say }) => say(Fake.keepAlive("0/1000")))
      yield* pass(100)
      const all = (yield* Metric.snapshot).filter(({ id }) => id === "replicant_health")
      assert.deepStrictEqual(
        all.map(({ attributes, state }) => [attributes?.slot, (state as Metric.GaugeState<number>).value]),
        [
          ["orders", 0],
          ["returns", 2]
        ]
      )
    }).pipe(fresh)
  )
})
