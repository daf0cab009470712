/**
 * The slots of a copy. The one that it is for is made when all is handled and not before: that it is there means that
 * nothing is missing, to whoever finds it. What the stream will need is kept meanwhile by another: by a temporary one, or
 * where the copy can be taken up again, by a permanent one of a name made from the first.
 */
import * as Effect from "effect/Effect"
import { quoteLiteral } from "../protocol/ReplicationCommand.ts"
import { ConnectionError, type ReplicationError, SlotInvalidated } from "../ReplicationError.ts"
import * as Catalog from "../server/Catalog.ts"
import { dropReplicationSlot, getReplicationSlot, isInvalidated } from "../server/ReplicationSlot.ts"
import { setFailover } from "../server/SlotFailover.ts"
import type { ReplicantConnection, WalSender } from "../server/WalSender.ts"
import { connect, query } from "../snapshot/SnapshotSession.ts"

/** A slot at the seam, and the connection that keeps it: a temporary one lives as long as that. */
export interface WorkingSlot {
  readonly keeper: ReplicantConnection
  readonly name: string
  readonly isTemporary: boolean
}

const suffix = "_copying"
/** As PostgreSQL has it: NAMEDATALEN - 1. */
const maxLength = 63

/** Names that would be too long are cut, and told apart by a number that is made from the whole. */
const shorten = (slot: string, length: number): string => {
  let hash = 0x811c9dc5
  for (let index = 0; index < slot.length; index++) hash = Math.imul(hash ^ slot.charCodeAt(index), 0x01000193)
  const digits = (hash >>> 0).toString(36)
  return `${slot.slice(0, length - digits.length - 1)}_${digits}`
}

/**
 * The name of the slot that is kept while `slot` is copied for.
 *
 * @example
 * workingSlotName("orders") // => "orders_copying"
 */
export const workingSlotName = (slot: string): string => {
  const length = maxLength - suffix.length
  return `${slot.length > length ? shorten(slot, length) : slot}${suffix}`
}

/** Asked this often, in milliseconds, whether slot and connection live: nothing else is due there while rows are copied. */
const pingInterval = 10_000
const pingTimeout = 30_000

const ping = Effect.fnUntraced(function* ({
  isTemporary,
  keeper,
  name
}: WorkingSlot): Effect.fn.Return<void, ReplicationError> {
  // A temporary one that the server gives up takes its connection along.
  if (isTemporary) return yield* Effect.asVoid(query(keeper, "SELECT"))
  const slot = yield* getReplicationSlot(keeper, name)
  if (slot === undefined) return yield* new SlotInvalidated({ slot: name, reason: "dropped" })
  if (!isInvalidated(slot)) return
  return yield* new SlotInvalidated({
    slot: name,
    reason: slot.invalidationReason ?? "unknown",
    lastLsn: slot.confirmedFlushLsn
  })
})

/** Fails when the slot is lost, for then there is no seam. Never succeeds. */
export const watchSlot = (slot: WorkingSlot): Effect.Effect<never, ReplicationError> =>
  Effect.forever(
    Effect.sleep(pingInterval).pipe(
      Effect.andThen(ping(slot)),
      Effect.timeoutOrElse({
        duration: pingInterval + pingTimeout,
        orElse: () =>
          Effect.fail(
            new ConnectionError({ reason: "TimedOut", detail: "the connection of the snapshot's slot is silent" })
          )
      })
    )
  )

const hasState = (sqlState: string) => (error: ReplicationError) =>
  error._tag === "ServerError" && error.sqlState === sqlState

const areSlotsExhausted = hasState("53400")
const isSlotMissing = hasState("42704")

/**
 * Makes a permanent slot at the same position. It needs room for one more slot: where there is none this waits, since all
 * that was copied would be in vain.
 *
 * On a connection of its own: an error on the keeper's would end its temporary slot with it (`WalSndErrorCleanup` in
 * src/backend/replication/walsender.c).
 *
 * Only the slot that a stream reads is one for `failover`. What is copied may have been seen of transactions that no standby
 * has: after a failover the copy begins anew.
 */
export const makePermanent = Effect.fn("Replicant.makePermanent")(function* (
  name: string,
  slot: string,
  failover?: boolean | undefined
): Effect.fn.Return<void, ReplicationError, WalSender> {
  const text = `SELECT pg_catalog.pg_copy_logical_replication_slot(${quoteLiteral(name)}, ${quoteLiteral(slot)}, false)`
  const attempt = Effect.scoped(
    Effect.flatMap(connect(0), (connection) =>
      Effect.andThen(
        Catalog.queryAt(connection, text, { stage: "CreateSlot", slot }),
        // A copy never is one. Where this is cut short the stream makes up for it.
        setFailover(connection, slot, failover)
      )
    )
  ).pipe(
    Effect.catchIf(isSlotMissing, () =>
      Effect.fail(new ConnectionError({ reason: "Closed", detail: "the snapshot's slot has gone with its connection" }))
    )
  )
  while (true) {
    const isMade = yield* Effect.catchIf(Effect.as(attempt, true), areSlotsExhausted, () => Effect.succeed(false))
    if (isMade) return
    yield* Effect.logWarning("the copied rows wait for a replication slot: drop one, or raise max_replication_slots")
    yield* Effect.sleep("1 second")
  }
})

/** Drops the slot that was kept, when there is one. Waits for whoever has just read from it. */
export const dropWorkingSlot = Effect.fnUntraced(function* (
  keeper: ReplicantConnection,
  name: string
): Effect.fn.Return<void, ReplicationError> {
  if ((yield* getReplicationSlot(keeper, name)) !== undefined) yield* dropReplicationSlot(keeper, name, { wait: true })
})
