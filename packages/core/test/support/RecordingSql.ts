/** A `SqlClient` without a database: it notes what it is told to run. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as Stream from "effect/Stream"
import * as SqlClient from "effect/sql/SqlClient"
import type { Connection } from "effect/sql/SqlConnection"
import * as Statement from "effect/sql/Statement"

export type Ran = readonly [sql: string, ...params: ReadonlyArray<unknown>]

/** A layer, and what was run through it so far. Statements are put in words of this dialect; SQLite's if left out. */
export const recordingSql = (compiler = Statement.makeCompilerSqlite()) => {
  const ran: Array<Ran> = []
  const run = (sql: string, params: ReadonlyArray<unknown>) =>
    Effect.sync(() => {
      ran.push([sql, ...params])
      return []
    })
  const connection: Connection = {
    execute: run,
    executeRaw: run,
    executeValues: run,
    executeValuesUnprepared: run,
    executeUnprepared: run,
    executeStream: () => Stream.empty
  }
  const client = SqlClient.make({
    acquirer: Effect.succeed(connection),
    compiler,
    driver: "recording",
    spanAttributes: []
  })
  return { ran, layer: Layer.provide(Layer.effect(SqlClient.SqlClient, client), Reactivity.layer) }
}
