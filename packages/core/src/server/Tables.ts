/**
 * What a table is, as the catalog has it: one description, of which each asks the aspects it needs, for the tables it
 * selects. Whatever compares, declares, copies or checks tables reads this one.
 *
 * Ten thousand tables take seconds, not minutes: `TablesSql.ts` says how.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Struct from "effect/Struct"
import { monotonicMillis } from "../MonotonicTime.ts"
import { DecodeError, type ReplicationError, ServerError } from "../ReplicationError.ts"
import { refineServerError } from "../refineServerError.ts"
import { type Aspect, type Selection, tablesQuery } from "./TablesSql.ts"
import type { QueryRow } from "./WalSender.ts"

export type { Aspect, Selection } from "./TablesSql.ts"

const Names = Schema.Array(Schema.String)

const Name = Schema.Struct({ schema: Schema.String, name: Schema.String })

const Column = Schema.Struct({
  name: Schema.String,
  typeOid: Schema.Number,
  /** `atttypmod`; -1 for none. */
  typeModifier: Schema.Number,
  /** As `format_type` prints it: without a schema where that is on the search path. */
  type: Schema.String,
  /** As declared, by the column or the domains of its type, which binds no value; 0 where none were. */
  dimensions: Schema.Number,
  /** Whether it may hold NULL. */
  isNullable: Schema.Boolean,
  /** Whether a new row may: from PostgreSQL 18 on NOT NULL may be of new rows alone. */
  takesNull: Schema.Boolean,
  /** `attgenerated`: `s` stored, `v` virtual, empty for an ordinary column. */
  generated: Schema.String,
  /** `attidentity`: `a` always, `d` by default, empty for no identity column. */
  identity: Schema.String,
  /** Whether it has a default, or is generated. */
  hasDefault: Schema.Boolean
})

const Type = Schema.Struct({
  oid: Schema.Number,
  base: Schema.Struct({
    oid: Schema.Number,
    schema: Schema.String,
    name: Schema.String,
    /** That it, or the type of its elements, came with. */
    extension: Schema.optional(Schema.NullOr(Schema.String))
  }),
  labels: Schema.NullOr(Names),
  dimensions: Schema.Number
})

const UniqueKey = Schema.Struct({
  isPrimary: Schema.Boolean,
  columns: Schema.Array(
    Schema.Struct({
      name: Schema.String,
      /** The index's own equality, as SQL has it: `OPERATOR(pg_catalog.=)`. */
      operator: Schema.String,
      /** The column's type, where that operator takes rows of any: what it is compared with has to say which. */
      record: Schema.NullOr(Schema.String)
    })
  )
})

const Published = Schema.Struct({
  publication: Schema.String,
  /** Those that are sent, in table order. */
  columns: Names,
  hasColumnList: Schema.Boolean,
  /** The row filter as SQL; null where every row is sent. */
  filter: Schema.NullOr(Schema.String),
  filterColumns: Names
})

/** SELECT on the table as a whole, as LOCK asks for, and USAGE of its schema. */
const readable = { schema: Schema.String, name: Schema.String, isReadable: Schema.Boolean }

const Part = Schema.Struct({
  oid: Schema.Number,
  ...readable,
  /** The name of its file, a number: another one once it is written anew. */
  fileNode: Schema.Number,
  /** Its size in pages of the server's. Approximate, and no bound. */
  pages: Schema.Number,
  /** Whether ranges of `ctid` can be scanned. */
  isHeap: Schema.Boolean,
  estimatedRows: Schema.NullOr(Schema.Number),
  hasRowSecurity: Schema.Boolean
})

const always = {
  oid: Schema.Number,
  schema: Schema.String,
  name: Schema.String,
  /** `relkind`: `r` table, `p` partitioned, `v` view, `m` materialized view, `f` foreign. */
  kind: Schema.String,
  /** `relpersistence`: `p` is what is written to WAL, `u` unlogged, `t` temporary. */
  persistence: Schema.String,
  isPartition: Schema.Boolean,
  /** `relreplident`: `d` default, `n` nothing, `f` full, `i` index. */
  replicaIdentity: Schema.String
}

const onDemand = {
  /** In table order; generated ones too. */
  columns: Schema.Array(Column),
  /** The key columns of the replica identity's index; empty under `n`, `f`, and where there is no such index. */
  identity: Names,
  primaryKey: Names,
  /** The primary key first. Of those that are deferrable, partial or over expressions, none. */
  uniqueKeys: Schema.Array(UniqueKey),
  /** By each of the publications that send changes under this table's name. */
  published: Schema.Array(Published),
  /** The publications that it belongs to, under whatever name it is sent. */
  namedBy: Names,
  /** Ancestors under whose name the publications send it. */
  sentAs: Schema.Array(Name),
  /** Where its rows lie: the table itself, or the leaves of a partitioned one, as far as they are in the WAL. */
  parts: Schema.Array(Part),
  /** The partitioned tables above the parts, this one included. */
  partitioned: Schema.Array(Schema.Struct(readable)),
  /** Its partitions that have no replica identity. */
  bare: Schema.Array(Name),
  /** Of SELECT, INSERT, UPDATE, DELETE and TRUNCATE, those that the role lacks. */
  denied: Names,
  /** Whether policies bind the role. */
  hasRowSecurity: Schema.Boolean
} satisfies { readonly [A in Aspect]: Schema.Top }

const all = { ...always, ...onDemand }

type Fields = typeof all

/** A column of a table, and what there is to know of its type. */
export interface Column extends Schema.Struct.Type<(typeof Column)["fields"]> {
  /** What its type is a domain over in the end, or the type itself. */
  readonly base: (typeof Type.Type)["base"]
  /** Of an enum, or a domain over one, in their order. */
  readonly labels: ReadonlyArray<string> | null
}
/** Columns that no two rows have alike. */
export type UniqueKey = typeof UniqueKey.Type
/** How one publication sends a table. */
export type Published = typeof Published.Type
/** A relation that holds rows, and what is to be known to read it. */
export type Part = typeof Part.Type

/** A table, and what was asked of it. */
export type Table<A extends Aspect = never> = Schema.Struct.Type<
  Pick<Fields, keyof typeof always | Exclude<A, "columns">>
> & { readonly [C in A & "columns"]: ReadonlyArray<Column> }

/** Whom to ask: a `ReplicantConnection`, or any session that fails in its own way. */
export interface Session<E> {
  /** `server_version_num`: 180004 for 18.4. */
  readonly serverVersion: number
  readonly query: (text: string) => Effect.Effect<ReadonlyArray<QueryRow>, E>
}

/** What is asked. Names must hold no zero byte. */
export interface DescribeOptions<A extends Aspect> {
  readonly selection: Selection
  /** What to tell of each, beside its name and kind. Of `parts`, `partitioned` and `bare` nothing is told without a lock. */
  readonly aspects: ReadonlyArray<A>
  /** Of which `published`, `namedBy` and `sentAs` tell; the selection's own when left out. Those that are missing send nothing. */
  readonly publications?: ReadonlyArray<string> | undefined
}

const TypesRow = Schema.Struct({ types: Schema.fromJsonString(Schema.Array(Type)) })

/** Until here nobody wonders. */
const patience = Duration.seconds(2)

const plural = (count: number, what: string): string => `${count} ${what}${count === 1 ? "" : "s"}`

const selectionText = (selection: Selection): string => {
  switch (selection._tag) {
    case "Publications":
      return `what ${selection.publications.map((name) => JSON.stringify(name)).join(", ")} publish${selection.publications.length === 1 ? "es" : ""}`
    case "Names":
      return plural(selection.names.length, "table")
    case "Schemas":
      return `the tables of ${plural(selection.schemas.length, "schema")}`
    case "Oids":
      return plural(selection.oids.length, "table")
  }
}

/** Says so while a question takes long, and once more when it is answered. */
const told = Effect.fnUntraced(function* <E>(
  question: Effect.Effect<ReadonlyArray<QueryRow>, E>,
  selection: Selection
): Effect.fn.Return<ReadonlyArray<QueryRow>, E> {
  const began = yield* monotonicMillis
  let isTold = false
  const tell = Effect.suspend(() => {
    isTold = true
    return Effect.logInfo(`listing ${selectionText(selection)}: the server is still at it`)
  })
  const rows = yield* Effect.raceFirst(
    question,
    Effect.sleep(patience).pipe(Effect.andThen(tell), Effect.andThen(Effect.never))
  )
  if (isTold) {
    const seconds = ((yield* monotonicMillis) - began) / 1000
    yield* Effect.logInfo(
      `listed ${plural(rows.filter(({ facts }) => facts !== null).length, "table")} in ${seconds.toFixed(1)} s`
    )
  }
  return rows
})

const notPostgres = () => new DecodeError({ problem: "an answer to pg_class that PostgreSQL does not give", offset: 0 })

const decodeTypes = (row: QueryRow) => Effect.mapError(Schema.decodeUnknownEffect(TypesRow)(row), notPostgres)

/** Columns, with what their types are: both are of one statement, so that each type has its entry. */
const typed = (
  columns: ReadonlyArray<typeof Column.Type>,
  types: ReadonlyMap<number, typeof Type.Type>
): Effect.Effect<ReadonlyArray<Column>, DecodeError> =>
  Effect.forEach(columns, (column) => {
    const type = types.get(column.typeOid)
    if (type === undefined) return Effect.fail(notPostgres())
    const { base, dimensions, labels } = type
    return Effect.succeed({ ...column, dimensions: Math.max(column.dimensions, dimensions), base, labels })
  })

/**
 * The relations that are there of those selected, in the order of their OIDs, with what was asked of each: one statement.
 * Where that takes more than two seconds, it is logged, and how long it took.
 *
 * @example
 * Tables.describe(connection, {
 *   selection: { _tag: "Publications", publications: ["shop"] },
 *   aspects: ["columns", "primaryKey"]
 * })
 */
export const describe = Effect.fn("Replicant.describeTables")(function* <E, const A extends Aspect>(
  session: Session<E>,
  {
    aspects,
    selection,
    publications = selection._tag === "Publications" ? selection.publications : []
  }: DescribeOptions<A>
): Effect.fn.Return<ReadonlyArray<Table<A>>, E | ReplicationError> {
  const text = tablesQuery({ selection, publications, aspects }, session.serverVersion)
  const rows = yield* told(session.query(text), selection).pipe(
    Effect.mapError((error) => (error instanceof ServerError ? refineServerError(error, { stage: "Query" }) : error))
  )
  const names: ReadonlyArray<keyof Fields> = [...Struct.keys(always), ...aspects]
  const Facts = Schema.Struct({ facts: Schema.fromJsonString(Schema.Struct(Struct.pick(all, names))) })
  const decodeFacts = Schema.decodeUnknownEffect(Facts)
  const typesRow = rows.find(({ types }) => types !== null)
  const { types } = typesRow === undefined ? { types: [] } : yield* decodeTypes(typesRow)
  const typesByOid = new Map(types.map((type) => [type.oid, type]))
  const hasColumns = aspects.some((aspect) => aspect === "columns")
  const tables: Array<{ readonly oid: number }> = []
  for (const row of rows) {
    if (row.facts === null) continue
    const { facts } = yield* Effect.mapError(decodeFacts(row), notPostgres)
    tables.push(hasColumns ? { ...facts, columns: yield* typed(facts.columns, typesByOid) } : facts)
  }
  tables.sort((self, that) => self.oid - that.oid)
  // What was picked are the aspects asked for: the compiler cannot follow a list of names.
  return tables as ReadonlyArray<unknown> as ReadonlyArray<Table<A>>
})

/** The columns that a publication sends, or any of several, in table order. */
export const sentColumns = ({ columns, published }: Table<"columns" | "published">): ReadonlyArray<Column> => {
  const sent = new Set(published.flatMap((publication) => publication.columns))
  return columns.filter(({ name }) => sent.has(name))
}
