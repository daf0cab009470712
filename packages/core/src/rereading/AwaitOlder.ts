/**
 * Waits until every transaction has ended that had begun by now, so that a reader sees it. One of them may have been
 * delivered before anybody took note: a commit is in the WAL, and flushed, and streamed, before it is seen by others. Under
 * synchronous replication that may take as long as a standby is away.
 *
 * Transactions of other databases count in a snapshot and are never streamed: they are passed over, where our role may know
 * them.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Catalog from "../server/Catalog.ts"
import type { TransactionSnapshot } from "../snapshot/TransactionSnapshot.ts"
import type { ReadingSession } from "./ReadingSession.ts"
import type { SnapshotJob } from "./Request.ts"
import { SnapshotBlocked, type SnapshotRequestError } from "./RequestError.ts"
import { currentSnapshot } from "./TableReader.ts"

/** Between two questions, in milliseconds. */
const interval = 50

const RunnersRow = Schema.Struct({
  runners: Schema.fromJsonString(
    Schema.Array(
      Schema.Struct({
        xid: Schema.String,
        pid: Schema.NullOr(Schema.Number),
        gid: Schema.NullOr(Schema.String),
        isHere: Schema.Boolean
      })
    )
  )
})

/** Who runs what, by the lower 32 bits of the transaction's id. */
const runners = `SELECT coalesce(json_agg(json_build_object('xid', xid::text, 'pid', pid, 'gid', gid,
    'isHere', datname = pg_catalog.current_database())), '[]'::json) AS runners FROM (
  SELECT backend_xid AS xid, pid, NULL::text AS gid, datname FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL
  UNION ALL SELECT transaction, NULL, gid, database FROM pg_catalog.pg_prepared_xacts
) r`

/** Of these, those that are not known to be of another database. */
const ours = Effect.fnUntraced(function* (session: ReadingSession, xids: ReadonlyArray<bigint>) {
  const rows = yield* Catalog.queryAt(session, runners, { stage: "Query" })
  const known = (yield* Catalog.decodeRow(RunnersRow, rows[0], "pg_stat_activity")).runners
  const byXid = new Map(known.map((runner) => [runner.xid, runner]))
  return xids.flatMap((xid) => {
    const runner = byXid.get(String(BigInt.asUintN(32, xid)))
    return runner?.isHere === false ? [] : [{ xid, pid: runner?.pid ?? undefined, gid: runner?.gid ?? undefined }]
  })
})

const runningBelow = (snapshot: TransactionSnapshot, xmax: bigint): ReadonlyArray<bigint> =>
  Array.from(snapshot.running).filter((xid) => xid < xmax)

/** Fails with `SnapshotBlocked` after `lockTimeout` milliseconds; 0 is for ever. Ends early where that is its phase no longer. */
export const awaitOlder = Effect.fnUntraced(function* (
  session: ReadingSession,
  job: SnapshotJob,
  lockTimeout: number
): Effect.fn.Return<void, SnapshotRequestError> {
  const { phase } = job
  if (phase._tag !== "AwaitingOlder") return
  const { xmax } = yield* currentSnapshot(session)
  const since = yield* Clock.currentTimeMillis
  while (job.phase === phase) {
    const now = yield* currentSnapshot(session)
    phase.touched.read(now)
    const older = runningBelow(now, xmax)
    if (older.length === 0) return
    const blockers = yield* ours(session, older)
    if (blockers.length === 0) return
    if (lockTimeout > 0 && (yield* Clock.currentTimeMillis) - since >= lockTimeout) {
      return yield* new SnapshotBlocked({
        table: job.request.table,
        xids: blockers.map(({ xid }) => `${xid}`),
        pids: blockers.flatMap(({ pid }) => (pid === undefined ? [] : [pid])),
        gids: blockers.flatMap(({ gid }) => (gid === undefined ? [] : [gid])),
        lockTimeout
      })
    }
    yield* Effect.sleep(interval)
  }
})
