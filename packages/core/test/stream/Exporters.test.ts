/** What leaves the process: the metrics of a stream by Effect's own exporters, and by that of `@effect/opentelemetry`. */
import * as OtelMetrics from "@effect/opentelemetry/OtelMetrics"
import * as Resource from "@effect/opentelemetry/Resource"
import { assert, describe, it } from "@effect/vitest"
import { DataPointType } from "@opentelemetry/sdk-metrics"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as OtlpMetrics from "effect/observability/OtlpMetrics"
import * as OtlpSerialization from "effect/observability/OtlpSerialization"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import * as TestClock from "effect/testing/TestClock"
import { nextLsn } from "../../src/change/Change.ts"
import * as Pgoutput from "../../src/pgoutput/Pgoutput.ts"
import { make } from "../../src/stream/LogicalStream.ts"
import { insert, relation, TestWalSender, tx } from "../../src/testing/index.ts"

const orders = relation("public.orders", { columns: { id: "int" }, key: ["id"] })
const options = { slot: "orders", plugin: Pgoutput.make({ publications: ["orders"] }) }
const server = TestWalSender.layer({ slot: "orders", publications: ["orders"] })

const settle = Effect.andThen(
  TestClock.adjust(0),
  Effect.forEach(Array.from({ length: 100 }), () => Effect.yieldNow)
)
const pass = (seconds: number) => Effect.andThen(TestClock.adjust(`${seconds} seconds`), settle)

/** A stream whose handler is stuck for as long as the exporter is looked at; then its server is lost. */
const exported = <A, E, R>(read: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const wal = yield* TestWalSender
    const gate = yield* Latch.make(false)
    const stream = yield* make(options)
    yield* stream
      .run((change) => gate.whenOpen(Effect.sync(() => nextLsn(change))))
      .pipe(Effect.provideService(Metric.CurrentMetricAttributes, { service: "shop" }), Effect.forkChild)
    yield* settle
    yield* wal.write(tx(insert(orders, { id: 1 })))
    // A first look, so that the server is asked.
    yield* stream.observe
    yield* pass(7)
    const stuck = yield* read
    const { lagBytes } = yield* stream.observe
    yield* gate.open
    yield* pass(2)
    const acknowledged = yield* read
    yield* wal.crash
    yield* pass(3)
    return { acknowledged, lagBytes, lost: yield* read, stuck }
  }).pipe(Effect.provide(server))

const fresh = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, Metric.MetricRegistry, new Map() as Metric.MetricRegistry)

describe("the metrics of a stream, exported", () => {
  it.effect(
    "by Effect's Prometheus exporter, are of the moment of the scrape, and absent while they are not known",
    () =>
      Effect.gen(function* () {
        const { acknowledged, lagBytes, lost, stuck } = yield* exported(PrometheusMetrics.format())
        const labels = '{service="shop",slot="orders"}'
        assert.include(stuck, `# TYPE replicant_lag_seconds gauge\nreplicant_lag_seconds${labels} 7\n`)
        assert.include(stuck, `replicant_handling_seconds${labels} 7\n`)
        assert.include(stuck, `replicant_lag_bytes${labels} ${lagBytes}\n`)
        assert.include(stuck, 'replicant_state{service="shop",slot="orders",state="Streaming"} 1\n')
        assert.match(acknowledged, /replicant_commit_to_acknowledged_seconds_bucket\{.*le="10"\} 1\n/)
        assert.match(acknowledged, /replicant_commit_to_acknowledged_seconds_sum\{.*\} 7\n/)
        assert.include(lost, `replicant_health${labels} 1\n`)
        assert.notInclude(lost, "replicant_lag_bytes")
        assert.notInclude(lost, "NaN")
      }).pipe(fresh)
  )

  it.effect("by Effect's OTLP exporter, bear the units that a collector knows, and no null", () =>
    Effect.gen(function* () {
      let body = ""
      const client = HttpClient.make((request) => {
        if (request.body._tag === "Uint8Array") body = new TextDecoder().decode(request.body.body)
        return Effect.succeed(HttpClientResponse.fromWeb(request, new Response("{}")))
      })
      const exporter = OtlpMetrics.layer({
        url: "http://127.0.0.1:4318/v1/metrics",
        resource: { serviceName: "shop" },
        exportInterval: "1 second"
      }).pipe(Layer.provide([OtlpSerialization.layerJson, Layer.succeed(HttpClient.HttpClient, client)]))
      yield* Effect.gen(function* () {
        const { lagBytes, lost, stuck } = yield* exported(
          Effect.andThen(
            pass(2),
            Effect.sync(() => body)
          )
        )
        const metrics = (text: string) => {
          const all = JSON.parse(text).resourceMetrics[0].scopeMetrics[0].metrics as ReadonlyArray<{
            readonly name: string
            readonly unit: string
            readonly gauge?: { readonly dataPoints: ReadonlyArray<{ readonly asDouble: number }> }
          }>
          return new Map(all.map((metric) => [metric.name, metric]))
        }
        const lag = metrics(stuck).get("replicant_lag_bytes")
        assert.strictEqual(lag?.unit, "By")
        assert.strictEqual(lag?.gauge?.dataPoints[0]?.asDouble, lagBytes)
        assert.strictEqual(metrics(stuck).get("replicant_lag_seconds")?.unit, "s")
        assert.isFalse(metrics(lost).has("replicant_lag_bytes"))
        assert.notInclude(lost, ":null")
      }).pipe(Effect.provide(exporter))
    }).pipe(fresh)
  )

  it.effect("by @effect/opentelemetry, are what an SDK's reader collects", () =>
    Effect.gen(function* () {
      const producer = yield* OtelMetrics.makeProducer()
      const collect = Effect.promise(() => producer.collect())
      const { lagBytes, lost, stuck } = yield* exported(collect)
      const found = ({ resourceMetrics }: Awaited<ReturnType<typeof producer.collect>>, name: string) =>
        resourceMetrics.scopeMetrics
          .flatMap(({ metrics }) => metrics)
          .find(({ descriptor }) => descriptor.name === name)
      const lag = found(stuck, "replicant_lag_bytes")
      assert.strictEqual(lag?.descriptor.unit, "By")
      assert.strictEqual(lag?.dataPointType, DataPointType.GAUGE)
      assert.deepInclude(lag?.dataPoints[0]?.attributes, { slot: "orders", service: "shop" })
      assert.strictEqual(lag?.dataPoints[0]?.value, lagBytes)
      assert.strictEqual(found(stuck, "replicant_lag_seconds")?.dataPoints[0]?.value, 7)
      assert.isUndefined(found(lost, "replicant_lag_bytes"))
      assert.strictEqual(found(lost, "replicant_health")?.dataPoints[0]?.value, 1)
    }).pipe(Effect.provide(Resource.layer({ serviceName: "shop" })), fresh)
  )
})
