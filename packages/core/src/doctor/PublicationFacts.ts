/** Publications as a doctor asks for them: all of the database, since one that is missing is told beside those that are there. */
import * as Schema from "effect/Schema"
import type { Operation } from "../server/Publication.ts"
import { jsonArray } from "../server/TablesSql.ts"
import { everyOperation } from "../table/PublicationCommand.ts"
import * as Check from "./Check.ts"
import type { Asked } from "./Plan.ts"

const Publication = Schema.Struct({
  name: Schema.String,
  isAllTables: Schema.Boolean,
  operations: Schema.Array(Schema.Literals(everyOperation)),
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

/** Every publication of the database, as `pg_publication` has it. */
export const publications: Check.Fact<ReadonlyArray<Publication>> = {
  name: "publications",
  what: "the publications",
  server: "source",
  read: ({ session }) =>
    Check.ask(
      session,
      "pg_publication",
      Schema.Array(Publication),
      jsonArray(
        `json_build_object('name', p.pubname, 'isAllTables', p.puballtables, 'viaRoot', p.pubviaroot,
          'operations', to_json(array_remove(ARRAY[${everyOperation.map(operation).join(", ")}], NULL)),
          'tables', (SELECT count(*) FROM pg_get_publication_tables(p.pubname::text)),
          'partitioned', CASE WHEN p.pubviaroot THEN '[]'::json ELSE ${jsonArray(
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

/** Of a table, the publications that send one of these operations on it. */
export const sentBy = <P extends { readonly publication: string }>(
  { published }: { readonly published: ReadonlyArray<P> },
  all: ReadonlyArray<Pick<Publication, "name" | "operations">>,
  ...wanted: ReadonlyArray<Operation>
) =>
  published.filter(({ publication }) =>
    all.some(({ name, operations }) => name === publication && wanted.some((one) => operations.includes(one)))
  )

/** The names of what is streamed: those that are named, there or not, or all where nothing is. */
export const streamed = (all: ReadonlyArray<Publication>, asked: Asked): ReadonlyArray<string> =>
  asked.isWholeDatabase ? all.map(({ name }) => name) : asked.publications

/** Those that are looked at: the ones that are named, or all where nothing is. */
export const wantedOf = (all: ReadonlyArray<Publication>, { asked }: Check.Context): ReadonlyArray<Publication> =>
  asked.isWholeDatabase ? all : all.filter(({ name }) => asked.publications.includes(name))
