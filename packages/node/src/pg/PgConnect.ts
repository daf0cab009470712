/**
 * Clients of the servers that a configuration names: the first that will do, in a session that will do, each attempt within
 * its time and gone without a trace where it fails. What is then asked of one, a walsender or an ordinary session, is not
 * decided here.
 */
import { ConnectionError, type ReplicationError } from "@replicant/core"
import type { QueryRow } from "@replicant/core/driver"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import type { Standing } from "./AnswerWatch.ts"
import * as ConnectTimeout from "./ConnectTimeout.ts"
import { PasswordHistory } from "./PasswordHistory.ts"
import { isLocal } from "./PgAuthentication.ts"
import * as PgClient from "./PgClient.ts"
import type * as PgConfig from "./PgConfig.ts"
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

/** How a client is opened here. */
type ClientOptions = Pick<PgClient.OpenOptions, "session" | "askStanding">

const openClient = Effect.fnUntraced(function* (
  config: PgConfig.PgConfig,
  history: PasswordHistory,
  options: ClientOptions
): Effect.fn.Return<PgClient.PgClient, ReplicationError, Scope.Scope> {
  const secret = yield* askPassword(config)
  const tls = yield* tlsOptions(config)
  let isUsed = false
  let isEncrypted = tls !== undefined
  const password = () => {
    isUsed = true
    return secret
  }
  const client = yield* PgClient.open(config, { tls, password, ...options }).pipe(
    Effect.catchIf(
      (thrown) => config.sslmode === "prefer" && isWithoutTls(thrown),
      () => {
        isEncrypted = false
        return openPlain(config, { password, ...options })
      }
    ),
    Effect.mapError((thrown) => {
      const error = connectFailure(thrown, config, isEncrypted)
      return isUsed && error._tag === "AuthenticationFailed" ? history.refuse(error, secret) : error
    })
  )
  history.accept()
  return client
})

/** What one look says. Of another role's sessions nothing is shown but the pid. */
const standingOf = (row: QueryRow | undefined, { serverStart }: PgClient.Backend): Standing => {
  if (row?.server_start !== serverStart) return "Unknown"
  if (row.pid === null) return "Gone"
  if (row.state === null) return "Unknown"
  return row.state?.startsWith("idle") || row.wait_event === "ClientRead" || row.wait_event === "ClientWrite"
    ? "Waiting"
    : "Working"
}

const standingQuery = ({ pid }: PgClient.Backend): string =>
  `SELECT ${PgClient.serverStart} AS server_start, a.pid, a.state, a.wait_event
  FROM (SELECT 1) AS one LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = ${Number(pid)}`

/** No name server's failure, and no certificate, says anything of a connection that is there. */
const isUnreachable = (error: ReplicationError): boolean =>
  error._tag === "ConnectionError" && error.reason !== "HostNotFound" && error.reason !== "Tls"

/** Where connecting has no limit, asking has. */
const mostAsking = Duration.seconds(10)

/** A look that finds it waiting may have come between two of its steps: it is looked at again this much later, in milliseconds. */
const lookInterval = 100

/**
 * Asks the same server, in a session of its own, what a backend is doing. An ordinary session: that takes none of
 * `max_wal_senders`, and by pg_hba.conf what may replicate a database may connect to it.
 */
const askStanding =
  (config: PgConfig.PgConfig) =>
  (backend: PgClient.Backend | undefined): Effect.Effect<Standing> =>
    Effect.gen(function* () {
      const client = yield* openClient(config, new PasswordHistory(config), { session: "sql" })
      if (backend === undefined) return "Unknown"
      const look = Effect.map(PgClient.query(client, standingQuery(backend)), ([row]) => standingOf(row, backend))
      const standing = yield* look
      return standing === "Waiting" ? yield* Effect.delay(look, lookInterval) : standing
    }).pipe(
      Effect.scoped,
      ConnectTimeout.make({ ...config, connectTimeout: config.connectTimeout ?? mostAsking }),
      Effect.catch((error) =>
        Effect.as(
          Effect.logDebug(`cannot ask what the server is doing: ${error.message}`),
          isUnreachable(error) ? ("Unreachable" as const) : ("Unknown" as const)
        )
      )
    )

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
export const openChecked = Effect.fnUntraced(function* (
  config: PgConfig.PgConfig,
  history: PasswordHistory,
  { session, wanted }: { readonly wanted: TargetSessionAttrs; readonly session?: PgClient.OpenOptions["session"] }
): Effect.fn.Return<PgClient.PgClient, ReplicationError, Scope.Scope> {
  const client = yield* openClient(config, history, { session, askStanding: askStanding(config) })
  const problem = yield* objection(client, wanted)
  if (problem !== undefined) {
    return yield* new ConnectionError({
      reason: "Refused",
      detail: `connection to ${address(config)}: ${problem}, and target_session_attrs is ${config.targetSessionAttrs}`
    })
  }
  return client
})

/** One attempt within its time. One that fails, or is interrupted, has closed its socket by then: its scope may live on. */
export const attemptInTime = Effect.fnUntraced(function* <A>(
  inConnectTimeout: ReturnType<typeof ConnectTimeout.make>,
  open: Effect.Effect<A, ReplicationError, Scope.Scope>
): Effect.fn.Return<A, ReplicationError, Scope.Scope> {
  const attempt = yield* Scope.fork(yield* Effect.scope)
  return yield* inConnectTimeout(open).pipe(
    Scope.provide(attempt),
    Effect.onError((cause) => Scope.close(attempt, Exit.failCause(cause)))
  )
})

/** Whether the next server may do where this one did not. One that refuses us is not passed over, nor is a wrong name. */
const isElsewhereBetter = (error: ReplicationError): boolean =>
  error._tag === "ConnectionError" ? error.reason !== "Tls" : error._tag === "ServerError" && error.sqlState === "57P03"

/** Tries the servers of a configuration in turn, and gives what the first that will do comes to. */
export const firstServer = Effect.fnUntraced(function* <A, R>(
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

/** An ordinary session of the same servers, for what no walsender does: closed with the scope. */
export const openSession = (
  config: PgConfig.PgConfig,
  history: PasswordHistory = new PasswordHistory(config)
): Effect.Effect<PgClient.PgClient, ReplicationError, Scope.Scope> =>
  firstServer(config, (server, wanted) =>
    attemptInTime(ConnectTimeout.make(server), openChecked(server, history, { wanted, session: "sql" }))
  )
