/**
 * What libpq can be told and this driver does otherwise, or not at all: by each parameter's name, the values that change
 * nothing here, and what to do instead of any other. So nothing that was said is passed over: it is obeyed or refused.
 *
 * Sources: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS and
 * https://www.postgresql.org/docs/current/libpq-envars.html
 */
import { InvalidOption } from "@replicant/core"

/** The variable of each parameter that has one. */
export const variables = {
  host: "PGHOST",
  hostaddr: "PGHOSTADDR",
  port: "PGPORT",
  dbname: "PGDATABASE",
  user: "PGUSER",
  password: "PGPASSWORD",
  passfile: "PGPASSFILE",
  require_auth: "PGREQUIREAUTH",
  channel_binding: "PGCHANNELBINDING",
  options: "PGOPTIONS",
  application_name: "PGAPPNAME",
  sslmode: "PGSSLMODE",
  requiressl: "PGREQUIRESSL",
  sslnegotiation: "PGSSLNEGOTIATION",
  sslcompression: "PGSSLCOMPRESSION",
  sslcert: "PGSSLCERT",
  sslkey: "PGSSLKEY",
  sslcertmode: "PGSSLCERTMODE",
  sslrootcert: "PGSSLROOTCERT",
  sslcrl: "PGSSLCRL",
  sslcrldir: "PGSSLCRLDIR",
  sslsni: "PGSSLSNI",
  requirepeer: "PGREQUIREPEER",
  ssl_min_protocol_version: "PGSSLMINPROTOCOLVERSION",
  ssl_max_protocol_version: "PGSSLMAXPROTOCOLVERSION",
  gssencmode: "PGGSSENCMODE",
  krbsrvname: "PGKRBSRVNAME",
  gsslib: "PGGSSLIB",
  gssdelegation: "PGGSSDELEGATION",
  connect_timeout: "PGCONNECT_TIMEOUT",
  client_encoding: "PGCLIENTENCODING",
  target_session_attrs: "PGTARGETSESSIONATTRS",
  load_balance_hosts: "PGLOADBALANCEHOSTS",
  min_protocol_version: "PGMINPROTOCOLVERSION",
  max_protocol_version: "PGMAXPROTOCOLVERSION"
} as const

/** Variables that stand for settings of the session, and not for parameters. */
export const settingVariables = { DateStyle: "PGDATESTYLE", TimeZone: "PGTZ", geqo: "PGGEQO" } as const

interface Otherwise {
  /** Values that ask for what happens anyway. */
  readonly same: ReadonlyArray<string>
  readonly problem: string
  readonly remedy: string
}

const unset = "leave it out"

const noGss: Otherwise = {
  same: [],
  problem: "GSSAPI is not spoken here",
  remedy: `${unset}, and use a password or TLS`
}

const noOauth: Otherwise = { same: [], problem: "OAuth is not spoken here", remedy: `${unset}, and use a password` }

const noScramKeys: Otherwise = { same: [], problem: "SCRAM needs the password itself here", remedy: "give password" }

const ourFormats: Otherwise = {
  same: [],
  problem: "the session's is set here, so that values come in one form",
  remedy: `${unset}: values come as ISO dates, in UTC`
}

const otherwise: { readonly [parameter: string]: Otherwise } = {
  sslcompression: { same: ["0", "1"], problem: "must be 0 or 1", remedy: "TLS compresses nothing any more" },
  sslcertmode: {
    same: ["allow"],
    problem: "only allow is known",
    remedy: "to send no certificate leave out sslcert"
  },
  sslcrldir: { same: [], problem: "a directory of them cannot be read", remedy: "name one file: sslcrl" },
  sslsni: { same: ["1"], problem: "the host's name is always sent", remedy: "connect to an address" },
  sslkeylogfile: { same: [], problem: "keys are not logged", remedy: unset },
  requirepeer: {
    same: [],
    problem: "who owns the other end of a socket cannot be asked here",
    remedy: "use sslmode=verify-full over TCP, or rely on the permissions of the socket's directory"
  },
  gssencmode: { ...noGss, same: ["disable", "prefer"] },
  krbsrvname: noGss,
  gsslib: noGss,
  gssdelegation: { ...noGss, same: ["0"] },
  scram_client_key: noScramKeys,
  scram_server_key: noScramKeys,
  oauth_issuer: noOauth,
  oauth_client_id: noOauth,
  oauth_client_secret: noOauth,
  oauth_scope: noOauth,
  load_balance_hosts: {
    same: ["disable"],
    problem: "hosts are tried in their order",
    remedy: "leave it out, or let what balances the load stand in between"
  },
  min_protocol_version: { same: ["3.0"], problem: "version 3.0 is spoken", remedy: unset },
  max_protocol_version: {
    same: ["3.0", "3.2", "latest"],
    problem: "must be 3.0, 3.2 or latest",
    remedy: "3.0 is spoken whatever it is"
  },
  replication: {
    same: ["database", "true", "on", "yes", "1"],
    problem: "a replication connection to a database is made, and nothing else",
    remedy: unset
  },
  tcp_user_timeout: {
    same: ["0"],
    problem: "it cannot be set from here",
    remedy: "leave it out: timing.receiverTimeout ends a connection that is dead"
  },
  DateStyle: ourFormats,
  TimeZone: ourFormats
}

/** What other clients put into URLs, and what has no bearing on a replication connection. */
const foreign = new Set([
  "schema",
  "pgbouncer",
  "connection_limit",
  "pool_timeout",
  "statement_cache_size",
  "uselibpqcompat",
  // Text is UTF-16 here, whatever it was on its way.
  "client_encoding",
  // The kernel's own limits hold, and `timing.receiverTimeout` beyond them.
  "keepalives_idle",
  "keepalives_interval",
  "keepalives_count"
])

/**
 * Takes a parameter that nothing is done about: it asks for what happens anyway, or this throws `InvalidOption`. `false` is
 * of one that libpq does not know either.
 */
export const takeOther = (parameter: string, value: string): boolean => {
  if (foreign.has(parameter)) return true
  if (!Object.hasOwn(otherwise, parameter)) return false
  const { problem, remedy, same } = otherwise[parameter]!
  if (same.includes(value)) return true
  throw new InvalidOption({ option: parameter, problem, remedy })
}
