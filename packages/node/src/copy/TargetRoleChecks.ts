/** What a doctor looks for at the target of a copy: which server it is, as whom it would be written, and what a copy keeps there. */
import { quoteIdentifier, quoteLiteral } from "@replicant/core/driver"
import { Doctor } from "@replicant/core/operations"
import * as CopyPosition from "./CopyPosition.ts"
import { disagreement } from "./CopySetup.ts"
import * as ReplicationOrigin from "./ReplicationOrigin.ts"
import { position, state } from "./TargetFacts.ts"

const page = "docs/copy.md#what-it-checks-before-the-first-row"

/** Looked for where a target is named: each needs a fact of it. */
const atTarget = { page, server: "target" } as const

/** The slot's name, where a copy has one. */
const slotOf = ({ asked }: Doctor.Context): string => asked.slot ?? ""

export const checks: ReadonlyArray<Doctor.Check> = [
  Doctor.check(
    { id: "target.same", about: "source and target are one database", ...atTarget },
    { state },
    ({ state: { who } }, context) =>
      who.startedAt === context.who?.startedAt && who.database === context.who.database
        ? [
            {
              severity: "error",
              subject: who.database,
              seen: `source and target are one database: ${quoteIdentifier(who.database)}`,
              consequence: "a copy is refused (TargetIsSource): each change would come back as another",
              cure: { advice: "name another target" }
            }
          ]
        : []
  ),
  Doctor.check(
    { id: "target.read-only", about: "the target is a standby", ...atTarget },
    { state },
    ({ state: { who } }) =>
      who.isInRecovery
        ? [
            {
              severity: "error",
              subject: who.database,
              seen: "the target is a standby",
              consequence: "nothing can be written there",
              cure: { advice: "connect to its primary: target_session_attrs=read-write" }
            }
          ]
        : []
  ),
  Doctor.check(
    { id: "target.encoding", about: "the target's encoding takes less text than the source's", ...atTarget },
    { state },
    ({ state: { who } }, context) => {
      const encoding = context.who?.encoding
      if (encoding === undefined || who.encoding === encoding || who.encoding === "UTF8") return []
      return [
        {
          severity: "warning",
          subject: who.database,
          seen: `the target's encoding is ${who.encoding}, the source's ${encoding}`,
          consequence: "the first text with a character that is not in it ends the copy (22P05)",
          cure: { advice: "make the target with ENCODING 'UTF8'" }
        }
      ]
    }
  ),
  Doctor.check(
    { id: "target.pooler", about: "a connection pooler stands before the target", ...atTarget },
    { state },
    ({ state }) =>
      state.isPooled
        ? [
            {
              severity: "error",
              subject: "host",
              seen: "who lets us in at the target is not the backend that answers: there is a connection pooler in between",
              consequence:
                "settings, locks and prepared statements of a copy's session may be another's from one transaction to the next",
              cure: { advice: "connect to PostgreSQL itself" }
            }
          ]
        : []
  ),
  Doctor.check(
    { id: "target.position", about: "slot and position are not of one copy", ...atTarget },
    { position, slots: Doctor.slots },
    ({ position, slots }, context) => {
      const slot = slots.find(({ name }) => name === context.asked.slot)
      const lost = disagreement(
        { name: slotOf(context), database: context.who?.database },
        slot === undefined ? undefined : { database: slot.database ?? undefined },
        position
      )
      if (lost === undefined) return []
      return [
        {
          severity: "error",
          subject: slotOf(context),
          seen: lost.message,
          consequence: "a copy is refused (CopyPositionLost): what is missing cannot be made up",
          cure: { advice: lost.remedy }
        }
      ]
    }
  ),
  Doctor.check(
    { id: "target.position-rights", about: "the role may not keep the copy's position", ...atTarget },
    { state },
    ({ state: { hasTable, mayCreate, mayUseTable, who } }) => {
      const role = quoteIdentifier(who.role)
      if (hasTable ? mayUseTable : mayCreate) return []
      return [
        {
          severity: "error",
          subject: "replicant.copy_position",
          seen: hasTable
            ? `role ${role} may not write replicant.copy_position`
            : `role ${role} may not make the schema replicant`,
          consequence: "a copy is refused (TargetDenied)",
          cure: {
            sql: [
              ...(hasTable ? [] : CopyPosition.createTable.split("; ")),
              `GRANT USAGE ON SCHEMA replicant TO ${role}`,
              `GRANT SELECT, INSERT, UPDATE ON replicant.copy_position TO ${role}`
            ],
            right: hasTable ? "that table's owner" : "CREATE on the database"
          }
        }
      ]
    }
  ),
  Doctor.check(
    { id: "target.trigger-rights", about: "the role may not keep the target's triggers quiet", ...atTarget },
    { state },
    ({ state: { mayQuiet, version, who } }) =>
      mayQuiet
        ? []
        : [
            {
              severity: "error",
              subject: "session_replication_role",
              seen: `role ${quoteIdentifier(who.role)} may not set session_replication_role`,
              consequence: "a copy is refused (TargetDenied): triggers would do again what they did at the source",
              cure: {
                sql: [
                  version < 150_000
                    ? `ALTER ROLE ${quoteIdentifier(who.role)} SUPERUSER`
                    : `GRANT SET ON PARAMETER session_replication_role TO ${quoteIdentifier(who.role)}`
                ],
                advice: "or let triggers fire: --fire-triggers",
                right: "a superuser",
                ...(version < 150_000 && { risk: "before PostgreSQL 15 only a superuser may" })
              }
            }
          ]
  ),
  Doctor.check(
    { id: "target.origin-rights", about: "the role may not use replication origins", ...atTarget },
    { state },
    ({ state: { mayUseOrigins, who } }) =>
      mayUseOrigins
        ? []
        : [
            {
              severity: "error",
              subject: "replication origin",
              seen: `role ${quoteIdentifier(who.role)} may not use replication origins`,
              consequence: "a copy is refused (TargetDenied)",
              cure: {
                sql: ReplicationOrigin.functions.map(
                  (name) => `GRANT EXECUTE ON FUNCTION pg_catalog.${name} TO ${quoteIdentifier(who.role)}`
                ),
                advice: "or do without: --no-origin",
                right: "a superuser"
              }
            }
          ]
  ),
  Doctor.check(
    {
      id: "target.origins-left",
      about: "there is no room for another replication origin, or some are left by others",
      ...atTarget
    },
    { state },
    ({ state: { originLimit, origins, version, who } }, context) => {
      const ours = ReplicationOrigin.originName(who.database, slotOf(context))
      const others = origins.filter((name) => name !== ours)
      if (others.length < originLimit) return []
      const left = others.filter((name) => name.startsWith("replicant."))
      return [
        {
          severity: "warning",
          subject: "replication origin",
          seen: `the target knows ${Doctor.plural(others.length, "other replication origin")}, of ${originLimit} that it has room for: ${Doctor.some(others)}`,
          consequence: "where all of them are in use, or were since the server started, a copy is refused (53400)",
          cure: {
            sql: left.map((name) => `SELECT pg_replication_origin_drop(${quoteLiteral(name)})`),
            advice: `drop those that nobody uses, or raise ${version < 180_000 ? "max_replication_slots" : "max_active_replication_origins"} and restart the target`,
            right: "a superuser",
            ...(left.length > 0 && { risk: "a copy that still uses one loses its mark" })
          }
        }
      ]
    }
  )
]
