/** The database that a consumer keeps a ledger in: one of three kinds, opened by whoever writes to it or reads it. */
import { Effect, type Layer } from "effect"
import { SqlClient } from "effect/sql"
import { sqliteClient } from "../../packages/core/test/support/sqliteClient.ts"
import type { MariaDb } from "./MariaDb.ts"
import { mysqlClient } from "./mysqlClient.ts"
import { sqlClient } from "./sqlClient.ts"

/** Plain data, so that a program can be told of it. */
export type Target =
  | { readonly kind: "postgres"; readonly url: string }
  | { readonly kind: "sqlite"; readonly file: string }
  | ({ readonly kind: "mariadb" } & MariaDb)

/** `name` is what PostgreSQL knows its sessions by: one that is ended is not to be that of whoever reads. */
export const clientOf = (target: Target, name: string): Layer.Layer<SqlClient.SqlClient, unknown> => {
  switch (target.kind) {
    case "postgres":
      return sqlClient(target.url, { applicationName: name })
    case "sqlite":
      return sqliteClient(target.file)
    case "mariadb":
      return mysqlClient(target)
  }
}

/** No key: what is booked twice is there twice. */
export const makeLedger = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql`CREATE TABLE IF NOT EXISTS ledger (id int NOT NULL)`
)

/** All that was booked, sorted. */
export const readLedger = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.map(sql`SELECT id FROM ledger ORDER BY id`.values, (rows) => rows.map(([id]) => Number(id)))
)
