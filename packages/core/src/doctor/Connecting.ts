/** What a server refuses a walsender with: the one thing that is known of it before anything can be asked. */
import * as Check from "./Check.ts"
import { restarted, role } from "./Remedies.ts"

/** What a role is given in place of the attribute REPLICATION, where a provider keeps that to itself. */
const replicationGrant = (context: Check.Context, user: string): string =>
  context.who?.providerRoles.some(({ name }) => name === "rds_replication")
    ? `GRANT rds_replication TO ${user}`
    : `ALTER ROLE ${user} REPLICATION`

export const checks: ReadonlyArray<Check.Check> = [
  Check.make(
    {
      id: "role.replication",
      about: "the role lacks REPLICATION, or its provider's stand-in for it",
      page: "docs/postgres-setup.md#a-role"
    },
    {},
    (_, context) => {
      const { refusal, who } = context
      if (refusal?._tag !== "PermissionDenied") return []
      const isMember = who?.providerRoles.some(({ isMember, name }) => name === "rds_replication" && isMember) === true
      return [
        {
          severity: "error",
          subject: who === undefined ? undefined : role(who.role),
          seen: `no walsender for us: ${refusal.message}`,
          consequence: "neither a stream nor a first copy starts",
          cure:
            who === undefined || isMember
              ? { advice: refusal.remedy }
              : {
                  sql: [replicationGrant(context, role(who.role))],
                  right: "a superuser, or from PostgreSQL 16 on a role with CREATEROLE and REPLICATION",
                  advice: "on Amazon RDS and Aurora: GRANT rds_replication TO the role"
                }
        }
      ]
    }
  ),
  Check.make(
    {
      id: "network.pooler",
      about: "no walsender answers, but a connection pooler",
      page: "docs/postgres-setup.md#managed-postgresql"
    },
    {},
    (_, { refusal }) =>
      refusal?._tag === "InvalidOption" && refusal.option === "host"
        ? [
            {
              severity: "error",
              subject: "host",
              seen: refusal.problem,
              consequence: "a pooler hands sessions round: it takes no replication connections",
              cure: { advice: "connect to PostgreSQL itself: its own host and port, often 5432" }
            }
          ]
        : []
  ),
  Check.make(
    {
      id: "server.connections-left",
      about: "the server has no room for another connection, or another walsender",
      page: "docs/postgres-setup.md#settings"
    },
    {},
    (_, { refusal }) =>
      refusal?._tag === "ServerError" && refusal.sqlState === "53300"
        ? [
            {
              severity: "error",
              subject: "max_wal_senders",
              seen: `no walsender for us: ${refusal.message}`,
              consequence: "a stream waits, and tries again for ever",
              cure: {
                ...restarted("max_wal_senders", "20"),
                advice: "end other connections, or raise the setting and restart the server"
              }
            }
          ]
        : []
  )
]
