/**
 * The tables of the target as its catalog has them, and how they fit what the source publishes: pure comparison, and one
 * query.
 */
import { DecodeError } from "@replicant/core"
import { quoteIdentifier, quoteLiteral } from "@replicant/core/driver"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { CatalogTable } from "../codegen/TableModule.ts"
import type { SessionError, TargetSession } from "./TargetSession.ts"

const Names = Schema.Array(Schema.String)

const Column = Schema.Struct({
  name: Schema.String,
  /** As `format_type` prints it. */
  type: Schema.String,
  /** What it is a domain over, or itself. */
  base: Schema.Struct({ schema: Schema.String, name: Schema.String }),
  /** Of an enum. */
  labels: Schema.NullOr(Names),
  isGenerated: Schema.Boolean,
  /** GENERATED ALWAYS AS IDENTITY: an UPDATE cannot set it. */
  isAlwaysIdentity: Schema.Boolean,
  /** NOT NULL, and nothing that fills it by itself. */
  isRequired: Schema.Boolean
})

/** Columns that no two rows have alike. */
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

const Table = Schema.Struct({
  schema: Schema.String,
  name: Schema.String,
  isPartitioned: Schema.Boolean,
  /** Of SELECT, INSERT, UPDATE, DELETE, TRUNCATE, those that the role lacks. */
  denied: Names,
  hasRowSecurity: Schema.Boolean,
  columns: Schema.Array(Column),
  uniqueKeys: Schema.Array(UniqueKey)
})

const TablesRow = Schema.Struct({ tables: Schema.fromJsonString(Schema.Array(Table)), role: Schema.String })

/** A table of the target. */
export type TargetTable = typeof Table.Type
/** A column of one. */
export type TargetColumn = typeof Column.Type
/** What tells its rows apart. */
export type UniqueKey = typeof UniqueKey.Type

interface Named {
  readonly schema: string
  readonly name: string
}

/** A name for maps and messages: quoted, so that no two tables share it. */
export const tableKey = ({ name, schema }: Named): string => `${quoteIdentifier(schema)}.${quoteIdentifier(name)}`

const array = (element: string, rest: string): string => `(SELECT coalesce(json_agg(${element}), '[]'::json) ${rest})`

/** Indexes that ON CONFLICT and a search by key can use: whole, immediate, of columns only. */
const uniqueKeys = array(
  `json_build_object('isPrimary', i.indisprimary, 'columns', ${array(
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
  `FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
    JOIN pg_catalog.pg_am am ON am.oid = ic.relam AND am.amname = 'btree'
    WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
    AND i.indpred IS NULL AND i.indexprs IS NULL`
)

const columns = array(
  `json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
    'base', json_build_object('schema', bn.nspname, 'name', bt.typname),
    'labels', CASE WHEN bt.typtype = 'e' THEN ${array(
      "e.enumlabel ORDER BY e.enumsortorder",
      "FROM pg_catalog.pg_enum e WHERE e.enumtypid = bt.oid"
    )} END,
    'isGenerated', a.attgenerated <> '', 'isAlwaysIdentity', a.attidentity = 'a',
    'isRequired', a.attnotnull AND NOT a.atthasdef AND a.attidentity = '') ORDER BY a.attnum`,
  `FROM pg_catalog.pg_attribute a JOIN base b ON b.oid = a.atttypid JOIN pg_catalog.pg_type bt ON bt.oid = b.base
    JOIN pg_catalog.pg_namespace bn ON bn.oid = bt.typnamespace
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped`
)

const tablesQuery = (names: ReadonlyArray<Named>): string => `
  WITH RECURSIVE base (oid, base) AS (
    SELECT oid, oid FROM pg_catalog.pg_type WHERE typtype <> 'd'
    UNION ALL SELECT t.oid, b.base FROM pg_catalog.pg_type t JOIN base b ON t.typtype = 'd' AND t.typbasetype = b.oid
  )
  SELECT coalesce(json_agg(json_build_object(
    'schema', n.nspname, 'name', c.relname, 'isPartitioned', c.relkind = 'p',
    'denied', ${array("p", "FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) p WHERE NOT pg_catalog.has_table_privilege(c.oid, p)")},
    'hasRowSecurity', c.relrowsecurity AND NOT (SELECT r.rolsuper OR r.rolbypassrls FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)
      AND NOT (NOT c.relforcerowsecurity AND pg_catalog.pg_has_role(c.relowner, 'USAGE')),
    'columns', ${columns}, 'uniqueKeys', ${uniqueKeys}
  )), '[]'::json) AS tables, current_user AS role
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p') AND (n.nspname, c.relname) IN (${names
    .map(({ name, schema }) => `(${quoteLiteral(schema)}, ${quoteLiteral(name)})`)
    .join(", ")})`

/** What is there of these tables, and as whom we look. */
export interface TargetTables {
  readonly tables: ReadonlyMap<string, TargetTable>
  readonly role: string
}

/** Asks the target for these tables: one at least. */
export const targetTables = Effect.fnUntraced(function* (
  session: TargetSession,
  names: ReadonlyArray<Named>
): Effect.fn.Return<TargetTables, SessionError> {
  const [row] = yield* session.query(tablesQuery(names))
  const found = yield* Schema.decodeUnknownEffect(TablesRow)(row).pipe(
    Effect.mapError(
      () => new DecodeError({ problem: "an answer to pg_class that PostgreSQL does not give", offset: 0 })
    )
  )
  return { tables: new Map(found.tables.map((table) => [tableKey(table), table])), role: found.role }
})

/** Built-in types whose every text is one of another, and means the same there. */
const widerTypes: { readonly [type: string]: ReadonlyArray<string> } = {
  int2: ["int4", "int8", "numeric"],
  int4: ["int8", "numeric"],
  int8: ["numeric"],
  varchar: ["text"],
  text: ["varchar"],
  name: ["text", "varchar"]
}

type SourceColumn = CatalogTable["columns"][number]

const hasModifier = (type: string): boolean => type.endsWith(")") || type.endsWith(")[]") || /\(\d+\) with/.test(type)

/** Why values of the one do not fit the other. */
const misfit = (source: SourceColumn, target: TargetColumn): string | undefined => {
  const isSameBase = source.base.schema === target.base.schema && source.base.name === target.base.name
  const isBuiltin = source.base.schema === "pg_catalog" && target.base.schema === "pg_catalog"
  const isWider = isBuiltin && widerTypes[source.base.name]?.includes(target.base.name) === true
  const fits = source.type === target.type || ((isSameBase || isWider) && !hasModifier(target.type))
  if (!fits) return `is ${target.type}, and ${source.type} at the source`
  const missing = source.labels?.filter((label) => target.labels?.includes(label) !== true) ?? []
  return missing.length === 0 ? undefined : `lacks labels of the enum at the source: ${missing.join(", ")}`
}

/** What of the published tables does not fit the target's; empty where all is well. */
export const mismatches = (published: ReadonlyArray<CatalogTable>, { tables }: TargetTables): ReadonlyArray<string> =>
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
        const problem = found.isGenerated ? undefined : misfit(column, found)
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
