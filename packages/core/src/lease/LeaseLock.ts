/**
 * The lock behind a lease, as the server has it: a session's advisory lock, in a session that the server ends when it has
 * heard nothing of us for a term. What becomes of that is decided in `SlotLease.ts`.
 *
 * Source: https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { monotonicMillis } from "../MonotonicTime.ts"
import { quoteLiteral } from "../protocol/ReplicationCommand.ts"
import { ConnectionError, InvalidOption, logText, type ReplicationError } from "../ReplicationError.ts"
import * as Catalog from "../server/Catalog.ts"
import { type SqlSession, WalSender } from "../server/WalSender.ts"

/** Who holds a lease, as far as our role may know. */
export interface Owner {
  /** Of its session's backend. */
  readonly pid: number
  /** As it calls itself: one name a host tells owners apart. */
  readonly applicationName: string | undefined
}

/** An owner as one would name it. */
export const describeOwner = (owner: Owner | undefined): string => {
  if (owner === undefined) return "somebody"
  const { applicationName, pid } = owner
  return applicationName === undefined ? `pid ${pid}` : `pid ${pid} ("${logText(applicationName)}")`
}

/** A lock that is ours. */
export interface LeaseLock {
  readonly session: SqlSession
  /** Of our session's backend. */
  readonly pid: number
  /** Milliseconds. */
  readonly term: number
  /** When the question was asked that the server last answered, by the monotonic clock: its own patience began later. */
  confirmed: number
}

/**
 * One number for the name of a slot, which is one of 2^64. Advisory locks are a database's own, as a slot is, and the names of
 * what else is locked so begin otherwise.
 */
const lockKey = (slot: string): string => `pg_catalog.hashtextextended(${quoteLiteral(`replicant.lease:${slot}`)}, 0)`

/**
 * How long one statement waits for the lock, in milliseconds. Whoever waits is granted it at once; but a statement that waits
 * holds a snapshot, and the snapshot of one that waited for days would keep VACUUM from every row that died since. It is
 * shorter than the driver's patience with an answer (`answerTimeout`, 10 s), which so is never at its end.
 */
export const waitMillis = 8000

const Ours = Schema.Struct({ is_ours: Catalog.BooleanFromText, pid: Schema.NumberFromString })

const OwnerRow = Schema.Struct({ pid: Schema.NumberFromString, application_name: Schema.NullOr(Schema.String) })

const tryText = (slot: string): string =>
  `SELECT pg_catalog.pg_try_advisory_lock(${lockKey(slot)}) AS is_ours, pg_catalog.pg_backend_pid() AS pid`

/** An error that is caught in there is none that the server would log. */
const waitText = (slot: string): string =>
  `DO $$ BEGIN PERFORM pg_catalog.pg_advisory_lock(${lockKey(slot)}); EXCEPTION WHEN lock_not_available THEN END $$; ${tryText(slot)}`

const ownerText = (slot: string): string =>
  `SELECT l.pid, a.application_name FROM pg_catalog.pg_locks AS l
  JOIN pg_catalog.pg_database AS d ON d.oid = l.database AND d.datname = pg_catalog.current_database()
  LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
  WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND ((l.classid::int8 << 32) | l.objid::int8) = ${lockKey(slot)}`

const ask = (session: SqlSession, text: string) => Catalog.queryAt(session, text, { stage: "Query" })

const findOwner = Effect.fnUntraced(function* (
  session: SqlSession,
  slot: string
): Effect.fn.Return<Owner | undefined, ReplicationError> {
  const [row] = yield* ask(session, ownerText(slot))
  if (row === undefined) return undefined
  const { application_name, pid } = yield* Catalog.decodeRow(OwnerRow, row, "pg_locks")
  return { pid, applicationName: application_name === null || application_name === "" ? undefined : application_name }
})

/** Where another backend answers than the one that has the lock, that lock protects nothing. */
const pooled = (): InvalidOption =>
  new InvalidOption({
    option: "lease",
    problem:
      "another backend answers than the one that was asked before: a pooler stands between, and a lock is a session's",
    remedy: "connect to PostgreSQL itself, as replication does, or by a pool of sessions"
  })

/** Asks whether the session is there still, and is ours. */
const confirm = Effect.fnUntraced(function* (
  session: SqlSession,
  pid: number
): Effect.fn.Return<void, ReplicationError> {
  const [row] = yield* ask(session, "SELECT pg_catalog.pg_backend_pid() AS pid")
  if (row?.pid !== String(pid)) return yield* pooled()
})

/** Which lease is wanted. */
export interface WantedLease {
  readonly slot: string
  /** Milliseconds of silence after which the server ends the session, and with it the lock. */
  readonly term: number
  /** Told who has it, each time we begin to wait. */
  readonly onWaiting: (owner: Owner | undefined) => Effect.Effect<void>
}

/** Takes the lock in a session of its own, however long that takes. The scope gives both back. */
export const take = Effect.fnUntraced(function* ({
  onWaiting,
  slot,
  term
}: WantedLease): Effect.fn.Return<LeaseLock, ReplicationError, WalSender | Scope.Scope> {
  const session = yield* Effect.flatMap(WalSender, ({ openSession }) => openSession)
  yield* Catalog.pinSession(session)
  yield* ask(session, `SET idle_session_timeout = ${term}; SET lock_timeout = ${waitMillis}`)
  const attempt = (text: string) =>
    Effect.flatMap(ask(session, text), ([row]) => Catalog.decodeRow(Ours, row, "pg_try_advisory_lock"))
  let answer = yield* attempt(tryText(slot))
  const { pid } = answer
  while (!answer.is_ours) {
    yield* onWaiting(yield* findOwner(session, slot))
    answer = yield* attempt(waitText(slot))
  }
  // A process that was frozen meanwhile finds here that it has waited for nothing.
  const confirmed = yield* monotonicMillis
  yield* confirm(session, pid)
  return { session, pid, term, confirmed }
})

/** How often the server is asked, and how late an answer may be, both as shares of the term: we give up before it does. */
const refreshShare = 1 / 3
const patienceShare = 2 / 3

/** How much longer, in milliseconds, it is ours for certain. */
const certainFor = (lock: LeaseLock): Effect.Effect<number> =>
  Effect.map(monotonicMillis, (now) => lock.confirmed + lock.term * patienceShare - now)

/** Whether it is ours for certain, by the clock alone. */
export const isCertain = (lock: LeaseLock): Effect.Effect<boolean> => Effect.map(certainFor(lock), (left) => left > 0)

/** Keeps the lock by asking for something each third of the term, and fails as soon as it may not be ours any more. */
export const keep = Effect.fnUntraced(function* (lock: LeaseLock): Effect.fn.Return<never, ReplicationError> {
  const { pid, session, term } = lock
  while (true) {
    const wait = lock.confirmed + term * refreshShare - (yield* monotonicMillis)
    yield* Effect.sleep(Math.max(wait, 0))
    const asked = yield* monotonicMillis
    const left = yield* certainFor(lock)
    const late = new ConnectionError({
      reason: "TimedOut",
      detail: `the lease's session has not answered for ${Math.round(term * patienceShare)} ms, and may be ended any moment`
    })
    // We were frozen, or so busy that it comes to the same.
    if (left <= 0) return yield* late
    yield* Effect.timeoutOrElse(confirm(session, pid), { duration: left, orElse: () => Effect.fail(late) })
    lock.confirmed = asked
  }
})
