/**
 * The public module `Operations`: what a program's streams tell whoever keeps it running, as routes of Effect's `HttpRouter`.
 * The HTTP server is the program's own, and so are its address and who may reach it. Docs: docs/watching.md.
 *
 * Every route reads, and no probe waits for a database: it is answered at once, whatever the streams are waiting for.
 */
import * as Effect from "effect/Effect"
import type * as HttpRouter from "effect/http/HttpRouter"
import * as Layer from "effect/Layer"
import type { Options } from "./Readiness.ts"

export { type Options, Readiness, readiness } from "./Readiness.ts"
export { examined, leased, type Watched } from "./Watched.ts"

/**
 * Routes for whoever keeps the program running:
 *
 * - `GET /`: a page that shows each stream as it is now; of one that is {@link examined} also what its server keeps, and a doctor's
 *   findings.
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
  Layer.unwrap(
    Effect.map(
      Effect.promise(() => import("./Routes.ts")),
      ({ routes }) => routes(options)
    )
  )
