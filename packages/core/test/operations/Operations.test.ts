import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Latch from "effect/Latch"
import * as Metric from "effect/Metric"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as TestClock from "effect/testing/TestClock"
import { nextLsn } from "../../src/change/Change.ts"
import type * as Doctor from "../../src/doctor/Doctor.ts"
import type { State } from "../../src/lease/SlotLease.ts"
import * as Operations from "../../src/operations/Operations.ts"
import { events, Picture } from "../../src/operations/Picture.ts"
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
    Effect.fnUntraced(function* (path: string, method = "GET", headers: Record<string, string> = {}) {
      const request = HttpServerRequest.fromWeb(new Request(`http://localhost${path}`, { method, headers }))
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

  it.effect(
    "what the server keeps is told by /metrics and /readyz while the routes are served, by thresholds of one's own",
    () =>
      Effect.gen(function* () {
        const wal = yield* TestWalSender
        const stream = yield* make(options)
        const far = { timeLeft: 0 }
        const budget = { warning: { ...far, retainedBytes: 1 }, critical: { ...far, retainedBytes: 1000 }, calm: 0 }
        const watched = yield* Operations.examined(stream, {}, budget)
        const gate = yield* Latch.make(true)
        yield* stream.run((change) => gate.whenOpen(Effect.sync(() => nextLsn(change)))).pipe(Effect.forkChild)
        yield* Effect.scoped(
          Effect.gen(function* () {
            const ask = yield* asking([watched])
            yield* settle
            assert.deepInclude(readinessOf((yield* ask("/readyz")).text).streams[0], { status: "ok", reasons: [] })
            assert.match((yield* ask("/metrics")).text, /^replicant_wal_level\{slot="orders"\} 0$/m)
            yield* gate.close
            yield* wal.write(tx(insert(orders, { id: 1, name: "nobody's business" })))
            yield* pass(10)
            const kept = yield* ask("/readyz")
            assert.strictEqual(kept.status, 200)
            const [reason] = readinessOf(kept.text).streams[0]!.reasons
            assert.deepInclude(reason, { code: "WalBudget", status: "degraded" })
            assert.match(reason!.says, /^slot orders keeps .* of WAL/)
            const since = reason!.since
            for (let id = 2; id < 20; id++) yield* wal.write(tx(insert(orders, { id, name: "nobody's business" })))
            yield* pass(10)
            const critical = yield* ask("/readyz")
            assert.strictEqual(critical.status, 503)
            const [worst] = readinessOf(critical.text).streams[0]!.reasons
            assert.deepInclude(worst, { code: "WalBudget", status: "failing" })
            assert.isAbove(worst!.since, since)
            assert.match((yield* ask("/metrics")).text, /^replicant_wal_level\{slot="orders"\} 2$/m)
          })
        )
        yield* settle
        // Nobody looks any more: what was is not said of what is.
        assert.deepStrictEqual((yield* watched.health).reasons, [])
        assert.notMatch(JSON.stringify((yield* Metric.snapshot).map(({ id }) => id)), /replicant_wal_/)
        yield* Effect.scoped(
          Effect.gen(function* () {
            const ask = yield* asking([watched])
            yield* settle
            assert.strictEqual((yield* ask("/readyz")).status, 503)
            yield* gate.open
            yield* pass(20)
            assert.strictEqual((yield* ask("/readyz")).status, 200)
          })
        )
      }).pipe(Effect.provide(server), Effect.scoped, fresh)
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
        assert.match(headers.get("content-security-policy") ?? "", /^default-src 'none';.*frame-ancestors 'none'$/)
        assert.strictEqual(headers.get("x-content-type-options"), "nosniff")
        assert.isNull(headers.get("access-control-allow-origin"))
        for (const method of ["POST", "PUT", "DELETE"]) {
          assert.strictEqual((yield* Effect.flip(ask(path, method)))._tag, "HttpServerError")
        }
      }
    }).pipe(Effect.scoped, fresh)
  )

  it.effect("the page loads nothing but its own script and style, in which nothing is inline", () =>
    Effect.gen(function* () {
      const ask = yield* asking([yield* make(options)])
      const { headers, text } = yield* ask("/")
      assert.match(headers.get("content-security-policy") ?? "", /script-src 'self'; style-src 'self'/)
      const loaded = [...text.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, target = ""]) => target)
      assert.sameMembers(loaded, ["data:,", "/page.css", "/page.js", "/readyz", "/metrics"])
      assert.notMatch(text, /<style|<script(?! type="module" src=)| style=| on\w+=/)
      assert.strictEqual((yield* ask("/page.js")).headers.get("content-type"), "text/javascript; charset=utf-8")
      const { text: script } = yield* ask("/page.js")
      assert.notMatch(
        script,
        /innerHTML|insertAdjacent|document\.write|\beval\b|https?:\/\/(?!www\.w3\.org\/2000\/svg)/
      )
    }).pipe(Effect.scoped, fresh)
  )

  it.effect("an event is a picture of all streams, with no row in it", () =>
    Effect.gen(function* () {
      const wal = yield* TestWalSender
      const stream = yield* make(options)
      yield* stream.run((change) => Effect.succeed(nextLsn(change))).pipe(Effect.forkChild)
      yield* settle
      yield* wal.write(tx(insert(orders, { id: 1, name: "nobody's business" })))
      yield* settle
      const [first] = yield* (yield* events([stream])).pipe(Stream.decodeText, Stream.take(1), Stream.runCollect)
      assert.match(first ?? "", /^data: \{.*\}\n\n$/)
      assert.notInclude(first, "business")
      const picture = Schema.decodeUnknownSync(Picture)(JSON.parse((first ?? "").slice("data: ".length)))
      assert.strictEqual(picture.status, "ok")
      assert.deepInclude(picture.streams[0], { slot: "orders", hasDoctor: false })
      assert.strictEqual(picture.streams[0]?.seen?.state, "Streaming")
    }).pipe(Effect.provide(server), Effect.scoped, fresh)
  )

  it.effect("a doctor looks once for all who ask at a time, and never for another site's page", () =>
    Effect.gen(function* () {
      let looks = 0
      const stream = yield* make(options)
      const doctor = Effect.sync((): Doctor.Report => {
        looks++
        return { server: null, checked: ["slot.lost"], findings: [] }
      })
      const ask = yield* asking([{ ...stream, doctor }, stream])
      assert.strictEqual((yield* ask("/doctor/0", "GET", { "sec-fetch-site": "cross-site" })).status, 403)
      assert.strictEqual(looks, 0)
      const found = yield* ask("/doctor/0", "GET", { "sec-fetch-site": "same-origin" })
      assert.deepStrictEqual(JSON.parse(found.text), { server: null, checked: ["slot.lost"], findings: [] })
      yield* ask("/doctor/0")
      assert.strictEqual(looks, 1)
      yield* pass(6)
      yield* ask("/doctor/0")
      assert.strictEqual(looks, 2)
      assert.strictEqual((yield* ask("/doctor/1")).status, 404)
    }).pipe(Effect.scoped, fresh)
  )
})
