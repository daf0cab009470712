/** Effect's own `SqlClient` of PostgreSQL, as programs use it: pooled, prepared, in binary format. */
import { PgClient } from "@effect/sql-pg"
import { Redacted } from "effect"

/** @example Effect.provide(write, sqlClient(workspace.url())) */
export const sqlClient = (url: string, options: Omit<PgClient.PgPoolConfig, "url"> = {}) =>
  PgClient.layer({ url: Redacted.make(url), ...options })
