/**
 * Asks the server over a session of its own how far its WAL goes, and what it holds to be confirmed of the slot: what no
 * stream can tell whose socket is held back, or whose walsender decodes what is not published.
 *
 * The session is an ordinary one, opened for this one question: it takes none of `max_wal_senders` and no slot, but for some
 * milliseconds one of `max_connections`. Where all are taken the server refuses it, and the answer is that nobody knows.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Lsn from "../Lsn.ts"
import { monotonicMillis } from "../MonotonicTime.ts"
import { quoteLiteral } from "../protocol/ReplicationCommand.ts"
import type { ReplicationError } from "../ReplicationError.ts"
import * as Catalog from "../server/Catalog.ts"
import type { SqlSession, WalSender } from "../server/WalSender.ts"
import type { ServerFacts } from "./Vitals.ts"
import { askInSession } from "./WalSenderStanding.ts"

/** What is asked about: the slot, and the cluster that it was followed on. */
export interface Asked {
  readonly slot: string
  /** Another cluster that answers there tells nothing of ours; `undefined` before the first connection. */
  readonly systemId: string | undefined
}

const Row = Schema.Struct({
  system_id: Schema.String,
  wal_end: Lsn.LsnFromString,
  confirmed_flush_lsn: Schema.NullOr(Lsn.LsnFromString),
  slot_name: Schema.NullOr(Schema.String)
})

/** One look at both, so that what is confirmed cannot be found beyond the end. */
const query = (slot: string): string =>
  `SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()) AS system_id, ${Catalog.walEnd} AS wal_end,
  s.slot_name, s.confirmed_flush_lsn
  FROM (SELECT 1) AS one LEFT JOIN pg_catalog.pg_replication_slots AS s ON s.slot_name = ${quoteLiteral(slot)}`

/** `undefined` where nobody could be asked within that time, or another cluster or no slot was found. */
export const askServer = (
  { slot, systemId }: Asked,
  deadline: Duration.Input
): Effect.Effect<ServerFacts | undefined, never, WalSender> => {
  const ask = Effect.fnUntraced(function* (
    session: SqlSession
  ): Effect.fn.Return<ServerFacts | undefined, ReplicationError> {
    yield* Catalog.pinSession(session)
    const rows = yield* Catalog.queryAt(session, query(slot), { stage: "Query" })
    const row = yield* Catalog.decodeRow(Row, rows[0], "pg_replication_slots")
    if (row.slot_name === null || (systemId !== undefined && systemId !== row.system_id)) return undefined
    const at = yield* monotonicMillis
    return { at, end: row.wal_end, confirmed: row.confirmed_flush_lsn ?? Lsn.zero }
  })
  return Effect.withSpan(
    askInSession<ServerFacts | undefined>(ask, {
      deadline,
      fallback: undefined,
      what: "how far the server's WAL goes"
    }),
    "Replicant.askServer"
  )
}
