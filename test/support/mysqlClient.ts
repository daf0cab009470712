/**
 * Effect's `SqlClient` of MySQL and MariaDB, over the driver that effect's own package uses: that has not been published for this
 * Effect.
 */
import { Effect, Layer, Stream } from "effect"
import * as Reactivity from "effect/reactivity/Reactivity"
import { SqlClient, Statement } from "effect/sql"
import type { Connection } from "effect/sql/SqlConnection"
import * as SqlError from "effect/sql/SqlError"
import mysql from "mysql2"
import type { MariaDb } from "./MariaDb.ts"

const classified = (cause: Error & { readonly code?: string; readonly fatal?: boolean }) => {
  if (cause.code === "ER_DUP_ENTRY") return new SqlError.UniqueViolation({ cause, constraint: "PRIMARY" })
  if (cause.code === "ER_LOCK_DEADLOCK") return new SqlError.DeadlockError({ cause })
  if (cause.code === "ER_LOCK_WAIT_TIMEOUT") return new SqlError.LockTimeoutError({ cause })
  return cause.fatal === true ? new SqlError.ConnectionError({ cause }) : new SqlError.UnknownError({ cause })
}

const asked = <A>(ask: (resume: (cause: Error | null, result: A) => void) => void) =>
  Effect.callback<A, SqlError.SqlError>((resume) =>
    ask((cause, result) =>
      resume(
        cause === null ? Effect.succeed(result) : Effect.fail(new SqlError.SqlError({ reason: classified(cause) }))
      )
    )
  )

const connectionOf = (connection: mysql.PoolConnection): Connection => {
  const run = (sql: string, values: ReadonlyArray<unknown>, rowsAsArray: boolean) =>
    Effect.map(
      asked<unknown>((resume) =>
        connection.query({ sql, values: [...values], rowsAsArray }, (cause, result) => resume(cause, result))
      ),
      (result) => (Array.isArray(result) ? result : [])
    )
  const execute: Connection["execute"] = (sql, params, transform) =>
    Effect.map(run(sql, params, false), (rows) => (transform === undefined ? rows : transform(rows)))
  const executeValues: Connection["executeValues"] = (sql, params) => run(sql, params, true)
  return {
    execute,
    executeRaw: (sql, params) => run(sql, params, false),
    executeUnprepared: execute,
    executeValues,
    executeValuesUnprepared: executeValues,
    executeStream: (sql, params, transform) => Stream.fromIterableEffect(execute(sql, params, transform))
  }
}

const make = Effect.fnUntraced(function* ({ database, socketPath }: MariaDb) {
  const pool = yield* Effect.acquireRelease(
    Effect.sync(() => mysql.createPool({ socketPath, database, user: "root", connectionLimit: 8 })),
    (opened) => Effect.callback<void>((resume) => opened.end(() => resume(Effect.void)))
  )
  const acquirer = Effect.map(
    Effect.acquireRelease(
      asked<mysql.PoolConnection>((resume) => pool.getConnection((cause, connection) => resume(cause, connection))),
      (connection) => Effect.sync(() => connection.release())
    ),
    connectionOf
  )
  return yield* SqlClient.make({
    acquirer,
    compiler: Statement.makeCompiler({
      dialect: "mysql",
      placeholder: () => "?",
      onIdentifier: Statement.defaultEscape("`"),
      onCustom: () => ["", []],
      onRecordUpdate: () => ["", []]
    }),
    driver: "mysql2",
    spanAttributes: []
  })
})

/** @example Effect.provide(program, mysqlClient({ socketPath, database: "ledger" })) */
export const mysqlClient = (where: MariaDb) =>
  Layer.effect(SqlClient.SqlClient, make(where)).pipe(Layer.provide(Reactivity.layer))
