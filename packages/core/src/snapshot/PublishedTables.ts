/**
 * What the publications publish, told by the catalog: under which names, with which columns and rows, and where these rows
 * lie. It must come to what the walsender itself decides for each change (`get_rel_sync_entry` in
 * src/backend/replication/pgoutput/pgoutput.c), or the snapshot and the stream would not meet.
 *
 * A table published by several publications has the rows of any of them, and one of which an ancestor is published through
 * its root is sent as that ancestor.
 *
 * Sources: https://www.postgresql.org/docs/current/view-pg-publication-tables.html and
 * https://www.postgresql.org/docs/current/catalog-pg-publication-rel.html
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { qualifiedName, quoteIdentifier, quoteLiteral } from "../protocol/ReplicationCommand.ts"
import { PermissionDenied, PublicationMismatch, type ReplicationError } from "../ReplicationError.ts"
import * as Catalog from "../server/Catalog.ts"
import { baseTypes, identifiesRows, isSentColumn, jsonArray } from "../server/CatalogSql.ts"
import type { ReplicantConnection } from "../server/WalSender.ts"

const Column = Schema.Struct({
  name: Schema.String,
  isKey: Schema.Boolean,
  typeOid: Schema.Number,
  typeModifier: Schema.Number,
  /** The type's name where the walsender would tell it: of a type of the user's, with domains seen through. */
  type: Schema.NullOr(Schema.Struct({ schema: Schema.String, name: Schema.String }))
})

/** SELECT on the table as a whole, as LOCK asks for, and USAGE of its schema. */
const named = { schema: Schema.String, name: Schema.String, isReadable: Schema.Boolean }

const Part = Schema.Struct({
  ...named,
  oid: Schema.Number,
  /** The name of its file, a number: another one once it is written anew. */
  fileNode: Schema.Number,
  /** Its size in pages of the server's. Approximate, and no bound. */
  pages: Schema.Number,
  /** Whether ranges of `ctid` can be scanned. */
  isHeap: Schema.Boolean,
  estimatedRows: Schema.NullOr(Schema.Number),
  hasRowSecurity: Schema.Boolean
})

const Table = Schema.Struct({
  oid: Schema.Number,
  schema: Schema.String,
  name: Schema.String,
  replicaIdentity: Schema.String,
  columns: Schema.Array(Column),
  /** Columns of the index that identifies rows, published or not; 0 where there is none. */
  keyLength: Schema.Number,
  /** More than one is what the walsender refuses. */
  columnLists: Schema.Number,
  /** Of each publication; a null is every row. */
  filters: Schema.Array(Schema.NullOr(Schema.String)),
  /** The table itself, or the leaves of a partitioned one. */
  parts: Schema.Array(Part),
  /** The partitioned tables above the parts, this one included. */
  ancestors: Schema.Array(Schema.Struct(named))
})

/** A relation that is copied, and the tables that its rows lie in. */
export type PublishedTable = typeof Table.Type

/** The planner's estimate of the whole table, where each of its parts was analyzed. */
export const estimatedRows = ({ parts }: PublishedTable): number | undefined =>
  parts.reduce<number | undefined>(
    (sum, part) => (sum === undefined || part.estimatedRows === null ? undefined : sum + part.estimatedRows),
    0
  )

const ListingRow = Schema.Struct({
  tables: Schema.fromJsonString(Schema.Array(Table)),
  fingerprint: Schema.String,
  role: Schema.String
})

/** Everything that is published. */
export interface Listing {
  readonly tables: ReadonlyArray<PublishedTable>
  /** Changes with every ALTER PUBLICATION, also one that is taken back. */
  readonly fingerprint: string
  readonly role: string
}

/** As PostgreSQL's own code has it, `FirstGenbkiObjectId`: types below are told by their OID alone. */
const firstNamedType = 10_000

/** Column lists and row filters are of PostgreSQL 15. */
const listed = (publications: string, serverVersion: number): string => `
  SELECT c.oid, p.pubname, ${serverVersion < 150_000 ? "NULL::name[] AS attnames, NULL::text AS rowfilter" : "p.attnames, p.rowfilter"}
  FROM pg_catalog.pg_publication_tables p
  JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
  WHERE p.pubname IN (${publications})`

const isKey = `(c.relreplident = 'f' OR EXISTS (SELECT FROM pg_catalog.pg_index i WHERE ${identifiesRows("c")}
  AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])))`

const column = `json_build_object('name', a.attname, 'typeOid', a.atttypid::bigint, 'typeModifier', a.atttypmod, 'isKey', ${isKey},
  'type', CASE WHEN a.atttypid >= ${firstNamedType} THEN json_build_object('name', bt.typname,
    'schema', CASE bn.nspname WHEN 'pg_catalog' THEN '' ELSE bn.nspname END) END) ORDER BY a.attnum`

const isReadable =
  "pg_catalog.has_schema_privilege(ln.oid, 'USAGE') AND pg_catalog.has_table_privilege(l.oid, 'SELECT')"

const part = `json_build_object(
  'oid', l.oid::bigint, 'schema', ln.nspname, 'name', l.relname, 'isReadable', ${isReadable},
  'fileNode', coalesce(pg_catalog.pg_relation_filenode(l.oid)::bigint, 0),
  'pages', pg_catalog.pg_relation_size(l.oid) / pg_catalog.current_setting('block_size')::int,
  'isHeap', coalesce((SELECT am.amname = 'heap' FROM pg_catalog.pg_am am WHERE am.oid = l.relam), false),
  'estimatedRows', CASE WHEN l.reltuples >= 0 THEN l.reltuples END,
  'hasRowSecurity', pg_catalog.row_security_active(l.oid)) ORDER BY l.oid`

/** What a partitioned table is made of. Foreign and unlogged partitions have nothing in the WAL, so they are not streamed. */
const tree = "pg_catalog.pg_partition_tree(CASE c.relkind WHEN 'p' THEN c.oid END) leaf"

const fingerprint = (publications: string, serverVersion: number): string => {
  const one = (from: string) =>
    `(SELECT string_agg(r.xmin || ' ' || r.ctid, ' ' ORDER BY r.oid) FROM pg_catalog.pg_publication p ${from} WHERE p.pubname IN (${publications}))`
  return `concat_ws('/', ${[
    one("JOIN pg_catalog.pg_publication r ON r.oid = p.oid"),
    one("JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid"),
    ...(serverVersion < 150_000 ? [] : [one("JOIN pg_catalog.pg_publication_namespace r ON r.pnpubid = p.oid")])
  ].join(", ")})`
}

/** A table by its names, where only one is asked for. */
export interface ListedName {
  readonly schema: string
  readonly name: string
}

const listingQuery = (names: ReadonlyArray<string>, serverVersion: number, only?: ListedName | undefined): string => {
  const publications = names.map(quoteLiteral).join(", ")
  return `WITH RECURSIVE ${baseTypes}, listed AS MATERIALIZED (${listed(publications, serverVersion)}
  ), t AS (
    SELECT oid, count(DISTINCT attnames) AS lists, json_agg(rowfilter ORDER BY pubname) AS filters,
      (SELECT l.attnames FROM listed l WHERE l.oid = listed.oid LIMIT 1) AS attnames
    FROM listed WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(listed.oid) a
      JOIN listed above ON above.oid = a.relid WHERE a.relid <> listed.oid)
    GROUP BY oid
  )
  SELECT coalesce(json_agg(json_build_object(
    'oid', c.oid::bigint, 'schema', n.nspname, 'name', c.relname, 'replicaIdentity', c.relreplident::text,
    'columns', ${jsonArray(
      column,
      `FROM pg_catalog.pg_attribute a JOIN base b ON b.oid = a.atttypid JOIN pg_catalog.pg_type bt ON bt.oid = b.base
        JOIN pg_catalog.pg_namespace bn ON bn.oid = bt.typnamespace WHERE ${isSentColumn(serverVersion)}`
    )},
    'keyLength', coalesce((SELECT max(i.indnkeyatts) FROM pg_catalog.pg_index i WHERE ${identifiesRows("c")}), 0),
    'columnLists', t.lists, 'filters', t.filters,
    'parts', ${jsonArray(
      part,
      `FROM pg_catalog.pg_class l JOIN pg_catalog.pg_namespace ln ON ln.oid = l.relnamespace
        WHERE l.relkind = 'r' AND l.relpersistence = 'p'
        AND (l.oid = c.oid OR l.oid IN (SELECT leaf.relid FROM ${tree} WHERE leaf.isleaf))`
    )},
    'ancestors', ${jsonArray(
      `json_build_object('schema', ln.nspname, 'name', l.relname, 'isReadable', ${isReadable}) ORDER BY l.oid`,
      `FROM ${tree} JOIN pg_catalog.pg_class l ON l.oid = leaf.relid JOIN pg_catalog.pg_namespace ln ON ln.oid = l.relnamespace
        WHERE l.relkind = 'p'`
    )}
  ) ORDER BY c.oid), '[]'::json) AS tables,
  ${fingerprint(publications, serverVersion)} AS fingerprint, current_user AS role
  FROM t JOIN pg_catalog.pg_class c ON c.oid = t.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  ${only === undefined ? "" : `WHERE n.nspname = ${quoteLiteral(only.schema)} AND c.relname = ${quoteLiteral(only.name)}`}`
}

/** Asks what these publications publish now, of all tables or of one. They must exist, and be one at least. */
export const listPublishedTables = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  publications: ReadonlyArray<string>,
  only?: ListedName | undefined
): Effect.fn.Return<Listing, ReplicationError> {
  const text = listingQuery(publications, connection.serverVersion, only)
  const rows = yield* Catalog.queryAt(connection, text, { stage: "Query" })
  return yield* Catalog.decodeRow(ListingRow, rows[0], "pg_publication_tables")
})

/** Whether both say the same of everything but sizes and estimates. */
export const isSameListing = (self: Listing, that: Listing): boolean => {
  const lasting = ({ fingerprint, tables }: Listing) =>
    JSON.stringify([
      fingerprint,
      tables.map((table) => ({
        ...table,
        parts: table.parts.map(({ oid, schema, name }) => [oid, schema, name])
      }))
    ])
  return lasting(self) === lasting(that)
}

/** The first reason for which not every row of every table can be read. Row security would leave rows out without a word. */
export const unreadable = (listing: Listing): PermissionDenied | PublicationMismatch | undefined => {
  const role = quoteIdentifier(listing.role)
  for (const table of listing.tables) {
    if (table.columnLists > 1) {
      return new PublicationMismatch({
        publication: qualifiedName(table),
        problem: "is published with different column lists by several publications, which the server refuses to stream",
        remedy: "give the table the same column list in each publication"
      })
    }
    const denied = [...table.ancestors, ...table.parts].find((part) => !part.isReadable)
    if (denied !== undefined) {
      const name = qualifiedName(denied)
      return new PermissionDenied({
        stage: "Query",
        detail: `a snapshot locks and reads every published table, and ${role} may not read ${name}`,
        remedy: `GRANT USAGE ON SCHEMA ${quoteIdentifier(denied.schema)} TO ${role}; GRANT SELECT ON ${name} TO ${role}`
      })
    }
    const hidden = table.parts.find((part) => part.hasRowSecurity)
    if (hidden !== undefined) {
      return new PermissionDenied({
        stage: "Query",
        detail: `row-level security hides rows of ${qualifiedName(hidden)} from ${role}, which the stream would not`,
        remedy: `ALTER ROLE ${role} BYPASSRLS, or take a snapshot as the table's owner`
      })
    }
  }
  return undefined
}
