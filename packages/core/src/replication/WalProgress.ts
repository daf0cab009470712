/**
 * How far a stream has come, and how far its consumer has: the one place that may say what is flushed.
 *
 * The record is immutable and lives in a `Ref` that the copy-data fiber (which receives and delivers) and the keep-alive
 * fiber (which reports) share with whoever acknowledges. The queue of delivered units is threaded through their
 * `NextLsn`s, so that delivering and acknowledging cost a constant a unit, in whatever order units are finished.
 *
 * The rules are those of docs/delivery.md. PostgreSQL's own subscriber keeps the same two books:
 * `get_flush_position` and `send_feedback` in src/backend/replication/logical/worker.c.
 */
import * as Ref from "effect/Ref"
import { NextLsn, Run } from "../change/NextLsn.ts"
import * as Lsn from "../Lsn.ts"

/** Both books: what was received, and what is done. LSNs are exclusive ends. */
export interface WalProgress {
  /** The copy stream whose units may be acknowledged here. */
  readonly run: Run
  /**
   * What may be reported as flushed: what is done; or nothing, for a slot that is read and stays where it stands. Then no
   * unit is kept either, however many come.
   */
  readonly confirm: "done" | "nothing"
  /** The furthest position seen: of a message, or the walsender's word in a keep-alive. Reported as `write`. */
  readonly received: Lsn.Lsn
  /** A transaction has begun and not ended. */
  readonly isOpen: boolean
  /** The end of the last unit that is done together with all before it; `0/0` before the first. */
  readonly durable: Lsn.Lsn
  /** What was last reported as flushed. The next report is never below it. */
  readonly reported: Lsn.Lsn
  /** How far idle positions may be reported, for a consumer that stores them first; `undefined` for as far as they go. */
  readonly idleLimit: Lsn.Lsn | undefined
  /** How many delivered units are not durable yet. */
  readonly pending: number
  /** The oldest of them, and the newest. */
  readonly first: NextLsn | undefined
  readonly last: NextLsn | undefined
  /** Told of each unit once it is done together with all before it. */
  readonly onDone: ((unit: NextLsn) => void) | undefined
}

/** The progress of one consumer, shared by its fibers. */
export type WalProgressRef = Ref.Ref<WalProgress>

/** Before the first connection: nothing received, nothing done. */
export const initial = (): WalProgress => ({
  run: new Run(),
  confirm: "done",
  received: Lsn.zero,
  isOpen: false,
  durable: Lsn.zero,
  reported: Lsn.zero,
  idleLimit: undefined,
  pending: 0,
  first: undefined,
  last: undefined,
  onDone: undefined
})

/** A new one, at {@link initial}. */
export const make = Ref.make(initial())

/**
 * A new copy stream of the same cluster and timeline begins. What is durable or was reported stays so; whatever was
 * delivered and not finished comes again, so its acknowledgements are void. On another timeline the same positions may
 * hold other records: there, begin with {@link initial}.
 */
export const restart = (progress: WalProgress): WalProgress => ({
  ...initial(),
  confirm: progress.confirm,
  durable: progress.durable,
  reported: progress.reported,
  idleLimit: progress.idleLimit,
  onDone: progress.onDone
})

/** Where streaming may go on: everything before it is done, by the consumer or because it was idle. */
export const resumeLsn = (progress: WalProgress): Lsn.Lsn => Lsn.max(progress.durable, progress.reported)

/** What one read brought. */
export interface Received {
  /** The furthest position in it, `0/0` when it told none. */
  readonly received: Lsn.Lsn
  /** Whether it ended inside a transaction. */
  readonly isOpen: boolean
  /** The units that ended in it, in order. */
  readonly delivered: ReadonlyArray<NextLsn>
}

/** Enters a read. Must happen before its changes are handed on, else an idle position could overtake them. */
export const receiveWal = (progress: WalProgress, read: Received): WalProgress => {
  let { first, last } = progress
  const delivered = progress.confirm === "nothing" ? [] : read.delivered
  for (const nextLsn of delivered) {
    if (last === undefined) first = nextLsn
    else NextLsn.link(last, nextLsn)
    last = nextLsn
  }
  return {
    ...progress,
    received: Lsn.max(progress.received, read.received),
    isOpen: read.isOpen,
    pending: progress.pending + delivered.length,
    first,
    last
  }
}

/** Moves `durable` over the units at the head of the queue that are done. */
const settle = (progress: WalProgress): WalProgress => {
  let { durable, first, last, onDone, pending } = progress
  while (first !== undefined && NextLsn.isDone(first)) {
    durable = Lsn.max(durable, first.lsn)
    const next: NextLsn | undefined = NextLsn.next(first)
    NextLsn.link(first, undefined)
    onDone?.(first)
    first = next
    pending--
  }
  if (first === undefined) last = undefined
  return { ...progress, durable, first, last, pending }
}

/**
 * One unit is done, by itself. Units may finish in any order: `durable` moves over the longest finished prefix. Of
 * another run, or twice: nothing happens.
 */
export const acknowledge = (progress: WalProgress, nextLsn: NextLsn): WalProgress => {
  if (!NextLsn.isOf(nextLsn, progress.run) || NextLsn.isDone(nextLsn)) return progress
  NextLsn.finish(nextLsn)
  return nextLsn === progress.first ? settle(progress) : progress
}

/** Whether a unit is still in the queue. LSNs only grow along it, though two may be equal. */
const isPending = (progress: WalProgress, nextLsn: NextLsn): boolean => {
  let unit = progress.first
  while (unit !== undefined && unit !== nextLsn && unit.lsn <= nextLsn.lsn) unit = NextLsn.next(unit)
  return unit === nextLsn
}

/**
 * This unit and every one delivered before it are done: what a consumer means that takes one at a time. Of another run,
 * or no longer pending: nothing happens, since a unit that has left the queue would take the whole of it along.
 */
export const acknowledgeThrough = (progress: WalProgress, nextLsn: NextLsn): WalProgress => {
  if (!NextLsn.isOf(nextLsn, progress.run) || !isPending(progress, nextLsn)) return progress
  for (let unit = progress.first; unit !== undefined; unit = NextLsn.next(unit)) {
    NextLsn.finish(unit)
    if (unit === nextLsn) break
  }
  return settle(progress)
}

const isIdle = (progress: WalProgress): boolean => !progress.isOpen && progress.pending === 0

/**
 * Everything before this was handled, or is nothing of the consumer's: what was committed before it, it has seen. Unlike
 * {@link flushed} it waits for no idle position to be stored.
 */
export const handledLsn = (progress: WalProgress): Lsn.Lsn =>
  isIdle(progress) ? Lsn.max(resumeLsn(progress), progress.received) : resumeLsn(progress)

/** The idle position that could be reported were it within the limit; `undefined` where there is none beyond it. */
export const beyondIdleLimit = (progress: WalProgress): Lsn.Lsn | undefined => {
  const { durable, idleLimit, received } = progress
  return idleLimit !== undefined && isIdle(progress) && received > Lsn.max(durable, idleLimit) ? received : undefined
}

/** The consumer has stored that it is done with everything before `lsn`. */
export const allowIdle = (progress: WalProgress, lsn: Lsn.Lsn): WalProgress => ({
  ...progress,
  idleLimit: Lsn.max(progress.idleLimit ?? Lsn.zero, lsn)
})

/**
 * What may be reported as flushed now. While a transaction is open or a unit pending it is `durable`; otherwise all that
 * was received is done, also what the publication left out, and a quiet slot need not pin WAL: up to `idleLimit`, where
 * there is one. Never below what was reported, never beyond what was received, and `0/0` (which the server ignores) until
 * there is something to report; for ever, where nothing is to be confirmed.
 */
export const flushed = (progress: WalProgress): Lsn.Lsn => {
  const { durable, idleLimit, received } = progress
  if (progress.confirm === "nothing") return Lsn.zero
  const idle = idleLimit === undefined ? received : Lsn.min(received, idleLimit)
  const done = isIdle(progress) ? Lsn.max(durable, idle) : durable
  return Lsn.min(Lsn.max(done, progress.reported), Lsn.max(progress.received, progress.reported))
}

/** Records that a status update with this flush position has been handed to the socket. */
export const reportFlushed = (progress: WalProgress, lsn: Lsn.Lsn): WalProgress => ({
  ...progress,
  reported: Lsn.max(progress.reported, lsn)
})

/** Applies `change` to the shared progress. */
export const updateWalProgress = (ref: WalProgressRef, change: (progress: WalProgress) => WalProgress) =>
  Ref.update(ref, change)
