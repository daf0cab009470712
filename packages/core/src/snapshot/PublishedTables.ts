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
import * as Tables from "../server/Tables.ts"
import type { ReplicantConnection } from "../server/WalSender.ts"

/** A column that is sent. */
export interface PublishedColumn {
  readonly name: string
  readonly isKey: boolean
  readonly typeOid: number
  readonly typeModifier: number
  /** The type's name where the walsender would tell it: of a type of the user's, with domains seen through. */
  readonly type: { readonly schema: string; readonly name: string } | null
}

/** A relation that is copied, and the tables that its rows lie in. */
export interface PublishedTable {
  readonly oid: number
  readonly schema: string
  readonly name: string
  readonly replicaIdentity: string
  readonly columns: ReadonlyArray<PublishedColumn>
  /** Columns of the index that identifies rows, published or not; 0 where there is none. */
  readonly keyLength: number
  /** More than one is what the walsender refuses. */
  readonly columnLists: number
  /** Of each publication; a null is every row. */
  readonly filters: ReadonlyArray<string | null>
  /** The table itself, or the leaves of a partitioned one. */
  readonly parts: ReadonlyArray<Tables.Part>
  /** The partitioned tables above the parts, this one included. */
  readonly ancestors: Tables.Table<"partitioned">["partitioned"]
}

/** The planner's estimate of the whole table, where each of its parts was analyzed. */
export const estimatedRows = ({ parts }: PublishedTable): number | undefined =>
  parts.reduce<number | undefined>(
    (sum, part) => (sum === undefined || part.estimatedRows === null ? undefined : sum + part.estimatedRows),
    0
  )

/** Everything that is published. */
export interface Listing {
  readonly tables: ReadonlyArray<PublishedTable>
  /** Changes with every ALTER PUBLICATION, also one that is taken back. */
  readonly fingerprint: string
  readonly role: string
}

/** What must be known of a table to copy it. */
const aspects = ["columns", "identity", "published", "sentAs", "parts", "partitioned"] as const

type Described = Tables.Table<(typeof aspects)[number]>

/** As PostgreSQL's own code has it, `FirstGenbkiObjectId`: types below are told by their OID alone. */
const firstNamedType = 10_000

const publishedColumn = (
  { base, name, typeModifier, typeOid }: Tables.Column,
  { identity, replicaIdentity }: Described
): PublishedColumn => {
  const schema = base.schema === "pg_catalog" ? "" : base.schema
  return {
    name,
    isKey: replicaIdentity === "f" || identity.includes(name),
    typeOid,
    typeModifier,
    type: typeOid < firstNamedType ? null : { schema, name: base.name }
  }
}

const publishedTable = (table: Described): PublishedTable => {
  const { identity, name, oid, partitioned, parts, published, replicaIdentity, schema } = table
  const [first] = published
  return {
    oid,
    schema,
    name,
    replicaIdentity,
    columns: table.columns
      .filter((column) => first?.columns.includes(column.name) === true)
      .map((column) => publishedColumn(column, table)),
    keyLength: identity.length,
    columnLists: new Set(published.map(({ columns }) => JSON.stringify(columns))).size,
    filters: published.map(({ filter }) => filter),
    parts,
    ancestors: partitioned
  }
}

/** Of tables as the catalog describes them, those that are sent under their own names. */
const sentTables = (tables: ReadonlyArray<Described>): ReadonlyArray<PublishedTable> =>
  tables.filter(({ published, sentAs }) => published.length > 0 && sentAs.length === 0).map(publishedTable)

const fingerprint = (publications: string, serverVersion: number): string => {
  const one = (from: string) =>
    `(SELECT string_agg(r.xmin || ' ' || r.ctid, ' ' ORDER BY r.oid) FROM pg_catalog.pg_publication p ${from} WHERE p.pubname IN (${publications}))`
  return `concat_ws('/', ${[
    one("JOIN pg_catalog.pg_publication r ON r.oid = p.oid"),
    one("JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid"),
    ...(serverVersion < 150_000 ? [] : [one("JOIN pg_catalog.pg_publication_namespace r ON r.pnpubid = p.oid")])
  ].join(", ")})`
}

const ListingRow = Schema.Struct({ fingerprint: Schema.String, role: Schema.String })

/** Asks what these publications publish now. They must exist, and be one at least. */
export const listPublishedTables = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  publications: ReadonlyArray<string>
): Effect.fn.Return<Listing, ReplicationError> {
  const names = publications.map(quoteLiteral).join(", ")
  const text = `SELECT ${fingerprint(names, connection.serverVersion)} AS fingerprint, current_user AS role`
  const rows = yield* Catalog.queryAt(connection, text, { stage: "Query" })
  // Before the tables: of two listings with one fingerprint, no publication was altered in all the time between.
  const { fingerprint: before, role } = yield* Catalog.decodeRow(ListingRow, rows[0], "pg_publication")
  const tables = yield* Tables.describe(connection, { selection: { _tag: "Publications", publications }, aspects })
  return { tables: sentTables(tables), fingerprint: before, role }
})

/** A table by its names. */
export interface ListedName {
  readonly schema: string
  readonly name: string
}

/** Asks how these publications publish one table, and what its primary key is; `undefined` where they do not. */
export const describePublishedTable = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  publications: ReadonlyArray<string>,
  name: ListedName
) {
  const selection = { _tag: "Names", names: [name] } as const
  const tables = yield* Tables.describe(connection, { selection, publications, aspects: [...aspects, "primaryKey"] })
  const [table] = sentTables(tables)
  return table === undefined ? undefined : { table, described: tables[0]! }
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
export const unreadable = (
  listing: Pick<Listing, "role" | "tables">
): PermissionDenied | PublicationMismatch | undefined => {
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
