/** What a doctor asks of the target of a copy, and of the source for comparison. Both sessions look, and cannot write. */
import type { ReplicationError } from "@replicant/core"
import { quoteLiteral } from "@replicant/core/driver"
import { Doctor } from "@replicant/core/operations"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as CopyPosition from "./CopyPosition.ts"
import * as ReplicationOrigin from "./ReplicationOrigin.ts"
import {
  filledTables,
  type SourceTable,
  sourceTables,
  type TargetTables,
  tableKey,
  targetTables
} from "./TargetCatalog.ts"
import type { SessionError } from "./TargetSession.ts"

/** A doctor's session fails in core's own ways, and never as one that a copy writes by. */
const asCore = <A>(asked: Effect.Effect<A, SessionError>): Effect.Effect<A, ReplicationError> =>
  Effect.catchTag(asked, "TargetFailed", (error) => Effect.die(error))

/** What the source publishes, but for the table that another copy keeps its position in. */
export const published: Doctor.Fact<ReadonlyArray<SourceTable>> = {
  name: "copied-tables",
  what: "what is published, as a copy has it",
  server: "source",
  needs: [Doctor.publications],
  read: ({ asked, known, session }) => {
    const names = Doctor.streamed(known(Doctor.publications), asked)
    return names.length === 0
      ? Effect.succeed([])
      : Effect.map(sourceTables(session, names), (all) => all.filter((table) => !CopyPosition.isPositionTable(table)))
  }
}

/** The tables at the target that they go into. */
export const found: Doctor.Fact<TargetTables> = {
  name: "target-tables",
  what: "the target's tables",
  server: "target",
  needs: [published],
  read: ({ known, session }) => {
    const tables = known(published)
    return tables.length === 0 ? Effect.succeed({ tables: new Map(), role: "" }) : asCore(targetTables(session, tables))
  }
}

const State = Schema.Struct({
  /** Whether triggers can be kept quiet. */
  mayQuiet: Schema.Boolean,
  mayCreate: Schema.Boolean,
  hasTable: Schema.Boolean,
  mayUseTable: Schema.Boolean,
  mayUseOrigins: Schema.Boolean,
  origins: Schema.Array(Schema.String),
  originLimit: Schema.Number
})

/** As whom a copy would write, and what it finds of itself. */
export const state: Doctor.Fact<
  typeof State.Type & { readonly who: Doctor.Who; readonly version: number; readonly isPooled: boolean }
> = {
  name: "target-rights",
  what: "what the target allows",
  server: "target",
  read: ({ session, who }) =>
    Effect.map(
      Doctor.ask(
        session,
        "pg_roles",
        State,
        `json_build_object('mayQuiet', ${
          session.serverVersion >= 150_000
            ? "has_parameter_privilege('session_replication_role', 'SET')"
            : "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"
        }, 'mayCreate', has_database_privilege(current_database(), 'CREATE'),
        'hasTable', to_regclass('replicant.copy_position') IS NOT NULL,
        'mayUseTable', coalesce(has_table_privilege(to_regclass('replicant.copy_position')::oid, 'SELECT')
          AND has_table_privilege(to_regclass('replicant.copy_position')::oid, 'INSERT')
          AND has_table_privilege(to_regclass('replicant.copy_position')::oid, 'UPDATE'), false),
        'mayUseOrigins', ${ReplicationOrigin.mayUseOrigins},
        'origins', ${Doctor.jsonArray("o.roname ORDER BY o.roname", "FROM pg_replication_origin o")},
        'originLimit', current_setting('${
          session.serverVersion >= 180_000 ? "max_active_replication_origins" : "max_replication_slots"
        }')::int)`
      ),
      (seen) => ({ ...seen, who, version: session.serverVersion, isPooled: session.isPooled === true })
    )
}

/** The row of the copy's slot, where there is one and we may read it. */
export const position: Doctor.Fact<CopyPosition.CopyPosition | undefined> = {
  name: "target-position",
  what: "how far the copy is",
  server: "target",
  needs: [state],
  read: ({ asked, known, session }) => {
    const { hasTable, mayUseTable } = known(state)
    return hasTable && mayUseTable && asked.slot !== undefined
      ? asCore(CopyPosition.load(session, asked.slot))
      : Effect.undefined
  },
  grants: (role) => [`GRANT USAGE ON SCHEMA replicant TO ${role}`, `GRANT SELECT ON replicant.copy_position TO ${role}`]
}

/** The tables that hold rows, of those that we may read. */
export const filled: Doctor.Fact<ReadonlyArray<string>> = {
  name: "target-rows",
  what: "whether the target's tables are empty",
  server: "target",
  needs: [found],
  read: ({ known, session }) => {
    const tables = [...known(found).tables].filter(([, { denied }]) => !denied.includes("SELECT"))
    return asCore(
      filledTables(
        session,
        tables.map(([key]) => key)
      )
    )
  }
}

const Habits = Schema.Struct({
  /** Triggers that fire whatever `session_replication_role` says. */
  triggers: Schema.Array(Schema.Struct({ schema: Schema.String, table: Schema.String, name: Schema.String })),
  /** What fills a column of a table by itself. */
  sequences: Schema.Array(
    Schema.Struct({
      schema: Schema.String,
      table: Schema.String,
      column: Schema.String,
      sequenceSchema: Schema.String,
      sequence: Schema.String
    })
  )
})

/** What at the target acts by itself: of all its tables, of which those that are copied into are looked at. */
export const habits: Doctor.Fact<typeof Habits.Type> = {
  name: "target-triggers",
  what: "the target's triggers and sequences",
  server: "target",
  needs: [found],
  read: ({ known, session }) => {
    const inTables = (alias: string) => {
      const names = new Set([...known(found).tables.values()].map(({ schema }) => schema))
      const schemas = [...names].map((schema) => quoteLiteral(schema))
      return `${alias}.nspname IN (${schemas.length === 0 ? "NULL" : schemas.join(", ")})`
    }
    return Effect.map(
      Doctor.ask(
        session,
        "pg_trigger",
        Habits,
        `json_build_object('triggers', ${Doctor.jsonArray(
          "json_build_object('schema', n.nspname, 'table', c.relname, 'name', t.tgname)",
          `FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE NOT t.tgisinternal AND t.tgenabled IN ('A', 'R') AND ${inTables("n")}`
        )}, 'sequences', ${Doctor.jsonArray(
          `json_build_object('schema', n.nspname, 'table', c.relname, 'column', a.attname,
            'sequenceSchema', sn.nspname, 'sequence', s.relname)`,
          `FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
            JOIN pg_namespace sn ON sn.oid = s.relnamespace
            JOIN pg_class c ON c.oid = d.refobjid JOIN pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
            WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
            AND ${inTables("n")}`
        )})`
      ),
      ({ sequences, triggers }) => {
        const keys = new Set(known(found).tables.keys())
        const isCopied = ({ schema, table }: { readonly schema: string; readonly table: string }) =>
          keys.has(tableKey({ schema, name: table }))
        return { triggers: triggers.filter(isCopied), sequences: sequences.filter(isCopied) }
      }
    )
  }
}
