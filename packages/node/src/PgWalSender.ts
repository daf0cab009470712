/**
 * The walsender of a real server: core's `WalSender` over a `pg` client.
 *
 * `pg` connects, negotiates TLS, authenticates and runs queries. For the copy the socket is taken from it, since it
 * reads ahead and lends bytes that its next read overwrites: see `PgClient` and `ReadOnDemand`.
 */
import {
  ConnectionError,
  type InvalidOption,
  type ReplicantConnection,
  type ReplicationError,
  WalSender
} from "@replicant/core"
import type { ConfigError } from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import { nodeText } from "./NodeText.ts"
import * as PgClient from "./PgClient.ts"
import * as PgConfig from "./PgConfig.ts"
import { connectFailure, isWithoutTls } from "./PgServerError.ts"
import { tlsOptions } from "./PgTls.ts"

const isLocal = (host: string): boolean => /^(localhost|127\..*|::1)$/.test(host)

/** `sslmode=prefer`: the one case in which a server without TLS is spoken to in plain text. */
const openPlain = Effect.fnUntraced(function* (
  config: PgConfig.PgConfig,
  password: Redacted.Redacted | undefined
): Effect.fn.Return<PgClient.PgClient, Error, Scope.Scope> {
  if (!isLocal(config.host)) {
    yield* Effect.logWarning(`${config.host} has no TLS: going on in plain text, as sslmode=prefer allows`)
  }
  return yield* PgClient.open(config, undefined, password)
})

const handshake = Effect.fnUntraced(function* (
  config: PgConfig.PgConfig
): Effect.fn.Return<ReplicantConnection, ReplicationError, Scope.Scope> {
  const password = yield* config.password
  const tls = yield* tlsOptions(config)
  const client = yield* PgClient.open(config, tls, password).pipe(
    Effect.catchIf(
      (thrown) => config.sslmode === "prefer" && isWithoutTls(thrown),
      () => openPlain(config, password)
    ),
    Effect.mapError((thrown) => connectFailure(thrown, config))
  )
  const [row] = yield* PgClient.query(client, "SHOW server_version_num")
  return {
    serverVersion: Number(row?.server_version_num),
    query: (text) => PgClient.query(client, text),
    copyBoth: (command) => PgClient.copyBoth(client, command),
    slices: nodeText
  }
})

const handshakeInTime = (
  config: PgConfig.PgConfig
): Effect.Effect<ReplicantConnection, ReplicationError, Scope.Scope> => {
  const { connectTimeout, host, port } = config
  if (connectTimeout === undefined) return handshake(config)
  const timedOut = new ConnectionError({
    reason: "TimedOut",
    detail: `connection to ${host}:${port}: no session after ${Duration.format(connectTimeout)}`
  })
  return Effect.timeoutOrElse(handshake(config), { duration: connectTimeout, orElse: () => Effect.fail(timedOut) })
}

/**
 * The driver for one server. An attempt that fails, or is interrupted, has closed its socket by then: its scope may live
 * on.
 */
export const make = (config: PgConfig.PgConfig): WalSender["Service"] => ({
  connect: Effect.gen(function* () {
    const attempt = yield* Scope.fork(yield* Effect.scope)
    return yield* handshakeInTime(config).pipe(
      Scope.provide(attempt),
      Effect.onError((cause) => Scope.close(attempt, Exit.failCause(cause)))
    )
  }).pipe(Effect.withSpan("PgWalSender.connect"))
})

/**
 * The driver, by options. They are checked as the layer is built: nothing is opened before `connect`.
 *
 * @example
 * PgWalSender.layer({ host: "db.example.com", user: "replicant", password, sslmode: "verify-full" })
 */
export const layer = (options: PgConfig.Options): Layer.Layer<WalSender, InvalidOption> =>
  Layer.effect(WalSender, Effect.map(Effect.fromResult(PgConfig.resolve(options)), make))

/** The driver, by `DATABASE_URL` and libpq's variables: see {@link PgConfig.fromEnvironment}. */
export const layerConfig: Layer.Layer<WalSender, InvalidOption | ConfigError> = Layer.effect(
  WalSender,
  Effect.gen(function* () {
    const options = yield* PgConfig.fromEnvironment
    return make(yield* Effect.fromResult(PgConfig.resolve(options)))
  })
)
