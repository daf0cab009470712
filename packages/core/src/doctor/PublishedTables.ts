/** The tables: whether their changes can be sent, what is sent of them, and what that costs. */
import { qualifiedName, quoteIdentifier } from "../protocol/ReplicationCommand.ts"
import type { Operation } from "../server/Publication.ts"
import * as Check from "./Check.ts"
import { type Publication, publications, sentBy } from "./PublicationFacts.ts"
import { plural, some } from "./Remedies.ts"
import { type Table, tables } from "./TableFacts.ts"

const page = "docs/postgres-setup.md#replica-identity-and-large-values"

const ownerRight = "the table's owner"

/** Whether one of these is sent of it; of a table that is only named, as it would be. */
const isWrittenOf = (table: Table, all: ReadonlyArray<Publication>, ...wanted: ReadonlyArray<Operation>): boolean =>
  table.published.length === 0 || sentBy(table, all, ...wanted).length > 0

const kinds: { readonly [kind: string]: string } = {
  v: "a view",
  m: "a materialised view",
  f: "a foreign table"
}

/** What it has that identifies no row, and so why it is refused. */
const lack = ({ hasDeferrableKey, replicaIdentity }: Table): string => {
  if (replicaIdentity === "n") return "its replica identity is NOTHING"
  if (replicaIdentity === "i") return "the index of its replica identity is gone"
  return hasDeferrableKey ? "its primary key is deferrable, which identifies no row" : "it has no primary key"
}

export const checks: ReadonlyArray<Check.Check> = [
  Check.make(
    { id: "table.missing", about: "a table that is named is not there", page },
    { tables },
    ({ tables }, { asked }) => {
      const there = new Set(tables.map(qualifiedName))
      return asked.tables
        .filter((table) => !there.has(qualifiedName(table)))
        .map((table) => ({
          severity: "error",
          subject: qualifiedName(table),
          seen: `there is no table ${qualifiedName(table)}`,
          consequence: "it can be neither published nor copied",
          cure: { advice: "check its name and its schema, in the case they were made with" }
        }))
    }
  ),
  Check.make(
    {
      id: "table.kind",
      about: "a table that is named cannot be published: unlogged, temporary, a view, foreign",
      page
    },
    { tables },
    ({ tables }, { asked }) =>
      tables.flatMap((table) => {
        const { kind, persistence } = table
        if (!asked.tables.some(({ name, schema }) => name === table.name && schema === table.schema)) return []
        const what = kinds[kind] ?? (persistence === "u" ? "unlogged" : persistence === "t" ? "temporary" : undefined)
        if (what === undefined) return []
        return [
          {
            severity: "error",
            subject: qualifiedName(table),
            seen: `${qualifiedName(table)} is ${what}`,
            consequence: "its changes are not in the WAL, so nobody can stream them",
            cure:
              persistence === "u" && kind === "r"
                ? {
                    sql: [`ALTER TABLE ${qualifiedName(table)} SET LOGGED`],
                    right: ownerRight,
                    risk: "it writes the table anew, and locks it meanwhile"
                  }
                : { advice: "publish the tables beneath it" }
          }
        ]
      })
  ),
  Check.make(
    { id: "table.identity", about: "a table without replica identity, whose UPDATE and DELETE fail", page },
    { publications, tables },
    ({ publications, tables }) =>
      tables
        .filter((table) => table.persistence === "p" && isWrittenOf(table, publications, "update", "delete"))
        .flatMap((table) => {
          const isBare = table.kind === "r" && table.replicaIdentity !== "f" && table.identity.length === 0
          // A partition of a table that is sent as a whole is told of under its own name.
          const bare = isBare ? [table] : table.kind === "p" ? table.bare : []
          return bare.map((one) => ({
            severity: "error" as const,
            subject: qualifiedName(one),
            seen: `${qualifiedName(one)} has no replica identity: ${isBare ? lack(table) : "it is a partition without a key"}`,
            consequence:
              table.published.length === 0
                ? "once it is published, PostgreSQL refuses its UPDATE and DELETE, at whoever writes (55000)"
                : "PostgreSQL refuses its UPDATE and DELETE, at whoever writes (55000)",
            cure: {
              sql: [
                isBare && table.candidate !== null
                  ? `ALTER TABLE ${qualifiedName(one)} REPLICA IDENTITY USING INDEX ${quoteIdentifier(table.candidate)}`
                  : `ALTER TABLE ${qualifiedName(one)} REPLICA IDENTITY FULL`
              ],
              advice: "better: give it a primary key; or publish its inserts alone",
              right: ownerRight
            }
          }))
        })
  ),
  Check.make(
    { id: "table.identity-full", about: "FULL identity on a wide or hot table", page },
    { publications, tables },
    ({ publications, tables }, { asked: { thresholds } }) =>
      tables
        .filter(
          (table) =>
            table.replicaIdentity === "f" &&
            isWrittenOf(table, publications, "update", "delete") &&
            (table.columns >= thresholds.wideColumns || table.writes >= thresholds.hotWrites)
        )
        .map((table) => ({
          severity: "warning",
          subject: qualifiedName(table),
          seen: `${qualifiedName(table)} has replica identity FULL, ${plural(table.columns, "column")}, and ${plural(table.writes, "update or delete", "updates and deletes")} so far`,
          consequence:
            "each update and delete writes the whole old row to the WAL, and a copy looks for it by all columns",
          cure: {
            sql: [
              table.candidate === null
                ? `ALTER TABLE ${qualifiedName(table)} REPLICA IDENTITY DEFAULT`
                : `ALTER TABLE ${qualifiedName(table)} REPLICA IDENTITY USING INDEX ${quoteIdentifier(table.candidate)}`
            ],
            advice: table.candidate === null ? "give it a primary key first" : "nothing, if old rows are what you need",
            right: ownerRight,
            ...(table.candidate === null && { risk: "without a primary key its UPDATE and DELETE fail" })
          }
        }))
  ),
  Check.make(
    {
      id: "table.toast",
      about: "large values that an update leaves alone do not come: TOAST without FULL identity",
      page
    },
    { publications, tables },
    ({ publications, tables }) =>
      tables
        .filter(
          (table) =>
            table.toasted.length > 0 && table.replicaIdentity !== "f" && isWrittenOf(table, publications, "update")
        )
        .map((table) => ({
          severity: "note",
          subject: qualifiedName(table),
          seen: `${qualifiedName(table)} keeps large values out of line, of ${some(table.toasted.map(quoteIdentifier))}`,
          consequence: "an update that leaves such a value alone comes without it: the column is listed in `unchanged`",
          cure: {
            sql: [`ALTER TABLE ${qualifiedName(table)} REPLICA IDENTITY FULL`],
            advice: "keep the value from before; or have all of each old row sent, which makes more WAL",
            right: ownerRight,
            risk: "more WAL, for every update and delete"
          }
        }))
  )
]
