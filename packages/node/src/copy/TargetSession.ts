/**
 * A session at the target: its settings, the lock by which no two copies of one slot are at work, and three ways to write:
 * a query, a batch of prepared statements, rows by COPY. What fails is told without values.
 */
import type { ReplicationError, ServerError } from "@replicant/core"
import { heldLeaseOf, serverError } from "@replicant/core/driver"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import pg from "pg"
import * as PgClient from "../pg/PgClient.ts"
import type { PgConfig } from "../pg/PgConfig.ts"
import { openSession } from "../pg/PgConnect.ts"
import { connectionError } from "../pg/PgServerError.ts"
import { TargetDenied, TargetFailed, TargetInUse } from "./CopyError.ts"
import { Batch, CopyIn, type Step } from "./PgBatch.ts"
import { refusedColumn, type Written } from "./RefusedValue.ts"

/** How a session at the target fails. */
export type SessionError = ReplicationError | TargetFailed

/** A row of a catalog query, by column name. */
export type TargetRow = Readonly<Record<string, string | null>>

/** What can be asked at the target, without a copy's session. */
export type TargetQueries = Pick<TargetSession, "serverVersion" | "query">

export interface TargetSession {
  readonly serverVersion: number
  /** Whether the target's triggers act on what is written. */
  readonly triggers: SessionOptions["triggers"]
  /** SQL of ours, one statement or several; the rows of the last. */
  readonly query: (text: string) => Effect.Effect<ReadonlyArray<TargetRow>, SessionError>
  /** Statements in one round trip; how many rows each met. After a failure the session is of no more use. */
  readonly batch: (steps: ReadonlyArray<Step>) => Effect.Effect<ReadonlyArray<number>, SessionError>
  /** Rows in COPY's text format, by a COPY … FROM STDIN. */
  readonly copyIn: (command: string, rows: Uint8Array, written?: Written) => Effect.Effect<void, SessionError>
}

/**
 * What both sides print and read alike: a time zone, a currency, names that are never looked up. The search path is empty
 * as in PostgreSQL's own subscribers, so that no function of somebody's is called in the place of another.
 */
export const sharedSettings = {
  search_path: "",
  timezone: "UTC",
  lc_monetary: "C",
  quote_all_identifiers: "off"
} as const

/** Of the target alone: no limit ends a long transaction, and a commit is on disk before it is acknowledged. */
const targetSettings: Readonly<Record<string, string>> = {
  ...sharedSettings,
  array_nulls: "on",
  client_min_messages: "error",
  default_transaction_deferrable: "off",
  default_transaction_isolation: "read committed",
  default_transaction_read_only: "off",
  idle_in_transaction_session_timeout: "0",
  jit: "off",
  lock_timeout: "0",
  row_security: "off",
  statement_timeout: "0",
  synchronous_commit: "on",
  xmloption: "content"
}

/** Settings that came with a version. */
const settingsSince: ReadonlyArray<readonly [version: number, name: string, value: string]> = [
  [140_000, "idle_session_timeout", "0"],
  [170_000, "transaction_timeout", "0"]
]

const tableOf = ({ schema, table }: pg.DatabaseError): string | undefined =>
  table === undefined ? undefined : `"${schema ?? ""}"."${table}"`

/** What a server says, as far as it holds no value: core knows which classes of errors quote them. */
const withoutValues = (
  error: Pick<ServerError, "severity" | "sqlState" | "serverMessage">,
  thrown?: pg.DatabaseError,
  written?: Written
): TargetFailed => {
  const shown = serverError({ ...error, message: error.serverMessage }, "Streaming")
  const isShown = shown.serverMessage === error.serverMessage
  return new TargetFailed({
    sqlState: error.sqlState,
    serverMessage: isShown ? error.serverMessage : undefined,
    table: (thrown === undefined ? undefined : tableOf(thrown)) ?? written?.table,
    column: thrown?.column ?? (written === undefined ? undefined : refusedColumn(thrown?.where, written)),
    constraint: thrown?.constraint
  })
}

const failure = (thrown: Error, config: PgConfig, lost: unknown, written: Written | undefined): SessionError =>
  thrown instanceof pg.DatabaseError && thrown.code !== undefined
    ? withoutValues(
        { severity: thrown.severity ?? "ERROR", sqlState: thrown.code, serverMessage: thrown.message },
        thrown,
        written
      )
    : connectionError(lost ?? thrown, config)

const make = (
  self: PgClient.PgClient,
  { serverVersion, triggers }: Pick<TargetSession, "serverVersion" | "triggers">
): TargetSession => {
  const prepared = new Set<string>()
  // A query under way cannot be called back: it is waited for, or ends with the session.
  const submit = (
    makeQuery: (callback: (error: Error | undefined, counts: ReadonlyArray<number>) => void) => pg.Submittable,
    writtenBy: (done: number) => Written | undefined
  ): Effect.Effect<ReadonlyArray<number>, SessionError> =>
    Effect.callback((resume) => {
      PgClient.submit(
        self,
        makeQuery((error, counts) => {
          if (error === undefined) return resume(Effect.succeed(counts))
          // Each step before the one that failed has told how many rows it met.
          return resume(Effect.fail(failure(error, self.config, self.lost, writtenBy(counts.length))))
        })
      )
    })
  return {
    serverVersion,
    triggers,
    query: (text) =>
      Effect.mapError(PgClient.query(self, text), (error) =>
        error._tag === "ServerError" ? withoutValues(error) : error
      ),
    batch: (steps) =>
      submit(
        (callback) => new Batch(steps, prepared, callback),
        (done) => steps[done]?.written
      ),
    copyIn: (command, rows, written) =>
      Effect.asVoid(
        submit(
          (callback) => new CopyIn(command, rows, callback),
          () => written
        )
      )
  }
}

const grantSet = (serverVersion: number, role: string): string =>
  serverVersion < 150_000
    ? `ALTER ROLE ${role} SUPERUSER, or let triggers fire: fireTriggers`
    : `GRANT SET ON PARAMETER session_replication_role TO ${role}; or let triggers fire: fireTriggers`

/** Triggers and foreign keys have done their work at the source. */
const quietTriggers = Effect.fnUntraced(function* (
  session: TargetSession
): Effect.fn.Return<void, SessionError | TargetDenied> {
  yield* session.query("SET session_replication_role = replica").pipe(
    Effect.catchIf(
      (error) => error._tag === "TargetFailed" && error.sqlState === "42501",
      Effect.fnUntraced(function* (): Effect.fn.Return<never, SessionError | TargetDenied> {
        const [row] = yield* session.query("SELECT pg_catalog.quote_ident(current_user) AS role")
        return yield* new TargetDenied({
          detail: `the target's role ${row?.role} may not set session_replication_role, so triggers would fire twice`,
          remedy: grantSet(session.serverVersion, row?.role ?? "")
        })
      })
    )
  )
})

/** How a session is opened. */
export interface SessionOptions {
  readonly config: PgConfig
  readonly slot: string
  /** Whether the target's triggers, rules and foreign keys act on what is applied. */
  readonly triggers: "quiet" | "fire"
}

/** Our own lock on a slot's place, by a number that two databases may well have in common: locks are a database's own. */
const lockKey = (slot: string): string =>
  `pg_catalog.hashtextextended('replicant.copy:${slot.replaceAll("'", "''")}', 0)`

/** Who holds the lock of a slot's place. */
const holderQuery = (slot: string, columns: string): string =>
  `SELECT ${columns} FROM pg_catalog.pg_locks l, pg_catalog.pg_database d
  WHERE d.datname = current_database() AND l.database = d.oid AND l.locktype = 'advisory' AND l.granted
  AND ((l.classid::int8 << 32) | l.objid::int8) = ${lockKey(slot)}`

/** Under the slot's lease whoever else is at work there has lost it, and may be frozen in the middle of a transaction. */
const endHolder = Effect.fnUntraced(function* (
  session: TargetSession,
  slot: string
): Effect.fn.Return<void, SessionError> {
  if ((yield* heldLeaseOf(slot)) === undefined) return
  yield* Effect.logWarning(`taking the place of slot ${slot} at the target over: ending the session that holds it`)
  yield* session.query(holderQuery(slot, "pg_catalog.pg_terminate_backend(l.pid)"))
})

/** What was killed may still be at work there: its COMMIT may be under way. It is gone once its lock is ours. */
const takeLock = Effect.fnUntraced(function* (
  session: TargetSession,
  slot: string
): Effect.fn.Return<void, SessionError | TargetInUse> {
  const attempt = Effect.gen(function* () {
    const [row] = yield* session.query(`SELECT pg_catalog.pg_try_advisory_lock(${lockKey(slot)}) AS is_ours`)
    if (row?.is_ours === "t") return
    const [holder] = yield* session.query(holderQuery(slot, "l.pid"))
    const pid = holder?.pid
    return yield* new TargetInUse({ slot, pid: pid === undefined || pid === null ? undefined : Number(pid) })
  })
  const again = Effect.retry(attempt, {
    while: (error) => error._tag === "TargetInUse",
    schedule: Schedule.spaced("100 millis"),
    times: 100
  })
  yield* Effect.catchTag(attempt, "TargetInUse", () => Effect.andThen(endHolder(session, slot), again))
})

/** Opens a session at the target, with its settings and its lock; closed with the scope. */
export const open = Effect.fnUntraced(function* (
  options: SessionOptions
): Effect.fn.Return<TargetSession, SessionError | TargetDenied | TargetInUse, Scope.Scope> {
  const client = yield* openSession(options.config)
  const serverVersion = yield* PgClient.introduce(client)
  const session = make(client, { serverVersion, triggers: options.triggers })
  const settings = [
    ...Object.entries(targetSettings),
    ...settingsSince.flatMap(([since, name, value]) => (serverVersion >= since ? [[name, value] as const] : []))
  ]
  yield* session.query(
    `SELECT ${settings.map(([name, value]) => `pg_catalog.set_config('${name}', '${value}', false)`).join(", ")}`
  )
  yield* takeLock(session, options.slot)
  if (options.triggers === "quiet") yield* quietTriggers(session)
  return session
})
