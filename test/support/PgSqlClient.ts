/** Effect's `SqlClient` over a workspace: just enough of one to write by, with real transactions and savepoints. */
import { Effect, Layer, type Scope, Stream } from "effect"
import { Reactivity } from "effect/reactivity"
import { SqlClient, type SqlConnection, SqlError, Statement } from "effect/sql"
import pg from "pg"

const failed = (cause: unknown) => new SqlError.SqlError({ reason: new SqlError.UnknownError({ cause }) })

/** A connection as long as the scope. */
const acquire = Effect.fnUntraced(function* (
  url: string
): Effect.fn.Return<SqlConnection.Connection, SqlError.SqlError, Scope.Scope> {
  const client = yield* Effect.acquireRelease(
    Effect.tryPromise({
      try: () => {
        const client = new pg.Client({ connectionString: url })
        return client.connect().then(() => client)
      },
      catch: failed
    }),
    (client) => Effect.promise(() => client.end())
  )
  const rows = (sql: string, params: ReadonlyArray<unknown>) =>
    Effect.tryPromise({ try: () => client.query(sql, [...params]).then((result) => result.rows), catch: failed })
  return {
    execute: rows,
    executeRaw: rows,
    executeUnprepared: rows,
    executeValues: (sql, params) => Effect.map(rows(sql, params), (all) => all.map(Object.values)),
    executeValuesUnprepared: (sql, params) => Effect.map(rows(sql, params), (all) => all.map(Object.values)),
    executeStream: (sql, params) => Stream.fromIterableEffect(rows(sql, params))
  }
})

const compiler = Statement.makeCompiler({
  dialect: "pg",
  placeholder: (index) => `$${index}`,
  onIdentifier: Statement.defaultEscape('"'),
  onRecordUpdate: () => ["", []],
  onCustom: () => ["", []]
})

/** @example Effect.provide(write, pgSqlClient(workspace.url())) */
export const pgSqlClient = (url: string): Layer.Layer<SqlClient.SqlClient> =>
  Layer.effect(
    SqlClient.SqlClient,
    SqlClient.make({ acquirer: acquire(url), compiler, driver: "pg", spanAttributes: [] })
  ).pipe(Layer.provide(Reactivity.layer))
