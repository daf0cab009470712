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
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as ConnectTimeout from "./ConnectTimeout.ts"
import { nodeText } from "./NodeText.ts"
import { PasswordHistory } from "./PasswordHistory.ts"
import { isLocal } from "./PgAuthentication.ts"
import * as PgClient from "./PgClient.ts"
import * as PgConfig from "./PgConfig.ts"
import type { TargetSessionAttrs } from "./PgOptions.ts"
import { askPassword } from "./PgPassword.ts"
import { address, connectFailure, isWithoutTls } from "./PgServerError.ts"
import { tlsOptions } from "./PgTls.ts"

/** `sslmode=prefer`: the one case in which a server without TLS is spoken to in plain text. */
const openPlain = Effect.fnUntraced(function* (
  config: PgConfig.PgConfig,
  options: Omit<PgClient.OpenOptions, "tls">
): Effect.fn.Return<PgClient.PgClient, Error, Scope.Scope> {
  if (!isLocal(config.host)) {
    yield* Effect.logWarning(`${config.host} has no TLS: going on in plain text, as sslmode=prefer allows`)
  }
  return yield* PgClient.open(config, { ...options, tls: undefined })
})

const openClient = Effect.fnUntraced(function* (
  config: PgConfig.PgConfig,
  history: PasswordHistory,
  session?: PgClient.OpenOptions["session"]
): Effect.fn.Return<PgClient.PgClient, ReplicationError, Scope.Scope> {
  const secret = yield* askPassword(config)
  const tls = yield* tlsOptions(config)
  let isUsed = false
  const password = () => {
    isUsed = true
    return secret
  }
  const client = yield* PgClient.open(config, { tls, password, session }).pipe(
    Effect.catchIf(
      (thrown) => config.sslmode === "prefer" && isWithoutTls(thrown),
      () => openPlain(config, { password, session })
    ),
    Effect.mapError((thrown) => {
      const error = connectFailure(thrown, config)
      return isUsed && error._tag === "AuthenticationFailed" ? history.refuse(error, secret) : error
    })
  )
  history.accept()
  return client
})

/** What is wrong with a session, where not any will do. */
const objection = Effect.fnUntraced(function* (client: PgClient.PgClient, wanted: TargetSessionAttrs) {
  if (wanted === "any") return undefined
  const [row] = yield* PgClient.query(
    client,
    "SELECT pg_catalog.pg_is_in_recovery() AS standby, pg_catalog.current_setting('transaction_read_only') AS read_only"
  )
  const isStandby = row?.standby === "t"
  const isReadOnly = isStandby || row?.read_only === "on"
  switch (wanted) {
    case "primary":
      return isStandby ? "the server is a standby" : undefined
    case "read-write":
      return isReadOnly ? "the session is read-only" : undefined
    case "read-only":
      return isReadOnly ? undefined : "the session is not read-only"
    default:
      return isStandby ? undefined : "the server is not a standby"
  }
})

/** A client of one server, in a session that will do. */
const openChecked = Effect.fnUntraced(function* (
  config: PgConfig.PgConfig,
  history: PasswordHistory,
  { session, wanted }: { readonly wanted: TargetSessionAttrs; readonly session?: PgClient.OpenOptions["session"] }
): Effect.fn.Return<PgClient.PgClient, ReplicationError, Scope.Scope> {
  const client = yield* openClient(config, history, session)
  const problem = yield* objection(client, wanted)
  if (problem !== undefined) {
    return yield* new ConnectionError({
      reason: "Refused",
      detail: `connection to ${address(config)}: ${problem}, and target_session_attrs is ${config.targetSessionAttrs}`
    })
  }
  return client
})

const handshake = Effect.fnUntraced(function* (
  config: PgConfig.PgConfig,
  history: PasswordHistory,
  wanted: TargetSessionAttrs
): Effect.fn.Return<Omit<ReplicantConnection, "inConnectTimeout">, ReplicationError, Scope.Scope> {
  const client = yield* openChecked(config, history, { wanted })
  const [row] = yield* PgClient.query(client, "SHOW server_version_num")
  return {
    serverVersion: Number(row?.server_version_num),
    query: (text) => PgClient.query(client, text),
    copyBoth: (command) => PgClient.copyBoth(client, command),
    slices: nodeText
  }
})

/** One attempt within its time. One that fails, or is interrupted, has closed its socket by then: its scope may live on. */
const attemptInTime = Effect.fnUntraced(function* <A>(
  inConnectTimeout: ReturnType<typeof ConnectTimeout.make>,
  open: Effect.Effect<A, ReplicationError, Scope.Scope>
): Effect.fn.Return<A, ReplicationError, Scope.Scope> {
  const attempt = yield* Scope.fork(yield* Effect.scope)
  return yield* inConnectTimeout(open).pipe(
    Scope.provide(attempt),
    Effect.onError((cause) => Scope.close(attempt, Exit.failCause(cause)))
  )
})

/** One server. */
const connectTo = Effect.fnUntraced(function* (
  config: PgConfig.PgConfig,
  history: PasswordHistory,
  wanted: TargetSessionAttrs
): Effect.fn.Return<ReplicantConnection, ReplicationError, Scope.Scope> {
  // What is left of the time goes on counting after the handshake.
  const inConnectTimeout = ConnectTimeout.make(config)
  return { ...(yield* attemptInTime(inConnectTimeout, handshake(config, history, wanted))), inConnectTimeout }
})

/** Whether the next server may do where this one did not. One that refuses us is not passed over, nor is a wrong name. */
const isElsewhereBetter = (error: ReplicationError): boolean =>
  error._tag === "ConnectionError" ? error.reason !== "Tls" : error._tag === "ServerError" && error.sqlState === "57P03"

/** Tries the servers of a configuration in turn, and gives what the first that will do comes to. */
const firstServer = Effect.fnUntraced(function* <A, R>(
  config: PgConfig.PgConfig,
  connect: (server: PgConfig.PgConfig, wanted: TargetSessionAttrs) => Effect.Effect<A, ReplicationError, R>
): Effect.fn.Return<A, ReplicationError, R> {
  const servers = [config, ...config.others.map((server) => ({ ...config, ...server }))]
  const { targetSessionAttrs } = config
  const rounds: ReadonlyArray<TargetSessionAttrs> =
    targetSessionAttrs === "prefer-standby" ? ["standby", "any"] : [targetSessionAttrs]
  const candidates = rounds.flatMap((wanted) => servers.map((server) => ({ server, wanted })))
  for (const [index, { server, wanted }] of candidates.entries()) {
    const tried = yield* Effect.result(connect(server, wanted))
    if (Result.isSuccess(tried)) return tried.success
    if (index === candidates.length - 1 || !isElsewhereBetter(tried.failure)) return yield* Effect.fail(tried.failure)
    yield* Effect.logDebug(`trying the next server: ${tried.failure.message}`)
  }
  return yield* Effect.die(new Error("no server to try"))
})

/** The driver for one server, or for the first of several that will do. */
export const make = (config: PgConfig.PgConfig): WalSender["Service"] => {
  const history = new PasswordHistory(config)
  return {
    connect: firstServer(config, (server, wanted) => connectTo(server, history, wanted)).pipe(
      Effect.withSpan("PgWalSender.connect")
    )
  }
}

/** An ordinary session of the same servers, for what no walsender does: closed with the scope. */
export const openSession = (
  config: PgConfig.PgConfig
): Effect.Effect<PgClient.PgClient, ReplicationError, Scope.Scope> => {
  const history = new PasswordHistory(config)
  return firstServer(config, (server, wanted) =>
    attemptInTime(ConnectTimeout.make(server), openChecked(server, history, { wanted, session: "sql" }))
  )
}

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
