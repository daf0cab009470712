/**
 * What goes wrong in `pg` and below it, by the names of `ReplicationError`.
 *
 * A server's ErrorResponse is told by its SQLSTATE, a system's or TLS's error by its code. Only `pg`'s own errors have
 * nothing but a text, which is not translated. No error repeats a password: none of these texts ever held one.
 */
import {
  AuthenticationFailed,
  ConnectionError,
  DecodeError,
  InvalidOption,
  type ReplicationError,
  type ServerError
} from "@replicant/core"
import { refineServerError, serverError } from "@replicant/core/driver"
import pg from "pg"
import type { PgConfig } from "./PgConfig.ts"

type Reason = ConnectionError["reason"]

/** Whom we talk to, as errors tell it. */
export type Peer = Pick<PgConfig, "host" | "port" | "user" | "database" | "sslmode" | "sslnegotiation">

/** As errors write it. */
export const address = ({ host, port }: Pick<PgConfig, "host" | "port">): string =>
  host.startsWith("/") ? `${host}/.s.PGSQL.${port}` : `${host.includes(":") ? `[${host}]` : host}:${port}`

/** The server has no TLS, said in its one-byte answer to our SSLRequest. The text is `pg`'s. */
export const isWithoutTls = (thrown: unknown): boolean =>
  thrown instanceof Error && thrown.message === "The server does not support SSL connections"

/** System errors by code. Source: https://nodejs.org/api/errors.html#common-system-errors and getaddrinfo(3) */
const reasons: { readonly [code: string]: readonly [reason: Reason, problem: string] } = {
  ECONNREFUSED: ["Refused", "nobody listens"],
  ENOENT: ["Refused", "there is no such socket"],
  EACCES: ["Refused", "this user may not open it"],
  EHOSTUNREACH: ["Refused", "the host cannot be reached"],
  ENETUNREACH: ["Refused", "the network cannot be reached"],
  EADDRNOTAVAIL: ["Refused", "no local address leads there"],
  ENOTFOUND: ["HostNotFound", "the name does not resolve"],
  EAI_AGAIN: ["HostNotFound", "the name server does not answer"],
  ETIMEDOUT: ["TimedOut", "the peer does not answer"],
  ECONNRESET: ["Reset", "the peer broke the connection"],
  ECONNABORTED: ["Reset", "the connection was broken"],
  EPIPE: ["Reset", "the peer no longer listens"]
}

/**
 * TLS's own codes: Node's, OpenSSL's, and OpenSSL's names for what is wrong with a certificate.
 *
 * Source: https://nodejs.org/api/tls.html#x509-certificate-error-codes
 */
const isTlsCode = (code: string): boolean =>
  /^(ERR_TLS_|ERR_SSL_|ERR_OSSL_|CERT_|CRL_|UNABLE_TO_|EPROTO$)/.test(code) ||
  /^(DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|HOSTNAME_MISMATCH)$/.test(code) ||
  /^(INVALID_CA|INVALID_PURPOSE|PATH_LENGTH_EXCEEDED|ERROR_IN_CERT_|ERROR_IN_CRL_)/.test(code)

const tlsRemedy = (peer: Peer): string =>
  peer.sslmode.startsWith("verify")
    ? "check sslrootcert, and that host is a name in the server's certificate"
    : "check that the server speaks TLS on this port, and sslcert and sslkey if it asks for them"

const codeOf = (thrown: unknown): string | undefined =>
  thrown instanceof Error && "code" in thrown && typeof thrown.code === "string" ? thrown.code : undefined

const messageOf = (thrown: unknown): string => (thrown instanceof Error ? thrown.message : String(thrown))

/** A socket's error, or the end of one, as `ConnectionError`. `undefined` is an end without a word. */
export const connectionError = (thrown: unknown, peer: Peer): ConnectionError => {
  if (thrown instanceof ConnectionError) return thrown
  const to = `connection to ${address(peer)}`
  const code = codeOf(thrown) ?? ""
  if (isTlsCode(code)) {
    return new ConnectionError({
      reason: "Tls",
      detail: `${to}: TLS failed: ${messageOf(thrown)} (${code})`,
      remedy: tlsRemedy(peer)
    })
  }
  if (isWithoutTls(thrown)) {
    return new ConnectionError({
      reason: "Tls",
      detail: `${to}: the server has no TLS, and sslmode=${peer.sslmode} does not do without`,
      remedy: "set ssl = on at the server; where nobody can listen in, sslmode=disable"
    })
  }
  const known = reasons[code]
  if (known !== undefined) {
    const [reason, problem] = known
    return new ConnectionError({
      reason,
      detail: `${to}: ${problem} (${code})`,
      remedy:
        reason === "Reset" && peer.sslnegotiation === "direct" ? "sslnegotiation=direct needs PostgreSQL 17" : undefined
    })
  }
  return new ConnectionError({ reason: "Closed", detail: `${to}: the server closed the connection` })
}

/** The fields of an ErrorResponse. `pg` leaves the untranslated severity out: this one is in the server's language. */
const toServerError = (error: pg.DatabaseError, stage: "Connect" | "Query"): ServerError | DecodeError =>
  error.code === undefined
    ? // `pg` says so, too, where it knows no message of such a type.
      new DecodeError({ problem: "the server sent something that is not PostgreSQL's protocol", offset: 0 })
    : serverError(
        {
          severity: error.severity ?? "ERROR",
          sqlState: error.code,
          message: error.message,
          detail: error.detail,
          hint: error.hint
        },
        stage
      )

/** Errors that are ours already: thrown into `pg` by the guards of `PgClient` and `PgAuthentication`. */
const isOurs = (thrown: unknown): thrown is AuthenticationFailed | DecodeError | ConnectionError =>
  thrown instanceof AuthenticationFailed || thrown instanceof DecodeError || thrown instanceof ConnectionError

/** PgBouncer's answer to `replication=database`. It is never translated, and its SQLSTATE stands for anything. */
const isPooler = (error: ServerError): boolean =>
  error.sqlState === "08P01" && error.serverMessage.startsWith("unsupported startup parameter")

/** PgBouncer's, too, while all of its places are taken. */
const isPoolerFull = (error: ServerError): boolean =>
  error.sqlState === "08P01" && error.serverMessage.startsWith("no more connections allowed")

/**
 * What to do about a refusal that is mostly pg_hba.conf's, whose words are translated: but we know whether the connection was
 * encrypted, which its lines may ask for, or against.
 */
const refusedRemedy = ({ host, sslmode }: Peer, isEncrypted: boolean): string => {
  const check = "check user, database and pg_hba.conf"
  if (host.startsWith("/")) return `${check}: this connection was over a socket, for which its lines say local`
  // Who asked for a proof of the server is not told to do without.
  if (isEncrypted && sslmode.startsWith("verify")) return check
  if (isEncrypted) return `${check}; where that says hostnossl, set sslmode to disable: this connection was encrypted`
  return sslmode === "disable"
    ? `${check}; where that says hostssl, set sslmode to verify-full: this connection was not encrypted`
    : `${check}; where that says hostssl, set ssl = on at the server, which has no TLS now, and sslmode to verify-full here`
}

/** Whatever ended a handshake. `isEncrypted` is whether it was over TLS in the end. */
export const connectFailure = (
  thrown: unknown,
  peer: Peer,
  isEncrypted = peer.sslmode !== "disable"
): ReplicationError => {
  if (isOurs(thrown)) return thrown
  if (thrown instanceof pg.DatabaseError) {
    const error = toServerError(thrown, "Connect")
    if (error._tag === "DecodeError") return error
    if (error.sqlState === "28000") {
      return new AuthenticationFailed({
        sqlState: error.sqlState,
        detail: error.serverMessage,
        remedy: error.hint ?? refusedRemedy(peer, isEncrypted)
      })
    }
    if (isPoolerFull(error)) {
      return new ConnectionError({ reason: "Refused", detail: `a connection pooler is full: ${error.serverMessage}` })
    }
    return isPooler(error)
      ? new InvalidOption({
          option: "host",
          problem: `a connection pooler answers, and takes no replication connections: ${error.serverMessage}`,
          remedy: "connect to PostgreSQL directly"
        })
      : refineServerError(error, { stage: "Connect", user: peer.user, database: peer.database })
  }
  if (messageOf(thrown).startsWith("SASL")) {
    // Our side of SCRAM refuses: no server said so, and there is no SQLSTATE to tell.
    return new AuthenticationFailed({
      sqlState: "",
      detail: `authentication as "${peer.user}" failed: ${messageOf(thrown)}`,
      remedy: "check the password, and that host leads to the server that knows it"
    })
  }
  return connectionError(thrown, peer)
}

/** Whatever ended a query. Server errors are left for the caller to refine: it knows what was asked. */
export const queryFailure = (thrown: unknown, peer: Peer): ReplicationError =>
  thrown instanceof pg.DatabaseError
    ? toServerError(thrown, "Query")
    : isOurs(thrown)
      ? thrown
      : connectionError(thrown, peer)
