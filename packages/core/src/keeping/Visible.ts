/**
 * Whether what a stream has told can be seen by others. A commit is sent as soon as it is in the WAL; the transaction that made it
 * lets go of its place among those in progress a moment later (`ProcArrayEndTransaction` after `XLogFlush`, in PostgreSQL's xact.c), with
 * synchronous replication after its standbys have answered. Who asks the database in between gets what was there before, and
 * hears of it no more.
 *
 * A slot that is made waits for what was in progress: so all that committed before its consistent point can be seen.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { dialectOf } from "../checkpoint/SqlDialect.ts"

/** At once mostly; a transaction that waits for its standbys is asked for four times a second. */
const pace = Schedule.modifyDelay(Schedule.exponential("1 millis"), ({ duration }) =>
  Effect.succeed(Duration.min(duration, Duration.millis(250)))
)

/**
 * Those of these that are in progress. `xid` has 32 bits, and a server counts with 64: of the two that are nearest to its next, the one
 * within half a turn. One that it does not know yet is of a primary whose WAL this standby has still to replay.
 */
const inProgress = (client: SqlClient.SqlClient, xids: ReadonlyArray<number>) => {
  const turn = 2 ** 32
  return client`
    WITH server AS (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next),
      asked AS (SELECT xid, next, (xid - next % ${client.literal(`${turn}`)} + ${client.literal(`${turn + turn / 2}`)})
        % ${client.literal(`${turn}`)} - ${client.literal(`${turn / 2}`)} AS ahead
        FROM server, unnest(ARRAY[${client.literal(xids.join(", "))}]::bigint[]) AS xid)
    SELECT xid::text FROM asked
    WHERE CASE WHEN ahead >= 0 THEN true ELSE pg_xact_status((next + ahead)::text::xid8) = 'in progress' END`.values
}

/**
 * Ends once these transactions (`change.begin.xid`) can be seen by whoever asks the database of this `SqlClient`: the one that is
 * followed, or a standby of it. Of databases other than PostgreSQL at once.
 *
 * @example
 * const reload = (change: Insert) => Effect.andThen(Table.untilVisible([change.begin.xid]), store(change.relation.name))
 */
export const untilVisible = (xids: Iterable<number>): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (client) => {
    let left: ReadonlyArray<number> = dialectOf(client) === "postgres" ? [...xids] : []
    const look = Effect.gen(function* () {
      if (left.length > 0) left = (yield* inProgress(client, left)).map(([xid]) => Number(xid))
      return left.length === 0
    })
    return Effect.asVoid(Effect.repeat(look, { until: (isDone) => isDone, schedule: pace }))
  })
