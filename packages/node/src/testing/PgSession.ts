/**
 * SQL for tests: one `pg` client within a scope. Not the library's own way to a server: that is `PgWalSender`.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import pg from "pg"
import { PgServerFailed } from "./PgProcess.ts"

/** A row by column names, its values as `pg` parses them: bigint, numeric and pg_lsn stay text. */
export interface Row {
  readonly [column: string]: unknown
}

/** A session, for what must happen in one transaction, or at the same time as something else. */
export interface PgSession {
  /** Runs SQL text, one statement or several, and gives the rows of the last. */
  readonly query: (sql: string) => Effect.Effect<ReadonlyArray<Row>, PgServerFailed>
  /** `pg_backend_pid()` of this session. */
  readonly backendPid: number
}

const failed = (stage: "Connect" | "Query", cause: unknown): PgServerFailed =>
  new PgServerFailed({
    stage,
    problem: cause instanceof Error ? cause.message : String(cause),
    sqlState: cause instanceof pg.DatabaseError ? cause.code : undefined
  })

/** Opens a session, closed with the scope, whatever query is under way. A connection that breaks fails the next query. */
export const connect = Effect.fnUntraced(function* (
  url: string
): Effect.fn.Return<PgSession, PgServerFailed, Scope.Scope> {
  const client = yield* Effect.acquireRelease(
    Effect.sync(() => new pg.Client({ connectionString: url }).on("error", () => undefined)),
    (client) => Effect.promise(() => client.end().catch(() => undefined))
  )
  yield* Effect.tryPromise({ try: () => client.connect(), catch: (cause) => failed("Connect", cause) })
  const query: PgSession["query"] = (sql) =>
    Effect.tryPromise({
      // Several statements give several results, which pg's types do not tell.
      try: () =>
        client.query(sql).then((result: pg.QueryResult | Array<pg.QueryResult>) => [result].flat().at(-1)!.rows),
      catch: (cause) => failed("Query", cause)
    })
  const [row] = yield* query("SELECT pg_backend_pid() AS pid")
  return { query, backendPid: Number(row?.pid) }
})

/** Runs SQL text in a session of its own. */
export const query = (url: string, sql: string): Effect.Effect<ReadonlyArray<Row>, PgServerFailed> =>
  Effect.scoped(Effect.flatMap(connect(url), (session) => session.query(sql)))
