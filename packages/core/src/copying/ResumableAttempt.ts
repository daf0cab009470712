/**
 * An attempt at a snapshot that can be taken up again: begun anew, gone on with, or found done.
 *
 * The order is what makes it safe to be killed anywhere. The slot that all is for comes last, so that it stands for a whole
 * copy; until then another one keeps the seam, and a checkpoint says what has been handled. Each step finds what the one
 * before it may have left behind.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { CheckpointError, CheckpointStore } from "../checkpoint/CheckpointService.ts"
import { qualifiedName } from "../protocol/ReplicationCommand.ts"
import { InvalidOption, SlotAlreadyExists, SlotMismatch, SystemMismatch } from "../ReplicationError.ts"
import { type IdentifySystem, identifySystem } from "../server/IdentifySystem.ts"
import { dropReplicationSlot, getReplicationSlot, type ReplicationSlot } from "../server/ReplicationSlot.ts"
import type { WalSender } from "../server/WalSender.ts"
import { copyPieces } from "../snapshot/CopyCommand.ts"
import type { SnapshotResumed } from "../snapshot/SnapshotChange.ts"
import { SnapshotDecoder } from "../snapshot/SnapshotDecoder.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"
import { connect, query } from "../snapshot/SnapshotSession.ts"
import { format } from "../snapshot/TransactionSnapshot.ts"
import {
  type AttemptOptions,
  type Attempts,
  beginAttempt,
  claim,
  describeRun,
  endAttempt,
  exportOptions,
  openSession,
  type Session,
  type SnapshotDone
} from "./Attempt.ts"
import * as SnapshotCheckpoint from "./CopyCheckpoint.ts"
import { CopyRecord } from "./CopyRecord.ts"
import { type Deliver, type HandlerFailed, runSnapshot, type SnapshotRun } from "./CopyRun.ts"
import { describeTables, snapshotTable } from "./CopyTables.ts"
import { handOverDeletedRows, type PartialTable } from "./DeletedRows.ts"
import { exportSnapshot, readSnapshot, takeSnapshot } from "./ExportedSnapshot.ts"
import { nextStep, planResume } from "./ResumePlan.ts"
import { SeamFilter } from "./SeamFilter.ts"
import { checkHistory, diverged, isOfHistory } from "./SeamHistory.ts"
import { dropWorkingSlot, makePermanent, workingSlotName } from "./WorkingSlot.ts"

type Store = CheckpointStore["Service"]

/** A session that keeps checkpoints. */
interface StoreSession extends Session {
  readonly store: Store
  readonly workingSlot: string
}

const loadCheckpoint = Effect.fnUntraced(function* (
  store: Store,
  slot: string
): Effect.fn.Return<SnapshotCheckpoint.SnapshotCheckpoint | undefined, CheckpointError> {
  const text = yield* store.load(SnapshotCheckpoint.checkpointKey(slot))
  return Option.isNone(text) ? undefined : yield* Effect.fromResult(SnapshotCheckpoint.decode(slot, text.value))
})

const saveCheckpoint = (store: Store, checkpoint: SnapshotCheckpoint.SnapshotCheckpoint) =>
  store.save(SnapshotCheckpoint.checkpointKey(checkpoint.slot), SnapshotCheckpoint.encode(checkpoint))

/** What the stream has to leave out after a copy that is done; and nothing is kept of it once there is nothing. */
const filterAfter = Effect.fnUntraced(function* (
  store: Store,
  checkpoint: SnapshotCheckpoint.SnapshotCheckpoint,
  slot?: ReplicationSlot | undefined
): Effect.fn.Return<SeamFilter | undefined, CheckpointError> {
  const confirmed = slot?.confirmedFlushLsn ?? checkpoint.consistentPoint
  const filter = confirmed < checkpoint.seam ? SeamFilter.make(checkpoint) : undefined
  if (filter === undefined) yield* store.remove(SnapshotCheckpoint.checkpointKey(checkpoint.slot))
  return filter
})

/** For a stream without a snapshot before it: what an earlier run's copy has it leave out. */
export const findFilter = Effect.fnUntraced(function* (
  store: Store,
  slot: string
): Effect.fn.Return<SeamFilter | undefined, SnapshotError, WalSender> {
  const checkpoint = yield* loadCheckpoint(store, slot)
  if (checkpoint?.phase !== "completed") return undefined
  return yield* Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* connect(0)
      const found = yield* getReplicationSlot(connection, slot)
      if (found === undefined) return undefined
      const filter = yield* filterAfter(store, checkpoint, found)
      if (filter !== undefined) yield* checkHistory(connection, filter)
      return filter
    })
  )
})

/** Which cluster and database this is. A standby is refused: its snapshots do not say which transactions they leave out. */
const identifyPrimary = Effect.fnUntraced(function* ({
  keeper
}: Session): Effect.fn.Return<IdentifySystem, SnapshotError> {
  const [row] = yield* query(keeper, "SELECT pg_catalog.pg_is_in_recovery() AS recovery")
  if (row?.recovery === "t") {
    return yield* new InvalidOption({
      option: "CheckpointStore",
      problem: "a snapshot of a standby does not say which transactions it takes in, so it cannot be gone on with",
      remedy: "provide no CheckpointStore, or copy from the primary"
    })
  }
  return yield* identifySystem(keeper)
})

/** Makes the slot at last. The other one goes; the checkpoint stays for as long as the stream has to leave something out. */
const finish = Effect.fnUntraced(function* (
  { attempts, keeper, options: { failover, slot }, store, workingSlot }: StoreSession,
  checkpoint: SnapshotCheckpoint.SnapshotCheckpoint
): Effect.fn.Return<SeamFilter | undefined, SnapshotError, WalSender> {
  attempts.mayBeDone = true
  yield* makePermanent(workingSlot, slot, failover)
  yield* dropWorkingSlot(keeper, workingSlot)
  return yield* filterAfter(store, checkpoint)
})

/** Copies everything, beginning with nothing. */
const beginRun = Effect.fnUntraced(function* (
  session: StoreSession,
  { systemId, timeline }: IdentifySystem
): Effect.fn.Return<SnapshotRun, SnapshotError, WalSender> {
  const { keeper, options, store, workingSlot } = session
  const { coverage, piecePages, slot } = options
  yield* dropWorkingSlot(keeper, workingSlot)
  // Before the seam: whatever is altered from here on is another entry later.
  if (coverage !== undefined) yield* coverage.begin(yield* coverage.list(keeper))
  const exported = yield* exportSnapshot(keeper, exportOptions(session))
  const { consistentPoint, readers, temporarySlot } = exported
  const { snapshot } = yield* readSnapshot(readers[0]!)
  const checkpoint = SnapshotCheckpoint.begin({ slot, systemId, timeline, consistentPoint, snapshot: format(snapshot) })
  // Before the slot: one that an earlier run may have left says other things of a slot of that name.
  yield* saveCheckpoint(store, checkpoint)
  yield* makePermanent(temporarySlot, workingSlot)
  yield* dropReplicationSlot(keeper, temporarySlot)
  return yield* describeRun(session, exported, {
    slot: { keeper, name: workingSlot, isTemporary: false },
    record: new CopyRecord({ store, checkpoint, piecePages }),
    checkpoint: SnapshotCheckpoint.encode(checkpoint)
  })
})

/** Copies what is left, under a new snapshot. */
const resumeRun = Effect.fnUntraced(function* (
  session: StoreSession,
  before: SnapshotCheckpoint.SnapshotCheckpoint,
  timeline: number
): Effect.fn.Return<SnapshotRun, SnapshotError, WalSender> {
  const { closeReaders, keeper, options, store, workingSlot } = session
  const { coverage, piecePages, plugin, rateLimit, streaming, tellProgress } = options
  const published = coverage === undefined ? [] : yield* coverage.list(keeper)
  const { listing, readers, seam, snapshot } = yield* takeSnapshot(keeper, exportOptions(session))
  const plan = planResume({ ...before, timeline }, listing, { seam, snapshot })
  const { checkpoint } = plan
  const decoder = new SnapshotDecoder(plugin, keeper.slices)
  const plans = new Map(plan.tables.map((planned) => [planned.table.oid, planned]))
  const described = yield* describeTables(listing.tables, decoder, (table) =>
    copyPieces(table, { piecePages, ranges: plans.get(table.oid)?.ranges })
  )
  const all = described.map((copy, index) => ({ copy, plan: plan.tables[index]! }))
  const tables = all.filter(({ plan: { state } }) => state !== "complete").map(({ copy }) => copy)
  // What is about to be thrown away must not be counted on any more: not even by a run that finds the tables altered back.
  yield* saveCheckpoint(store, checkpoint)
  const restarted = new Set(
    plan.tables.flatMap(({ state, table }) => (state === "pending" ? [qualifiedName(table)] : []))
  )
  if (coverage !== undefined) yield* coverage.resume(published, (table) => restarted.has(qualifiedName(table)))
  const beginning: SnapshotResumed = {
    _tag: "SnapshotResumed",
    attempt: yield* beginAttempt(session, tables),
    consistentPoint: checkpoint.consistentPoint,
    tables: all.map(({ copy, plan: { state } }) => ({ ...snapshotTable(copy), state })),
    unpublished: plan.unpublished,
    checkpoint: SnapshotCheckpoint.encode(checkpoint)
  }
  const partial = new Map(
    all.flatMap(
      ({ copy: { relation }, plan: { deletedUpTo } }): ReadonlyArray<readonly [number, PartialTable]> =>
        deletedUpTo === undefined ? [] : [[relation.oid, { relation, deletedUpTo }]]
    )
  )
  const deleted = { slot: workingSlot, plugin, streaming, keeper, tables: partial, resumed: beginning, seam, snapshot }
  return {
    beginning,
    restarted: all
      .filter(({ plan: { state } }) => state === "pending")
      .map(({ copy: { relation } }) => ({ _tag: "SnapshotTableRestarted", snapshot: beginning, relation })),
    handOverDeletedRows: partial.size === 0 ? undefined : (handOver) => handOverDeletedRows(deleted, handOver),
    tables,
    decoder,
    readers,
    closeReaders,
    slot: { keeper, name: workingSlot, isTemporary: false },
    record: new CopyRecord({ store, checkpoint, piecePages }),
    tellProgress,
    rateLimit
  }
})

/** A snapshot that goes on where an earlier attempt left it, and can be gone on with. */
export const attemptResumable = Effect.fnUntraced(function* <E, R>(
  options: AttemptOptions & { readonly store: Store },
  attempts: Attempts,
  deliver: Deliver<E, R>
): Effect.fn.Return<SnapshotDone, SnapshotError | HandlerFailed<E>, R | WalSender | Scope.Scope> {
  const { slot, store } = options
  const workingSlot = workingSlotName(slot)
  const session: StoreSession = { ...(yield* openSession(options, attempts)), store, workingSlot }
  const { keeper } = session
  yield* claim(session)
  const system = yield* identifyPrimary(session)
  const { database = "", systemId } = system
  const checkpoint = yield* loadCheckpoint(store, slot)
  if (checkpoint !== undefined && checkpoint.systemId !== systemId) {
    return yield* new SystemMismatch({ property: "systemId", expected: checkpoint.systemId, found: systemId })
  }
  const found = yield* getReplicationSlot(keeper, slot)
  const kept = yield* getReplicationSlot(keeper, workingSlot)
  // Names are of the whole cluster: it is dropped below, and another database's copy would lose its seam.
  if (kept !== undefined && kept.database !== database) {
    const theirs = kept.database ?? ""
    return yield* new SlotMismatch({ slot: workingSlot, property: "database", expected: database, found: theirs })
  }
  const isDiverged = checkpoint !== undefined && !(yield* isOfHistory(keeper, system, checkpoint))
  const remains = { checkpoint, slot: found, workingSlot: kept, isDiverged }
  const step = nextStep(remains)
  switch (step._tag) {
    case "Refuse":
      return yield* new SlotAlreadyExists({ slot })
    case "Diverged":
      return yield* diverged(system, checkpoint!)
    case "Stream":
      yield* dropWorkingSlot(keeper, workingSlot)
      return {
        completed: undefined,
        filter: checkpoint === undefined ? undefined : yield* filterAfter(store, checkpoint, found)
      }
    case "Finish":
      return { completed: undefined, filter: yield* finish(session, checkpoint!) }
    case "Begin":
    case "Resume": {
      if (step._tag === "Begin" && step.lost !== undefined) {
        yield* Effect.logWarning(`the copy begins anew: ${step.lost}`)
      }
      const run = yield* step._tag === "Begin"
        ? beginRun(session, system)
        : resumeRun(session, checkpoint!, system.timeline)
      const completed = yield* runSnapshot(run, deliver)
      const filter = yield* finish(session, run.record!.checkpoint)
      yield* endAttempt(session)
      return { completed, filter }
    }
  }
})
