/**
 * `--listen [HOST:]PORT` of the commands that run a stream: `Operations.layer` over HTTP, for as long as the command lives. The
 * loopback unless a host is said, since nobody is asked who he is.
 */
import { createServer } from "node:http"
import { isIPv6 } from "node:net"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { Operations } from "@replicant/core/operations"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServer from "effect/http/HttpServer"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { ListenFailed } from "./Report.ts"

/** Where to listen. */
export interface Address {
  readonly host: string
  /** 0 is any that is free. */
  readonly port: number
}

const loopback = "127.0.0.1"

/** `9090`, `10.0.0.4:9090`, `localhost:9090`, `[::1]:9090`; `undefined` for what is none of these. */
export const parseAddress = (text: string): Address | undefined => {
  const [, inBrackets, name, digits] = /^(?:(?:\[([^[\]]+)\]|([^:[\]/@\s]+)):)?(\d{1,5})$/.exec(text) ?? []
  const port = Number(digits)
  if (digits === undefined || port > 65_535) return undefined
  if (inBrackets !== undefined) return isIPv6(inBrackets) ? { host: inBrackets, port } : undefined
  return { host: name ?? loopback, port }
}

/** As in a URL. */
export const formatAddress = ({ host, port }: Address): string => `${isIPv6(host) ? `[${host}]` : host}:${port}`

export const flag = Flag.String("listen").pipe(
  Flag.withMetavar("[HOST:]PORT"),
  Flag.withDescription("Serve a page, /livez, /readyz and /metrics there; without a host on 127.0.0.1 alone"),
  Flag.filterMap(
    (text) => Option.fromUndefinedOr(parseAddress(text)),
    () => "Expected a port, or host:port, as in 9090 or 0.0.0.0:9090"
  ),
  Flag.optional
)

/** Listens until the scope ends, which no client can hold up. Nothing without an address. */
export const listening = Effect.fnUntraced(function* (
  address: Option.Option<Address>,
  stream: Operations.Watched
): Effect.fn.Return<void, ListenFailed, Scope.Scope> {
  if (Option.isNone(address)) return
  const wanted = address.value
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
  ).pipe(
    Effect.catchTag("ServeError", (error) =>
      Effect.fail(new ListenFailed({ address: formatAddress(wanted), cause: error.cause }))
    )
  )
  // Else a connection that has never asked anything would be waited for.
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      server.close()
      server.closeAllConnections()
    })
  )
  const { port = wanted.port } = yield* HttpServer.HttpServer.pipe(
    Effect.map(({ address }) => ("port" in address ? { port: address.port } : {})),
    Effect.provide(context)
  )
  yield* Effect.logInfo(`listening on http://${formatAddress({ host: wanted.host, port })}`)
})
