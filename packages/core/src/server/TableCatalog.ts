/**
 * What the catalog says of declared tables, and of the publications that send them: one query, one row of JSON a table.
 * What follows from it is decided in `table/PublicationCheck.ts`.
 *
 * Sources: https://www.postgresql.org/docs/current/catalog-pg-publication-rel.html and
 * https://www.postgresql.org/docs/current/view-pg-publication-tables.html, which tells under which name, and with which
 * columns, a table is sent.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { quoteLiteral } from "../protocol/ReplicationCommand.ts"
import type { ReplicationError } from "../ReplicationError.ts"
import type { TableFacts } from "../table/PublicationCheck.ts"
import type { Any } from "../table/Table.ts"
import * as Catalog from "./Catalog.ts"
import { baseTypes, identifiesRows, isSentColumn, jsonArray } from "./CatalogSql.ts"
import type { ReplicantConnection } from "./WalSender.ts"

const Name = Schema.Struct({ schema: Schema.String, name: Schema.String })
const Names = Schema.Array(Schema.String)

const Facts = Schema.Struct({
  schema: Schema.String,
  name: Schema.String,
  kind: Schema.NullOr(Schema.String),
  persistence: Schema.NullOr(Schema.String),
  replicaIdentity: Schema.NullOr(Schema.String),
  identity: Names,
  columns: Schema.Array(
    Schema.Struct({
      name: Schema.String,
      typeOid: Schema.Number,
      base: Name,
      type: Schema.String,
      generated: Schema.String
    })
  ),
  published: Schema.Array(
    Schema.Struct({
      publication: Schema.String,
      columns: Names,
      hasColumnList: Schema.Boolean,
      filter: Schema.NullOr(Schema.String),
      filterColumns: Names
    })
  ),
  namedBy: Names,
  sentAs: Schema.Array(Name),
  bare: Schema.Array(Name)
})

const FactsRow = Schema.Struct({ facts: Schema.fromJsonString(Facts) })

const columnsOf = (relation: string): string =>
  `pg_catalog.pg_attribute a WHERE a.attrelid = ${relation} AND a.attnum > 0 AND NOT a.attisdropped`

const identityIndex = (relation: string): string => `pg_catalog.pg_index i WHERE ${identifiesRows(relation)}`

const sentColumns = (serverVersion: number): string =>
  jsonArray("a.attname ORDER BY a.attnum", `FROM pg_catalog.pg_attribute a WHERE ${isSentColumn(serverVersion)}`)

/**
 * How the publication sends the table. Column lists and row filters are of PostgreSQL 15; a filter's columns are those on
 * which the entry depends once more than its column list makes it.
 */
const publishedColumns = (serverVersion: number): string =>
  serverVersion < 150_000
    ? `'columns', ${sentColumns(serverVersion)},
      'hasColumnList', false, 'filter', null, 'filterColumns', '[]'::json`
    : `'columns', ${sentColumns(serverVersion)},
      'hasColumnList', r.prattrs IS NOT NULL,
      'filter', '(' || pg_get_expr(r.prqual, r.prrelid) || ')',
      'filterColumns', ${jsonArray(
        "a.attname ORDER BY a.attnum",
        `FROM ${columnsOf("c.oid")} AND (SELECT count(*) FROM pg_catalog.pg_depend d
          WHERE d.classid = 'pg_catalog.pg_publication_rel'::regclass AND d.objid = r.oid
          AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid = a.attnum)
          > CASE WHEN a.attnum = ANY (r.prattrs) THEN 1 ELSE 0 END`
      )}`

const inSchema = (serverVersion: number): string =>
  serverVersion < 150_000
    ? "false"
    : "EXISTS (SELECT FROM pg_catalog.pg_publication_namespace s WHERE s.pnpubid = p.oid AND s.pnnspid = c.relnamespace)"

const factsQuery = (tables: ReadonlyArray<Any>, publications: ReadonlyArray<string>, serverVersion: number): string => {
  const wanted = tables.map(
    ({ relation }, index) => `(${index}, ${quoteLiteral(relation.schema)}, ${quoteLiteral(relation.name)})`
  )
  const pubnames = publications.map(quoteLiteral).join(", ")
  const pair = "json_build_object('schema', n2.nspname, 'name', c2.relname)"
  return `WITH RECURSIVE ${baseTypes}
  SELECT json_build_object(
    'schema', w.schema, 'name', w.name,
    'kind', c.relkind::text, 'persistence', c.relpersistence::text, 'replicaIdentity', c.relreplident::text,
    'identity', ${jsonArray(
      "a.attname ORDER BY k.position",
      `FROM (SELECT i.indkey, i.indnkeyatts FROM ${identityIndex("c")}) i
        CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, position)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum WHERE k.position <= i.indnkeyatts`
    )},
    'columns', ${jsonArray(
      `json_build_object('name', a.attname, 'typeOid', a.atttypid::bigint, 'generated', a.attgenerated::text,
        'type', format_type(a.atttypid, a.atttypmod),
        'base', json_build_object('schema', bn.nspname, 'name', bt.typname)) ORDER BY a.attnum`,
      `FROM pg_catalog.pg_attribute a JOIN base b ON b.oid = a.atttypid JOIN pg_catalog.pg_type bt ON bt.oid = b.base
        JOIN pg_catalog.pg_namespace bn ON bn.oid = bt.typnamespace
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped`
    )},
    'published', ${jsonArray(
      `json_build_object('publication', t.pubname, ${publishedColumns(serverVersion)}) ORDER BY t.pubname`,
      `FROM pg_catalog.pg_publication_tables t JOIN pg_catalog.pg_publication p ON p.pubname = t.pubname
        LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid
        WHERE t.schemaname = w.schema AND t.tablename = w.name AND t.pubname IN (${pubnames})`
    )},
    'namedBy', ${jsonArray(
      "p.pubname ORDER BY p.pubname",
      `FROM pg_catalog.pg_publication p WHERE p.pubname IN (${pubnames}) AND (p.puballtables OR ${inSchema(serverVersion)}
        OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid))`
    )},
    'sentAs', ${jsonArray(
      pair,
      `FROM (SELECT DISTINCT t.schemaname, t.tablename FROM pg_catalog.pg_publication_tables t WHERE t.pubname IN (${pubnames})) t
        JOIN pg_catalog.pg_namespace n2 ON n2.nspname = t.schemaname
        JOIN pg_catalog.pg_class c2 ON c2.relnamespace = n2.oid AND c2.relname = t.tablename
        WHERE c2.oid <> c.oid AND c2.oid IN (SELECT relid FROM pg_partition_ancestors(c.oid))`
    )},
    'bare', ${jsonArray(
      `${pair} ORDER BY n2.nspname, c2.relname`,
      `FROM pg_partition_tree(CASE c.relkind WHEN 'p' THEN c.oid END) leaf JOIN pg_catalog.pg_class c2 ON c2.oid = leaf.relid
        JOIN pg_catalog.pg_namespace n2 ON n2.oid = c2.relnamespace
        WHERE leaf.isleaf AND c2.relkind = 'r' AND c2.relreplident <> 'f'
        AND NOT EXISTS (SELECT FROM ${identityIndex("c2")})`
    )}
  ) AS facts
  FROM (VALUES ${wanted.join(", ")}) AS w (position, schema, name)
  LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema
  LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  ORDER BY w.position`
}

/** The facts of each table, in order. `publications` must not be empty. Names must hold no zero byte. */
export const tableFacts = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  tables: ReadonlyArray<Any>,
  publications: ReadonlyArray<string>
): Effect.fn.Return<ReadonlyArray<TableFacts>, ReplicationError> {
  const text = factsQuery(tables, publications, connection.serverVersion)
  const rows = yield* Catalog.queryAt(connection, text, { stage: "Query" })
  const facts: ReadonlyArray<TableFacts> = yield* Effect.forEach(rows, (row) =>
    Effect.map(Catalog.decodeRow(FactsRow, row, "pg_class"), (decoded) => decoded.facts)
  )
  return facts
})
