/**
 * Which of the catalog's tables, and which of their columns, are to be declared. What a module makes of them is in
 * `TableModule.ts`.
 */
import { Publication, type ReplicationError, Tables } from "@replicant/core"
import type { ReplicantConnection } from "@replicant/core/driver"
import * as Effect from "effect/Effect"
import { isPattern, matcher, type Name } from "./NamePattern.ts"
import type { CatalogTable } from "./TableModule.ts"

/**
 * Which tables: those that publications send, under the names and with the columns that they send; some, by name or pattern; or a
 * schema's.
 */
export type Selection =
  | { readonly _tag: "Publications"; readonly publications: ReadonlyArray<string> }
  | { readonly _tag: "Tables"; readonly tables: ReadonlyArray<string> }
  | { readonly _tag: "Schemas"; readonly schemas: ReadonlyArray<string> }

const own = "^(pg_|information_schema$)"

/** Every table of a user's that a pattern is of, and those that are named. */
const namesOf = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  texts: ReadonlyArray<string>
): Effect.fn.Return<ReadonlyArray<Name>, ReplicationError> {
  const named = texts.filter((text) => !isPattern(text)).map(Publication.tableName)
  const patterns = texts.filter(isPattern)
  if (patterns.length === 0) return named
  const rows = yield* connection.query(`SELECT n.nspname, c.relname FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '${own}'`)
  const isLike = matcher(patterns)
  const found = rows.map(({ nspname, relname }) => ({ schema: nspname ?? "", name: relname ?? "" })).filter(isLike)
  const isNew = (name: Name) => !named.some((other) => other.schema === name.schema && other.name === name.name)
  return [...named, ...found.filter(isNew)]
})

const asked = (
  connection: ReplicantConnection,
  selection: Selection
): Effect.Effect<Tables.Selection, ReplicationError> =>
  selection._tag === "Tables"
    ? Effect.map(namesOf(connection, selection.tables), (names) => ({ _tag: "Names", names }))
    : Effect.succeed(selection)

/** Partitions, and what is never told of, are left to who names them: a program wants either partitions or their root. */
const isNamed = ({ name, schema }: Name, selection: Selection): boolean =>
  selection._tag === "Publications" ||
  (selection._tag === "Tables" && matcher(selection.tables.filter((text) => !isPattern(text)))({ schema, name }))

const isSelected = (table: Tables.Table, selection: Selection): boolean =>
  (table.kind === "r" || table.kind === "p") &&
  (isNamed(table, selection) || (table.persistence === "p" && !table.isPartition))

/** How types are printed hangs on these, and a module must not hang on the role that asks. */
const settings = "SET search_path = ''; SET quote_all_identifiers = off"

/**
 * The tables that are there of those selected, in no particular order. Names must hold no zero byte. Settings of the session
 * are changed: give it a connection of its own.
 */
export const catalogTables = Effect.fn("Replicant.catalogTables")(function* (
  connection: ReplicantConnection,
  selection: Selection,
  exclude: ReadonlyArray<string> = []
): Effect.fn.Return<ReadonlyArray<CatalogTable>, ReplicationError> {
  yield* connection.query(settings)
  const isExcluded = matcher(exclude)
  const tables = yield* Tables.describe(connection, {
    selection: yield* asked(connection, selection),
    aspects: ["columns", "identity", "primaryKey", "published"]
  })
  return tables
    .filter((table) => isSelected(table, selection) && !isExcluded(table))
    .map((table) => ({
      ...table,
      // Nobody sends a generated column who was not told to.
      columns:
        selection._tag === "Publications"
          ? Tables.sentColumns(table)
          : table.columns.filter(({ generated }) => generated === "")
    }))
})
