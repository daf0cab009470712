/**
 * The public module `Operations`: what a program's streams tell whoever keeps it running, as routes of Effect's `HttpRouter`.
 * The HTTP server is the program's own, and so are its address and who may reach it. Docs: docs/watching.md.
 *
 * Every route reads, and none waits for a database: a probe is answered at once, whatever the streams are waiting for.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import * as HttpMiddleware from "effect/http/HttpMiddleware"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import * as Schema from "effect/Schema"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { SlotLease } from "../lease/SlotLease.ts"
import * as Health from "../stream/Health.ts"

/** What is asked how it is: a `LogicalStream`, or whatever else has a slot and a health, as a `Copy` of `@replicant/node`. */
export interface Watched {
  readonly options: { readonly slot: string }
  readonly health: Effect.Effect<Health.Health>
}

/** What `/readyz` says. */
export const Readiness = Schema.Struct({
  /** The worst of all streams'. */
  status: Health.Status,
  streams: Schema.Array(Schema.Struct({ slot: Schema.String, ...Health.Health.fields }))
})
export interface Readiness extends Schema.Schema.Type<typeof Readiness> {}

/** The streams that `/readyz` is about: all of a program, one at least. */
export interface Options {
  readonly streams: NonEmptyReadonlyArray<Watched>
}

/** How all of them are, in the order in which they are given. Asks nobody. */
export const readiness = ({ streams }: Options): Effect.Effect<Readiness> =>
  Effect.map(
    Effect.forEach(streams, ({ health, options: { slot } }) => Effect.map(health, (told) => ({ slot, ...told }))),
    (all) => ({ status: Health.worst(all.map(({ status }) => status)), streams: all })
  )

/**
 * A stream that runs under a lease: well also while it waits for that, since standing by is what it is there for.
 *
 * @example
 * const lease = yield* SlotLease.make({ slot: "orders" })
 * const routes = Operations.layer({ streams: [Operations.leased(orders, lease)] })
 */
export const leased = (stream: Watched, lease: Pick<SlotLease, "state">): Watched => ({
  options: stream.options,
  health: Effect.gen(function* () {
    const health = yield* stream.health
    const { _tag } = yield* SubscriptionRef.get(lease.state)
    return _tag === "Waiting" ? { ...health, status: "ok", reasons: [] } : health
  })
})

/** Nothing is kept by who asks, and a browser that is led here runs, loads, frames and sends nothing. */
const headers = {
  "cache-control": "no-store",
  "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff"
}

/** Also out of the log of requests: a probe is one each few seconds. */
const guarded = HttpRouter.middleware((response) =>
  HttpMiddleware.withLoggerDisabled(Effect.map(response, HttpServerResponse.setHeaders(headers)))
).layer

const encode = Schema.encodeSync(Readiness)

/** A degraded stream does its work, if not well: no traffic and no process is to be taken from it. */
const ready = ({ streams }: Options) =>
  Effect.map(readiness({ streams }), (found) =>
    HttpServerResponse.jsonUnsafe(encode(found), { status: found.status === "failing" ? 503 : 200 })
  )

/**
 * Three routes, for whoever keeps the program running:
 *
 * - `GET /livez`: 200, while the process answers.
 * - `GET /readyz`: 503 while one of the streams is `failing`, else 200; with a {@link Readiness} as JSON.
 * - `GET /metrics`: all metrics of the process, for Prometheus.
 *
 * They tell names of slots and messages of servers, but no row, and change nothing; nobody is asked who he is. So serve them where
 * only those can reach them who may know: on 127.0.0.1, or a network of your own.
 *
 * @example
 * const orders = yield* LogicalStream.make({ slot: "orders", plugin })
 * const routes = Operations.layer({ streams: [orders] }) // for HttpRouter.serve
 */
export const layer = (options: Options): Layer.Layer<never, never, HttpRouter.HttpRouter> =>
  Layer.mergeAll(
    HttpRouter.add("GET", "/livez", HttpServerResponse.text("ok\n")),
    HttpRouter.add("GET", "/readyz", ready(options)),
    PrometheusMetrics.layerHttp({ path: "/metrics" })
  ).pipe(Layer.provide(guarded))
