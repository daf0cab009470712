/**
 * The tables of both sides as their catalogs have them, and how the target's fit what the source publishes: pure comparison,
 * and what each side is asked.
 */
import { type ReplicationError, Tables } from "@replicant/core"
import { qualifiedName, quoteIdentifier, type ReplicantConnection } from "@replicant/core/driver"
import * as Effect from "effect/Effect"
import { type SessionError, sharedSettings, type TargetQueries } from "./TargetSession.ts"
import { type ColumnType, misfit } from "./TypeFit.ts"

/** A column of the target. */
export interface TargetColumn extends ColumnType {
  readonly name: string
  readonly isGenerated: boolean
  /** GENERATED ALWAYS AS IDENTITY: an UPDATE cannot set it. */
  readonly isAlwaysIdentity: boolean
  /** NOT NULL, and nothing that fills it by itself. */
  readonly isRequired: boolean
}

/** A table of the target. */
export interface TargetTable {
  readonly schema: string
  readonly name: string
  readonly isPartitioned: boolean
  /** Of SELECT, INSERT, UPDATE, DELETE, TRUNCATE, those that the role lacks. */
  readonly denied: ReadonlyArray<string>
  readonly hasRowSecurity: boolean
  readonly columns: ReadonlyArray<TargetColumn>
  readonly uniqueKeys: ReadonlyArray<Tables.UniqueKey>
}

/** What tells the rows of a table apart. */
export type UniqueKey = Tables.UniqueKey

/** A table of the source, with the columns that are sent. */
export interface SourceTable {
  readonly schema: string
  readonly name: string
  /** Key columns of the replica identity's index; empty where there is none. */
  readonly identity: ReadonlyArray<string>
  readonly primaryKey: ReadonlyArray<string>
  readonly columns: ReadonlyArray<Pick<TargetColumn, "name" | "type" | "base" | "labels">>
}

interface Named {
  readonly schema: string
  readonly name: string
}

/** A name for maps and messages: quoted, so that no two tables share it. */
export const tableKey: (table: Named) => string = qualifiedName

const targetColumn = (column: Tables.Column): TargetColumn => ({
  name: column.name,
  type: column.type,
  base: column.base,
  labels: column.labels,
  isGenerated: column.generated !== "",
  isAlwaysIdentity: column.identity === "a",
  isRequired: !column.takesNull && !column.hasDefault && column.identity === ""
})

/** What is there of these tables, and as whom we look. */
export interface TargetTables {
  readonly tables: ReadonlyMap<string, TargetTable>
  readonly role: string
}

/** Asks the target for these tables: one at least. */
export const targetTables = Effect.fnUntraced(function* (
  session: TargetQueries,
  names: ReadonlyArray<Named>
): Effect.fn.Return<TargetTables, SessionError> {
  const found = yield* Tables.describe(session, {
    selection: { _tag: "Names", names },
    aspects: ["columns", "uniqueKeys", "denied", "hasRowSecurity"]
  })
  const [asker] = yield* session.query("SELECT current_user AS role")
  const tables = found
    .filter(({ kind }) => kind === "r" || kind === "p")
    .map(({ columns, kind, ...table }) => ({
      ...table,
      isPartitioned: kind === "p",
      columns: columns.map(targetColumn)
    }))
  return { tables: new Map(tables.map((table) => [tableKey(table), table])), role: asker?.role ?? "" }
})

/**
 * Asks the source what these publications send. Types are printed as the target prints its own: settings of the session are
 * changed.
 */
export const sourceTables = Effect.fnUntraced(function* (
  source: Pick<ReplicantConnection, "query" | "serverVersion">,
  publications: ReadonlyArray<string>
): Effect.fn.Return<ReadonlyArray<SourceTable>, ReplicationError> {
  const { quote_all_identifiers, search_path } = sharedSettings
  yield* source.query(`SET search_path = '${search_path}'; SET quote_all_identifiers = ${quote_all_identifiers}`)
  const tables = yield* Tables.describe(source, {
    selection: { _tag: "Publications", publications },
    aspects: ["columns", "identity", "primaryKey", "published"]
  })
  return tables.map((table) => ({ ...table, columns: Tables.sentColumns(table) }))
})

/** Whether types have to fit, or the target's input functions decide, value by value. */
export type Types = "fitting" | "any"

/** What of the published tables does not fit the target's; empty where all is well. */
export const mismatches = (
  published: ReadonlyArray<SourceTable>,
  { tables }: TargetTables,
  types: Types = "fitting"
): ReadonlyArray<string> =>
  published.flatMap((source) => {
    const label = tableKey(source)
    const target = tables.get(label)
    if (target === undefined) return [`${label} is missing`]
    const sent = new Set(source.columns.map((column) => column.name))
    return [
      ...source.columns.flatMap((column) => {
        const found = target.columns.find(({ name }) => name === column.name)
        const name = `${label}, column ${quoteIdentifier(column.name)}`
        if (found === undefined) return [`${name} is missing`]
        // What is generated there is what it is there.
        const problem = found.isGenerated || types === "any" ? undefined : misfit(column, found)
        return problem === undefined ? [] : [`${name} ${problem}`]
      }),
      ...target.columns
        .filter(({ isRequired, name }) => isRequired && !sent.has(name))
        .map(
          ({ name }) => `${label}, column ${quoteIdentifier(name)} is NOT NULL, has no default, and is not published`
        )
    ]
  })

/** What the role may not do, as the statements that would allow it; empty where it may. */
export const missingGrants = ({ role, tables }: TargetTables): ReadonlyArray<string> => {
  const to = quoteIdentifier(role)
  return Array.from(tables, ([label, { denied }]) => ({ label, denied }))
    .filter(({ denied }) => denied.length > 0)
    .map(({ denied, label }) => `GRANT ${denied.join(", ")} ON ${label} TO ${to}`)
}

/** So many tables are looked into by one statement: each takes a lock, and there is room for some thousands. */
const atATime = 500

/** Those of these tables that hold rows. */
export const filledTables = Effect.fnUntraced(function* (
  { query }: Pick<TargetQueries, "query">,
  keys: Iterable<string>
): Effect.fn.Return<ReadonlyArray<string>, SessionError> {
  const all = Array.from(keys)
  const filled: Array<string> = []
  for (let at = 0; at < all.length; at += atATime) {
    const asked = all.slice(at, at + atATime)
    const looks = asked.map((key, place) => `SELECT ${place} AS place WHERE EXISTS (SELECT FROM ${key})`)
    const places = new Set(Array.from(yield* query(looks.join(" UNION ALL ")), ({ place }) => Number(place)))
    filled.push(...asked.filter((_, place) => places.has(place)))
  }
  return filled
})
