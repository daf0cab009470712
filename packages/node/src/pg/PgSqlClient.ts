/**
 * Effect's `SqlClient` over one ordinary session, for commands of ours: compiler and transactions are effect's own. A program has a
 * pool of its own, by `@effect/sql-pg`.
 */
import type { ReplicationError } from "@replicant/core"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as SqlClient from "effect/sql/SqlClient"
import type { Connection } from "effect/sql/SqlConnection"
import { SqlError, UnknownError } from "effect/sql/SqlError"
import * as Statement from "effect/sql/Statement"
import * as PgClient from "./PgClient.ts"
import * as PgConfig from "./PgConfig.ts"
import { openSession } from "./PgConnect.ts"
import { queryFailure } from "./PgServerError.ts"

/** What of a result is used; values are PostgreSQL's text, or null. */
interface Result {
  readonly fields: ReadonlyArray<{ readonly name: string }>
  readonly rows: ReadonlyArray<ReadonlyArray<string | null>>
}

const ask = (self: PgClient.PgClient, text: string, values: ReadonlyArray<unknown>): Effect.Effect<Result, SqlError> =>
  Effect.callback((resume) => {
    self.unanswered += 1
    self.waits += 1
    self.client.query(
      { text, values: [...values], rowMode: "array" },
      (thrown: Error | null | undefined, result: Result) => {
        if (thrown === null || thrown === undefined) return resume(Effect.succeed(result))
        // What it says is told by whoever knows which of it holds values.
        const cause = queryFailure("code" in thrown ? thrown : (self.lost ?? thrown), self.config)
        resume(Effect.fail(new SqlError({ reason: new UnknownError({ cause }) })))
      }
    )
  })

const connectionOf = (self: PgClient.PgClient): Connection => {
  const execute: Connection["execute"] = (sql, params, transform) =>
    Effect.map(ask(self, sql, params), ({ fields, rows }) => {
      const objects = rows.map((row) => Object.fromEntries(fields.map(({ name }, index) => [name, row[index]])))
      return transform === undefined ? objects : transform(objects)
    })
  const executeValues: Connection["executeValues"] = (sql, params) =>
    Effect.map(ask(self, sql, params), ({ rows }) => rows)
  return {
    execute,
    executeRaw: (sql, params) => ask(self, sql, params),
    executeUnprepared: execute,
    executeValues,
    executeValuesUnprepared: executeValues,
    executeStream: (sql, params, transform) => Stream.fromIterableEffect(execute(sql, params, transform))
  }
}

const open = Effect.fnUntraced(function* (
  options: PgConfig.Options
): Effect.fn.Return<SqlClient.SqlClient, ReplicationError, Scope.Scope | Reactivity.Reactivity> {
  const session = yield* openSession(yield* Effect.fromResult(PgConfig.resolve(options)))
  yield* PgClient.introduce(session)
  const turn = Semaphore.makeUnsafe(1)
  return yield* SqlClient.make({
    // One session: who has it, has it until its transaction has ended.
    acquirer: Effect.as(
      Effect.acquireRelease(turn.take(1), () => turn.release(1)),
      connectionOf(session)
    ),
    compiler: Statement.makeCompiler({
      dialect: "pg",
      placeholder: (index) => `$${index}`,
      onIdentifier: Statement.defaultEscape('"'),
      onCustom: () => ["", []],
      onRecordUpdate: () => ["", []]
    }),
    driver: "pg",
    spanAttributes: []
  })
})

/** A client of the servers that the options name. */
export const layer = (options: PgConfig.Options): Layer.Layer<SqlClient.SqlClient, ReplicationError> =>
  Layer.provide(Layer.effect(SqlClient.SqlClient, open(options)), Reactivity.layer)
