/** The way to the server: encryption, proof of identity, passwords, clocks, and who else is let in as we are. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { ReplicationError } from "../ReplicationError.ts"
import { jsonArray } from "../server/TablesSql.ts"
import * as Check from "./Check.ts"
import { reloaded, role } from "./Remedies.ts"
import { settings } from "./ServerFacts.ts"

const page = "docs/postgres-setup.md#tls"
const passwordsPage = "docs/postgres-setup.md#passwords"

const Link = Schema.Struct({
  isEncrypted: Schema.Boolean,
  protocol: Schema.NullOr(Schema.String),
  /** Whence the server sees us come; null over a Unix-domain socket. */
  address: Schema.NullOr(Schema.String),
  /** How we were let in: `scram-sha-256:role`; null for no proof at all, and before PostgreSQL 16. */
  systemUser: Schema.NullOr(Schema.String),
  millis: Schema.Number
})

const link: Check.Fact<typeof Link.Type & { readonly skew: number; readonly doubt: number }> = {
  name: "connection",
  what: "our own connection",
  server: "source",
  read: Effect.fnUntraced(function* ({
    session
  }): Effect.fn.Return<typeof Link.Type & { readonly skew: number; readonly doubt: number }, ReplicationError> {
    const before = yield* Clock.currentTimeMillis
    const found = yield* Check.ask(
      session,
      "pg_stat_ssl",
      Link,
      `json_build_object('isEncrypted', coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false),
        'protocol', (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()), 'address', host(inet_client_addr()),
        'systemUser', ${session.serverVersion >= 160_000 ? "SYSTEM_USER" : "NULL::text"},
        'millis', extract(epoch FROM clock_timestamp()) * 1000)`
    )
    const after = yield* Clock.currentTimeMillis
    // It read its clock somewhere between our question and its answer.
    return { ...found, skew: found.millis - (before + after) / 2, doubt: (after - before) / 2 }
  })
}

const Rules = Schema.Array(
  Schema.Struct({
    line: Schema.NullOr(Schema.Number),
    type: Schema.NullOr(Schema.String),
    databases: Schema.Array(Schema.String),
    users: Schema.Array(Schema.String),
    address: Schema.NullOr(Schema.String),
    method: Schema.NullOr(Schema.String),
    hasError: Schema.Boolean
  })
)

/** pg_hba.conf as it stands in the file, which may not be what is in force. */
const rules: Check.Fact<typeof Rules.Type> = {
  name: "hba",
  what: "pg_hba.conf",
  server: "source",
  read: ({ session }) =>
    Check.ask(
      session,
      "pg_hba_file_rules",
      Rules,
      jsonArray(
        `json_build_object('line', h.line_number, 'type', h.type, 'databases', coalesce(to_json(h.database), '[]'::json),
          'users', coalesce(to_json(h.user_name), '[]'::json), 'address', h.address, 'method', h.auth_method,
          'hasError', h.error IS NOT NULL) ORDER BY h.line_number`,
        "FROM pg_hba_file_rules h"
      )
    ),
  grants: (name) => [
    `GRANT SELECT ON pg_catalog.pg_hba_file_rules TO ${name}`,
    `GRANT EXECUTE ON FUNCTION pg_catalog.pg_hba_file_rules() TO ${name}`
  ]
}

/** An address, or a host's name, of the machine itself: nobody listens in between. */
const isLocal = (address: string): boolean =>
  address.startsWith("/") || /^(localhost|127\..*|::1|samehost)$/.test(address)

/** Whether others may stand between us and the server: by the host's name, where we know it, else as the server sees us. */
const isRemote = ({ address }: typeof Link.Type, { asked }: Check.Context): boolean =>
  asked.connection === undefined ? address !== null && !isLocal(address) : !isLocal(asked.connection.host)

const isVerified = (sslmode: string): boolean => sslmode === "verify-full" || sslmode === "verify-ca"

const names = (list: ReadonlyArray<string>, name: string): boolean =>
  list.some((each) => each === "all" || each === name || each.startsWith("+") || each.startsWith("same"))

export const checks: ReadonlyArray<Check.Check> = [
  Check.make(
    { id: "network.tls", about: "a connection over a network is not encrypted", page },
    { link },
    ({ link }, context) =>
      link.isEncrypted || !isRemote(link, context)
        ? []
        : [
            {
              severity: "warning",
              subject: "sslmode",
              seen: "the connection is plain text, over a network",
              consequence: "whoever is on the way reads every row, and may change it",
              cure: {
                sql: ["ALTER SYSTEM SET ssl = 'on'", "SELECT pg_reload_conf()"],
                advice:
                  "give the server a certificate (ssl_cert_file, ssl_key_file), and connect with sslmode=verify-full",
                right: "a superuser"
              }
            }
          ]
  ),
  Check.make(
    {
      id: "network.certificate",
      about: "the server's certificate is not looked at",
      page,
      applies: ({ asked }) => asked.connection !== undefined
    },
    { link },
    ({ link }, context) => {
      const sslmode = context.asked.connection?.sslmode ?? ""
      if (!link.isEncrypted || !isRemote(link, context) || isVerified(sslmode)) return []
      return [
        {
          severity: sslmode === "require" ? "note" : "warning",
          subject: "sslmode",
          seen: `the connection is encrypted, and with sslmode=${sslmode} nobody looked with whom`,
          consequence:
            sslmode === "require"
              ? "only a password by SCRAM, with channel binding, keeps a man in the middle out"
              : "a man in the middle says that there is no TLS, and is believed",
          cure: { advice: "sslmode=verify-full, and sslrootcert with the authority that signed the certificate" }
        }
      ]
    }
  ),
  Check.make(
    {
      id: "network.authentication",
      about: "the server lets the role in over a network without proof, or by weak proof (PostgreSQL 16)",
      page: passwordsPage
    },
    { link },
    ({ link }, context) => {
      if (context.serverVersion < 160_000 || !isRemote(link, context)) return []
      const method = link.systemUser?.split(":")[0]
      if (method !== undefined && method !== "md5" && method !== "password") return []
      return [
        {
          severity: method === undefined ? "error" : "warning",
          subject: "pg_hba.conf",
          seen: method === undefined ? "the server asked for no proof of who we are" : `the server asked for ${method}`,
          consequence:
            method === undefined
              ? "whoever reaches the server has every published row"
              : "whoever is on the way can have the password, or try it at leisure",
          cure: {
            advice: "let the line of pg_hba.conf say hostssl and scram-sha-256, and reload",
            right: "the server's files"
          }
        }
      ]
    }
  ),
  Check.make(
    { id: "network.password-encryption", about: "new passwords are kept as MD5", page: passwordsPage },
    { settings },
    ({ settings }) =>
      settings.password_encryption?.value === "md5"
        ? [
            {
              severity: "warning",
              subject: "password_encryption",
              seen: "password_encryption is md5",
              consequence:
                "a password that is set is kept as a hash that is as good as the password; PostgreSQL 19 drops it",
              cure: {
                ...reloaded("password_encryption", "scram-sha-256"),
                advice: "then set each password again: those that are there stay as they are"
              }
            }
          ]
        : []
  ),
  Check.make(
    {
      id: "network.hba-errors",
      about: "pg_hba.conf has lines that the server does not understand",
      page: "docs/postgres-setup.md#a-role"
    },
    { rules },
    ({ rules }) => {
      const wrong = rules.filter(({ hasError }) => hasError).map(({ line }) => line)
      if (wrong.length === 0) return []
      return [
        {
          severity: "error",
          subject: "pg_hba.conf",
          seen: `pg_hba.conf is not understood at line ${wrong.join(", ")}`,
          consequence: "no reload takes it, and after the next restart the server does not come up",
          cure: {
            sql: ["SELECT line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL"],
            advice: "mend those lines, and reload",
            right: "the server's files"
          }
        }
      ]
    }
  ),
  Check.make(
    {
      id: "network.hba-weak",
      about: "pg_hba.conf lets the role in from a network without proof, or by weak proof",
      page: "docs/postgres-setup.md#a-role"
    },
    { rules },
    ({ rules }, { who }) =>
      rules
        .filter(
          ({ address, databases, hasError, method, type, users }) =>
            !hasError &&
            who !== undefined &&
            type !== null &&
            type !== "local" &&
            address !== null &&
            !isLocal(address) &&
            names(databases, who.database) &&
            names(users, who.role) &&
            (method === "trust" || (method === "password" && type !== "hostssl"))
        )
        .map(({ address, line, method }) => ({
          severity: "warning",
          subject: `line ${line}`,
          seen: `line ${line} of pg_hba.conf lets role ${role(who?.role ?? "")} in from ${address} by ${method}`,
          consequence:
            method === "trust"
              ? "whoever is at one of those addresses has every row that the role has"
              : "the password crosses the network as it is",
          cure: { advice: "let that line say hostssl and scram-sha-256, and reload", right: "the server's files" }
        }))
  ),
  Check.make(
    { id: "network.clock", about: "the server's clock and ours differ", page: "docs/watching.md" },
    { link },
    ({ link: { doubt, skew } }, { asked: { thresholds } }) => {
      if (Math.abs(skew) - doubt <= thresholds.clockSkew) return []
      return [
        {
          severity: "warning",
          subject: "clock",
          seen: `the server's clock is ${(Math.abs(skew) / 1000).toFixed(1)} s ${skew > 0 ? "ahead of" : "behind"} ours`,
          consequence: "a lag in seconds is off by as much, and so is whatever compares commit times with our own",
          cure: { advice: "let both keep time by NTP" }
        }
      ]
    }
  )
]
