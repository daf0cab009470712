/**
 * Another slot in the place of one that is lost, so that nobody misses that changes are missing.
 *
 * The order is what makes it safe. First a temporary slot stands in and holds WAL from a point on; then the gap is
 * handed to the consumer; and only once that has acknowledged it, the lost slot goes and a copy of the stand-in takes its
 * name. Whoever dies before that finds the lost slot again, and sees the gap again.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Gap } from "../change/Change.ts"
import { NextLsn } from "../change/NextLsn.ts"
import type * as Lsn from "../Lsn.ts"
import { monotonicMillis } from "../MonotonicTime.ts"
import { dropReplicationSlotCommand, quoteLiteral } from "../protocol/ReplicationCommand.ts"
import { type ReplicationError, SlotInUse } from "../ReplicationError.ts"
import * as Catalog from "../server/Catalog.ts"
import { createReplicationSlot } from "../server/SlotCreation.ts"
import { isFailoverSlot, setFailover } from "../server/SlotFailover.ts"
import type { ReplicantConnection } from "../server/WalSender.ts"

/** A slot that is lost, and what shall be like it. */
export interface LostSlot {
  readonly slot: string
  readonly plugin: string
  readonly lifetime: "permanent" | "temporary"
  /** Whether standbys are to keep it: as they did the lost one, unless told otherwise. */
  readonly failover?: boolean | undefined
  readonly creationTimeout?: Duration.Input | undefined
}

/** What holds WAL until the gap is handled. */
export interface StandIn {
  readonly consistentPoint: Lsn.Lsn
  /** Puts a copy in the lost slot's place. */
  readonly adopt: Effect.Effect<void, ReplicationError>
}

const PidRow = Schema.Struct({ pid: Schema.NumberFromString })

/** The pid of the session's own backend. */
export const backendPid = Effect.fnUntraced(function* (
  connection: ReplicantConnection
): Effect.fn.Return<number, ReplicationError> {
  const rows = yield* Catalog.queryAt(connection, "SELECT pg_catalog.pg_backend_pid() AS pid", { stage: "Query" })
  return (yield* Catalog.decodeRow(PidRow, rows[0], "pg_backend_pid")).pid
})

/** Names have 63 bytes. No two sessions have one pid. */
const standInName = (slot: string, pid: number): string => {
  const end = `_gap_${pid}`
  return `${slot.slice(0, 63 - end.length)}${end}`
}

/** Makes the stand-in. It goes with the connection. */
export const makeStandIn = Effect.fn("Replicant.makeStandIn")(function* (
  connection: ReplicantConnection,
  { creationTimeout, failover, lifetime, plugin, slot }: LostSlot
): Effect.fn.Return<StandIn, ReplicationError> {
  const name = standInName(slot, yield* backendPid(connection))
  const create = { slot: name, plugin, temporary: true, snapshot: "nothing", timeout: creationTimeout } as const
  const { consistentPoint } = yield* createReplicationSlot(connection, create)
  const lost = quoteLiteral(slot)
  const context = { stage: "CreateSlot", slot, plugin } as const
  const adopt = Effect.gen(function* () {
    // A copy is not kept on standbys, though the lost one was.
    const wasFailover = yield* isFailoverSlot(connection, slot)
    // In one text, so that no loss of the connection comes between. A slot that is sound is not dropped.
    const replace = `SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots
  WHERE slot_name = ${lost} AND wal_status = 'lost';
SELECT pg_catalog.pg_copy_logical_replication_slot(${quoteLiteral(name)}, ${lost}, ${lifetime === "temporary"})`
    yield* Effect.catchTag(
      Catalog.queryAt(connection, replace, context),
      "SlotAlreadyExists",
      // Somebody else was quicker: the next connection finds it, in use or free.
      () => Effect.fail(new SlotInUse({ slot }))
    )
    yield* setFailover(connection, slot, failover ?? (wasFailover ? true : undefined))
    const drop = yield* Effect.fromResult(dropReplicationSlotCommand({ slot: name }))
    yield* Catalog.queryAt(connection, drop, { stage: "DropSlot", slot: name })
  })
  return { consistentPoint, adopt }
})

/** How often to look whether the gap is handled, and to make sure that there still is a connection; milliseconds. */
const lookInterval = 100
const pingInterval = 10_000

/** Waits until the gap is acknowledged, for as long as that takes. Fails with the connection, and with it the stand-in. */
export const awaitHandled = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  gap: Gap
): Effect.fn.Return<void, ReplicationError> {
  let heard = yield* monotonicMillis
  while (!NextLsn.isDone(gap.nextLsn)) {
    yield* Effect.sleep(lookInterval)
    const now = yield* monotonicMillis
    if (now - heard < pingInterval) continue
    yield* backendPid(connection)
    heard = now
  }
})
