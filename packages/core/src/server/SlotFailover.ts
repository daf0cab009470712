/**
 * Whether a slot is kept on standbys too, so that its stream goes on where one of them is promoted. PostgreSQL 17.
 *
 * Source: https://www.postgresql.org/docs/current/logical-replication-failover.html
 */
import * as Effect from "effect/Effect"
import { alterReplicationSlotCommand, quoteLiteral } from "../protocol/ReplicationCommand.ts"
import { InvalidOption, type ReplicationError, UnsupportedByServer } from "../ReplicationError.ts"
import * as Catalog from "./Catalog.ts"
import type { ReplicantConnection } from "./WalSender.ts"

const since = 170_000

/** What is asked of a slot. */
export interface WantedFailover {
  /** `true` and `false` as they say; left out, the slot stays as it is. */
  readonly failover?: boolean | undefined
  readonly lifetime?: "permanent" | "temporary" | undefined
}

/** Fails, before anything is made, where a failover slot cannot be had. */
export const checkFailover = (
  { failover, lifetime }: WantedFailover,
  serverVersion: number
): Effect.Effect<void, InvalidOption | UnsupportedByServer> => {
  if (failover !== true) return Effect.void
  if (lifetime === "temporary") {
    return Effect.fail(
      new InvalidOption({
        option: "failover",
        problem: "does not go with a temporary slot",
        remedy: "make the slot permanent, or leave failover out"
      })
    )
  }
  return serverVersion >= since
    ? Effect.void
    : Effect.fail(new UnsupportedByServer({ feature: "FAILOVER", serverVersion, neededVersion: since }))
}

/** Whether the slot is kept on standbys. */
export const isFailoverSlot = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  slot: string
): Effect.fn.Return<boolean, ReplicationError> {
  if (connection.serverVersion < since) return false
  const text = `SELECT failover FROM pg_catalog.pg_replication_slots WHERE slot_name = ${quoteLiteral(slot)}`
  const [row] = yield* Catalog.queryAt(connection, text, { stage: "Query", slot })
  return row?.failover === "t"
})

/** Has the slot kept on standbys, or not any more, where it differs. Nobody may stream from it. */
export const setFailover = (
  connection: ReplicantConnection,
  slot: string,
  failover: boolean | undefined
): Effect.Effect<void, ReplicationError> => {
  if (failover === undefined) return Effect.void
  const set = Effect.gen(function* () {
    if ((yield* isFailoverSlot(connection, slot)) === failover) return
    const alter = yield* Effect.fromResult(alterReplicationSlotCommand({ slot, failover }, connection.serverVersion))
    yield* Catalog.queryAt(connection, alter, { stage: "AlterSlot", slot })
    yield* Effect.logInfo(`slot ${slot} is ${failover ? "now" : "no longer"} kept on standbys`)
  })
  return connection.inConnectTimeout === undefined ? set : connection.inConnectTimeout(set)
}
