/**
 * What tables of ours need to know of a `SqlClient`: which database it is of, why a statement failed, without the values that were
 * in it, and whether it may pass.
 */
import * as Effect from "effect/Effect"
import type * as SqlClient from "effect/sql/SqlClient"
import { isSqlError, type SqlError } from "effect/sql/SqlError"

/** MariaDB is `mysql`, too. */
export type Dialect = "postgres" | "sqlite" | "mysql"

/** `undefined` for a database that none of our statements were tried on. */
export const dialectOf = (client: SqlClient.SqlClient): Dialect | undefined =>
  client.onDialectOrElse({
    pg: (): Dialect => "postgres",
    sqlite: (): Dialect => "sqlite",
    mysql: (): Dialect => "mysql",
    orElse: () => undefined
  })

/** Said where {@link dialectOf} knows none. */
export const unknownDialect = "this SqlClient is of a database other than PostgreSQL, SQLite and MySQL"

const stringOf = (cause: object, field: string): string | undefined => {
  const value: unknown = Reflect.get(cause, field)
  return typeof value === "string" && value.length < 300 ? value : undefined
}

/** What the database or its driver calls the failure: a SQLSTATE, `SQLITE_BUSY`, `ER_LOCK_DEADLOCK`; with who says so. */
const codeOf = (cause: unknown): { readonly code: string; readonly of: object } | undefined => {
  if (typeof cause !== "object" || cause === null) return undefined
  const code = stringOf(cause, "code") ?? stringOf(cause, "sqlState")
  if (code !== undefined) return { code, of: cause }
  const inner: unknown = Reflect.get(cause, "cause")
  return inner === cause ? undefined : codeOf(inner)
}

/**
 * Why, in the database's own words: of a driver's alone the code, as its message may hold a connection string. Texts that may
 * quote the statement's values are left out.
 */
const wordsOf = (cause: unknown): string => {
  const found = codeOf(cause)
  if (found === undefined) return ""
  const { code, of } = found
  const isDatabases = /^[0-9A-Z]{5}$/.test(code) ? !/^(22|23|E[A-Z]{4})/.test(code) : /^(ERR_)?SQLITE|^ER_/.test(code)
  const message = isDatabases ? (stringOf(of, "sqlMessage") ?? stringOf(of, "message")) : undefined
  return message === undefined ? `: ${code}` : `: ${message} (${code})`
}

export const problemOf = ({ reason }: SqlError): string => `${reason._tag}${wordsOf(reason.cause)}`

/** Connections that are gone or refused, a server that stops or lacks room, and what met another transaction. */
const passing = /^(08|40|53|57P)|^(ECONN|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|PROTOCOL_CONNECTION_LOST)/

/** Whether the same transaction, tried again, may succeed: it was the database's state and not what it was told. */
export const mayPass = (error: SqlError): boolean =>
  error.isRetryable || passing.test(codeOf(error.reason.cause)?.code ?? "")

/**
 * A transaction that fails where the client dies: of a ROLLBACK that nobody answers, since the connection is gone. Then the server
 * rolls back, or has committed: whoever tries again has to ask.
 */
export const inTransaction =
  (client: SqlClient.SqlClient) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | SqlError, R> =>
    Effect.catchDefect(client.withTransaction(effect), (defect) =>
      isSqlError(defect) ? Effect.fail(defect) : Effect.die(defect)
    )
