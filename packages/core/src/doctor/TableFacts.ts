/**
 * Tables as a doctor asks for them: those that are streamed or named, as `server/Tables.ts` describes them, with what only a
 * doctor wants to know: how wide they are, how often they change, whether they keep large values aside.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { ReplicationError } from "../ReplicationError.ts"
import * as Tables from "../server/Tables.ts"
import { jsonArray } from "../server/TablesSql.ts"
import * as Check from "./Check.ts"
import { publications, streamed } from "./PublicationFacts.ts"

const Name = Schema.Struct({ schema: Schema.String, name: Schema.String })

const Habits = Schema.Struct({
  oid: Schema.Number,
  columns: Schema.Number,
  /** Updates and deletes since statistics were reset: a statistic, and no count. */
  writes: Schema.Number,
  /** Columns whose values are kept out of line where they are large; empty where none has been. */
  toasted: Schema.Array(Schema.String),
  /** A primary key that is deferrable, which is no replica identity. */
  hasDeferrableKey: Schema.Boolean,
  /** A unique index over columns that are NOT NULL: what could be one. */
  candidate: Schema.NullOr(Schema.String),
  isReadable: Schema.Boolean,
  /** Of it and its partitions, those that the role may not read. */
  unreadable: Schema.Array(Name)
})

const isReadable = (alias: string, schema: string): string =>
  `has_table_privilege(${alias}.oid, 'SELECT') AND has_schema_privilege(${schema}, 'USAGE')`

/** Of tables by their OIDs. Nothing here takes a lock: sizes are the catalog's, and statistics are in memory. */
const selectHabits = (oids: ReadonlyArray<number>): string =>
  jsonArray(
    `json_build_object('oid', c.oid::bigint, 'columns', (SELECT count(*) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
      'writes', pg_stat_get_tuples_updated(c.oid) + pg_stat_get_tuples_deleted(c.oid),
      'toasted', CASE WHEN pg_stat_get_tuples_inserted(c.reltoastrelid) > 0
          OR EXISTS (SELECT FROM pg_class t WHERE t.oid = c.reltoastrelid AND t.relpages > 0)
        THEN ${jsonArray(
          "a.attname ORDER BY a.attnum",
          "FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attstorage IN ('x', 'e')"
        )} ELSE '[]'::json END,
      'hasDeferrableKey', EXISTS (SELECT FROM pg_index i
        WHERE i.indrelid = c.oid AND i.indisprimary AND NOT i.indimmediate),
      'candidate', (SELECT x.relname FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
        AND i.indexprs IS NULL AND NOT EXISTS (SELECT FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
          WHERE k.place <= i.indnkeyatts AND NOT a.attnotnull) ORDER BY x.relname LIMIT 1),
      'isReadable', ${isReadable("c", "c.relnamespace")},
      'unreadable', CASE c.relkind WHEN 'p' THEN ${jsonArray(
        "json_build_object('schema', pn.nspname, 'name', p.relname)",
        `FROM pg_partition_tree(c.oid) t JOIN pg_class p ON p.oid = t.relid JOIN pg_namespace pn ON pn.oid = p.relnamespace
          WHERE NOT (${isReadable("p", "p.relnamespace")})`
      )} ELSE '[]'::json END)`,
    `FROM pg_class c WHERE c.oid = ANY ('{${oids.join(",")}}'::oid[])`
  )

type Described = Tables.Table<"identity" | "published" | "sentAs" | "bare" | "hasRowSecurity">

/** A table, and its habits. */
export interface Table extends Described, Omit<typeof Habits.Type, "oid"> {}

const aspects = ["identity", "published", "sentAs", "bare", "hasRowSecurity"] as const

/** What the publications send, and the tables that are named beside. */
export const tables: Check.Fact<ReadonlyArray<Table>> = {
  name: "tables",
  what: "the published tables",
  server: "source",
  needs: [publications],
  read: Effect.fnUntraced(function* ({
    asked,
    known,
    session
  }): Effect.fn.Return<ReadonlyArray<Table>, ReplicationError> {
    const names = streamed(known(publications), asked)
    const describe = (selection: Tables.Selection) =>
      Tables.describe(session, { selection, aspects, publications: names })
    const sent: ReadonlyArray<Described> =
      names.length === 0 ? [] : yield* describe({ _tag: "Publications", publications: names })
    const named: ReadonlyArray<Described> =
      asked.tables.length === 0 ? [] : yield* describe({ _tag: "Names", names: asked.tables })
    const described = new Map([...sent, ...named].map((table) => [table.oid, table]))
    if (described.size === 0) return []
    const habits = yield* Check.ask(session, "pg_class", Schema.Array(Habits), selectHabits([...described.keys()]))
    return habits.flatMap((found) => {
      const table = described.get(found.oid)
      return table === undefined ? [] : [{ ...table, ...found }]
    })
  })
}
