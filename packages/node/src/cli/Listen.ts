/**
 * `--listen [HOST:]PORT` of the commands that run a stream: `Operations.layer` over HTTP, for as long as the command lives. The
 * loopback unless a host is said, since nobody is asked who he is.
 */
import { isIPv6 } from "node:net"
import type { Operations } from "@replicant/core/operations"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { ListenFailed } from "./Report.ts"
import type { Address } from "./Serve.ts"

export type { Address } from "./Serve.ts"

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
  const { serve } = yield* Effect.promise(() => import("./Serve.ts"))
  const port = yield* Effect.mapError(
    serve(wanted, stream),
    ({ cause }) => new ListenFailed({ address: formatAddress(wanted), cause })
  )
  yield* Effect.logInfo(`listening on http://${formatAddress({ host: wanted.host, port })}`)
})
