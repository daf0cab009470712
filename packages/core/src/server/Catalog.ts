/**
 * What we ask of the server in SQL, mostly over the replication connection itself: simple queries only, everything text.
 *
 * Every row goes through a Schema, so that a server that answers otherwise than PostgreSQL fails here, by name.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"
import { DecodeError, type ReplicationError } from "../ReplicationError.ts"
import { type ErrorContext, refineServerError } from "../refineServerError.ts"
import type { QueryRow, ReplicantConnection, SqlSession } from "./WalSender.ts"

/** Runs `text`, and names a server error by what it was about. */
export const queryAt = (
  connection: SqlSession,
  text: string,
  context: ErrorContext
): Effect.Effect<ReadonlyArray<QueryRow>, ReplicationError> =>
  Effect.catchTag(connection.query(text), "ServerError", (error) => Effect.fail(refineServerError(error, context)))

/** Decodes one row of `what`; the error names columns, never values. */
export const decodeRow = <A, I extends QueryRow>(
  schema: Schema.Codec<A, I>,
  row: QueryRow | undefined,
  what: string
): Effect.Effect<A, DecodeError> => {
  if (row === undefined) return Effect.fail(new DecodeError({ problem: `no row in the answer to ${what}`, offset: 0 }))
  return Effect.mapError(
    Schema.decodeUnknownEffect(schema)(row),
    () => new DecodeError({ problem: `an answer to ${what} that PostgreSQL does not give`, offset: 0 })
  )
}

/** PostgreSQL's text for a boolean in a query result. */
export const BooleanFromText = Schema.Literals(["t", "f"]).pipe(
  Schema.decodeTo(
    Schema.Boolean,
    SchemaTransformation.transform({ decode: (text) => text === "t", encode: (value) => (value ? "t" : "f") })
  )
)

/**
 * What the session must be set to, for the text of values not to depend on the role's or the database's own settings.
 * PostgreSQL's subscriber sets all of these but `bytea_output` and `quote_all_identifiers`, which such settings can change
 * just as well. With an empty search path `regclass` and its kin bear their schema, and our own queries mean
 * PostgreSQL's operators and no others. `lc_monetary` is left alone: it decides what currency an amount of `money` is in.
 */
const textSettings = [
  "SET client_encoding = 'UTF8'",
  "SET datestyle = 'ISO'",
  "SET intervalstyle = 'postgres'",
  "SET extra_float_digits = 3",
  "SET bytea_output = 'hex'",
  "SET timezone = 'UTC'",
  "SET quote_all_identifiers = off",
  "SET search_path = ''"
]

/**
 * No limit of the role's or the database's ends a session that waits: for changes, for a slow consumer, for the transactions
 * that a slot begins after. From PostgreSQL 17 on one of them ends walsenders, too, amid a transaction (25P04).
 */
const limitSettings = (serverVersion: number): ReadonlyArray<string> => [
  "SET statement_timeout = 0",
  "SET lock_timeout = 0",
  "SET idle_in_transaction_session_timeout = 0",
  "SET idle_session_timeout = 0",
  ...(serverVersion < 170_000 ? [] : ["SET transaction_timeout = 0"])
]

/** To compile what is asked of the catalog takes seconds where to answer takes milliseconds. */
const uncompiled = "SET jit = off"

/** Pins the settings that change how values are printed, those that would end the session, and what makes it slow. */
export const pinSession = (connection: SqlSession): Effect.Effect<void, ReplicationError> =>
  Effect.asVoid(
    queryAt(connection, [...limitSettings(connection.serverVersion), ...textSettings, uncompiled].join("; "), {
      stage: "Query"
    })
  )

/** Settings as the session sees them. Times are milliseconds. */
export interface ServerSettings {
  /** Milliseconds after which the server gives a silent client up; 0 for never. */
  readonly walSenderTimeout: number
  readonly walLevel: string
  /** Of the session's own backend. */
  readonly pid: number
  /** When the server was started, by {@link serverStart}. */
  readonly serverStart: string
  /** Whether it is a standby, or not done yet with recovering. */
  readonly isInRecovery: boolean
  /** What ends the life of a slot; `undefined` where that is not told. */
  readonly limits: SlotLimits | undefined
}

/** What ends the life of a slot. */
export interface SlotLimits {
  /** `max_slot_wal_keep_size` in megabytes; -1 for no limit. */
  readonly slotWalKeepSize: number
  /** `max_wal_size` in megabytes. */
  readonly walSize: number
  /** `idle_replication_slot_timeout` in seconds; 0 for never, as before PostgreSQL 18. */
  readonly idleSlotTimeout: number
}

const SettingsRow = Schema.Struct({
  wal_sender_timeout: Schema.NumberFromString,
  wal_level: Schema.String,
  pid: Schema.NumberFromString,
  server_start: Schema.String,
  in_recovery: BooleanFromText,
  slot_limit: Schema.optionalKey(Schema.NullOr(Schema.NumberFromString)),
  wal_size: Schema.optionalKey(Schema.NullOr(Schema.NumberFromString)),
  idle_timeout: Schema.optionalKey(Schema.NullOr(Schema.NumberFromString))
})

/** When the server was started: no two servers say the same, and none does after a restart. */
export const serverStart = "extract(epoch FROM pg_catalog.pg_postmaster_start_time())"

/** Where the server's WAL ends; on a standby, what it has of it, replayed or not. It keeps from a slot's `restart_lsn` up to there. */
export const walEnd = `CASE WHEN pg_catalog.pg_is_in_recovery()
    THEN greatest(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn()) ELSE pg_catalog.pg_current_wal_lsn() END`

/** The server's settings that bear on us, as they hold for this session; and which server and backend that is. */
export const serverSettings = Effect.fnUntraced(function* (
  connection: ReplicantConnection
): Effect.fn.Return<ServerSettings, ReplicationError> {
  const setting = (name: string) => `(SELECT setting FROM pg_catalog.pg_settings WHERE name = '${name}')`
  const text = `SELECT ${setting("wal_sender_timeout")} AS wal_sender_timeout, ${setting("wal_level")} AS wal_level,
  pg_catalog.pg_backend_pid() AS pid, ${serverStart} AS server_start,
  pg_catalog.pg_is_in_recovery() AS in_recovery, ${setting("max_slot_wal_keep_size")} AS slot_limit,
  ${setting("max_wal_size")} AS wal_size, ${setting("idle_replication_slot_timeout")} AS idle_timeout`
  const rows = yield* queryAt(connection, text, { stage: "Query" })
  const row = yield* decodeRow(SettingsRow, rows[0], "pg_settings")
  return {
    walSenderTimeout: row.wal_sender_timeout,
    walLevel: row.wal_level,
    pid: row.pid,
    serverStart: row.server_start,
    isInRecovery: row.in_recovery,
    limits:
      typeof row.slot_limit === "number" && typeof row.wal_size === "number"
        ? { slotWalKeepSize: row.slot_limit, walSize: row.wal_size, idleSlotTimeout: row.idle_timeout ?? 0 }
        : undefined
  }
})

const RecoveryRow = Schema.Struct({ in_recovery: BooleanFromText })

/** Whether the server is a standby, or not done yet with recovering. */
export const isInRecovery = Effect.fnUntraced(function* (
  connection: ReplicantConnection
): Effect.fn.Return<boolean, ReplicationError> {
  const text = "SELECT pg_catalog.pg_is_in_recovery() AS in_recovery"
  const rows = yield* queryAt(connection, text, { stage: "Query" })
  return (yield* decodeRow(RecoveryRow, rows[0], "pg_is_in_recovery")).in_recovery
})
