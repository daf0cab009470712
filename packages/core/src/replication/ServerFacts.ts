/**
 * Asks the server over a connection of its own how far its WAL goes, and what it holds to be confirmed of the slot: what no
 * stream can tell whose socket is held back, or whose walsender decodes what is not published.
 *
 * The connection is one of `replication=database`, since a driver knows no other: for some milliseconds it takes one of
 * `max_wal_senders`, and never a slot. Where all are taken the server refuses it, and the answer is that nobody knows.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Lsn from "../Lsn.ts"
import { monotonicMillis } from "../MonotonicTime.ts"
import type { ReplicationError } from "../ReplicationError.ts"
import * as Catalog from "../server/Catalog.ts"
import { identifySystem } from "../server/IdentifySystem.ts"
import { getReplicationSlot } from "../server/SlotCatalog.ts"
import type { ReplicantConnection, WalSender } from "../server/WalSender.ts"
import type { ServerFacts } from "./Vitals.ts"
import { askElsewhere } from "./WalSenderStanding.ts"

/** What is asked about: the slot, and the cluster that it was followed on. */
export interface Asked {
  readonly slot: string
  /** Another cluster that answers there tells nothing of ours; `undefined` before the first connection. */
  readonly systemId: string | undefined
}

/** `undefined` where nobody could be asked within that time, or another cluster or no slot was found. */
export const askServer = (
  { slot, systemId }: Asked,
  deadline: Duration.Input
): Effect.Effect<ServerFacts | undefined, never, WalSender> => {
  const ask = Effect.fnUntraced(function* (
    connection: ReplicantConnection
  ): Effect.fn.Return<ServerFacts | undefined, ReplicationError> {
    yield* Catalog.pinSession(connection)
    const found = yield* getReplicationSlot(connection, slot)
    // Asked last, so that what is confirmed cannot be found beyond the end.
    const system = yield* identifySystem(connection)
    if (found === undefined || (systemId !== undefined && systemId !== system.systemId)) return undefined
    const at = yield* monotonicMillis
    return { at, end: system.xLogPos, confirmed: found.confirmedFlushLsn ?? Lsn.zero }
  })
  return Effect.withSpan(
    askElsewhere<ServerFacts | undefined>(ask, {
      deadline,
      fallback: undefined,
      what: "how far the server's WAL goes"
    }),
    "Replicant.askServer"
  )
}
