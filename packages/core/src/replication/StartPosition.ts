/**
 * Where a stream starts, and whether it may: which server answers, how far its WAL reaches and on which timeline, against
 * what this process and the consumer's own store know to be done. Asked before anything is started, since a position that
 * is too far is accepted by START_REPLICATION and loses what lies before it without a word.
 */
import * as Effect from "effect/Effect"
import * as Lsn from "../Lsn.ts"
import { type ReplicationError, SlotAheadOfCheckpoint, StandbyBehind, SystemMismatch } from "../ReplicationError.ts"
import * as Catalog from "../server/Catalog.ts"
import type { IdentifySystem } from "../server/IdentifySystem.ts"
import type { ReplicationSlot } from "../server/SlotCatalog.ts"
import type { ReplicantConnection } from "../server/WalSender.ts"
import * as WalProgress from "./WalProgress.ts"

/**
 * How far a consumer is by its own store: what it wrote in the transaction that stored the data. It has everything before
 * `endLsn` and nothing after.
 */
export interface Checkpoint {
  /** `nextLsn.lsn` of the last unit that is stored; `0/0` for none yet. Only then may a missing slot be one never made. */
  readonly endLsn: Lsn.Lsn
  /** The cluster that it is a position of: `IdentifySystem.systemId`. Another one is a `SystemMismatch`. */
  readonly systemId?: string | undefined
  /**
   * The timeline, likewise. On another one the position holds if that left the first at or after it, which the server's
   * history tells; else it is a `SystemMismatch`.
   */
  readonly timeline?: number | undefined
  /** The last position that `storeIdleFlush` was given. */
  readonly idleFlush?: Lsn.Lsn | undefined
}

/** A consumer that keeps its own position. */
export interface CheckpointOptions {
  /**
   * How far the consumer is by its own store. The stream starts there, and the server sends nothing from before it,
   * however far back the slot is: with the position and the data stored in one transaction, every change is stored once.
   */
  readonly checkpoint?: Checkpoint | undefined
  /**
   * Stores a position that the stream is about to confirm though nothing was delivered up to it: a quiet publication's slot
   * moves on so. It is not confirmed before this succeeds; if it fails, it is tried again with the next. Together with
   * `checkpoint.idleFlush` it tells a slot that was idle from one that has lost changes.
   */
  readonly storeIdleFlush?: ((lsn: Lsn.Lsn) => Effect.Effect<unknown, unknown>) | undefined
  /**
   * When the slot stands beyond both `checkpoint.endLsn` and `checkpoint.idleFlush`: `fail` (the default) with
   * `SlotAheadOfCheckpoint`, as what lies between never comes; or `accept`, where it is known to have been idle.
   */
  readonly slotAheadOfCheckpoint?: "fail" | "accept" | undefined
}

/** What an earlier connection of this process saw: the next must lead to the same cluster. */
export interface ResumeFrom {
  readonly systemId: string
  readonly timeline: number
  /** Of its backend; `undefined` where it was of an earlier run, since when others may have had the slot. */
  readonly pid?: number | undefined
  /** When that server was started: by which it is known again, or another, or the same one restarted. */
  readonly serverStart?: string | undefined
  /** It was a standby: one that is promoted goes on sending, on a timeline that nobody is told of. */
  readonly isInRecovery?: boolean | undefined
}

const historyLine = /^\s*(\d+)\s+([0-9A-Fa-f]{1,8}\/[0-9A-Fa-f]{1,8})/

/**
 * Where a timeline was left, by the history file of a later one: one line each, `1\t0/3000000\treason`.
 *
 * Source: src/backend/access/transam/timeline.c
 */
export const leftAt = (history: string, timeline: number): Lsn.Lsn | undefined => {
  for (const line of history.split("\n")) {
    const match = historyLine.exec(line)
    if (match !== null && Number(match[1]) === timeline) return Lsn.fromString(match[2]!)
  }
  return undefined
}

/** Since PostgreSQL 16 a standby can be streamed from. */
const decodingStandbys = 160_000

/** Whether a position of `timeline` means the same on the server's own. */
export const isCommonHistory = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  system: IdentifySystem,
  { lsn, timeline }: { readonly lsn: Lsn.Lsn; readonly timeline: number }
): Effect.fn.Return<boolean, ReplicationError> {
  if (system.timeline === timeline) return true
  if (system.timeline < timeline) return false
  const command = `TIMELINE_HISTORY ${system.timeline}`
  const [row] = yield* Catalog.queryAt(connection, command, { stage: "IdentifySystem" })
  const left = leftAt(row?.content ?? "", timeline)
  return left !== undefined && lsn <= left
})

/** The server that answers, and when it was started. */
export interface ConnectedSystem extends IdentifySystem {
  readonly serverStart: string
}

/** What is known of earlier streams when one is opened. */
export interface Known {
  readonly progress: WalProgress.WalProgress
  /** Of this process; `undefined` at its first connection. */
  readonly resume: ResumeFrom | undefined
  readonly options: CheckpointOptions
}

/** Whether somebody has streamed from the slot before, as far as we know. */
export const hasStreamed = ({ options, resume }: Pick<Known, "options" | "resume">): boolean =>
  resume !== undefined || (options.checkpoint !== undefined && options.checkpoint.endLsn > Lsn.zero)

const firstProgress = ({ checkpoint, storeIdleFlush }: CheckpointOptions): WalProgress.WalProgress => {
  const progress = { ...WalProgress.initial(), durable: checkpoint?.endLsn ?? Lsn.zero }
  return storeIdleFlush === undefined ? progress : WalProgress.allowIdle(progress, checkpoint?.idleFlush ?? Lsn.zero)
}

/**
 * What of our progress holds on another timeline than it was made on, whose WAL may differ from the one we know.
 *
 * What is done is kept where the timelines' common history proves it. An idle position is not data: beyond that history it
 * means nothing, and is dropped. But a unit beyond it is one that no primary has any more, and the consumer does: that is a
 * failure, also without a checkpoint. Only of a standby that may have been promoted under the stream nobody can tell which
 * timeline its last units are of: there the server's own word holds.
 */
const acrossTimelines = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  system: ConnectedSystem,
  { options, resume }: Known,
  known: WalProgress.WalProgress,
  timeline: number
): Effect.fn.Return<WalProgress.WalProgress, ReplicationError> {
  // The same server still: whatever it sent is of its own history.
  if (resume !== undefined && resume.serverStart === system.serverStart) return known
  const holds = (lsn: Lsn.Lsn) => isCommonHistory(connection, system, { lsn, timeline })
  if (yield* holds(WalProgress.resumeLsn(known))) return known
  if (yield* holds(known.durable)) return { ...firstProgress(options), durable: known.durable }
  if (options.checkpoint === undefined && resume?.isInRecovery === true) return firstProgress(options)
  const found = String(system.timeline)
  return yield* new SystemMismatch({ property: "timeline", expected: String(timeline), found })
})

/**
 * What of our progress holds on this connection. `0/0` lets the server go on from what it has confirmed. Within one
 * process we may know better: after a crash the server has forgotten acknowledgements since its last checkpoint, and our
 * own end LSN spares redelivery.
 */
export const resumeProgress = Effect.fnUntraced(function* (
  connection: ReplicantConnection,
  system: ConnectedSystem,
  before: Known
): Effect.fn.Return<WalProgress.WalProgress, ReplicationError> {
  const { options, progress, resume } = before
  const { checkpoint } = options
  const started = resume === undefined ? firstProgress(options) : WalProgress.restart(progress)
  const systemId = resume?.systemId ?? checkpoint?.systemId
  if (systemId !== undefined && systemId !== system.systemId) {
    return yield* new SystemMismatch({ property: "systemId", expected: systemId, found: system.systemId })
  }
  const timeline = resume?.timeline ?? checkpoint?.timeline
  const isBehind =
    system.xLogPos < WalProgress.resumeLsn(started) || (timeline !== undefined && system.timeline < timeline)
  // Amid a failover one of these refuses START_REPLICATION, as if for good, until it is promoted.
  const isUndecoded = connection.serverVersion < decodingStandbys && hasStreamed({ options, resume })
  // A standby that was restarted lets us in before it has replayed what it has: it will get there.
  if ((isBehind || isUndecoded) && (yield* Catalog.isInRecovery(connection))) {
    return yield* new StandbyBehind({ expected: WalProgress.resumeLsn(started), found: system.xLogPos })
  }
  const known =
    timeline === undefined || timeline === system.timeline
      ? started
      : yield* acrossTimelines(connection, system, before, started, timeline)
  const lsn = WalProgress.resumeLsn(known)
  if (system.xLogPos < lsn) {
    const found = Lsn.format(system.xLogPos)
    return yield* new SystemMismatch({ property: "position", expected: Lsn.format(lsn), found })
  }
  return known
})

/**
 * Fails where the consumer's own position is behind what was confirmed: it has nothing of what lies between the two. Asked of a
 * slot at the first connection of a process, and of what a later run remembers.
 */
export const checkNotAhead = (
  slot: string,
  { checkpoint, slotAheadOfCheckpoint }: CheckpointOptions,
  confirmedFlushLsn: Lsn.Lsn
): Effect.Effect<void, SlotAheadOfCheckpoint> => {
  if (checkpoint === undefined || checkpoint.endLsn === Lsn.zero) return Effect.void
  const known = Lsn.max(checkpoint.endLsn, checkpoint.idleFlush ?? Lsn.zero)
  return slotAheadOfCheckpoint === "accept" || confirmedFlushLsn <= known
    ? Effect.void
    : Effect.fail(new SlotAheadOfCheckpoint({ slot, checkpoint: known, confirmedFlushLsn }))
}

/** Fails where the slot has confirmed what the consumer does not have. Asked at the first connection of a process. */
export const checkSlotPosition = (
  slot: ReplicationSlot,
  { options, resume }: Pick<Known, "options" | "resume">
): Effect.Effect<void, SlotAheadOfCheckpoint> =>
  resume === undefined ? checkNotAhead(slot.name, options, slot.confirmedFlushLsn ?? Lsn.zero) : Effect.void
