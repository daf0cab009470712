/**
 * The one SQL text by which the catalog is asked what tables are: see `Tables.ts`. Text and nothing else.
 *
 * It stays linear in the number of tables, whatever the planner believes of them. What is known of all at once (which
 * publications list which tables) is put together by aggregates over one UNION, and joined to nothing: between two lists that
 * it knows nothing of, the planner has no reason not to take a nested loop. What is asked of each table is a subquery that
 * reaches all it needs by an index of the catalog's; what a function lists there is looked up row by row (`LATERAL … LIMIT 1`),
 * since a thousand rows are expected of each function, for which a whole catalog would be read instead.
 *
 * `pg_get_publication_tables` is what the view `pg_publication_tables` is made of; it tells OIDs where the view has names.
 * Sources: src/backend/catalog/system_views.sql and src/backend/catalog/pg_publication.c, 14 to 18.
 */
import { quoteLiteral } from "../protocol/ReplicationCommand.ts"

/** Which relations. Those that are not there are not answered for. */
export type Selection =
  /** Those that these publications send, under the names that they are sent under. */
  | { readonly _tag: "Publications"; readonly publications: ReadonlyArray<string> }
  | { readonly _tag: "Names"; readonly names: ReadonlyArray<{ readonly schema: string; readonly name: string }> }
  /** All of these schemas. */
  | { readonly _tag: "Schemas"; readonly schemas: ReadonlyArray<string> }
  | { readonly _tag: "Oids"; readonly oids: ReadonlyArray<number> }

/** A JSON array in SQL: of `element`, one for each row of `rest` (`FROM …`); empty where there is none. */
export const jsonArray = (element: string, rest: string): string =>
  `(SELECT coalesce(json_agg(${element}), '[]'::json) ${rest})`

/** A list for IN; of nothing, one that nothing is in. */
const list = (items: ReadonlyArray<string>): string => (items.length === 0 ? "NULL" : items.join(", "))

/** The relation `oid`, with its schema: one row, or none if it was dropped meanwhile. */
const relation = (alias: string, oid: string): string => `LATERAL (
      SELECT l.*, ln.nspname FROM pg_catalog.pg_class l JOIN pg_catalog.pg_namespace ln ON ln.oid = l.relnamespace
      WHERE l.oid = ${oid} LIMIT 1) ${alias}`

const nameOf = (alias: string): string => `'schema', ${alias}.nspname, 'name', ${alias}.relname`

/**
 * Whether the index `i` (of `pg_index`) identifies the rows of `alias` (of `pg_class`), as `RelationGetReplicaIndex`
 * chooses it in src/backend/utils/cache/relcache.c: a deferrable primary key does not.
 */
const identifiesRows = (alias: string): string =>
  `i.indrelid = ${alias}.oid AND i.indisvalid AND i.indimmediate AND CASE ${alias}.relreplident
    WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END`

/**
 * A condition in SQL: whether `alias`, of `pg_class`, has a replica identity. Without one, PostgreSQL refuses its UPDATE and
 * DELETE once those are published.
 *
 * Source: `CheckCmdReplicaIdentity`, src/backend/executor/execReplication.c
 *
 * @example
 * const text = `SELECT c.relname FROM pg_catalog.pg_class c WHERE c.relkind = 'r' AND NOT ${hasReplicaIdentity("c")}`
 */
export const hasReplicaIdentity = (alias: string): string =>
  `(${alias}.relreplident = 'f' OR EXISTS (SELECT FROM pg_catalog.pg_index i WHERE ${identifiesRows(alias)}))`

const keyColumns = (condition: string): string =>
  jsonArray(
    "a.attname ORDER BY k.position",
    `FROM pg_catalog.pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, position)
      JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
      WHERE k.position <= i.indnkeyatts AND ${condition}`
  )

/** Of the domain `y`, `pick` of the types it stands on one above the other, the last of which is none. */
const below = (pick: string): string => `(WITH RECURSIVE chain AS (
      SELECT y.oid, y.typtype, y.typbasetype, y.typndims
      UNION ALL SELECT d.oid, d.typtype, d.typbasetype, d.typndims
      FROM chain JOIN pg_catalog.pg_type d ON chain.typtype = 'd' AND d.oid = chain.typbasetype
    ) SELECT ${pick})`

/** The types of columns, each told once: a hundred thousand columns have some dozens. */
const types = jsonArray(
  `json_build_object('oid', b.type::bigint, 'base', json_build_object('oid', b.oid::bigint, 'schema', b.nspname, 'name', b.typname,
      'extension', (SELECT x.extname FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid
        WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.objid IN (b.oid, nullif(b.typelem, 0))
        AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e' LIMIT 1)),
    'dimensions', b.dimensions, 'labels', CASE b.typtype WHEN 'e' THEN ${jsonArray(
      "e.enumlabel ORDER BY e.enumsortorder",
      "FROM pg_catalog.pg_enum e WHERE e.enumtypid = b.oid"
    )} END)`,
  `FROM (SELECT DISTINCT a.atttypid AS oid FROM t CROSS JOIN LATERAL (
      SELECT atttypid FROM pg_catalog.pg_attribute WHERE attrelid = t.oid AND attnum > 0 AND NOT attisdropped OFFSET 0) a) u
    CROSS JOIN LATERAL (
      SELECT y.oid AS type, base.oid, base.typname, base.typtype, base.typelem, n.nspname,
        CASE y.typtype WHEN 'd' THEN ${below("max(typndims) FROM chain")} ELSE 0 END AS dimensions
      FROM pg_catalog.pg_type y JOIN pg_catalog.pg_type base
        ON base.oid = CASE y.typtype WHEN 'd' THEN ${below("oid FROM chain WHERE typtype <> 'd'")} ELSE y.oid END
      JOIN pg_catalog.pg_namespace n ON n.oid = base.typnamespace
      WHERE y.oid = u.oid LIMIT 1) b`
)

/** From PostgreSQL 18 a column may be NOT NULL for new rows alone. */
const isNullable = (serverVersion: number): string =>
  serverVersion < 180_000
    ? "NOT a.attnotnull"
    : `(NOT a.attnotnull OR EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'n'
        AND NOT k.convalidated AND k.conkey = ARRAY[a.attnum]))`

const columns = (serverVersion: number): string =>
  jsonArray(
    `json_build_object('name', a.attname, 'typeOid', a.atttypid::bigint, 'typeModifier', a.atttypmod,
      'type', pg_catalog.format_type(a.atttypid, a.atttypmod), 'dimensions', a.attndims,
      'isNullable', ${isNullable(serverVersion)}, 'takesNull', NOT a.attnotnull, 'generated', a.attgenerated::text, 'identity', a.attidentity::text,
      'hasDefault', a.atthasdef) ORDER BY a.attnum`,
    "FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
  )

/** Indexes that ON CONFLICT and a search by key can use: whole, immediate, of columns only. */
const uniqueKeys = jsonArray(
  `json_build_object('isPrimary', i.indisprimary, 'columns', ${jsonArray(
    `json_build_object('name', a.attname,
      'operator', format('OPERATOR(%I.%s)', opn.nspname, op.oprname),
      'record', CASE WHEN oc.opcintype = 'pg_catalog.record'::pg_catalog.regtype
        THEN format_type(a.atttypid, a.atttypmod) END) ORDER BY k.position`,
    `FROM unnest(i.indkey::int2[], i.indclass::oid[]) WITH ORDINALITY AS k (attnum, opclass, position)
      JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
      JOIN pg_catalog.pg_opclass oc ON oc.oid = k.opclass
      JOIN pg_catalog.pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amopstrategy = 3
        AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
      JOIN pg_catalog.pg_operator op ON op.oid = ao.amopopr
      JOIN pg_catalog.pg_namespace opn ON opn.oid = op.oprnamespace
      WHERE k.position <= i.indnkeyatts`
  )}) ORDER BY i.indisprimary DESC, i.indexrelid`,
  `FROM pg_catalog.pg_index i CROSS JOIN LATERAL (
      SELECT am.amname FROM pg_catalog.pg_class ic JOIN pg_catalog.pg_am am ON am.oid = ic.relam
      WHERE ic.oid = i.indexrelid LIMIT 1) method
    WHERE method.amname = 'btree' AND i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
    AND i.indpred IS NULL AND i.indexprs IS NULL`
)

/**
 * Generated columns are sent from PostgreSQL 18 on, where they are asked for; before it they may be listed all the same.
 * Before PostgreSQL 15 there are no lists; in 15 who has none is told of none, and from 16 on of every column.
 */
const sentColumns = (serverVersion: number): string => {
  const conditions = [
    "a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped",
    ...(serverVersion < 150_000
      ? []
      : ["(u.attrs IS NULL OR a.attnum = ANY (pg_catalog.string_to_array(u.attrs, ' ')::int2[]))"]),
    ...(serverVersion < 180_000 ? ["a.attgenerated = ''"] : [])
  ]
  return jsonArray("a.attname ORDER BY a.attnum", `FROM pg_catalog.pg_attribute a WHERE ${conditions.join(" AND ")}`)
}

/** A filter's columns are those on which the entry depends once more than its column list makes it. */
const filterColumns = jsonArray(
  "a.attname ORDER BY a.attnum",
  `FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    AND (SELECT count(*) FROM pg_catalog.pg_depend d
      WHERE d.classid = 'pg_catalog.pg_publication_rel'::regclass AND d.objid = r.oid
      AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid = a.attnum)
      > CASE WHEN a.attnum = ANY (r.prattrs) THEN 1 ELSE 0 END`
)

const published = (serverVersion: number): string => {
  const entry =
    serverVersion < 150_000
      ? "'hasColumnList', false, 'filter', null, 'filterColumns', '[]'::json"
      : `'hasColumnList', r.prattrs IS NOT NULL,
      'filter', CASE WHEN u.is_filtered THEN pg_catalog.pg_get_expr(r.prqual, r.prrelid) END,
      'filterColumns', CASE WHEN r.prqual IS NULL THEN '[]'::json ELSE ${filterColumns} END`
  return jsonArray(
    `json_build_object('publication', u.pubname, 'columns', ${sentColumns(serverVersion)}, ${entry}) ORDER BY u.pubname`,
    `FROM unnest(t.pubs, t.pubnames, t.attrs, t.filtered) AS u (pub, pubname, attrs, is_filtered)
      LEFT JOIN pg_catalog.pg_publication_rel r ON r.prrelid = c.oid AND r.prpubid = u.pub`
  )
}

const namedBy = (publications: string, serverVersion: number): string =>
  jsonArray(
    "p.pubname ORDER BY p.pubname",
    `FROM pg_catalog.pg_publication p WHERE p.pubname IN (${publications}) AND (p.puballtables
      OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid)
      ${
        serverVersion < 150_000
          ? ""
          : `OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace s WHERE s.pnpubid = p.oid AND s.pnnspid = c.relnamespace)`
      })`
  )

const sentAs = jsonArray(
  `json_build_object(${nameOf("l")}) ORDER BY l.oid`,
  `FROM unnest(t.above) AS u (oid) CROSS JOIN ${relation("l", "u.oid")}`
)

const tree = "pg_catalog.pg_partition_tree(CASE c.relkind WHEN 'p' THEN c.oid END) leaf"

const isReadable =
  "pg_catalog.has_schema_privilege(l.relnamespace, 'USAGE') AND pg_catalog.has_table_privilege(l.oid, 'SELECT')"

/** Foreign and unlogged partitions have nothing in the WAL, so they are not streamed. */
const parts = jsonArray(
  `json_build_object('oid', l.oid::bigint, ${nameOf("l")}, 'isReadable', ${isReadable},
    'fileNode', coalesce(pg_catalog.pg_relation_filenode(l.oid)::bigint, 0),
    'pages', pg_catalog.pg_relation_size(l.oid) / pg_catalog.current_setting('block_size')::int,
    'isHeap', coalesce((SELECT am.amname = 'heap' FROM pg_catalog.pg_am am WHERE am.oid = l.relam), false),
    'estimatedRows', CASE WHEN l.reltuples >= 0 THEN l.reltuples END,
    'hasRowSecurity', pg_catalog.row_security_active(l.oid)) ORDER BY l.oid`,
  `FROM (SELECT c.oid AS relid UNION ALL SELECT leaf.relid FROM ${tree} WHERE leaf.isleaf) leaf
    CROSS JOIN ${relation("l", "leaf.relid")} WHERE l.relkind = 'r' AND l.relpersistence = 'p'`
)

const partitioned = jsonArray(
  `json_build_object(${nameOf("l")}, 'isReadable', ${isReadable}) ORDER BY l.oid`,
  `FROM ${tree} CROSS JOIN ${relation("l", "leaf.relid")} WHERE l.relkind = 'p'`
)

const bare = jsonArray(
  `json_build_object(${nameOf("l")}) ORDER BY l.nspname, l.relname`,
  `FROM ${tree} CROSS JOIN ${relation("l", "leaf.relid")}
    WHERE leaf.isleaf AND l.relkind = 'r' AND NOT ${hasReplicaIdentity("l")}`
)

const denied = jsonArray(
  "p.name",
  `FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS p (name)
    WHERE NOT pg_catalog.has_table_privilege(c.oid, p.name)`
)

/** What each aspect of a table is, as JSON: of `c`, and of what `t` has gathered of it. */
const aspects = {
  columns,
  identity: () => keyColumns(identifiesRows("c")),
  primaryKey: () => keyColumns("i.indrelid = c.oid AND i.indisprimary AND i.indisvalid"),
  uniqueKeys: () => uniqueKeys,
  published,
  namedBy: (serverVersion: number, publications: string) => namedBy(publications, serverVersion),
  sentAs: () => sentAs,
  parts: () => parts,
  partitioned: () => partitioned,
  bare: () => bare,
  denied: () => denied,
  hasRowSecurity: () => "pg_catalog.row_security_active(c.oid)"
} as const

/** Something to be told of a table, beside its name and kind. */
export type Aspect = keyof typeof aspects

const selected = (selection: Selection): string => {
  const of = `FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace`
  const kinds = "c.relkind IN ('r', 'p', 'v', 'm', 'f')"
  switch (selection._tag) {
    case "Publications":
      return "SELECT oid FROM listed"
    case "Names": {
      const names = selection.names.map(({ name, schema }) => `(${quoteLiteral(schema)}, ${quoteLiteral(name)})`)
      if (names.length === 0) return "SELECT 0::oid AS oid WHERE false"
      return `SELECT c.oid FROM (VALUES ${names.join(", ")}) AS w (schema, name)
        JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema
        JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name WHERE ${kinds}`
    }
    case "Schemas":
      return `SELECT c.oid ${of} WHERE ${kinds} AND n.nspname IN (${list(selection.schemas.map(quoteLiteral))})`
    case "Oids":
      return `SELECT c.oid ${of} WHERE ${kinds} AND c.oid IN (${list(selection.oids.map(String))})`
  }
}

/** What publications there are to speak of, and of which tables. */
export interface TablesQuery {
  readonly selection: Selection
  /** Of which the aspects `published`, `namedBy` and `sentAs` tell. */
  readonly publications: ReadonlyArray<string>
  readonly aspects: ReadonlyArray<Aspect>
}

/**
 * One row for each table: `facts`, its description, as JSON. And where columns are asked for, one row for `types`, what those
 * are of.
 */
export const tablesQuery = ({ publications, selection, ...wanted }: TablesQuery, serverVersion: number): string => {
  const names = list(publications.map(quoteLiteral))
  const told = wanted.aspects.map((aspect) => `, '${aspect}', ${aspects[aspect](serverVersion, names)}`)
  const lists =
    serverVersion < 150_000 ? "NULL::text AS attrs, false AS is_filtered" : "g.attrs::text, g.qual IS NOT NULL"
  return `WITH listed (oid, pub, pubname, attrs, is_filtered) AS MATERIALIZED (
    SELECT g.relid, p.oid, p.pubname, ${lists}
    FROM pg_catalog.pg_publication p CROSS JOIN LATERAL pg_catalog.pg_get_publication_tables(p.pubname::text) g
    WHERE p.pubname IN (${names})
  ), selected (oid) AS MATERIALIZED (${selected(selection)}
  ), t AS MATERIALIZED (
    SELECT x.oid, array_agg(x.pub) FILTER (WHERE x.pub IS NOT NULL) AS pubs,
      array_agg(x.pubname) FILTER (WHERE x.pub IS NOT NULL) AS pubnames,
      array_agg(x.attrs) FILTER (WHERE x.pub IS NOT NULL) AS attrs,
      array_agg(x.is_filtered) FILTER (WHERE x.pub IS NOT NULL) AS filtered,
      array_agg(DISTINCT x.above) FILTER (WHERE x.above IS NOT NULL) AS above
    FROM (
      SELECT oid, true AS is_selected, NULL::oid AS pub, NULL::name AS pubname, NULL::text AS attrs,
        NULL::bool AS is_filtered, NULL::oid AS above FROM selected
      UNION ALL SELECT oid, false, pub, pubname, attrs, is_filtered, NULL FROM listed
      UNION ALL SELECT c.oid, false, NULL, NULL, NULL, NULL, a.relid
        FROM selected s CROSS JOIN LATERAL (
          SELECT oid FROM pg_catalog.pg_class WHERE oid = s.oid AND relispartition LIMIT 1) c
        CROSS JOIN LATERAL pg_catalog.pg_partition_ancestors(c.oid) a
        WHERE a.relid <> c.oid AND a.relid IN (SELECT l.oid FROM listed l)
    ) x GROUP BY x.oid HAVING bool_or(x.is_selected)
  )
  SELECT json_build_object('oid', c.oid::bigint, 'schema', n.nspname, 'name', c.relname, 'kind', c.relkind::text,
    'persistence', c.relpersistence::text, 'isPartition', c.relispartition,
    'replicaIdentity', c.relreplident::text${told.join("")}) AS facts, NULL::json AS types
  FROM t JOIN pg_catalog.pg_class c ON c.oid = t.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  ${wanted.aspects.includes("columns") ? `UNION ALL SELECT NULL, ${types}` : ""}`
}
