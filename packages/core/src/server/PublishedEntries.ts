/**
 * By what a table is published, so that one can tell later whether it has been all the time: a table that left a publication
 * and joined it again is published as before, and what was written to it meanwhile no stream has brought.
 *
 * What tells is the catalog's own rows: which one lists the table, by its OID and the transaction that wrote it (`xmin`, which
 * freezing leaves alone), and that of the publication itself, which ALTER PUBLICATION … SET writes anew. Of a partition that
 * its ancestor's row lists, also by what it is a partition. Of a partitioned table that is sent as itself, which of its
 * partitions were attached: those that were made as partitions had no rows before.
 *
 * Source: src/backend/commands/publicationcmds.c and src/backend/catalog/heap.c (system columns are written with their table),
 * 14 to 18.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { quoteLiteral } from "../protocol/ReplicationCommand.ts"
import type { ReplicationError } from "../ReplicationError.ts"
import * as Catalog from "./Catalog.ts"
import type { SqlSession } from "./WalSender.ts"

const Texts = Schema.Array(Schema.String)

const Row = Schema.Struct({
  schema: Schema.String,
  name: Schema.String,
  entry: Schema.String,
  attached: Schema.fromJsonString(Texts)
})

/** A table as the stream names it, and by what it is published. */
export interface PublishedEntry {
  readonly schema: string
  readonly name: string
  /** Another text once it was taken out and put in again, made anew, or published otherwise. */
  readonly entry: string
  /** Of its partitions, those that were attached with whatever rows they had. */
  readonly attached: ReadonlyArray<string>
}

/** Whether whoever has followed a table since `before` has everything of it `now`. */
export const isContinued = (
  before: Pick<PublishedEntry, "entry" | "attached">,
  now: Pick<PublishedEntry, "entry" | "attached">
): boolean => before.entry === now.entry && now.attached.every((partition) => before.attached.includes(partition))

const marks = (from: string, condition: string): string =>
  `(SELECT string_agg(concat(r.oid, ':', r.xmin), '+' ORDER BY r.oid) FROM pg_catalog.${from} r WHERE ${condition})`

const entriesQuery = (publications: ReadonlyArray<string>, serverVersion: number): string => {
  const names = publications.map(quoteLiteral).join(", ")
  const hasSchemas = serverVersion >= 150_000
  const schemas = hasSchemas
    ? [marks("pg_publication_namespace", "r.pnpubid = p.oid AND r.pnnspid = ANY (t.schemas)")]
    : []
  // What lists an ancestor counts for as long as the partition is one.
  const byAncestor = [
    "EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = ANY (t.pubs) AND r.prrelid = ANY (t.chain) AND r.prrelid <> c.oid)",
    ...(hasSchemas
      ? [
          "EXISTS (SELECT FROM pg_catalog.pg_publication_namespace r WHERE r.pnpubid = ANY (t.pubs) AND r.pnnspid = ANY (t.schemas) AND r.pnnspid <> c.relnamespace)"
        ]
      : [])
  ]
  return `WITH listed (oid, pub) AS MATERIALIZED (
    SELECT DISTINCT g.relid, p.oid
    FROM pg_catalog.pg_publication p CROSS JOIN LATERAL pg_catalog.pg_get_publication_tables(p.pubname::text) g
    WHERE p.pubname IN (${names})
  ), chained AS MATERIALIZED (
    SELECT c.oid, array_agg(l.pub) AS pubs, CASE WHEN c.relispartition
      THEN (SELECT array_agg(a.relid::oid) FROM pg_catalog.pg_partition_ancestors(c.oid) a) ELSE ARRAY[c.oid] END AS chain
    FROM listed l JOIN pg_catalog.pg_class c ON c.oid = l.oid GROUP BY c.oid, c.relispartition
  ), above AS MATERIALIZED (
    SELECT x.oid FROM (SELECT l.oid, false AS is_below FROM listed l
      UNION ALL SELECT u.oid, true FROM chained y CROSS JOIN LATERAL unnest(y.chain) AS u (oid) WHERE u.oid <> y.oid) x
    GROUP BY x.oid HAVING bool_or(x.is_below) AND NOT bool_and(x.is_below)
  ), t AS MATERIALIZED (
    SELECT x.*, (SELECT array_agg(a.relnamespace) FROM pg_catalog.pg_class a WHERE a.oid = ANY (x.chain)) AS schemas
    FROM chained x
    WHERE cardinality(x.chain) = 1 OR NOT EXISTS (
      SELECT FROM unnest(x.chain) AS u (oid) WHERE u.oid <> x.oid AND u.oid IN (SELECT a.oid FROM above a))
  )
  SELECT n.nspname AS schema, c.relname AS name, concat_ws('/', c.oid,
    (SELECT string_agg(concat_ws(' ', concat(p.oid, ':', p.xmin), ${[
      marks("pg_publication_rel", "r.prpubid = p.oid AND r.prrelid = ANY (t.chain)"),
      ...schemas
    ].join(", ")}), ',' ORDER BY p.oid) FROM pg_catalog.pg_publication p WHERE p.oid = ANY (t.pubs)),
    CASE WHEN cardinality(t.chain) > 1 AND (${byAncestor.join(" OR ")}) THEN
      (SELECT string_agg(concat(i.inhparent, ':', i.xmin), ' ' ORDER BY i.inhrelid)
        FROM pg_catalog.pg_inherits i WHERE i.inhrelid = ANY (t.chain)) END) AS entry,
    CASE c.relkind WHEN 'p' THEN (SELECT coalesce(json_agg(concat(leaf.relid::oid, ':', i.version) ORDER BY leaf.relid::oid), '[]'::json)
      FROM pg_catalog.pg_partition_tree(c.oid) leaf
        CROSS JOIN LATERAL (SELECT xmin::text AS version FROM pg_catalog.pg_inherits WHERE inhrelid = leaf.relid LIMIT 1) i
        CROSS JOIN LATERAL (
          SELECT xmin::text AS version FROM pg_catalog.pg_attribute WHERE attrelid = leaf.relid AND attnum = -1 LIMIT 1) a
      WHERE leaf.relid <> c.oid AND i.version <> a.version) ELSE '[]'::json END::text AS attached
  FROM t JOIN pg_catalog.pg_class c ON c.oid = t.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  ORDER BY c.oid`
}

/** Asks by what these publications publish what they do now, under the names under which they send it. */
export const listEntries = Effect.fnUntraced(function* (
  connection: SqlSession,
  publications: ReadonlyArray<string>
): Effect.fn.Return<ReadonlyArray<PublishedEntry>, ReplicationError> {
  const text = entriesQuery(publications, connection.serverVersion)
  const rows = yield* Catalog.queryAt(connection, text, { stage: "Query" })
  return yield* Effect.forEach(rows, (row) => Catalog.decodeRow(Row, row, "pg_publication"))
})
