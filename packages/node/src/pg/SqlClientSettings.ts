/**
 * The settings of `@effect/sql-pg`'s `PgClient` as those of a walsender: so that a program that has both says once where its database
 * is. What is of pools and statements is left alone; what says where and how to connect, and has no counterpart, is refused and not
 * passed over: a connection without a certificate that was asked for is no connection to have.
 */
import { posix } from "node:path"
import type { InvalidOption } from "@replicant/core"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import { type Options, refuse, type SslMode } from "./PgOptions.ts"

/** What is taken of Node.js's TLS options, and what else there may be. */
interface TlsOptions {
  readonly ca?: unknown
  readonly cert?: unknown
  readonly key?: unknown
  readonly passphrase?: unknown
  readonly rejectUnauthorized?: unknown
}

/** What `PgClientConfig` has of a connection. Not imported: who streams need not have `@effect/sql-pg`. */
export interface SqlClientSettings {
  readonly url?: Redacted.Redacted | undefined
  readonly host?: string | undefined
  readonly port?: number | undefined
  /** A Unix-domain socket: `/run/postgresql/.s.PGSQL.5432`. */
  readonly path?: string | undefined
  readonly ssl?: boolean | TlsOptions | undefined
  readonly database?: string | undefined
  readonly username?: string | undefined
  readonly password?: Redacted.Redacted | Effect.Effect<Redacted.Redacted> | undefined
  readonly connectTimeout?: Duration.Input | undefined
  readonly applicationName?: string | undefined
  readonly startupParameters?: Readonly<Record<string, string>> | undefined
  readonly startupOptions?: string | undefined
  readonly stream?: unknown
}

type Tls = Pick<Options, "sslmode" | "sslrootcert" | "sslcert" | "sslkey">

const known = new Set(["ca", "cert", "key", "passphrase", "rejectUnauthorized"])

/** PEM text: that of a file, or of several. */
const pem = (option: string, value: unknown): string | undefined => {
  if (value === undefined) return undefined
  const texts = (Array.isArray(value) ? value : [value]).map((one) =>
    one instanceof Uint8Array ? new TextDecoder().decode(one) : one
  )
  if (texts.every((text) => typeof text === "string" && text.includes("-----BEGIN "))) return texts.join("\n")
  throw refuse(option, "is no PEM text")
}

const tlsOf = (ssl: boolean | TlsOptions | undefined): Tls => {
  if (ssl === undefined) return {}
  if (ssl === false) return { sslmode: "disable" }
  // As Node.js has it: the certificate's chain and name are checked, by the authorities that it trusts.
  if (ssl === true) return { sslmode: "verify-full", sslrootcert: "system" }
  const stray = Object.keys(ssl).find((name) => !known.has(name) && Reflect.get(ssl, name) !== undefined)
  if (stray !== undefined)
    throw refuse(`ssl.${stray}`, "has no counterpart here", "say it by sslmode and its kin: PgConfig.Options")
  if (ssl.passphrase !== undefined) throw refuse("ssl.passphrase", "is taken as sslpassword, Redacted")
  const sslmode: SslMode = ssl.rejectUnauthorized === false ? "require" : "verify-full"
  const ca = pem("ssl.ca", ssl.ca)
  return {
    sslmode,
    sslrootcert: sslmode === "require" ? undefined : (ca ?? "system"),
    sslcert: pem("ssl.cert", ssl.cert),
    sslkey: pem("ssl.key", ssl.key)
  }
}

/** The directory and the port of a socket. */
const socketOf = (path: string | undefined): Pick<Options, "host" | "port"> => {
  if (path === undefined) return {}
  const [, port] = /^\.s\.PGSQL\.(\d+)$/.exec(posix.basename(path)) ?? []
  if (port === undefined) throw refuse("path", "is none of PostgreSQL's sockets, which are named .s.PGSQL.5432")
  return { host: posix.dirname(path), port: Number(port) }
}

const present = <A extends object>(options: A): A =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as A

/**
 * The options of a walsender that connects as this `PgClient` does, to be given to `PgWalSender.layer`, with whatever else beside them.
 * TLS is checked as there: `ssl: true` is `verify-full` by the authorities that Node.js trusts.
 *
 * @example
 * const settings = { host: "db.example.com", database: "shop", username: "replicant", password, ssl: true }
 * const Live = Layer.unwrap(Effect.map(Effect.fromResult(PgConfig.fromSqlClient(settings)), PgWalSender.layer))
 */
export const fromSqlClient = (settings: SqlClientSettings): Result.Result<Options, InvalidOption> =>
  Result.try({
    try: () => {
      if (settings.stream !== undefined) throw refuse("stream", "has no counterpart here: name the host")
      const { applicationName, connectTimeout, database, host, password, port, url, username } = settings
      return present({
        ...{ url, host, port, database, user: username, password, connectTimeout, applicationName },
        ...present(socketOf(settings.path)),
        ...present(tlsOf(settings.ssl)),
        settings: settings.startupParameters,
        options: settings.startupOptions
      })
    },
    catch: (problem) => problem as InvalidOption
  })
