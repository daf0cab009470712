/**
 * A standby that is promoted under its stream. Its walsender goes on, into a timeline of which it tells nobody: positions from there on
 * would be noted as of the old one, on which they never were, and refused by the next start. So it is looked at now and then over
 * another session, and a stream of it is begun anew: then the timeline is known.
 *
 * Source: src/backend/replication/walsender.c, which ends physical walsenders at a promotion and leaves logical ones be.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { ConnectionError, type ReplicationError } from "../ReplicationError.ts"
import * as Catalog from "../server/Catalog.ts"
import type { SqlSession, WalSender } from "../server/WalSender.ts"
import { askInSession } from "./WalSenderStanding.ts"

const Row = Schema.Struct({ server_start: Schema.String, in_recovery: Schema.Literals(["t", "f"]) })

const text = `SELECT ${Catalog.serverStart} AS server_start, pg_catalog.pg_is_in_recovery() AS in_recovery`

/** How long between two looks. */
const pace: Duration.Input = "10 seconds"

/** Whether this very server is no standby any more: another of several hosts may answer. */
const look = Effect.fnUntraced(function* (
  session: SqlSession,
  serverStart: string
): Effect.fn.Return<boolean, ReplicationError> {
  const rows = yield* Catalog.queryAt(session, text, { stage: "Query" })
  const row = yield* Catalog.decodeRow(Row, rows[0], "pg_is_in_recovery")
  return row.server_start === serverStart && row.in_recovery === "f"
})

/** Fails once the standby that was started then has been promoted. */
export const awaitPromotion = (
  serverStart: string,
  deadline: Duration.Input
): Effect.Effect<never, ConnectionError, WalSender> =>
  Effect.gen(function* () {
    const isPromoted = askInSession((session) => look(session, serverStart), {
      deadline,
      fallback: false,
      what: "whether the standby is promoted"
    })
    while (true) {
      yield* Effect.sleep(pace)
      if (!(yield* isPromoted)) continue
      return yield* new ConnectionError({
        reason: "Closed",
        detail: "the standby was promoted: its timeline is asked anew"
      })
    }
  })
