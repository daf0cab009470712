/** The role: its rights, its limits, and what is set for it and for the database. */
import * as Schema from "effect/Schema"
import { qualifiedName } from "../protocol/ReplicationCommand.ts"
import { jsonArray } from "../server/TablesSql.ts"
import * as Check from "./Check.ts"
import { neededConnections } from "./Plan.ts"
import { duration, plural, role, some } from "./Remedies.ts"
import { tables } from "./TableFacts.ts"

const page = "docs/postgres-setup.md#a-role"

const Rights = Schema.Struct({
  /** -1 for no limit; and how many connections count towards it. */
  connectionLimit: Schema.Number,
  connections: Schema.Number,
  databaseLimit: Schema.Number,
  databaseConnections: Schema.Number,
  /** When the password runs out, in milliseconds since 1970; null for never. */
  validUntil: Schema.NullOr(Schema.Number),
  /** `ALTER ROLE` and `ALTER DATABASE … SET`, of this role and this database. */
  settings: Schema.Array(
    Schema.Struct({ name: Schema.String, value: Schema.String, ofRole: Schema.Boolean, ofDatabase: Schema.Boolean })
  )
})

/** Those that end a session, or a statement of it. Of no others is the value asked: it may be a secret. */
const limits = [
  "statement_timeout",
  "lock_timeout",
  "idle_in_transaction_session_timeout",
  "idle_session_timeout",
  "transaction_timeout",
  "tcp_user_timeout"
]

const rights: Check.Fact<typeof Rights.Type> = {
  name: "rights",
  what: "the role's rights and settings",
  server: "source",
  read: ({ session }) =>
    Check.ask(
      session,
      "pg_roles",
      Rights,
      `(SELECT json_build_object('connectionLimit', r.rolconnlimit, 'databaseLimit', d.datconnlimit,
        'connections', (SELECT count(*) FROM pg_stat_activity a WHERE a.usesysid = r.oid AND a.pid <> pg_backend_pid()),
        'databaseConnections', (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid AND a.pid <> pg_backend_pid()),
        'validUntil', CASE WHEN isfinite(r.rolvaliduntil) THEN extract(epoch FROM r.rolvaliduntil) * 1000 END,
        'settings', ${jsonArray(
          `json_build_object('name', split_part(c.line, '=', 1), 'value', substr(c.line, strpos(c.line, '=') + 1),
            'ofRole', s.setrole <> 0, 'ofDatabase', s.setdatabase <> 0)`,
          `FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) AS c (line)
            WHERE s.setrole IN (0, r.oid) AND s.setdatabase IN (0, d.oid)
            AND split_part(c.line, '=', 1) IN (${limits.map((name) => `'${name}'`).join(", ")})`
        )})
        FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database())`
    )
}

/** Whom a setting is of: in words, and as ALTER takes it. */
const placeOf = (
  { ofDatabase, ofRole }: Pick<(typeof Rights.Type)["settings"][number], "ofDatabase" | "ofRole">,
  who: Check.Who | undefined
): readonly [words: string, sql: string] => {
  const [name, database] = [role(who?.role ?? ""), role(who?.database ?? "")]
  if (!ofRole) return [`database ${database}`, `DATABASE ${database}`]
  return ofDatabase
    ? [`role ${name} in database ${database}`, `ROLE ${name} IN DATABASE ${database}`]
    : [`role ${name}`, `ROLE ${name}`]
}

const isOff = (value: string): boolean => /^0+([a-z]*)$/.test(value.trim())

const forCopies = ({ asked }: Check.Context): boolean => asked.snapshot === true

export const checks: ReadonlyArray<Check.Check> = [
  Check.make(
    { id: "role.superuser", about: "a superuser is used where a role with REPLICATION would do", page },
    {},
    (_, { who }) =>
      who?.isSuperuser === true
        ? [
            {
              severity: "note",
              subject: role(who.role),
              seen: `role ${role(who.role)} is a superuser`,
              consequence: "whoever reads its password has the server, not only its rows",
              cure: {
                sql: ["CREATE ROLE replicant LOGIN REPLICATION"],
                advice: "give it a password, and connect as that role; a first copy needs SELECT on the tables as well",
                right: "a superuser, or CREATEROLE and REPLICATION"
              }
            }
          ]
        : []
  ),
  Check.make(
    { id: "role.valid-until", about: "the role's password runs out", page },
    { rights },
    ({ rights: { validUntil } }, { asked, now, who }) => {
      if (validUntil === null || who === undefined || validUntil - now > asked.thresholds.passwordExpiry) return []
      const left = (validUntil - now) / 1000
      return [
        {
          severity: left < 0 ? "error" : "warning",
          subject: role(who.role),
          seen: `the password of role ${role(who.role)} ${left < 0 ? `has run out ${duration(-left)} ago` : `runs out in ${duration(left)}`}`,
          consequence: "a stream that runs goes on, and its next connection is refused",
          cure: {
            sql: [`ALTER ROLE ${role(who.role)} VALID UNTIL 'infinity'`],
            advice: "or set a new password, and a later date",
            right: "CREATEROLE, and ADMIN OPTION on the role"
          }
        }
      ]
    }
  ),
  Check.make(
    { id: "role.connection-limit", about: "a limit of connections leaves no room for the stream", page },
    { rights },
    ({ rights }, context) => {
      const { who } = context
      if (who === undefined || who.isSuperuser) return []
      const needed = neededConnections(context.asked)
      const ofRole = {
        what: `role ${role(who.role)}`,
        subject: role(who.role),
        limit: rights.connectionLimit,
        taken: rights.connections,
        sql: (count: number) => `ALTER ROLE ${role(who.role)} CONNECTION LIMIT ${count}`
      }
      const ofDatabase = {
        what: `database ${role(who.database)}`,
        subject: role(who.database),
        limit: rights.databaseLimit,
        taken: rights.databaseConnections,
        sql: (count: number) => `ALTER DATABASE ${role(who.database)} CONNECTION LIMIT ${count}`
      }
      return [ofRole, ofDatabase]
        .filter(({ limit, taken }) => limit >= 0 && limit - taken < needed)
        .map(({ limit, sql, subject, taken, what }) => ({
          severity: "warning",
          subject,
          seen: `${what} may have ${plural(limit, "connection")}, ${taken} ${taken === 1 ? "is" : "are"} taken, and ${needed} more needed`,
          consequence:
            "a connection is refused (53300): to stream, to copy, or to ask whether a silent server is at work",
          cure: {
            sql: [sql(taken + needed + 2)],
            right: "the database's owner, or CREATEROLE and ADMIN OPTION on the role"
          }
        }))
    }
  ),
  Check.make(
    {
      id: "role.session-limits",
      about: "settings of the role or the database end sessions or statements",
      page: "docs/postgres-setup.md#settings-of-the-role-and-the-database"
    },
    { rights },
    ({ rights }, { who }) =>
      rights.settings
        .filter(({ value }) => !isOff(value))
        .map(({ name, ofDatabase, ofRole, value }) => {
          const [of, place] = placeOf({ ofDatabase, ofRole }, who)
          return {
            severity: "note",
            subject: name,
            seen: `${name} is ${value} for ${of}`,
            consequence:
              "our own sessions turn it off as they begin; other tools of that role, and a driver of your own, are ended by it",
            cure: {
              sql: [`ALTER ${place} RESET ${name}`],
              right: "the role itself, the database's owner, or CREATEROLE"
            }
          }
        })
  ),
  Check.make(
    {
      id: "role.select",
      about: "a first copy may not read a published table, or use its schema",
      page,
      applies: forCopies
    },
    { tables },
    ({ tables }, { who }) =>
      tables
        .filter(({ isReadable }) => !isReadable)
        .map((table) => {
          const name = qualifiedName(table)
          return {
            severity: "error",
            subject: name,
            seen: `role ${role(who?.role ?? "")} may not read ${some([name, ...table.unreadable.map(qualifiedName).filter((part) => part !== name)])}`,
            consequence: "a first copy fails with PermissionDenied; a stream needs no SELECT",
            cure: {
              sql: [
                `GRANT USAGE ON SCHEMA ${role(table.schema)} TO ${role(who?.role ?? "")}`,
                ...[table, ...table.unreadable.filter((part) => qualifiedName(part) !== name)].map(
                  (part) => `GRANT SELECT ON ${qualifiedName(part)} TO ${role(who?.role ?? "")}`
                )
              ],
              right: "the owner of the table and of the schema"
            }
          }
        })
  ),
  Check.make(
    {
      id: "role.row-security",
      about: "row-level security stands between a first copy and its rows",
      page,
      applies: forCopies
    },
    { tables },
    ({ tables }, { who }) =>
      tables
        .filter(({ hasRowSecurity }) => hasRowSecurity)
        .map((table) => ({
          severity: "error",
          subject: qualifiedName(table),
          seen: `policies of ${qualifiedName(table)} bind role ${role(who?.role ?? "")}`,
          consequence: "a first copy is refused, since it would miss rows; the stream itself goes around them",
          cure: {
            sql: [`ALTER ROLE ${role(who?.role ?? "")} BYPASSRLS`],
            advice: "or copy as the table's owner",
            right: "a superuser, or from PostgreSQL 16 on CREATEROLE and BYPASSRLS"
          }
        }))
  )
]
