/**
 * Which of the catalog's tables, and which of their columns, are to be declared. What a module makes of them is in
 * `TableModule.ts`.
 */
import { Publication, type ReplicationError, Tables } from "@replicant/core"
import type { ReplicantConnection } from "@replicant/core/driver"
import * as Effect from "effect/Effect"
import type { CatalogTable } from "./TableModule.ts"

/** Which tables: those that publications send, under the names and with the columns that they send; some; or a schema's. */
export type Selection =
  | { readonly _tag: "Publications"; readonly publications: ReadonlyArray<string> }
  | { readonly _tag: "Tables"; readonly tables: ReadonlyArray<string> }
  | { readonly _tag: "Schemas"; readonly schemas: ReadonlyArray<string> }

const asked = (selection: Selection): Tables.Selection =>
  selection._tag === "Tables" ? { _tag: "Names", names: selection.tables.map(Publication.tableName) } : selection

const isSelected = ({ isPartition, kind, persistence }: Tables.Table, selection: Selection): boolean =>
  (kind === "r" || kind === "p") &&
  // Partitions are left to who names them: a program wants either them or their root.
  (selection._tag !== "Schemas" || (persistence === "p" && !isPartition))

/** How types are printed hangs on these, and a module must not hang on the role that asks. */
const settings = "SET search_path = ''; SET quote_all_identifiers = off"

/**
 * The tables that are there of those selected, in no particular order. Names must hold no zero byte. Settings of the session
 * are changed: give it a connection of its own.
 */
export const catalogTables = Effect.fn("Replicant.catalogTables")(function* (
  connection: ReplicantConnection,
  selection: Selection
): Effect.fn.Return<ReadonlyArray<CatalogTable>, ReplicationError> {
  yield* connection.query(settings)
  const tables = yield* Tables.describe(connection, {
    selection: asked(selection),
    aspects: ["columns", "identity", "primaryKey", "published"]
  })
  return tables
    .filter((table) => isSelected(table, selection))
    .map((table) => ({
      ...table,
      // Nobody sends a generated column who was not told to.
      columns:
        selection._tag === "Publications"
          ? Tables.sentColumns(table)
          : table.columns.filter(({ generated }) => generated === "")
    }))
})
