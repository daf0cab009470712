/**
 * Replication slots made and dropped, over a replication connection.
 *
 * A slot begins once every transaction has ended that was running when it was asked for: of all databases, and prepared
 * ones. A forgotten session holds that up for ever, so the wait has a limit, and its error names who is waited for.
 *
 * Source: https://www.postgresql.org/docs/current/protocol-replication.html
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Lsn from "../Lsn.ts"
import {
  type CreateReplicationSlot,
  createReplicationSlotCommand,
  dropReplicationSlotCommand
} from "../protocol/ReplicationCommand.ts"
import {
  type BlockingTransaction,
  LogicalDecodingDisabled,
  type ReplicationError,
  SlotCreationBlocked
} from "../ReplicationError.ts"
import * as Catalog from "./Catalog.ts"
import type { ReplicantConnection } from "./WalSender.ts"

/** A slot to be made, and for how long at most. */
export interface CreateSlotOptions extends CreateReplicationSlot {
  /** How long to wait for one older transaction to end: 1 minute. 0 waits for ever. */
  readonly timeout?: Duration.Input | undefined
}

/** What CREATE_REPLICATION_SLOT answers. */
export interface CreatedSlot {
  readonly name: string
  /** Changes of transactions that commit from here on are in the slot. */
  readonly consistentPoint: Lsn.Lsn
  /** With `snapshot: "export"`: to be imported elsewhere, until the next command on this connection. */
  readonly snapshotName: string | undefined
}

const CreatedRow = Schema.Struct({
  slot_name: Schema.String,
  consistent_point: Lsn.LsnFromString,
  snapshot_name: Schema.NullOr(Schema.String)
})

const BlockingRow = Schema.Struct({
  pid: Schema.NullOr(Schema.NumberFromString),
  since: Schema.NullOr(Schema.String),
  state: Schema.NullOr(Schema.String),
  application_name: Schema.NullOr(Schema.String),
  gid: Schema.NullOr(Schema.String)
})

const maxNamed = 10

/**
 * Who has been running for so long. Locks are asked, not `pg_stat_activity` alone: that one hides from a role without
 * `pg_read_all_stats` what others do, and locks tell their pids to everybody.
 */
const selectBlocking = (millis: number): string =>
  `SELECT DISTINCT l.pid, coalesce(a.xact_start, p.prepared) AS since,
  CASE WHEN p.gid IS NULL THEN a.state ELSE 'prepared' END AS state, a.application_name, p.gid
  FROM pg_catalog.pg_locks l
  LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
  LEFT JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = l.transactionid
  WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted
  AND coalesce(a.xact_start, p.prepared, '-infinity') <= pg_catalog.now() - '${millis} ms'::pg_catalog.interval
  ORDER BY since LIMIT ${maxNamed}`

/** Who has been running for so many milliseconds: a slot that is asked for now waits for them. */
export const blockingTransactions = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  millis: number
): Effect.fn.Return<ReadonlyArray<BlockingTransaction>, ReplicationError> {
  const rows = yield* Catalog.queryAt(connection, selectBlocking(millis), { stage: "Query" })
  return yield* Effect.forEach(rows, (row) =>
    Effect.map(Catalog.decodeRow(BlockingRow, row, "pg_locks"), ({ application_name, gid, pid, since, state }) => ({
      pid: pid ?? undefined,
      since: since ?? undefined,
      state: state ?? undefined,
      applicationName: application_name ?? undefined,
      gid: gid ?? undefined
    }))
  )
})

/**
 * For the wait: its limit, and that the server notices when we leave. While it waits for a lock a backend otherwise does not
 * look whether its client is there, and the slot would stay, active, until the oldest transaction ends. It begins to look
 * with the statement after this one. Not every system can; there the limit alone ends it.
 */
const prepareToWait = Effect.fnUntraced(function* (connection: ReplicantConnection, timeout: number) {
  yield* Catalog.queryAt(connection, `SET lock_timeout = ${timeout}`, { stage: "Query" })
  yield* Effect.catchTag(
    connection.query("SET client_connection_check_interval = '1s'"),
    "ServerError",
    () => Effect.void
  )
})

/** The server may go on looking: what is asked next, such as what is published, must end with us too. */
const endWait = (connection: ReplicantConnection): Effect.Effect<void> =>
  Effect.ignore(connection.query("SET lock_timeout = 0"))

/** Names who was waited for, where the wait was too long. */
const nameBlocking = (
  connection: ReplicantConnection,
  slot: string,
  timeout: number
): ((error: ReplicationError) => Effect.Effect<never, ReplicationError>) =>
  Effect.fnUntraced(function* (error) {
    if (error._tag !== "ServerError" || error.sqlState !== "55P03") return yield* Effect.fail(error)
    const transactions = yield* blockingTransactions(connection, timeout)
    return yield* new SlotCreationBlocked({ slot, transactions })
  })

/**
 * Makes a slot. The server first waits for every transaction that is running; after `timeout` this fails with
 * `SlotCreationBlocked`, which names them, and there is no slot. Interrupted meanwhile it ends at once, and the server
 * gives the slot up within a second.
 */
export const createReplicationSlot = Effect.fn("Replicant.createReplicationSlot")(function* (
  connection: ReplicantConnection,
  options: CreateSlotOptions
): Effect.fn.Return<CreatedSlot, ReplicationError> {
  const { plugin, slot, snapshot } = options
  const command = yield* Effect.fromResult(createReplicationSlotCommand(options, connection.serverVersion))
  const timeout = Math.ceil(Duration.toMillis(Duration.fromInputUnsafe(options.timeout ?? "1 minute")))
  // With `use` it must be the first command of its transaction.
  if (snapshot !== "use") {
    yield* prepareToWait(connection, timeout)
    const { walLevel } = yield* Catalog.serverSettings(connection)
    // From PostgreSQL 19 the first logical slot itself raises the effective level from `replica`.
    if (walLevel !== "logical" && (connection.serverVersion < 190_000 || walLevel === "minimal")) {
      return yield* new LogicalDecodingDisabled({ walLevel })
    }
  }
  const rows = yield* Catalog.queryAt(connection, command, { stage: "CreateSlot", slot, plugin }).pipe(
    Effect.catch(nameBlocking(connection, slot, timeout))
  )
  const row = yield* Catalog.decodeRow(CreatedRow, rows[0], "CREATE_REPLICATION_SLOT")
  // What is exported lasts until the next command, and what is used until the transaction's end.
  if (snapshot === undefined || snapshot === "nothing") yield* endWait(connection)
  return {
    name: row.slot_name,
    consistentPoint: row.consistent_point,
    snapshotName: row.snapshot_name ?? undefined
  }
})

/** Drops a slot. Fails with `SlotInUse` while someone streams from it, unless `wait` is asked for. */
export const dropReplicationSlot = Effect.fn("Replicant.dropReplicationSlot")(function* (
  connection: ReplicantConnection,
  slot: string,
  options: { readonly wait?: boolean | undefined } = {}
): Effect.fn.Return<void, ReplicationError> {
  const command = yield* Effect.fromResult(dropReplicationSlotCommand({ slot, wait: options.wait }))
  yield* Catalog.queryAt(connection, command, { stage: "DropSlot", slot })
})
