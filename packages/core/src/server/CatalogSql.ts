/** Pieces of SQL that our questions to the catalog have in common. Text and nothing else: who asks puts them together. */

/** A JSON array of `element`, one for each row of `rest` (`FROM …`); empty where there is none. */
export const jsonArray = (element: string, rest: string): string =>
  `(SELECT coalesce(json_agg(${element}), '[]'::json) ${rest})`

/**
 * Whether the index `i` (of `pg_index`) identifies the rows of `relation` (an alias of `pg_class`), as
 * `RelationGetReplicaIndex` chooses it in src/backend/utils/cache/relcache.c: a deferrable primary key does not.
 */
export const identifiesRows = (relation: string): string =>
  `i.indrelid = ${relation}.oid AND i.indisvalid AND i.indimmediate AND CASE ${relation}.relreplident
    WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END`

/** For `WITH RECURSIVE`: each type, and what it is a domain over in the end, which is itself where it is none. */
export const baseTypes = `base (oid, base) AS (
    SELECT oid, oid FROM pg_catalog.pg_type WHERE typtype <> 'd'
    UNION ALL SELECT t.oid, b.base FROM pg_catalog.pg_type t JOIN base b ON t.typtype = 'd' AND t.typbasetype = b.oid
  )`

/**
 * Whether the column `a` (of `pg_attribute`) of `c` is among those that `t.attnames` lists, as `pg_publication_tables` tells
 * them. Generated columns are sent from PostgreSQL 18 on, where they are asked for; before it the view may list them all the
 * same. Before PostgreSQL 15 there are no lists.
 */
export const isSentColumn = (serverVersion: number): string =>
  [
    "a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped",
    ...(serverVersion < 150_000 ? [] : ["a.attname = ANY (t.attnames)"]),
    ...(serverVersion < 180_000 ? ["a.attgenerated = ''"] : [])
  ].join(" AND ")
