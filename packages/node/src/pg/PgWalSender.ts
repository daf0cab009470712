/**
 * The walsender of a real server: core's `WalSender` over a `pg` client.
 *
 * `pg` connects, negotiates TLS, authenticates and runs queries. For the copy the socket is taken from it, since it
 * reads ahead and lends bytes that its next read overwrites: see `SocketTakeover` and `ReadOnDemand`.
 */
import type { InvalidOption, ReplicationError } from "@replicant/core"
import { type ReplicantConnection, type SqlSession, WalSender } from "@replicant/core/driver"
import type { ConfigError } from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as ConnectTimeout from "./ConnectTimeout.ts"
import { nodeText } from "./NodeText.ts"
import { PasswordHistory } from "./PasswordHistory.ts"
import * as PgClient from "./PgClient.ts"
import * as PgConfig from "./PgConfig.ts"
import { attemptInTime, firstServer, openChecked, openSession } from "./PgConnect.ts"
import type { TargetSessionAttrs } from "./PgOptions.ts"
import { copyBoth } from "./SocketTakeover.ts"

const handshake = Effect.fnUntraced(function* (
  config: PgConfig.PgConfig,
  history: PasswordHistory,
  wanted: TargetSessionAttrs
): Effect.fn.Return<Omit<ReplicantConnection, "inConnectTimeout">, ReplicationError, Scope.Scope> {
  const client = yield* openChecked(config, history, { wanted })
  const serverVersion = yield* PgClient.introduce(client)
  return {
    serverVersion,
    query: (text) => PgClient.query(client, text),
    copyBoth: (command, options) => copyBoth(client, command, options),
    slices: nodeText
  }
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

/** A session for SQL alone. */
export interface PgSqlSession extends SqlSession {
  /** Behind a connection pooler: the server let us in under a pid of its own. */
  readonly isPooled: boolean
}

/** An ordinary session, of the first server that will do. */
const sessionAt = Effect.fnUntraced(function* (
  config: PgConfig.PgConfig,
  history: PasswordHistory
): Effect.fn.Return<PgSqlSession, ReplicationError, Scope.Scope> {
  const client = yield* openSession(config, history)
  const serverVersion = yield* PgClient.introduce(client)
  return { serverVersion, query: (text) => PgClient.query(client, text), isPooled: PgClient.isPooled(client) }
})

/** The driver for one server, or for the first of several that will do. */
export const make = (config: PgConfig.PgConfig): WalSender["Service"] => {
  const history = new PasswordHistory(config)
  return {
    connect: firstServer(config, (server, wanted) => connectTo(server, history, wanted)).pipe(
      Effect.withSpan("PgWalSender.connect")
    ),
    openSession: Effect.withSpan(sessionAt(config, history), "PgWalSender.openSession")
  }
}

/**
 * The driver, by options. They are checked as the layer is built: nothing is opened before `connect`.
 *
 * @example
 * PgWalSender.layer({ host: "db.example.com", user: "replicant", password, sslmode: "verify-full" })
 */
export const layer = (options: PgConfig.Options): Layer.Layer<WalSender, InvalidOption> =>
  Layer.effect(WalSender, Effect.map(Effect.fromResult(PgConfig.resolve(options)), make))

/**
 * An ordinary session of the servers that the options name, closed with the scope: for what is asked in SQL alone, such as a
 * standby or the target of a copy by `Doctor`.
 *
 * @example
 * const standby = PgWalSender.session({ host: "standby.example.com", user: "replicant", database: "shop", password })
 */
export const session = (options: PgConfig.Options): Effect.Effect<PgSqlSession, ReplicationError, Scope.Scope> =>
  Effect.flatMap(Effect.fromResult(PgConfig.resolve(options)), (config) =>
    sessionAt(config, new PasswordHistory(config))
  )

/** The driver, by `DATABASE_URL` and libpq's variables: see {@link PgConfig.fromEnvironment}. */
export const layerConfig: Layer.Layer<WalSender, InvalidOption | ConfigError> = Layer.effect(
  WalSender,
  Effect.gen(function* () {
    const options = yield* PgConfig.fromEnvironment
    return make(yield* Effect.fromResult(PgConfig.resolve(options)))
  })
)
