/**
 * The slot of a stream by its policy: ready to be streamed from, or lost, with what stands in for it and the gap that the
 * consumer has to handle first.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Ref from "effect/Ref"
import type { Gap } from "../change/Change.ts"
import { NextLsn } from "../change/NextLsn.ts"
import * as Lsn from "../Lsn.ts"
import { logText, type ReplicationError } from "../ReplicationError.ts"
import type { ReplicationSlot } from "../server/SlotCatalog.ts"
import { checkFailover, setFailover } from "../server/SlotFailover.ts"
import { type SlotPolicy, setupReplicationSlot } from "../server/SlotSetup.ts"
import type { ReplicantConnection } from "../server/WalSender.ts"
import type { ConnectionState } from "./ConnectionState.ts"
import { heldLeaseOf } from "./HeldLease.ts"
import { makeStandIn, type StandIn } from "./SlotGap.ts"
import { hasStreamed, type ResumeFrom } from "./StartPosition.ts"
import type { StreamOptions } from "./StreamOptions.ts"
import * as WalProgress from "./WalProgress.ts"

/** A slot that is ours to stream from; or one that is lost, with what stands in for it. */
export type Ready =
  | { readonly _tag: "Slot"; readonly slot: ReplicationSlot }
  | { readonly _tag: "Lost"; readonly reason: string; readonly lastLsn: Lsn.Lsn | undefined; readonly standIn: StandIn }

/** The connection, and what is known by the time its slot is made ready. */
export interface SlotSession {
  readonly connection: ReplicantConnection
  readonly options: StreamOptions
  /** The database we are connected to. */
  readonly database: string
  readonly resume: ResumeFrom | undefined
  readonly onState: (state: ConnectionState) => Effect.Effect<void>
}

/** Which other connection may be ended to have the slot: at first any, later only what is left of our own last one. */
const mayTakeOverFrom =
  (inUse: SlotPolicy["inUse"], { resume }: SlotSession) =>
  (pid: number): boolean =>
    inUse === "takeOver" && (resume?.pid === undefined || pid === resume.pid)

/** Makes the slot ready, or another in its place where that was asked for. */
export const readySlot = Effect.fnUntraced(function* (session: SlotSession): Effect.fn.Return<Ready, ReplicationError> {
  const { connection, onState, options, resume } = session
  const { createSlot, failover, slot, slotPolicy = {} } = options
  const { creationTimeout } = slotPolicy
  const inUse = slotPolicy.inUse ?? ((yield* heldLeaseOf(slot)) !== undefined ? "takeOver" : "wait")
  const plugin = options.plugin.name
  // A slot that was there, also a temporary one, is never made anew in silence: what was committed since would be lost.
  const create = hasStreamed({ options, resume }) ? undefined : createSlot
  yield* checkFailover({ failover, lifetime: createSlot }, connection.serverVersion)
  const found = setupReplicationSlot(connection, {
    slot,
    plugin,
    database: session.database,
    create,
    failover,
    creationTimeout,
    inUseTimeout:
      inUse === "fail" ? 0 : Duration.toMillis(Duration.fromInputUnsafe(slotPolicy.inUseTimeout ?? "5 minutes")),
    mayTakeOverFrom: mayTakeOverFrom(inUse, session),
    onInUse: (activePid) => onState({ _tag: "WaitingForSlot", activePid })
  })
  const replace = Effect.fnUntraced(function* (
    reason: string,
    lastLsn: Lsn.Lsn | undefined
  ): Effect.fn.Return<Ready, ReplicationError> {
    yield* Effect.logWarning(`replication slot ${slot} is lost (${logText(reason)}): another is made in its place`)
    const lifetime = createSlot === "temporary" ? "temporary" : "permanent"
    const standIn = yield* makeStandIn(connection, { slot, plugin, lifetime, failover, creationTimeout })
    return { _tag: "Lost", reason, lastLsn, standIn }
  })
  return yield* Effect.matchEffect(found, {
    onSuccess: (found): Effect.Effect<Ready, ReplicationError> =>
      Effect.as(setFailover(connection, slot, failover), { _tag: "Slot", slot: found }),
    onFailure: (error) => {
      if (error._tag === "SlotInvalidated" && slotPolicy.invalidated === "recreate") {
        return replace(error.reason, error.lastLsn)
      }
      if (error._tag === "SlotNotFound" && slotPolicy.missing === "recreate") return replace("missing", undefined)
      return Effect.fail(error)
    }
  })
})

/** The gap, as a unit like any other: pending until it is acknowledged. */
export const enterGap = Effect.fnUntraced(function* (
  progress: WalProgress.WalProgressRef,
  slot: string,
  { lastLsn, reason, standIn: { consistentPoint } }: Extract<Ready, { readonly _tag: "Lost" }>
): Effect.fn.Return<Gap> {
  const current = yield* Ref.get(progress)
  const nextLsn = NextLsn.deliver(consistentPoint, current.run)
  const known = Lsn.max(WalProgress.resumeLsn(current), lastLsn ?? Lsn.zero)
  const read = { received: Lsn.zero, isOpen: false, delivered: [nextLsn] }
  yield* WalProgress.updateWalProgress(progress, (before) => WalProgress.receiveWal(before, read))
  return {
    _tag: "Gap",
    slot,
    reason,
    lastLsn: known === Lsn.zero ? undefined : known,
    consistentPoint,
    nextLsn
  }
})
