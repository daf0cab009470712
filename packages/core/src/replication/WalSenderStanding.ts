/**
 * Asks over another connection what a walsender is doing that answers nothing, before it is given up.
 *
 * While it decodes what nobody wants (a bulk load of a table that is not published, REFRESH MATERIALIZED VIEW) it reads
 * what we send every half of `wal_sender_timeout`, on PostgreSQL 14 and 15 not at all where whole tables are rewritten: so
 * silence alone proves nothing. A walsender that waits for its client reads what that sends, and answers; one that does so
 * and has not answered never got our question, or we not its answer. That is what a broken connection looks like.
 *
 * Source: WalSndUpdateProgress and WalSndWaitForWal in src/backend/replication/walsender.c
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { quoteLiteral } from "../protocol/ReplicationCommand.ts"
import type { ReplicationError } from "../ReplicationError.ts"
import * as Catalog from "../server/Catalog.ts"
import { type ReplicantConnection, type SqlSession, WalSender } from "../server/WalSender.ts"

/**
 * - `Working`: it decodes, reads, spills, or waits for a lock.
 * - `Waiting`: it waits for its client, and so would have answered.
 * - `Gone`: it has not got the slot any more.
 * - `Unknown`: nobody could be asked, or who was asked cannot tell.
 */
export type Standing = "Working" | "Waiting" | "Gone" | "Unknown"

/** The backend of one stream, as its own session knows it. */
export interface Backend {
  readonly slot: string
  readonly pid: number
  /** When its server was started, as that tells it: by which another server, or the same one restarted, is known. */
  readonly serverStart: string
}

const Row = Schema.Struct({
  server_start: Schema.String,
  active_pid: Schema.NullOr(Schema.NumberFromString),
  backend_type: Schema.NullOr(Schema.String),
  wait_event_type: Schema.NullOr(Schema.String)
})

/** One look, as the catalog has it. */
export type StandingRow = typeof Row.Type

/** What one look says. A role sees all of its own sessions; of others' the type is hidden, and the rest with it. */
export const standingOf = (row: StandingRow, { pid, serverStart }: Backend): Standing => {
  if (row.server_start !== serverStart) return "Unknown"
  if (row.active_pid !== pid) return "Gone"
  if (row.backend_type === null) return "Unknown"
  // `Client` is the socket of a walsender, whatever it waits for there; `Activity` its main loop.
  return row.wait_event_type === "Client" || row.wait_event_type === "Activity" ? "Waiting" : "Working"
}

const standingQuery = (slot: string): string =>
  `SELECT ${Catalog.serverStart} AS server_start, s.active_pid, a.backend_type, a.wait_event_type
  FROM (SELECT 1) AS one LEFT JOIN pg_catalog.pg_replication_slots AS s ON s.slot_name = ${quoteLiteral(slot)}
  LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = s.active_pid`

/** How often to look, and how long in between; milliseconds. */
const looks = 3
const lookInterval = 100

/**
 * Looks until it is seen at work, or waits each time. The looks go one after the other to where the stream comes from, so
 * an answer that it sent before the first of them is here before the last.
 */
const look = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  backend: Backend
): Effect.fn.Return<Standing, ReplicationError> {
  yield* Catalog.pinSession(connection)
  for (let count = 1; ; count++) {
    const rows = yield* Catalog.queryAt(connection, standingQuery(backend.slot), { stage: "Query" })
    const standing = standingOf(yield* Catalog.decodeRow(Row, rows[0], "pg_stat_activity"), backend)
    if (standing !== "Waiting" || count === looks) return standing
    yield* Effect.sleep(lookInterval)
  }
})

/** A question put over a connection of its own. */
export interface AskElsewhere<A> {
  /** How long it may take, from connecting on. */
  readonly deadline: Duration.Input
  /** The answer where nobody can be asked in time. */
  readonly fallback: A
  /** What is asked, for the log. */
  readonly what: string
}

/** Asks over another connection, and takes no failure of that for one of the stream. */
export const askElsewhere = <A>(
  ask: (connection: ReplicantConnection) => Effect.Effect<A, ReplicationError>,
  options: AskElsewhere<A>
): Effect.Effect<A, never, WalSender> => asking(({ connect }) => connect, ask, options)

/** The same over an ordinary session, which takes none of `max_wal_senders`. */
export const askInSession = <A>(
  ask: (session: SqlSession) => Effect.Effect<A, ReplicationError>,
  options: AskElsewhere<A>
): Effect.Effect<A, never, WalSender> => asking(({ openSession }) => openSession, ask, options)

const asking = <S, A>(
  open: (walSender: WalSender["Service"]) => Effect.Effect<S, ReplicationError, Scope.Scope>,
  ask: (session: S) => Effect.Effect<A, ReplicationError>,
  { deadline, fallback, what }: AskElsewhere<A>
): Effect.Effect<A, never, WalSender> =>
  WalSender.pipe(
    Effect.flatMap(open),
    Effect.flatMap(ask),
    Effect.scoped,
    Effect.timeoutOption(deadline),
    Effect.map(Option.getOrElse((): A => fallback)),
    Effect.catch((error) => Effect.as(Effect.logDebug(`cannot ask ${what}: ${error.message}`), fallback))
  )

/** Asks, within this time from connecting on. `Unknown` where that fails. */
export const askStanding = (backend: Backend, deadline: Duration.Input): Effect.Effect<Standing, never, WalSender> =>
  Effect.withSpan(
    askElsewhere<Standing>((connection) => look(connection, backend), {
      deadline,
      fallback: "Unknown",
      what: "what the walsender is doing"
    }),
    "Replicant.askStanding"
  )
