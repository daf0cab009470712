/**
 * Effect's `SqlClient` of SQLite, over the engine that Node.js brings: compiler, transactions and turns are effect's own.
 * None of the packages that connect it to SQLite has been published for this Effect.
 */
import { DatabaseSync, type SQLInputValue } from "node:sqlite"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as SqlClient from "effect/sql/SqlClient"
import type { Connection } from "effect/sql/SqlConnection"
import { classifySqliteError, SqlError } from "effect/sql/SqlError"
import * as Statement from "effect/sql/Statement"

const connectionOf = (database: DatabaseSync): Connection => {
  const run = (sql: string, params: ReadonlyArray<unknown>, returnArrays = false) =>
    Effect.try({
      try: () => {
        const statement = database.prepare(sql)
        statement.setReturnArrays(returnArrays)
        return statement.all(...(params as ReadonlyArray<SQLInputValue>))
      },
      catch: (cause) => new SqlError({ reason: classifySqliteError(cause) })
    })
  const execute: Connection["execute"] = (sql, params, transform) =>
    Effect.map(run(sql, params), (rows) => (transform === undefined ? rows : transform(rows)))
  const executeValues: Connection["executeValues"] = (sql, params) =>
    Effect.map(run(sql, params, true), (rows) => rows as unknown as ReadonlyArray<ReadonlyArray<unknown>>)
  return {
    execute,
    executeRaw: (sql, params) => run(sql, params),
    executeUnprepared: execute,
    executeValues,
    executeValuesUnprepared: executeValues,
    executeStream: (sql, params, transform) => Stream.fromIterableEffect(execute(sql, params, transform))
  }
}

/** What a test makes of a COMMIT. */
export type Committing = (connection: Connection) => Effect.Effect<void, SqlError>

const make = Effect.fnUntraced(function* (filename: string, commit: Committing | undefined) {
  const database = yield* Effect.acquireRelease(
    Effect.sync(() => new DatabaseSync(filename, { timeout: 5_000 })),
    (database) => Effect.sync(() => database.close())
  )
  return yield* SqlClient.make({
    ...SqlClient.makeSqliteAcquirers({
      connection: Effect.succeed(connectionOf(database)),
      semaphore: Semaphore.makeUnsafe(1),
      isTransaction: () => database.isTransaction
    }),
    compiler: Statement.makeCompilerSqlite(),
    commit,
    driver: "node:sqlite",
    spanAttributes: []
  })
})

/** @example Effect.provide(program, sqliteClient("checkpoints.db")) */
export const sqliteClient = (filename: string, commit?: Committing): Layer.Layer<SqlClient.SqlClient> =>
  Layer.effect(SqlClient.SqlClient, make(filename, commit)).pipe(Layer.provide(Reactivity.layer))
