/**
 * What can be said about a connection, and where: as options, in a URL, or in libpq's environment variables.
 *
 * Here text becomes numbers and words that mean something. Whether they go together, and what is meant where nothing was
 * said, is `PgConfig`'s. Passwords stay `Redacted`; what is wrong is told by its name, never by its value.
 *
 * Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
 */
import { InvalidOption, type ReplicationError } from "@replicant/core"
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as ConnectionUrl from "./ConnectionUrl.ts"
import { settingVariables, takeOther, variables } from "./LibpqParameters.ts"
import { readService } from "./ServiceFile.ts"

/**
 * How much of TLS to ask for, as libpq has it:
 * `disable` plain text; `prefer` TLS when the server has it, else plain text, and the certificate is not looked at;
 * `require` TLS, and the certificate is not looked at, unless `sslrootcert` is given: then as `verify-ca`;
 * `verify-ca` the certificate must come from `sslrootcert`; `verify-full` and it must bear the host's name.
 *
 * Only `verify-full` is safe on a network that others can touch. From `require` on, nothing is ever sent in plain text.
 * libpq's `allow` is missing: it would send the password in plain text first.
 *
 * Source: https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-PROTECTION
 */
export const sslModes = ["disable", "prefer", "require", "verify-ca", "verify-full"] as const
/** One of {@link sslModes}. */
export type SslMode = (typeof sslModes)[number]

/** `postgres` asks in plain text for TLS first; `direct` (PostgreSQL 17) begins with TLS, and saves a round trip. */
export const sslNegotiations = ["postgres", "direct"] as const
/** One of {@link sslNegotiations}. */
export type SslNegotiation = (typeof sslNegotiations)[number]

/** Whether SCRAM ties the password to the TLS connection; `require` admits no other way to authenticate. */
export const channelBindings = ["disable", "prefer", "require"] as const
/** One of {@link channelBindings}. */
export type ChannelBinding = (typeof channelBindings)[number]

/**
 * Ways in which a server may let us in, by libpq's names. `none`: it asks for no password.
 *
 * Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-REQUIRE-AUTH
 */
export const authMethods = ["scram-sha-256", "md5", "password", "none"] as const
/** One of {@link authMethods}. */
export type AuthMethod = (typeof authMethods)[number]

/**
 * Which of several hosts will do, as libpq has it: `primary` and `standby` by `pg_is_in_recovery()`, `read-write` and
 * `read-only` by what new transactions are; `prefer-standby` takes any once no standby is found.
 *
 * Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-TARGET-SESSION-ATTRS
 */
export const targetSessionAttrs = ["any", "read-write", "read-only", "primary", "standby", "prefer-standby"] as const
/** One of {@link targetSessionAttrs}. */
export type TargetSessionAttrs = (typeof targetSessionAttrs)[number]

/**
 * A password asked for anew at each attempt: for tokens that expire, and passwords that are changed while a stream runs.
 * It may wait, within `connectTimeout`. What it fails with is what `connect` fails with.
 */
export type PasswordProvider = Effect.Effect<Redacted.Redacted, ReplicationError>

/** Whatever is absent is taken from `url`, and then as libpq would, save that `host` is `localhost`. */
export interface Options {
  /** `postgresql://user:password@host:port/database?sslmode=verify-full`. What stands beside it here beats it. */
  readonly url?: Redacted.Redacted | undefined
  /**
   * A name, an address, or the directory of a Unix-domain socket, which begins with a slash. Several, separated by commas,
   * are tried in order at each attempt, each within `connectTimeout`, until one answers and is what `targetSessionAttrs`
   * asks for.
   */
  readonly host?: string | undefined
  /** One for all hosts, or one for each: 5432 unless told otherwise. */
  readonly port?: number | ReadonlyArray<number> | undefined
  /** `any` unless told otherwise. With several hosts, `primary` is what follows a failover. */
  readonly targetSessionAttrs?: TargetSessionAttrs | undefined
  /** Named as the user unless told otherwise. */
  readonly database?: string | undefined
  /** The role to connect as: the operating system's user unless told otherwise. It needs REPLICATION. */
  readonly user?: string | undefined
  /** Where neither this nor `url` has one, `passfile` is looked into at each attempt. */
  readonly password?: Redacted.Redacted | PasswordProvider | undefined
  /** A file of passwords as libpq reads it: `~/.pgpass` unless told otherwise. No such file is no error. */
  readonly passfile?: string | undefined
  /**
   * The only ways in which the server may let us in. Left out: SCRAM; MD5 over TLS or from this machine; clear text over
   * TLS or a Unix-domain socket, and never otherwise; and none, where the server asks for nothing.
   */
  readonly requireAuth?: ReadonlyArray<AuthMethod> | undefined
  /** `prefer` unless told otherwise, as in libpq. Without meaning for a Unix-domain socket, which never has TLS. */
  readonly sslmode?: SslMode | undefined
  /** Certificates to trust: PEM text, the path of a file, or `system` for those Node.js trusts. */
  readonly sslrootcert?: string | undefined
  /** Our certificate: PEM text or the path of a file. */
  readonly sslcert?: string | undefined
  /** Its private key: PEM text, which should be `Redacted`, or the path of a file. */
  readonly sslkey?: string | Redacted.Redacted | undefined
  /** Opens an encrypted `sslkey`. */
  readonly sslpassword?: Redacted.Redacted | undefined
  /** Certificates that are revoked: PEM text or the path of a file. One list for each authority of the server's chain. */
  readonly sslcrl?: string | undefined
  /** TLS 1.2 unless told otherwise. */
  readonly sslMinProtocolVersion?: TlsVersion | undefined
  /** The newest that both sides know unless told otherwise. */
  readonly sslMaxProtocolVersion?: TlsVersion | undefined
  readonly sslnegotiation?: SslNegotiation | undefined
  /** `prefer` unless told otherwise. Takes effect over TLS. */
  readonly channelBinding?: ChannelBinding | undefined
  /** As `pg_stat_replication` shows it: `replicant` unless told otherwise. */
  readonly applicationName?: string | undefined
  /** How long one attempt may take, from looking up the name to the first answer: 10 seconds; 0 is no limit. */
  readonly connectTimeout?: Duration.Input | undefined
  /**
   * How long a question to the server may go unanswered, with nothing moving, before another connection asks what the server
   * is doing: 10 seconds. One at work is waited for, however long; else the connection is given up. 0 is no limit.
   */
  readonly answerTimeout?: Duration.Input | undefined
  /** Whether TCP probes an idle connection. On unless told otherwise. */
  readonly keepAlive?: boolean | undefined
  /** Settings of the session: `{ wal_sender_timeout: "30s" }`. */
  readonly settings?: Readonly<Record<string, string | number | boolean>> | undefined
  /** More command-line options for the backend, written as in `PGOPTIONS`. `settings` beats them. */
  readonly options?: string | undefined
}

/** The error for an option that will not do. The problem never quotes the value. */
export const refuse = (option: string, problem: string, remedy?: string): InvalidOption =>
  new InvalidOption({ option, problem, remedy })

/** Throws `InvalidOption` unless `text` is one of `members`. */
export const oneOf = <const Member extends string>(
  option: string,
  members: ReadonlyArray<Member>,
  text: string
): Member => {
  const found = members.find((member) => member === text)
  if (found === undefined) throw refuse(option, `must be one of ${members.join(", ")}`)
  return found
}

/** Throws `InvalidOption` unless `text` is a whole number within bounds. */
export const wholeNumber = (option: string, text: string, min: number, max: number): number => {
  const number = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN
  if (!(number >= min && number <= max)) throw refuse(option, `must be a whole number from ${min} to ${max}`)
  return number
}

const isInvalidOption = (thrown: unknown): thrown is InvalidOption => thrown instanceof InvalidOption

/** The ports of as many hosts, where an empty one is the usual. Throws `InvalidOption`. */
const portList = (text: string): number | ReadonlyArray<number> => {
  const ports = text.split(",").map((port) => (port === "" ? 5432 : wholeNumber("port", port, 1, 65_535)))
  return ports.length === 1 ? ports[0]! : ports
}

/** Ways that libpq knows and we never take: allowing or forbidding them changes nothing. */
const otherMethods = ["gss", "sspi", "oauth"]

/** libpq's `require_auth`: the methods allowed, or each with a `!`, those that are not. Throws `InvalidOption`. */
const methodList = (text: string): ReadonlyArray<AuthMethod> => {
  const words = text.split(",").map((word) => word.trim())
  const isNegative = words.every((word) => word.startsWith("!"))
  const methods = isNegative ? words.map((word) => word.slice(1)) : words
  const ours = methods.filter((method) => !otherMethods.includes(method))
  const named = ours.map((method) => oneOf("require_auth", authMethods, method))
  return isNegative ? authMethods.filter((method) => !named.includes(method)) : named
}

/** Runs what throws `InvalidOption`. */
export const checked = <A>(make: () => A): Result.Result<A, InvalidOption> =>
  Result.try({
    try: make,
    catch: (thrown) => {
      if (isInvalidOption(thrown)) return thrown
      throw thrown
    }
  })

/** TLS's versions, as Node has them: nothing before 1.2 is spoken. */
export type TlsVersion = "TLSv1.2" | "TLSv1.3"

/** libpq's names, of which those before 1.2 are less than what is asked for anyway. Throws `InvalidOption`. */
const tlsVersion = (option: string, text: string): TlsVersion => {
  const known = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"] as const
  const version = known.find((one) => one.toLowerCase() === text.toLowerCase())
  if (version === undefined) throw refuse(option, `must be one of ${known.join(", ")}`)
  if (version === "TLSv1.2" || version === "TLSv1.3") return version
  if (option === "ssl_min_protocol_version") return "TLSv1.2"
  throw refuse(option, "nothing before TLSv1.2 is spoken", "set TLSv1.2 or TLSv1.3")
}

/** Where keywords stand: in that URL, in a service's file, or in variables, whose names are our own. */
type Origin = { readonly url: string } | "service" | "variables"

/** A keyword that nobody knows. In a service's file it may be half of a password that stands on a line of its own. */
const unknown = (keyword: string, origin: Origin): InvalidOption =>
  typeof origin === "string"
    ? refuse(origin, "it has a parameter that is not known", "compare its names with those that libpq has")
    : ConnectionUrl.unknownParameter(origin.url, keyword)

/** libpq's keywords -> options. Throws `InvalidOption`; `resolve` catches it. */
const fromKeywords = (keywords: ConnectionUrl.Keywords, origin: Origin): Options => {
  const options: { -readonly [Name in keyof Options]: Options[Name] } = {}
  for (const [keyword, text] of Object.entries(keywords)) {
    switch (keyword) {
      case "host":
      case "user":
      case "sslrootcert":
      case "sslcert":
      case "sslcrl":
      case "options":
      case "passfile":
        options[keyword] = text
        break
      case "hostaddr":
        if (keywords.host !== undefined && keywords.host !== text) {
          throw refuse("hostaddr", "host names another server", "give one of both: host may be an address")
        }
        options.host = text
        break
      case "ssl_min_protocol_version":
        options.sslMinProtocolVersion = tlsVersion(keyword, text)
        break
      case "ssl_max_protocol_version":
        options.sslMaxProtocolVersion = tlsVersion(keyword, text)
        break
      case "requiressl": // Older than sslmode.
        if (oneOf("requiressl", ["0", "1"], text) === "1") options.sslmode ??= "require"
        break
      case "fallback_application_name":
        options.applicationName ??= text
        break
      case "geqo":
        options.settings = { geqo: text }
        break
      case "service":
      case "servicefile":
        throw refuse(keyword, "is read from the environment alone", "set PGSERVICE, and PgConfig.fromEnvironment")
      case "dbname":
        options.database = text
        break
      case "password":
      case "sslkey":
      case "sslpassword":
        options[keyword] = Redacted.make(text)
        break
      case "port":
        options.port = portList(text)
        break
      case "target_session_attrs":
        options.targetSessionAttrs = oneOf("target_session_attrs", targetSessionAttrs, text)
        break
      case "require_auth":
        options.requireAuth = methodList(text)
        break
      case "application_name":
        options.applicationName = text
        break
      case "connect_timeout":
        options.connectTimeout = Duration.seconds(wholeNumber("connect_timeout", text, 0, 86_400))
        break
      case "keepalives":
        options.keepAlive = wholeNumber("keepalives", text, 0, 1) === 1
        break
      case "sslmode":
        options.sslmode = oneOf("sslmode", sslModes, text)
        break
      case "ssl": // The JDBC driver's word for it; libpq takes it too.
        oneOf("ssl", ["true"], text)
        options.sslmode ??= "require"
        break
      case "sslnegotiation":
        options.sslnegotiation = oneOf("sslnegotiation", sslNegotiations, text)
        break
      case "channel_binding":
        options.channelBinding = oneOf("channel_binding", channelBindings, text)
        break
      default:
        if (!takeOther(keyword, text)) throw unknown(keyword, origin)
    }
  }
  return options
}

const fromUrl = (url: string): Options => fromKeywords(Result.getOrThrow(ConnectionUrl.parse(url)), { url })

/** What of `options` was said, over what the URL says. */
export const withUrl = ({ url, ...options }: Options): Options => {
  const said = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
  return url === undefined ? said : { ...fromUrl(Redacted.value(url)), ...said }
}

/** An empty variable is one that is not set, as in libpq. */
const variable = (name: string): Config.Config<string> => Config.withDefault(Config.String(name), "")

/**
 * Options from `DATABASE_URL`, from the service that `PGSERVICE` or the URL names (`PGSERVICEFILE`, `PGSYSCONFDIR`), and from all
 * other variables that libpq reads, in this order: the first that says something counts. What libpq would do and this
 * driver does not is refused with `InvalidOption`, by the parameter's name.
 *
 * Source: https://www.postgresql.org/docs/current/libpq-envars.html
 */
export const fromEnvironment: Effect.Effect<Options, InvalidOption | Config.ConfigError> = Effect.gen(function* () {
  const url = yield* variable("DATABASE_URL")
  const found = yield* Config.all(
    Object.fromEntries(
      Object.entries({ ...variables, ...settingVariables }).map(([keyword, name]) => [keyword, variable(name)])
    )
  )
  const places = yield* Config.all({
    PGSERVICE: variable("PGSERVICE"),
    PGSERVICEFILE: variable("PGSERVICEFILE"),
    PGSYSCONFDIR: variable("PGSYSCONFDIR")
  })
  const {
    service = places.PGSERVICE,
    servicefile,
    ...said
  } = url === "" ? ({} as ConnectionUrl.Keywords) : yield* Effect.fromResult(ConnectionUrl.parse(url))
  const PGSERVICEFILE = servicefile ?? places.PGSERVICEFILE
  const ofService = service === "" ? {} : yield* readService(service, { ...places, PGSERVICEFILE })
  return yield* Effect.fromResult(
    checked(() => {
      const ofVariables = Object.fromEntries(Object.entries(found).filter(([, value]) => value !== ""))
      // Each by itself, so that `ssl` and `sslmode` of two places do not meet.
      const options = {
        ...fromKeywords(ofVariables, "variables"),
        ...fromKeywords(ofService, "service"),
        ...fromKeywords(said, { url })
      }
      // A fallback of one place does not stand before a name of another.
      const named = [said, ofService, ofVariables].find((keywords) => keywords.application_name !== undefined)
      return named === undefined ? options : { ...options, applicationName: named.application_name }
    })
  )
})
