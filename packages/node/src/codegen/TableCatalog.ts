/**
 * What the catalog says of tables that are to be declared: one query, one row of JSON a table. What a module makes of it
 * is in `TableModule.ts`. Which index identifies rows is also known to core, in `server/CatalogSql.ts`: pieces of SQL
 * are nothing that it exports, and this one is PostgreSQL's rule, which does not change.
 */
import { DecodeError, Publication, type ReplicationError } from "@replicant/core"
import { quoteLiteral, type ReplicantConnection } from "@replicant/core/driver"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { CatalogTable } from "./TableModule.ts"

/** Which tables: those that publications send, under the names and with the columns that they send; some; or a schema's. */
export type Selection =
  | { readonly _tag: "Publications"; readonly publications: ReadonlyArray<string> }
  | { readonly _tag: "Tables"; readonly tables: ReadonlyArray<string> }
  | { readonly _tag: "Schemas"; readonly schemas: ReadonlyArray<string> }

const Names = Schema.Array(Schema.String)

const TableFacts = Schema.Struct({
  schema: Schema.String,
  name: Schema.String,
  replicaIdentity: Schema.String,
  identity: Names,
  primaryKey: Names,
  columns: Schema.Array(
    Schema.Struct({
      name: Schema.String,
      typeOid: Schema.Number,
      base: Schema.Struct({ schema: Schema.String, name: Schema.String }),
      type: Schema.String,
      labels: Schema.NullOr(Names),
      dimensions: Schema.Number,
      isNullable: Schema.Boolean
    })
  )
})

const FactsRow = Schema.Struct({ facts: Schema.fromJsonString(TableFacts) })

const list = (names: ReadonlyArray<string>): string => names.map(quoteLiteral).join(", ")

const tableNames = (tables: ReadonlyArray<string>): string =>
  tables
    .map(Publication.tableName)
    .map(({ name, schema }) => `(${quoteLiteral(schema)}, ${quoteLiteral(name)})`)
    .join(", ")

const isSelected = (selection: Selection): string => {
  switch (selection._tag) {
    case "Publications":
      return `EXISTS (SELECT FROM pg_catalog.pg_publication_tables t WHERE t.pubname IN (${list(selection.publications)})
        AND t.schemaname = n.nspname AND t.tablename = c.relname)`
    case "Tables":
      return `(n.nspname, c.relname) IN (${tableNames(selection.tables)})`
    case "Schemas":
      // Partitions are left to who names them: a program wants either them or their root.
      return `n.nspname IN (${list(selection.schemas)}) AND c.relpersistence = 'p' AND NOT c.relispartition`
  }
}

/** Generated columns are sent from PostgreSQL 18 on, where a publication says so; column lists are of PostgreSQL 15. */
const isColumnSelected = (selection: Selection, serverVersion: number): string => {
  const isPublication = selection._tag === "Publications"
  const conditions = [
    ...(isPublication && serverVersion >= 180_000 ? [] : ["a.attgenerated = ''"]),
    ...(isPublication && serverVersion >= 150_000
      ? [
          `EXISTS (SELECT FROM pg_catalog.pg_publication_tables t WHERE t.pubname IN (${list(selection.publications)})
            AND t.schemaname = n.nspname AND t.tablename = c.relname AND a.attname = ANY (t.attnames))`
        ]
      : [])
  ]
  return conditions.join(" AND ")
}

/** From PostgreSQL 18 a column may be NOT NULL for new rows alone. */
const isNullable = (serverVersion: number): string =>
  serverVersion < 180_000
    ? "NOT a.attnotnull"
    : `(NOT a.attnotnull OR EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'n'
        AND NOT k.convalidated AND k.conkey = ARRAY[a.attnum]))`

const array = (element: string, rest: string): string => `(SELECT coalesce(json_agg(${element}), '[]'::json) ${rest})`

const keyColumns = (indexCondition: string): string =>
  array(
    "a.attname ORDER BY k.position",
    `FROM pg_catalog.pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, position)
      JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
      WHERE i.indrelid = c.oid AND i.indisvalid AND k.position <= i.indnkeyatts AND ${indexCondition}`
  )

const factsQuery = (selection: Selection, serverVersion: number): string => `
  WITH RECURSIVE base (oid, base, dimensions) AS (
    SELECT oid, oid, 0 FROM pg_catalog.pg_type WHERE typtype <> 'd'
    UNION ALL
    SELECT t.oid, b.base, greatest(t.typndims, b.dimensions)
    FROM pg_catalog.pg_type t JOIN base b ON t.typtype = 'd' AND t.typbasetype = b.oid
  )
  SELECT json_build_object(
    'schema', n.nspname, 'name', c.relname, 'replicaIdentity', c.relreplident::text,
    'identity', ${keyColumns(
      "i.indimmediate AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END"
    )},
    'primaryKey', ${keyColumns("i.indisprimary")},
    'columns', ${array(
      `json_build_object('name', a.attname, 'typeOid', a.atttypid::bigint, 'type', format_type(a.atttypid, a.atttypmod),
        'base', json_build_object('schema', bn.nspname, 'name', bt.typname),
        'labels', CASE WHEN bt.typtype = 'e' THEN ${array(
          "e.enumlabel ORDER BY e.enumsortorder",
          "FROM pg_catalog.pg_enum e WHERE e.enumtypid = bt.oid"
        )} END,
        'dimensions', greatest(a.attndims, b.dimensions), 'isNullable', ${isNullable(serverVersion)}) ORDER BY a.attnum`,
      `FROM pg_catalog.pg_attribute a JOIN base b ON b.oid = a.atttypid JOIN pg_catalog.pg_type bt ON bt.oid = b.base
        JOIN pg_catalog.pg_namespace bn ON bn.oid = bt.typnamespace
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        AND ${isColumnSelected(selection, serverVersion)}`
    )}
  ) AS facts
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p') AND ${isSelected(selection)}`

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
  const rows = yield* connection.query(`${settings}; ${factsQuery(selection, connection.serverVersion)}`)
  return yield* Effect.forEach(rows, (row) =>
    Schema.decodeUnknownEffect(FactsRow)(row).pipe(
      Effect.mapBoth({
        onSuccess: ({ facts }) => facts,
        onFailure: () => new DecodeError({ problem: "an answer to pg_class that PostgreSQL does not give", offset: 0 })
      })
    )
  )
})
