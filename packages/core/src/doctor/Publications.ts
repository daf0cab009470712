/** What is published: whether it is there, is all that is meant, and is what PostgreSQL can send. */
import { qualifiedName, quoteIdentifier, quoteLiteral } from "../protocol/ReplicationCommand.ts"
import { everyOperation } from "../table/PublicationCommand.ts"
import * as Check from "./Check.ts"
import { publications, sentBy, wantedOf } from "./PublicationFacts.ts"
import { plural, some } from "./Remedies.ts"
import { slots, wanted } from "./SlotFacts.ts"
import { type Table, tables } from "./TableFacts.ts"

const page = "docs/postgres-setup.md#a-publication"
const identityPage = "docs/postgres-setup.md#replica-identity-and-large-values"

const ownerRight = "the publication's owner"

const isPgoutput = ({ asked }: Check.Context): boolean => asked.plugin === "pgoutput"

const columnList = (names: ReadonlyArray<string>): string => `(${names.map(quoteIdentifier).join(", ")})`

/** What has a publication send these columns of a table. */
const setTable = (publication: string, table: Table, columns: ReadonlyArray<string>): ReadonlyArray<string> => {
  const alter = `ALTER PUBLICATION ${quoteIdentifier(publication)}`
  return [
    `${alter} DROP TABLE ${qualifiedName(table)}`,
    `${alter} ADD TABLE ${qualifiedName(table)} ${columnList(columns)}`
  ]
}

export const checks: ReadonlyArray<Check.Check> = [
  Check.make(
    { id: "publication.missing", about: "a publication is not there", page, applies: isPgoutput },
    { publications },
    ({ publications }, { asked }) => {
      const there = new Set(publications.map(({ name }) => name))
      const targets = asked.tables.length === 0 ? "ALL TABLES" : `TABLE ${asked.tables.map(qualifiedName).join(", ")}`
      return asked.publications
        .filter((name) => !there.has(name))
        .map((name) => ({
          severity: "error",
          subject: quoteIdentifier(name),
          seen: `there is no publication ${quoteIdentifier(name)}; there ${
            there.size === 0 ? "is none" : `are ${some([...there].map(quoteIdentifier))}`
          }`,
          consequence:
            "a stream fails with PublicationNotFound; made while it runs, it sends nothing of what was written before",
          cure: {
            sql: [`CREATE PUBLICATION ${quoteIdentifier(name)} FOR ${targets}`],
            advice: asked.tables.length === 0 ? "or name its tables: FOR TABLE" : undefined,
            right:
              asked.tables.length === 0
                ? "a superuser; for named tables CREATE on the database, and to own them"
                : "CREATE on the database, and to own the tables"
          }
        }))
    }
  ),
  Check.make(
    { id: "publication.empty", about: "a publication sends no table", page, applies: isPgoutput },
    { publications },
    ({ publications }, context) =>
      wantedOf(publications, context)
        .filter(({ tables }) => tables === 0)
        .map(({ name }) => ({
          severity: "warning",
          subject: quoteIdentifier(name),
          seen: `publication ${quoteIdentifier(name)} sends no table`,
          consequence: "a stream of it is silent for ever, and nothing fails",
          cure: {
            sql: context.asked.tables.map(
              (table) => `ALTER PUBLICATION ${quoteIdentifier(name)} ADD TABLE ${qualifiedName(table)}`
            ),
            advice: "add the tables that are meant",
            right: `${ownerRight}, who owns the tables`
          }
        }))
  ),
  Check.make(
    {
      id: "publication.operations",
      about: "a publication leaves out inserts, updates or deletes",
      page,
      applies: isPgoutput
    },
    { publications },
    ({ publications }, context) =>
      wantedOf(publications, context).flatMap(({ name, operations }) => {
        const lacking = everyOperation.filter((operation) => !operations.includes(operation))
        if (lacking.length === 0) return []
        return [
          {
            severity: "note",
            subject: quoteIdentifier(name),
            seen: `publication ${quoteIdentifier(name)} does not send ${lacking.join(", ")}`,
            consequence: `whoever keeps a copy by it has ${lacking.includes("delete") ? "rows that are gone" : "other rows than are there"}`,
            cure: {
              sql: [
                `ALTER PUBLICATION ${quoteIdentifier(name)} SET (publish = ${quoteLiteral([...operations, ...lacking].join(", "))})`
              ],
              advice: "nothing, if that is meant",
              right: ownerRight
            }
          }
        ]
      })
  ),
  Check.make(
    {
      id: "publication.tables",
      about: "a table that is named is in no publication of the plan",
      page,
      applies: isPgoutput
    },
    { tables },
    ({ tables }, { asked }) =>
      asked.publications.length === 0
        ? []
        : tables
            .filter(
              ({ kind, name, published, schema, sentAs, ...table }) =>
                asked.tables.some((wanted) => wanted.name === name && wanted.schema === schema) &&
                published.length === 0 &&
                sentAs.length === 0 &&
                table.persistence === "p" &&
                // A partitioned table is sent as its partitions.
                kind === "r"
            )
            .map((table) => ({
              severity: "error",
              subject: qualifiedName(table),
              seen: `${qualifiedName(table)} is in none of ${some(asked.publications.map(quoteIdentifier))}`,
              consequence: "nothing of it is streamed, and nothing fails",
              cure: {
                sql: [
                  `ALTER PUBLICATION ${quoteIdentifier(asked.publications[0] ?? "")} ADD TABLE ${qualifiedName(table)}`
                ],
                right: `${ownerRight}, who owns the table`
              }
            }))
  ),
  Check.make(
    {
      id: "publication.columns-identity",
      about: "a column list leaves out columns of the replica identity (PostgreSQL 15)",
      page: identityPage,
      applies: isPgoutput
    },
    { publications, tables },
    ({ publications, tables }) =>
      tables.flatMap((table) =>
        sentBy(table, publications, "update", "delete")
          .filter(({ hasColumnList }) => hasColumnList)
          .flatMap(({ columns, publication }) => {
            const lacking = table.identity.filter((name) => !columns.includes(name))
            const isFull = table.replicaIdentity === "f"
            if (lacking.length === 0 && (!isFull || columns.length === table.columns)) return []
            return [
              {
                severity: "error",
                subject: qualifiedName(table),
                seen: `publication ${quoteIdentifier(publication)} sends ${qualifiedName(table)} ${
                  isFull
                    ? "by a column list, and its replica identity is FULL"
                    : `without ${some(lacking.map(quoteIdentifier))} of its replica identity`
                }`,
                consequence: "PostgreSQL refuses UPDATE and DELETE of the table, at whoever writes (42P10)",
                cure: isFull
                  ? {
                      sql: [`ALTER TABLE ${qualifiedName(table)} REPLICA IDENTITY DEFAULT`],
                      advice: "or send all of its columns",
                      right: "the table's owner"
                    }
                  : {
                      sql: setTable(publication, table, [...lacking, ...columns]),
                      advice: "where the table has a row filter there, add it again: WHERE (…)",
                      right: `${ownerRight}, who owns the table`
                    }
              }
            ]
          })
      )
  ),
  Check.make(
    {
      id: "publication.filter-identity",
      about: "a row filter is over columns that are not in the replica identity (PostgreSQL 15)",
      page: identityPage,
      applies: isPgoutput
    },
    { publications, tables },
    ({ publications, tables }) =>
      tables.flatMap((table) =>
        sentBy(table, publications, "update", "delete").flatMap(({ filterColumns, publication }) => {
          const outside =
            table.replicaIdentity === "f" ? [] : filterColumns.filter((name) => !table.identity.includes(name))
          if (outside.length === 0) return []
          return [
            {
              severity: "error",
              subject: qualifiedName(table),
              seen: `publication ${quoteIdentifier(publication)} filters ${qualifiedName(table)} by ${some(outside.map(quoteIdentifier))}, outside its replica identity`,
              consequence: "PostgreSQL refuses UPDATE and DELETE of the table, at whoever writes (42P10)",
              cure: {
                sql: [`ALTER TABLE ${qualifiedName(table)} REPLICA IDENTITY FULL`],
                advice: "or filter by columns of the key, or where the rows are handled",
                right: "the table's owner"
              }
            }
          ]
        })
      )
  ),
  Check.make(
    {
      id: "publication.columns-differ",
      about: "two publications of one stream send other columns of a table (PostgreSQL 15)",
      page,
      applies: (context) => isPgoutput(context) && context.asked.publications.length > 1
    },
    { tables },
    ({ tables }) =>
      tables.flatMap((table) => {
        const [first, ...others] = table.published
        const other = others.find(({ columns }) => columns.join() !== first?.columns.join())
        if (first === undefined || other === undefined) return []
        return [
          {
            severity: "error",
            subject: qualifiedName(table),
            seen: `${quoteIdentifier(first.publication)} and ${quoteIdentifier(other.publication)} send other columns of ${qualifiedName(table)}`,
            consequence: "a stream of both ends at the first change of the table (0A000)",
            cure: {
              sql: setTable(other.publication, table, first.columns),
              advice: "give both the same list, or stream them apart",
              right: `${ownerRight}, who owns the table`
            }
          }
        ]
      })
  ),
  Check.make(
    {
      id: "publication.via-root",
      about: "partitions come under their own names, or under two",
      page,
      applies: isPgoutput
    },
    { publications, tables },
    ({ publications, tables }, context) => {
      const sent = wantedOf(publications, context)
      const twice = tables.filter(({ published, sentAs }) => published.length > 0 && sentAs.length > 0)
      return [
        ...twice.map((table) => ({
          severity: "warning" as const,
          subject: qualifiedName(table),
          seen: `${qualifiedName(table)} is sent by itself and as part of ${some(table.sentAs.map(qualifiedName))}`,
          consequence:
            "of publications that differ in publish_via_partition_root, its changes come under the root's name alone",
          cure: {
            sql: sent
              .filter(({ viaRoot }) => !viaRoot)
              .map(({ name }) => `ALTER PUBLICATION ${quoteIdentifier(name)} SET (publish_via_partition_root = true)`),
            advice: "let all publications of one stream agree",
            right: ownerRight
          }
        })),
        ...sent
          .filter(({ partitioned }) => partitioned.length > 0)
          .map(({ name, partitioned }) => ({
            severity: "note" as const,
            subject: quoteIdentifier(name),
            seen: `publication ${quoteIdentifier(name)} sends ${some(partitioned.map(qualifiedName))} as ${plural(partitioned.length, "set")} of partitions`,
            consequence: "changes bear the partitions' names; a new partition is a new table to whoever reads them",
            cure: {
              sql: [`ALTER PUBLICATION ${quoteIdentifier(name)} SET (publish_via_partition_root = true)`],
              advice: "nothing, if that is meant",
              right: ownerRight
            }
          }))
      ]
    }
  ),
  Check.make(
    {
      id: "publication.younger",
      about: "a publication was made or altered after the slot's position",
      page,
      applies: isPgoutput
    },
    { publications, slots },
    ({ publications, slots }, context) => {
      if (context.asked.slot === undefined) return []
      const [slot] = wanted(slots, context)
      if (slot === undefined || slot.catalogAge === null || slot.database !== context.who?.database) return []
      const { catalogAge, name: slotName } = slot
      return wantedOf(publications, context)
        .filter(({ age }) => age <= catalogAge)
        .map(({ name }) => ({
          severity: "warning",
          subject: quoteIdentifier(name),
          seen: `publication ${quoteIdentifier(name)} was made, altered or given a table after the position of slot ${slotName}, as far as transaction ids tell`,
          consequence: `what was written between the two is sent by the older definition: ${
            context.serverVersion >= 180_000
              ? "of a publication that was not there yet, nothing"
              : "of a publication that was not there yet, not at all: the stream ends (42704)"
          }`,
          cure: {
            sql: [`SELECT pg_replication_slot_advance(${quoteLiteral(slotName)}, pg_current_wal_lsn())`],
            advice: "nothing, if the stream is past it; or make a new slot, and copy the tables with it",
            right: "REPLICATION, or a superuser",
            risk: "whatever the slot still holds is lost to its consumer"
          }
        }))
    }
  )
]
