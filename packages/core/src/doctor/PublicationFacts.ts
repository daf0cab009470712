/** Publications as a doctor asks for them: all of the database, since one that is missing is told beside those that are there. */
import * as Schema from "effect/Schema"
import type { Operation } from "../server/Publication.ts"
import * as Check from "./Check.ts"

const Publication = Schema.Struct({
  name: Schema.String,
  isAllTables: Schema.Boolean,
  operations: Schema.Array(Schema.Literals(["insert", "update", "delete", "truncate"])),
  viaRoot: Schema.Boolean,
  /** Tables that it sends changes of. */
  tables: Schema.Number,
  /** Partitioned tables that it names, while it sends their partitions under their own names. */
  partitioned: Schema.Array(Schema.Struct({ schema: Schema.String, name: Schema.String })),
  /** Transactions since it was made or altered, or a table joined it: 2147483647 once nobody can tell. */
  age: Schema.Number
})

export type Publication = typeof Publication.Type

const operation = (name: Operation): string => `CASE WHEN p.pub${name} THEN '${name}' END`

export const publications: Check.Fact<ReadonlyArray<Publication>> = {
  name: "publications",
  what: "the publications",
  server: "source",
  read: ({ session }) =>
    Check.ask(
      session,
      "pg_publication",
      Schema.Array(Publication),
      Check.jsonArray(
        `json_build_object('name', p.pubname, 'isAllTables', p.puballtables, 'viaRoot', p.pubviaroot,
          'operations', to_json(array_remove(ARRAY[${(["insert", "update", "delete", "truncate"] as const).map(operation).join(", ")}], NULL)),
          'tables', (SELECT count(*) FROM pg_get_publication_tables(p.pubname::text)),
          'partitioned', CASE WHEN p.pubviaroot THEN '[]'::json ELSE ${Check.jsonArray(
            "json_build_object('schema', n.nspname, 'name', c.relname) ORDER BY n.nspname, c.relname",
            `FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE r.prpubid = p.oid AND c.relkind = 'p'`
          )} END,
          'age', least(age(p.xmin), (SELECT min(age(r.xmin)) FROM pg_publication_rel r WHERE r.prpubid = p.oid)))
          ORDER BY p.pubname`,
        "FROM pg_publication p"
      )
    )
}

/** Those that are looked at: the ones that are named, or all where nothing is. */
export const wantedOf = (all: ReadonlyArray<Publication>, { asked }: Check.Context): ReadonlyArray<Publication> =>
  asked.isWholeDatabase ? all : all.filter(({ name }) => asked.publications.includes(name))
