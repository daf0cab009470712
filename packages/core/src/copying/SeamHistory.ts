/**
 * Whether a server has all that was copied. A copy that was gone on with holds what a later snapshot saw, and its slot stands
 * before that: a failover in between, to a standby that was behind, leaves rows at the target that no primary has any more.
 * And ids of transactions, which say what the rows have already, are then those of others.
 */
import * as Effect from "effect/Effect"
import type * as Lsn from "../Lsn.ts"
import { type ReplicationError, SystemMismatch } from "../ReplicationError.ts"
import { isCommonHistory } from "../replication/StartPosition.ts"
import { type IdentifySystem, identifySystem } from "../server/IdentifySystem.ts"
import type { ReplicantConnection } from "../server/WalSender.ts"

/** What was copied: everything of it was committed before the seam, on that timeline. */
interface Copied {
  readonly seam: Lsn.Lsn
  /** `undefined` in checkpoints that do not say it. */
  readonly timeline?: number | undefined
}

/** Whether the server's history has it. */
export const isOfHistory = (
  connection: ReplicantConnection,
  system: IdentifySystem,
  { seam, timeline }: Copied
): Effect.Effect<boolean, ReplicationError> =>
  timeline === undefined ? Effect.succeed(true) : isCommonHistory(connection, system, { lsn: seam, timeline })

/** The failure of a stream from a server that does not. */
export const diverged = ({ timeline }: Pick<IdentifySystem, "timeline">, copied: Copied): SystemMismatch =>
  new SystemMismatch({ property: "timeline", expected: String(copied.timeline), found: String(timeline) })

/** Fails on such a server. */
export const checkHistory = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  copied: Copied
): Effect.fn.Return<void, ReplicationError> {
  const system = yield* identifySystem(connection)
  if (!(yield* isOfHistory(connection, system, copied))) return yield* diverged(system, copied)
})
