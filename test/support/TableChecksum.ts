/** Whether two databases hold the same rows: a checksum of each table, whatever the order in which its rows lie. */
import { quoteIdentifier } from "@replicant/core/driver"
import { Effect } from "effect"
import type { Workspace } from "./Workspace.ts"

/** Sorted by their bytes, so that both sides agree whatever the collation, and equal rows stay beside each other. */
export const rowsInOrder = (table: string) =>
  `(SELECT t::text COLLATE "C" AS line FROM ONLY ${quoteIdentifier(table)} t) rows`

/** For a session that prints rows alike on either side. */
export const pinned = "SET timezone = 'UTC'; SET extra_float_digits = 3"

/** Tables of the schema public, partitions among them. */
export const tableNames = (workspace: Workspace) =>
  Effect.map(
    workspace.sql(
      `SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY relname`
    ),
    (rows) => rows.map((row) => String(row.relname))
  )

/** The count of a table's rows, and the checksum of them all. */
export const tableChecksum = (workspace: Workspace, table: string) =>
  Effect.map(
    workspace.sql(`${pinned};
      SELECT count(*)::int AS rows, md5(string_agg(md5(line), '' ORDER BY line)) AS sum FROM ${rowsInOrder(table)}`),
    ([row]) => ({ table, rows: Number(row?.rows), sum: row?.sum })
  )

/** Of every table. */
export const checksums = (workspace: Workspace) =>
  Effect.flatMap(tableNames(workspace), (tables) => Effect.forEach(tables, (table) => tableChecksum(workspace, table)))
