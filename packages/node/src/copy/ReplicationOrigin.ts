/**
 * The origin that what we write at the target bears. A stream of the target's own that asks for `origin: "none"` leaves it
 * out, so that two databases may follow each other.
 *
 * Source: https://www.postgresql.org/docs/current/replication-origins.html
 */
import { Lsn, PgTimestamp } from "@replicant/core"
import { quoteLiteral } from "@replicant/core/driver"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { TargetDenied } from "./CopyError.ts"
import type { Statement, Step } from "./PgBatch.ts"
import type { SessionError, TargetSession } from "./TargetSession.ts"

/** Origins are of the whole cluster: the name tells the database too. */
export const originName = (database: string, slot: string): string => `replicant.${database}.${slot}`

/** SQL that makes it. */
export const createOrigin = (name: string): string =>
  `SELECT pg_catalog.pg_replication_origin_create(${quoteLiteral(name)})`

/** What the role must be allowed to run. */
export const functions = [
  "pg_replication_origin_oid(text)",
  "pg_replication_origin_create(text)",
  "pg_replication_origin_session_setup(text)",
  "pg_replication_origin_xact_setup(pg_lsn, timestamptz)"
]

/** SQL for whether the role may. */
export const mayUseOrigins = functions
  .map((name) => `pg_catalog.has_function_privilege('pg_catalog.${name}', 'EXECUTE')`)
  .join(" AND ")

/** What the role lacks, told before anything is tried. */
export const checkRights = Effect.fnUntraced(function* (
  session: TargetSession
): Effect.fn.Return<void, SessionError | TargetDenied> {
  const [row] = yield* session.query(`SELECT ${mayUseOrigins} AS may, pg_catalog.quote_ident(current_user) AS role`)
  if (row?.may === "t") return
  return yield* new TargetDenied({
    detail: `the target's role ${row?.role} may not use replication origins`,
    remedy: `GRANT EXECUTE ON FUNCTION ${functions.map((name) => `pg_catalog.${name}`).join(", ")} TO ${row?.role}; or do without: no origin`
  })
})

/** Whether it is there. */
export const originExists = (session: TargetSession, name: string): Effect.Effect<boolean, SessionError> =>
  Effect.map(
    session.query(`SELECT pg_catalog.pg_replication_origin_oid(${quoteLiteral(name)}) IS NOT NULL AS is_there`),
    ([row]) => row?.is_there === "t"
  )

/** A server remembers how far each origin is, whether or not somebody uses it, and has room for ten unless told otherwise. */
const noRoom = (serverVersion: number): TargetDenied =>
  new TargetDenied({
    detail: "the target has no room for another replication origin",
    remedy: `drop those that nobody uses: SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin; raise ${
      serverVersion < 180_000 ? "max_replication_slots" : "max_active_replication_origins"
    }, and restart it; or do without: no origin`
  })

/** From here on, what the session writes bears it. One session at a time: what was killed may take a moment to let go. */
export const setupOrigin = (session: TargetSession, name: string): Effect.Effect<void, SessionError | TargetDenied> =>
  session.query(`SELECT pg_catalog.pg_replication_origin_session_setup(${quoteLiteral(name)})`).pipe(
    Effect.retry({
      while: (error) => error._tag === "TargetFailed" && error.sqlState === "55006",
      schedule: Schedule.spaced("100 millis"),
      times: 100
    }),
    Effect.catchIf(
      (error) => error._tag === "TargetFailed" && error.sqlState === "53400",
      () => noRoom(session.serverVersion)
    ),
    Effect.asVoid
  )

const xactSetup: Statement = {
  name: "replicant_origin",
  text: "SELECT pg_catalog.pg_replication_origin_xact_setup($1, $2)"
}

/** The commit at the source that this transaction stands for. */
export const setupTransaction = (commit: {
  readonly endLsn: Lsn.Lsn
  readonly begin: { readonly commitTime: PgTimestamp.PgTimestamp }
}): Step => ({
  statement: xactSetup,
  values: [Lsn.format(commit.endLsn), PgTimestamp.format(commit.begin.commitTime)]
})
