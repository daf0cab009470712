import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Latch from "effect/Latch"
import * as Metric from "effect/Metric"
import * as Schema from "effect/Schema"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as TestClock from "effect/testing/TestClock"
import { nextLsn } from "../../src/change/Change.ts"
import type { State } from "../../src/lease/SlotLease.ts"
import * as Operations from "../../src/operations/Operations.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import * as Metrics from "../../src/replication/Metrics.ts"
import { make } from "../../src/stream/LogicalStream.ts"
import { insert, relation, TestWalSender, tx } from "../../src/testing/index.ts"

const orders = relation("public.orders", { columns: { id: "int", name: "text" }, key: ["id"] })
const options = { slot: "orders", plugin: Pgoutput.make({ publications: ["orders"] }) }
const server = TestWalSender.layer({ slot: "orders", publications: ["orders"] })

const settle = Effect.andThen(
  TestClock.adjust(0),
  Effect.forEach(Array.from({ length: 100 }), () => Effect.yieldNow)
)
const pass = (seconds: number) => Effect.andThen(TestClock.adjust(`${seconds} seconds`), settle)

/** What is answered by the routes alone, without a server. */
const asking = (streams: Operations.Options["streams"]) =>
  Effect.map(HttpRouter.toHttpEffect(Operations.layer({ streams })), (app) =>
    Effect.fnUntraced(function* (path: string, method = "GET") {
      const request = HttpServerRequest.fromWeb(new Request(`http://localhost${path}`, { method }))
      const response = yield* Effect.provideService(app, HttpServerRequest.HttpServerRequest, request)
      const web = HttpServerResponse.toWeb(response)
      return { status: web.status, headers: web.headers, text: yield* Effect.promise(() => web.text()) }
    })
  )

const readinessOf = (text: string) => Schema.decodeUnknownSync(Operations.Readiness)(JSON.parse(text))

const fresh = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, Metric.MetricRegistry, new Map() as Metric.MetricRegistry)

describe("Operations", () => {
  it.effect("a stuck handler is ready no longer than its threshold, and again when it has ended", () =>
    Effect.gen(function* () {
      const wal = yield* TestWalSender
      const gate = yield* Latch.make(false)
      const stream = yield* make(options)
      const ask = yield* asking([stream])
      yield* stream.run((change) => gate.whenOpen(Effect.sync(() => nextLsn(change)))).pipe(Effect.forkChild)
      yield* settle
      assert.deepInclude(yield* ask("/readyz"), { status: 200 })
      yield* wal.write(tx(insert(orders, { id: 1, name: "nobody's business" })))
      yield* pass(29)
      const before = yield* ask("/readyz")
      assert.strictEqual(before.status, 200)
      assert.strictEqual(readinessOf(before.text).status, "ok")
      yield* pass(1)
      const degraded = yield* ask("/readyz")
      assert.strictEqual(degraded.status, 200)
      assert.strictEqual(readinessOf(degraded.text).status, "degraded")
      yield* pass(90)
      const failing = yield* ask("/readyz")
      assert.strictEqual(failing.status, 503)
      const { status, streams } = readinessOf(failing.text)
      assert.strictEqual(status, "failing")
      assert.deepInclude(streams[0], { slot: "orders", status: "failing" })
      assert.strictEqual(streams[0]?.reasons[0]?.code, "HandlerStuck")
      assert.notInclude(failing.text, "business")
      assert.strictEqual((yield* ask("/livez")).status, 200)
      yield* gate.open
      yield* settle
      assert.strictEqual(readinessOf((yield* ask("/readyz")).text).status, "ok")
    }).pipe(Effect.provide(server), Effect.scoped, fresh)
  )

  it.effect("the worst of several streams decides, and all are told", () =>
    Effect.gen(function* () {
      const idle = yield* make({ ...options, slot: "idle" })
      const running = yield* make(options)
      const ask = yield* asking([running, idle])
      yield* running.run((change) => Effect.succeed(nextLsn(change))).pipe(Effect.forkChild)
      yield* pass(60)
      const { status, text } = yield* ask("/readyz")
      assert.strictEqual(status, 503)
      assert.deepStrictEqual(
        readinessOf(text).streams.map(({ slot, status }) => [slot, status]),
        [
          ["orders", "ok"],
          ["idle", "failing"]
        ]
      )
    }).pipe(Effect.provide(server), Effect.scoped, fresh)
  )

  it.effect("who stands by for a lease is ready; who has it is as its stream is", () =>
    Effect.gen(function* () {
      const stream = yield* make(options)
      const state = yield* SubscriptionRef.make<State>({ _tag: "Waiting", owner: undefined })
      const ask = yield* asking([Operations.leased(stream, { state })])
      yield* pass(60)
      const standing = yield* ask("/readyz")
      assert.strictEqual(standing.status, 200)
      assert.deepStrictEqual(readinessOf(standing.text).streams[0]?.reasons, [])
      yield* SubscriptionRef.set(state, { _tag: "Held", pid: 1 })
      assert.strictEqual((yield* ask("/readyz")).status, 503)
    }).pipe(Effect.scoped, fresh)
  )

  it.effect("/metrics has every metric that is never absent, under its declared name", () =>
    Effect.gen(function* () {
      const wal = yield* TestWalSender
      const stream = yield* make(options)
      const ask = yield* asking([stream])
      yield* stream.run((change) => Effect.succeed(nextLsn(change))).pipe(Effect.forkChild)
      yield* settle
      yield* wal.write(tx(insert(orders, { id: 1, name: "nobody's business" })))
      yield* pass(2)
      const { headers, text } = yield* ask("/metrics")
      assert.strictEqual(headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8")
      const there = new Set([...text.matchAll(/^# TYPE (\w+) /gm)].map(([, name]) => name))
      for (const [name, { kind, mayBeAbsent }] of Metrics.table) {
        if (kind !== "Counter" && !mayBeAbsent && name !== "replicant_lease_held") assert.isTrue(there.has(name), name)
      }
      assert.isTrue(there.has("replicant_changes_total"))
      for (const name of there) assert.isTrue(Metrics.table.has(name ?? ""), name)
      assert.notInclude(text, "business")
    }).pipe(Effect.provide(server), Effect.scoped, fresh)
  )

  it.effect("nothing is kept by who asks, a browser may do nothing with it, and nothing but GET is taken", () =>
    Effect.gen(function* () {
      const ask = yield* asking([yield* make(options)])
      for (const path of ["/livez", "/readyz", "/metrics"]) {
        const { headers } = yield* ask(path)
        assert.strictEqual(headers.get("cache-control"), "no-store")
        assert.match(headers.get("content-security-policy") ?? "", /^default-src 'none';.*frame-ancestors 'none'/)
        assert.strictEqual(headers.get("x-content-type-options"), "nosniff")
        assert.isNull(headers.get("access-control-allow-origin"))
        for (const method of ["POST", "PUT", "DELETE"]) {
          assert.strictEqual((yield* Effect.flip(ask(path, method)))._tag, "HttpServerError")
        }
      }
    }).pipe(Effect.scoped, fresh)
  )
})
