/**
 * A place of one's own on a shared server: a database, a publication and the name of a slot, all gone with the scope.
 */
import { randomBytes } from "node:crypto"
import { type PgServerFailed, PgSession } from "@replicant/node/testing"
import { Effect, RcRef, Redacted, type Scope } from "effect"

/** What a workspace needs of a server: a shared one, or a `PgServer`. */
export interface WorkspaceServer {
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  readonly url: (database?: string, user?: string, password?: string) => string
}

/** As in `pg_replication_slots`: columns of every supported version. */
export interface SlotRow {
  readonly slot_name: string
  readonly plugin: string
  readonly active: boolean
  readonly active_pid: number | null
  readonly confirmed_flush_lsn: string | null
  readonly restart_lsn: string | null
  readonly wal_status: string | null
}

export interface Workspace {
  readonly database: string
  /** FOR ALL TABLES, unless the options said otherwise. */
  readonly publication: string
  /** A name that no slot bears yet. Slots made in this database are dropped with the workspace, under any name. */
  readonly slot: string
  /** As the superuser unless told otherwise. */
  readonly url: (user?: string, password?: string) => string
  /** Where to connect, as parts. */
  readonly connection: {
    readonly host: string
    readonly port: number
    readonly user: string
    readonly password: Redacted.Redacted
    readonly database: string
  }
  /** Runs SQL text in a session of its own, and gives the rows of its last statement. */
  readonly sql: (text: string) => Effect.Effect<ReadonlyArray<PgSession.Row>, PgServerFailed>
  /** A session, for a transaction that stays open. */
  readonly session: Effect.Effect<PgSession.PgSession, PgServerFailed, Scope.Scope>
  /** The row of a slot, of {@link slot} unless told otherwise. */
  readonly findSlot: (name?: string) => Effect.Effect<SlotRow | undefined, PgServerFailed>
  /**
   * Whether somebody streams from that slot, or from any of this database's when none is named. That a slot is active
   * is not enough: it is so while it is being made, and what is committed then is not in it.
   */
  readonly isStreaming: (name?: string) => Effect.Effect<boolean, PgServerFailed>
  /** `pg_current_wal_lsn()`. */
  readonly currentWalLsn: Effect.Effect<string, PgServerFailed>
}

export interface WorkspaceOptions {
  /** SQL to run first; several statements are one transaction. */
  readonly sql?: string | undefined
  /** What CREATE PUBLICATION says after the name: `FOR TABLE orders`. `FOR ALL TABLES` unless told otherwise. */
  readonly publication?: string | undefined
  /** The database's encoding, as PostgreSQL spells it: `LATIN1`. The server's own unless told otherwise: UTF8. */
  readonly encoding?: string | undefined
}

/** The walsender lets go of its slot a moment after it is told to end: so a drop is tried until it is done. */
const dropSlotsAndDatabase = (database: string): string => `
DO $$
DECLARE tries int := 0;
BEGIN
  WHILE EXISTS (SELECT FROM pg_replication_slots WHERE database = '${database}') AND tries < 500 LOOP
    PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = '${database}' AND active;
    PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '${database}' AND NOT active;
    PERFORM pg_sleep(0.01);
    tries := tries + 1;
  END LOOP;
  -- Origins of copies into this database are the cluster's.
  IF EXISTS (SELECT FROM pg_replication_origin WHERE roname LIKE 'replicant.${database}.%') THEN
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${database}';
    FOR tries IN 1..500 LOOP
      EXIT WHEN NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = '${database}');
      PERFORM pg_sleep(0.01);
    END LOOP;
    PERFORM pg_replication_origin_drop(roname) FROM pg_replication_origin WHERE roname LIKE 'replicant.${database}.%';
  END IF;
END $$`

/**
 * Runs SQL in one session for as long as it is asked every now and then: tests look many times a second, and a backend
 * of its own for each look would be most of what they cost. Left alone it closes soon, for a server that stops waits
 * for it.
 */
const makeLook = Effect.fnUntraced(function* (url: string) {
  const session = yield* RcRef.make({ acquire: PgSession.connect(url), idleTimeToLive: "100 millis" })
  return (text: string) => {
    const look = Effect.scoped(Effect.flatMap(RcRef.get(session), ({ query }) => query(text)))
    // The server may have ended the session since: the next is a new one.
    return Effect.catch(look, () => Effect.andThen(RcRef.invalidate(session), look))
  }
})

/** Makes a workspace. Its end is never a failure: the server may have been stopped by then. */
export const makeWorkspace = Effect.fnUntraced(function* (
  server: WorkspaceServer,
  options: WorkspaceOptions = {}
): Effect.fn.Return<Workspace, PgServerFailed, Scope.Scope> {
  const database = `replicant_${randomBytes(6).toString("hex")}`
  const publication = `${database}_pub`
  const slot = `${database}_slot`
  const admin = (sql: string) => PgSession.query(server.url(), sql)
  // Only template0 may be copied into another encoding, as it holds nothing that would have to be converted.
  const encoding = options.encoding === undefined ? "" : ` TEMPLATE template0 ENCODING '${options.encoding}'`
  yield* Effect.acquireRelease(admin(`CREATE DATABASE ${database}${encoding}`), () =>
    admin(dropSlotsAndDatabase(database)).pipe(
      Effect.andThen(admin(`DROP DATABASE ${database} WITH (FORCE)`)),
      Effect.ignore
    )
  )
  const sql: Workspace["sql"] = (text) => PgSession.query(server.url(database), text)
  if (options.sql !== undefined) yield* sql(options.sql)
  yield* sql(`CREATE PUBLICATION ${publication} ${options.publication ?? "FOR ALL TABLES"}`)
  const look = yield* makeLook(server.url(database))
  return {
    database,
    publication,
    slot,
    url: (user, password) => server.url(database, user, password),
    connection: {
      host: server.host,
      port: server.port,
      user: server.user,
      password: Redacted.make(server.password),
      database
    },
    sql,
    session: PgSession.connect(server.url(database)),
    findSlot: (name = slot) =>
      Effect.map(
        look(`SELECT slot_name, plugin, active, active_pid, confirmed_flush_lsn, restart_lsn, wal_status
             FROM pg_replication_slots WHERE slot_name = '${name}'`),
        ([row]) => row as SlotRow | undefined
      ),
    isStreaming: (name) =>
      Effect.map(
        look(`SELECT FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid
             WHERE s.database = '${database}' AND r.state IN ('catchup', 'streaming')
             ${name === undefined ? "" : `AND s.slot_name = '${name}'`}`),
        (rows) => rows.length > 0
      ),
    currentWalLsn: Effect.map(look("SELECT pg_current_wal_lsn() AS lsn"), ([row]) => String(row?.lsn))
  }
})
