/**
 * Options checked and made whole, before anything is opened: where to connect, as whom, and how.
 *
 * Passwords stay `Redacted`. Files are read later, by `PgTls`, at each attempt.
 */
import { userInfo } from "node:os"
import type { InvalidOption, ReplicationError } from "@replicant/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Result from "effect/Result"
import {
  type AuthMethod,
  authMethods,
  type ChannelBinding,
  channelBindings,
  checked,
  fromEnvironment,
  type Options,
  oneOf,
  refuse,
  type SslMode,
  type SslNegotiation,
  sslModes,
  sslNegotiations,
  type TargetSessionAttrs,
  type TlsVersion,
  targetSessionAttrs,
  wholeNumber,
  withUrl
} from "./PgOptions.ts"
import { defaultPassfile, passwordFromFile } from "./PgPassword.ts"

export { fromSqlClient, type SqlClientSettings } from "./SqlClientSettings.ts"
export type { Options }
export { fromEnvironment, passwordFromFile }

/** One of the servers to try. */
export interface PgServerAddress {
  readonly host: string
  readonly port: number
  /** `disable` when `host` is a socket's directory. */
  readonly sslmode: SslMode
}

/** {@link Options} checked and made whole. The server it names is the first to try. */
export interface PgConfig extends PgServerAddress {
  /** The servers to try after that one, in order. */
  readonly others: ReadonlyArray<PgServerAddress>
  readonly targetSessionAttrs: TargetSessionAttrs
  readonly database: string
  readonly user: string
  /** `undefined` when none was given. */
  readonly password: Effect.Effect<Redacted.Redacted | undefined, ReplicationError>
  /** Where to look for a password when none was given: see `PgPassword`. */
  readonly passfile: string | undefined
  /** Whether another attempt may bring another password. */
  readonly isPasswordAskedAnew: boolean
  /** `undefined` allows what {@link Options} says. */
  readonly requireAuth: ReadonlySet<AuthMethod> | undefined
  readonly sslrootcert: string | undefined
  readonly sslcrl: string | undefined
  readonly sslMinProtocolVersion: TlsVersion
  readonly sslMaxProtocolVersion: TlsVersion | undefined
  readonly sslcert: string | undefined
  readonly sslkey: Redacted.Redacted | undefined
  readonly sslpassword: Redacted.Redacted | undefined
  readonly sslnegotiation: SslNegotiation
  readonly channelBinding: ChannelBinding
  readonly applicationName: string
  /** `undefined` is no limit. */
  readonly connectTimeout: Duration.Duration | undefined
  /** `undefined` is no limit. */
  readonly answerTimeout: Duration.Duration | undefined
  readonly keepAlive: boolean
  /** The startup message's `options`. */
  readonly startupOptions: string
}

/**
 * What PostgreSQL's own subscriber sets, and `bytea_output` beside: a role's settings would otherwise change the text
 * that values come as.
 *
 * Source: `libpqrcv_connect`, src/backend/replication/libpqwalreceiver/libpqwalreceiver.c
 */
const textSettings = {
  datestyle: "ISO",
  intervalstyle: "postgres",
  extra_float_digits: "3",
  bytea_output: "hex"
}

/**
 * Limits of the role or the database that would end a session of ours while it waits, of every supported version. What came
 * later is set once the version is known: a startup message that names it is refused by servers that lack it.
 */
const limitSettings = {
  statement_timeout: "0",
  lock_timeout: "0",
  idle_in_transaction_session_timeout: "0",
  idle_session_timeout: "0"
}

/**
 * What is meant for the server's own log stays there: statements and plans, with values in them. A role that has it lower is
 * told all of that, and so would our log be.
 */
const messageSettings = { client_min_messages: "notice" }

/** Text for the startup message, where NUL ends a value. */
const text = (option: string, value: string): string => {
  if (value === "") throw refuse(option, "must not be empty")
  if (value.includes("\0")) throw refuse(option, "must not contain a NUL character")
  if (!value.isWellFormed()) throw refuse(option, "holds half a surrogate pair")
  return value
}

/** A name of PostgreSQL's. It cuts one that is longer, which may then be another's. */
const name = (option: string, value: string): string => {
  const length = Buffer.byteLength(text(option, value))
  if (length > 63) throw refuse(option, `has ${length} bytes, PostgreSQL keeps 63`)
  return value
}

/**
 * The backend splits the startup message's `options` at white space, where a backslash protects the character after it.
 *
 * Source: `pg_split_opts`, src/backend/utils/init/postinit.c
 */
const settingOption = ([setting, value]: [string, string | number | boolean]): string => {
  if (!/^[a-z_][a-z0-9_$]*(\.[a-z_][a-z0-9_$]*)*$/i.test(setting)) {
    throw refuse("settings", `${JSON.stringify(setting)} is not the name of a setting`)
  }
  if (String(value).includes("\0")) throw refuse("settings", `${setting} must not contain a NUL character`)
  return `-c ${setting}=${String(value).replaceAll(/[\\\s]/g, (character) => `\\${character}`)}`
}

const lowerCaseNames = (settings: NonNullable<Options["settings"]>): NonNullable<Options["settings"]> =>
  Object.fromEntries(Object.entries(settings).map(([name, value]) => [name.toLowerCase(), value]))

const startupOptions = ({ options, settings }: Options): string => {
  const chosen = Object.entries({
    ...textSettings,
    ...limitSettings,
    ...messageSettings,
    ...lowerCaseNames(settings ?? {})
  }).map(settingOption)
  return options === undefined ? chosen.join(" ") : `${text("options", options)} ${chosen.join(" ")}`
}

const password = (given: Options["password"]): PgConfig["password"] =>
  given === undefined || Redacted.isRedacted(given) ? Effect.succeed(given) : given

const timeout = (
  option: "connectTimeout" | "answerTimeout",
  given: Options["connectTimeout"]
): Duration.Duration | undefined => {
  if (given === undefined) return Duration.seconds(10)
  const duration = Option.getOrUndefined(Duration.fromInput(given))
  if (duration === undefined || !(Duration.toMillis(duration) >= 0)) {
    throw refuse(option, "must be a duration of 0 (no limit) or more")
  }
  return Duration.toMillis(duration) === 0 || !Duration.isFinite(duration) ? undefined : duration
}

const tls = (
  { channelBinding = "prefer", sslcert, sslkey, sslmode = "prefer", sslnegotiation = "postgres", ...rest }: Options,
  hasSocket: boolean
): Pick<
  PgConfig,
  | "sslcrl"
  | "sslMinProtocolVersion"
  | "sslMaxProtocolVersion"
  | "sslmode"
  | "sslrootcert"
  | "sslcert"
  | "sslkey"
  | "sslpassword"
  | "sslnegotiation"
  | "channelBinding"
> => {
  const { sslcrl, sslMaxProtocolVersion, sslMinProtocolVersion = "TLSv1.2", sslpassword, sslrootcert } = rest
  if (sslMaxProtocolVersion !== undefined && sslMaxProtocolVersion < sslMinProtocolVersion) {
    throw refuse("sslMaxProtocolVersion", `is before sslMinProtocolVersion, ${sslMinProtocolVersion}`)
  }
  const asked = oneOf("sslmode", sslModes, sslmode)
  const found = asked === "require" && sslrootcert !== undefined ? "verify-ca" : asked
  if (found === "verify-ca" && (sslrootcert === undefined || sslrootcert === "system")) {
    throw refuse(
      "sslrootcert",
      "verify-ca trusts whatever these certificates have signed, so it needs your own",
      "name the certificate of your own authority, or use sslmode=verify-full"
    )
  }
  if (sslnegotiation === "direct" && (asked === "disable" || asked === "prefer")) {
    throw refuse("sslnegotiation", "direct needs sslmode require, verify-ca or verify-full", "set sslmode")
  }
  if ((sslcert === undefined) !== (sslkey === undefined)) {
    throw refuse(sslcert === undefined ? "sslcert" : "sslkey", "sslcert and sslkey go together")
  }
  if (channelBinding === "require" && (hasSocket || asked === "disable" || asked === "prefer")) {
    throw refuse("channelBinding", "require needs sslmode require, verify-ca or verify-full", "set sslmode")
  }
  return {
    sslmode: found,
    sslrootcert,
    sslcrl,
    sslMinProtocolVersion,
    sslMaxProtocolVersion,
    sslcert,
    sslkey: typeof sslkey === "string" ? Redacted.make(sslkey) : sslkey,
    sslpassword,
    sslnegotiation: oneOf("sslnegotiation", sslNegotiations, sslnegotiation),
    channelBinding: oneOf("channelBinding", channelBindings, channelBinding)
  }
}

const isSocket = (host: string): boolean => host.startsWith("/")

/** Every host with its port: one port is for all of them. */
const addresses = ({
  host = "localhost",
  port = 5432
}: Options): ReadonlyArray<Pick<PgServerAddress, "host" | "port">> => {
  const hosts = host.split(",")
  const ports = typeof port === "number" ? hosts.map(() => port) : port
  if (ports.length !== hosts.length) {
    throw refuse(
      "port",
      `${ports.length} ports do not match ${hosts.length} hosts`,
      "give one port, or one for each host"
    )
  }
  return hosts.map((one, index) => ({
    host: text("host", one),
    port: wholeNumber("port", String(ports[index]), 1, 65_535)
  }))
}

const authMethodSet = (given: Options["requireAuth"]): PgConfig["requireAuth"] => {
  if (given === undefined) return undefined
  if (given.length === 0) throw refuse("requireAuth", "allows nothing", `name some of ${authMethods.join(", ")}`)
  return new Set(given.map((method) => oneOf("requireAuth", authMethods, method)))
}

/** Checks the options and makes them whole. Fails with the first that is wrong, named. */
export const resolve = (options: Options): Result.Result<PgConfig, InvalidOption> =>
  checked(() => {
    const said = withUrl(options)
    const user = name("user", said.user ?? userInfo().username)
    const found = addresses(said)
    const common = tls(
      said,
      found.some(({ host }) => isSocket(host))
    )
    const [first, ...others] = found.map((address) => ({
      ...address,
      sslmode: isSocket(address.host) ? "disable" : common.sslmode
    }))
    return {
      ...common,
      ...first!,
      others,
      targetSessionAttrs: oneOf("targetSessionAttrs", targetSessionAttrs, said.targetSessionAttrs ?? "any"),
      user,
      database: name("database", said.database ?? user),
      password: password(said.password),
      passfile: said.password === undefined ? (said.passfile ?? defaultPassfile()) : undefined,
      isPasswordAskedAnew: !Redacted.isRedacted(said.password),
      requireAuth: authMethodSet(said.requireAuth),
      applicationName: text("applicationName", said.applicationName ?? "replicant"),
      connectTimeout: timeout("connectTimeout", said.connectTimeout),
      answerTimeout: timeout("answerTimeout", said.answerTimeout),
      keepAlive: said.keepAlive ?? true,
      startupOptions: startupOptions(said)
    }
  })
