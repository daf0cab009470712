/**
 * The routes of `Operations.layer`, and what they answer. Loaded by that once routes are made: a program that serves none need not
 * load what an HTTP server takes.
 */
import * as Effect from "effect/Effect"
import * as HttpMiddleware from "effect/http/HttpMiddleware"
import * as HttpRouter from "effect/http/HttpRouter"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import * as Schema from "effect/Schema"
import * as Doctor from "../doctor/Doctor.ts"
import * as Page from "./Page.ts"
import { script } from "./PageScript.ts"
import { events } from "./Picture.ts"
import { type Options, Readiness, readiness } from "./Readiness.ts"
import type { Watched } from "./Watched.ts"

/** Nothing is kept by who asks; a browser runs and loads our own script, style and events, frames nothing and sends nothing. */
const headers = {
  "cache-control": "no-store",
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
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

/** Another page in the browser of who may look is not to have a doctor look. */
const isOfAnotherPage = (request: HttpServerRequest.HttpServerRequest): boolean =>
  (request.headers["sec-fetch-site"] ?? "none") === "cross-site"

const encodeReport = Schema.encodeSync(Doctor.Report)

/** A doctor looks once for all who ask within some seconds. */
const doctorRoute = ({ doctor }: Watched, index: number) =>
  Layer.unwrap(
    Effect.map(Effect.cachedWithTTL(doctor ?? Effect.undefined, "5 seconds"), (look) =>
      HttpRouter.add("GET", `/doctor/${index}`, (request) =>
        isOfAnotherPage(request)
          ? Effect.succeed(HttpServerResponse.empty({ status: 403 }))
          : Effect.map(look, (report) =>
              report === undefined
                ? HttpServerResponse.empty({ status: 404 })
                : HttpServerResponse.jsonUnsafe(encodeReport(report))
            )
      )
    )
  )

const eventsRoute = ({ streams }: Options) =>
  Layer.unwrap(
    Effect.map(events(streams), (pictures) =>
      HttpRouter.add("GET", "/events", HttpServerResponse.stream(pictures, { contentType: "text/event-stream" }))
    )
  )

/** A page for whoever looks, without anything from elsewhere. */
const page = (options: Options) =>
  Layer.mergeAll(
    HttpRouter.add("GET", "/", HttpServerResponse.text(Page.html, { contentType: "text/html; charset=utf-8" })),
    HttpRouter.add("GET", "/page.css", HttpServerResponse.text(Page.css, { contentType: "text/css; charset=utf-8" })),
    HttpRouter.add(
      "GET",
      "/page.js",
      HttpServerResponse.text(script, { contentType: "text/javascript; charset=utf-8" })
    ),
    eventsRoute(options),
    ...options.streams.map(doctorRoute)
  )

/** All of them. */
export const routes = (options: Options): Layer.Layer<never, never, HttpRouter.HttpRouter> =>
  Layer.mergeAll(
    HttpRouter.add("GET", "/livez", HttpServerResponse.text("ok\n")),
    HttpRouter.add("GET", "/readyz", ready(options)),
    PrometheusMetrics.layerHttp({ path: "/metrics" }),
    page(options)
  ).pipe(Layer.provide(guarded))
