/** What a doctor looks for in the tables of a copy's target: all that `copy` checks of them, and what acts there by itself. */
import { quoteIdentifier, quoteLiteral } from "@replicant/core/driver"
import { Doctor } from "@replicant/core/operations"
import { missingKeys } from "./CopySetup.ts"
import { mismatches, missingGrants, tableKey } from "./TargetCatalog.ts"
import { filled, found, habits, position, published } from "./TargetFacts.ts"

const page = "docs/copy.md#what-it-checks-before-the-first-row"

/** Looked for where a target is named: each needs a fact of it. */
const atTarget = { page, server: "target" } as const

const alterTarget = "pg_dump --schema-only of the source has the definitions"

const ownerRight = "the table's owner"

export const checks: ReadonlyArray<Doctor.Check> = [
  Doctor.check(
    {
      id: "target.tables",
      about: "tables or columns are missing at the target, or their types do not fit",
      ...atTarget
    },
    { published, found },
    ({ found, published }) =>
      mismatches(published, found).map((problem) => ({
        severity: "error",
        subject: problem.slice(0, problem.search(/, column | is missing/)),
        seen: `at the target ${problem}`,
        consequence: "a copy is refused (CopyMismatch)",
        cure: { advice: alterTarget, right: ownerRight }
      }))
  ),
  Doctor.check(
    { id: "target.keys", about: "a table with a key has no unique index over it at the target", ...atTarget },
    { published, found },
    ({ found, published }) =>
      published.flatMap((table) => {
        const [problem] = missingKeys([table], found)
        if (problem === undefined) return []
        const key = table.identity.length > 0 ? table.identity : table.primaryKey
        return [
          {
            severity: "error",
            subject: tableKey(table),
            seen: `at the target ${problem}`,
            consequence: "a copy is refused (CopyMismatch): each update would look through the whole table",
            cure: {
              sql: [`CREATE UNIQUE INDEX ON ${tableKey(table)} (${key.map(quoteIdentifier).join(", ")})`],
              right: ownerRight
            }
          }
        ]
      })
  ),
  Doctor.check(
    { id: "target.rights", about: "the role may not write a table of the target", ...atTarget },
    { found },
    ({ found }) =>
      Array.from(found.tables, ([key, table]) => ({
        key,
        table,
        grants: missingGrants({ ...found, tables: new Map([[key, table]]) })
      }))
        .filter(({ grants }) => grants.length > 0)
        .map(({ grants, key, table }) => ({
          severity: "error",
          subject: key,
          seen: `role ${quoteIdentifier(found.role)} lacks ${table.denied.join(", ")} on ${key}`,
          consequence: "a copy is refused (TargetDenied)",
          cure: {
            sql: [
              `GRANT USAGE ON SCHEMA ${quoteIdentifier(table.schema)} TO ${quoteIdentifier(found.role)}`,
              ...grants
            ],
            right: ownerRight
          }
        }))
  ),
  Doctor.check(
    {
      id: "target.row-security",
      about: "row-level security stands between the role and a table of the target",
      ...atTarget
    },
    { found },
    ({ found }) =>
      Array.from(found.tables)
        .filter(([, { hasRowSecurity }]) => hasRowSecurity)
        .map(([key]) => ({
          severity: "error",
          subject: key,
          seen: `policies of ${key} bind role ${quoteIdentifier(found.role)}`,
          consequence: "a copy is refused (TargetDenied): it would miss rows",
          cure: {
            sql: [`ALTER ROLE ${quoteIdentifier(found.role)} BYPASSRLS`],
            advice: "or write as the table's owner",
            right: "a superuser, or from PostgreSQL 16 on CREATEROLE and BYPASSRLS"
          }
        }))
  ),
  Doctor.check(
    { id: "target.filled", about: "a table of the target holds rows before the first copy", ...atTarget },
    { filled, position },
    ({ filled, position }) =>
      position !== undefined
        ? []
        : filled.map((key) => ({
            severity: "error",
            subject: key,
            seen: `${key} holds rows at the target`,
            consequence: "a first copy is refused (TargetNotEmpty): its rows would be mixed with others",
            cure: {
              sql: [`TRUNCATE ${key}`],
              advice: "or --truncate; or --changes-only, if they are the source's rows already",
              right: `TRUNCATE on the table`,
              risk: "the rows that are there are gone"
            }
          }))
  ),
  Doctor.check(
    { id: "target.triggers", about: "triggers at the target fire on what is copied", ...atTarget },
    { habits },
    ({ habits }) =>
      habits.triggers.map(({ name, schema, table }) => {
        const key = tableKey({ schema, name: table })
        return {
          severity: "warning",
          subject: key,
          seen: `trigger ${quoteIdentifier(name)} of ${key} fires for replicated changes, too (ENABLE ALWAYS or REPLICA)`,
          consequence: "it does at the target, once more, what it or its like did at the source",
          cure: {
            sql: [`ALTER TABLE ${key} ENABLE TRIGGER ${quoteIdentifier(name)}`],
            advice: "nothing, if that is meant",
            right: ownerRight
          }
        }
      })
  ),
  Doctor.check(
    { id: "target.sequences", about: "sequences at the target stand still while rows are copied", ...atTarget },
    { habits },
    ({ habits }) =>
      habits.sequences.map(({ column, schema, sequence, sequenceSchema, table }) => {
        const [key, own] = [tableKey({ schema, name: table }), tableKey({ schema: sequenceSchema, name: sequence })]
        return {
          severity: "note",
          subject: own,
          seen: `${own} fills ${key}, column ${quoteIdentifier(column)}, and no copy moves it`,
          consequence: "the first rows that are inserted at the target after a switch meet keys that are there already",
          cure: {
            sql: [
              `SELECT pg_catalog.setval(${quoteLiteral(own)}, (SELECT greatest(max(${quoteIdentifier(column)}), 1) FROM ${key}))`
            ],
            advice: "at the switch, once nothing is written to the source any more",
            right: "UPDATE on the sequence, SELECT on the table"
          }
        }
      })
  )
]
