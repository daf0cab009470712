/**
 * The HTTP server of `--listen`. By itself, and loaded when somebody listens: to load it takes longer than most commands take.
 */
import { createServer } from "node:http"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { Operations } from "@replicant/core/operations"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServer from "effect/http/HttpServer"
import type { ServeError } from "effect/http/HttpServerError"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"

/** Where to listen. */
export interface Address {
  readonly host: string
  /** 0 is any that is free. */
  readonly port: number
}

/** Serves until the scope ends, which no client can hold up; gives the port. */
export const serve = Effect.fnUntraced(function* (
  wanted: Address,
  stream: Operations.Watched
): Effect.fn.Return<number, ServeError, Scope.Scope> {
  const server = createServer()
  const routes = HttpRouter.serve(Operations.layer({ streams: [stream] }), {
    disableLogger: true,
    disableListenLog: true
  })
  const context = yield* Layer.build(
    Layer.provideMerge(
      routes,
      NodeHttpServer.layer(() => server, wanted)
    )
  )
  // Else a connection that has never asked anything would be waited for.
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      server.close()
      server.closeAllConnections()
    })
  )
  const { address } = yield* Effect.provide(HttpServer.HttpServer, context)
  return "port" in address ? address.port : wanted.port
})
