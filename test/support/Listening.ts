/** Where streams are asked how they are: the routes of `Operations` on a port that is free, and what a command says of its own. */
import { createServer } from "node:http"
import { NodeHttpServer } from "@effect/platform-node"
import { Operations } from "@replicant/core/operations"
import { Effect, Layer } from "effect"
import { HttpRouter } from "effect/http"
import { eventually } from "./eventually.ts"
import type { Replicant } from "./Replicant.ts"

/** Serves what the page tells a program to serve, until the scope ends; gives its URL. */
export const served = Effect.fnUntraced(function* (...streams: Operations.Options["streams"]) {
  const server = createServer()
  const options = { host: "127.0.0.1", port: 0, gracefulShutdownTimeout: "10 millis" } as const
  yield* Layer.build(
    HttpRouter.serve(Operations.layer({ streams }), { disableListenLog: true }).pipe(
      Layer.provide(NodeHttpServer.layer(() => server, options))
    )
  )
  const address = server.address()
  return `http://127.0.0.1:${address !== null && typeof address === "object" ? address.port : 0}`
})

/** Where a command says that it listens. */
export const listensOn = (running: Replicant) =>
  eventually(
    Effect.sync(() => /^note: listening on (http:\S+)$/m.exec(running.stderr())?.[1]),
    { what: "it listens" }
  )
