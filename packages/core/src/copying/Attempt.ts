/**
 * One attempt at a snapshot, from its first connection to its slot. Without a store it is whole or nothing: the slot that
 * keeps the seam is temporary until all is handled. With one it goes on: `ResumableAttempt.ts`.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { OutputPlugin } from "../change/OutputPlugin.ts"
import { SlotAlreadyExists } from "../ReplicationError.ts"
import { checkPublications } from "../server/Publication.ts"
import { getReplicationSlot } from "../server/ReplicationSlot.ts"
import { checkFailover } from "../server/SlotFailover.ts"
import type { ReplicantConnection, WalSender } from "../server/WalSender.ts"
import { copyPieces } from "../snapshot/CopyCommand.ts"
import type { TellProgress } from "../snapshot/CopyProgress.ts"
import type { SnapshotCompleted, SnapshotStarted } from "../snapshot/SnapshotChange.ts"
import { SnapshotDecoder } from "../snapshot/SnapshotDecoder.ts"
import type { SnapshotError } from "../snapshot/SnapshotError.ts"
import { connect, excludeOthers } from "../snapshot/SnapshotSession.ts"
import { type Deliver, type HandlerFailed, runSnapshot, type SnapshotRun } from "./CopyRun.ts"
import { copyProgress, describeTables, snapshotTable, type TableCopy } from "./CopyTables.ts"
import type { TableCoverage } from "./CoveredTables.ts"
import type { StreamPatience } from "./DeletedRows.ts"
import { type ExportedSnapshot, type ExportOptions, exportSnapshot, type OpenReaders } from "./ExportedSnapshot.ts"
import type { RateLimit } from "./RateLimit.ts"
import type { SeamFilter } from "./SeamFilter.ts"
import { makePermanent } from "./WorkingSlot.ts"

/** What is to be copied, and how. */
export interface AttemptOptions {
  readonly slot: string
  /** Whether there will be a stream: then the slot is made, and must not be there yet. */
  readonly purpose: "stream" | "only"
  readonly plugin: OutputPlugin
  /** Whether standbys are to keep the slot, too. */
  readonly failover?: boolean | undefined
  readonly connections: number
  /** Milliseconds. */
  readonly lockTimeout: number
  readonly piecePages: number
  readonly tellProgress: TellProgress
  readonly rateLimit: RateLimit | undefined
  /** As the stream's own. */
  readonly streaming?: StreamPatience | undefined
  /** What keeps which tables are copied, where anybody asks later. */
  readonly coverage?: TableCoverage | undefined
}

/** What outlives an attempt. */
export interface Attempts {
  count: number
  /** The handler has been given something that a slot made by others would not stand for. */
  hasDelivered: boolean
  /** All is handled, and the slot may have been made though nobody could tell us. */
  mayBeDone: boolean
}

/** A snapshot that is whole. */
export interface SnapshotDone {
  /** `undefined` where it was done before. */
  readonly completed: SnapshotCompleted | undefined
  /** What the stream after it has to leave out. */
  readonly filter: SeamFilter | undefined
}

/** The connections of one attempt. */
export interface Session {
  readonly options: AttemptOptions
  readonly attempts: Attempts
  /** It keeps the slot and reads no table. */
  readonly keeper: ReplicantConnection
  readonly openReaders: OpenReaders
  readonly closeReaders: Effect.Effect<void>
}

/** Connects. The readers have a scope of their own, since they may go before the rest. */
export const openSession = Effect.fnUntraced(function* (
  options: AttemptOptions,
  attempts: Attempts
): Effect.fn.Return<Session, SnapshotError, WalSender | Scope.Scope> {
  const readers = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
  return {
    options,
    attempts,
    keeper: yield* connect(options.lockTimeout),
    openReaders: (open) => Scope.provide(open, readers),
    closeReaders: Scope.close(readers, Exit.void)
  }
})

/** What exporting needs of a session. */
export const exportOptions = ({ openReaders, options }: Session): ExportOptions => ({ ...options, openReaders })

/** Keeps others out, once it is clear that there is something to copy and that the server can do it. */
export const claim = Effect.fnUntraced(function* ({
  keeper,
  options: { failover, plugin, slot }
}: Session): Effect.fn.Return<void, SnapshotError> {
  yield* Effect.fromResult(plugin.options(keeper.serverVersion))
  yield* checkFailover({ failover }, keeper.serverVersion)
  yield* excludeOthers(keeper, slot)
  yield* checkPublications(keeper, plugin.tells.publications)
})

/** Counts the attempt: from here on the handler is given something. */
export const beginAttempt = (
  { attempts, options }: Session,
  tables: ReadonlyArray<TableCopy>
): Effect.Effect<number> => {
  attempts.count += 1
  attempts.mayBeDone = false
  attempts.hasDelivered = true
  const attempt = attempts.count
  const progress = { attempt, isCompleted: false, tables: copyProgress(tables) }
  return Effect.as(
    options.tellProgress(() => progress),
    attempt
  )
}

/** The run that copies all tables of a snapshot. */
export const describeRun = Effect.fnUntraced(function* (
  session: Session,
  exported: ExportedSnapshot,
  extra: Pick<SnapshotRun, "slot" | "record"> & { readonly checkpoint?: string | undefined }
): Effect.fn.Return<SnapshotRun, SnapshotError> {
  const { closeReaders, keeper, options } = session
  const { consistentPoint, listing, readers } = exported
  const decoder = new SnapshotDecoder(options.plugin, keeper.slices)
  const tables = yield* describeTables(listing.tables, decoder, (table) => copyPieces(table, options))
  const { checkpoint, record, slot } = extra
  const beginning: SnapshotStarted = {
    _tag: "SnapshotStarted",
    attempt: yield* beginAttempt(session, tables),
    consistentPoint,
    tables: tables.map(snapshotTable),
    ...(checkpoint === undefined ? {} : { checkpoint })
  }
  return {
    beginning,
    restarted: [],
    handOverDeletedRows: undefined,
    tables,
    decoder,
    readers,
    closeReaders,
    slot,
    record,
    tellProgress: options.tellProgress,
    rateLimit: options.rateLimit
  }
})

/** Tells that all is done. */
export const endAttempt = ({ options }: Session): Effect.Effect<void> =>
  options.tellProgress((current) => ({ ...current, isCompleted: true }))

const doneBefore: SnapshotDone = { completed: undefined, filter: undefined }

/** A snapshot that is whole or nothing. */
export const attemptWhole = Effect.fnUntraced(function* <E, R>(
  options: AttemptOptions,
  attempts: Attempts,
  deliver: Deliver<E, R>
): Effect.fn.Return<SnapshotDone, SnapshotError | HandlerFailed<E>, R | WalSender | Scope.Scope> {
  const { purpose, slot } = options
  const session = yield* openSession(options, attempts)
  const { keeper } = session
  const isThere = Effect.map(getReplicationSlot(keeper, slot), (found) => purpose === "stream" && found !== undefined)
  const others = Effect.suspend(() =>
    attempts.hasDelivered && !attempts.mayBeDone
      ? Effect.fail(new SlotAlreadyExists({ slot }))
      : Effect.succeed(doneBefore)
  )
  if (yield* isThere) return yield* others
  yield* claim(session)
  // Whoever has just let go of that lock may have made it.
  if (yield* isThere) return yield* others
  const exported = yield* exportSnapshot(keeper, exportOptions(session))
  const temporary = { keeper, name: exported.temporarySlot, isTemporary: true }
  const run = yield* describeRun(session, exported, { slot: temporary, record: undefined })
  const completed = yield* runSnapshot(run, deliver)
  if (purpose === "stream") {
    attempts.mayBeDone = true
    yield* makePermanent(temporary.name, slot, options.failover)
  }
  yield* endAttempt(session)
  return { completed, filter: undefined }
})
