/**
 * Mistakes that replication clients make, each planted into the laws, to see the checker find it. Most were made by a
 * real client; the comments say what each looks like from outside.
 */
import { NextLsn } from "../../../src/change/NextLsn.ts"
import * as Lsn from "../../../src/Lsn.ts"
import * as WalProgress from "../../../src/replication/WalProgress.ts"
import type { Client, Violation } from "./World.ts"

export interface Mistake {
  readonly what: string
  /** The shortest WAL that shows it. */
  readonly wal: string
  readonly property: Violation["property"]
  readonly client: Client
}

const mistake = (
  what: string,
  wal: string,
  changes: Partial<Client>,
  property: Violation["property"] = "loss"
): Mistake => ({ what, wal, property, client: { ...WalProgress, ...changes } })

const oneMore = (lsn: Lsn.Lsn): Lsn.Lsn => (lsn === Lsn.zero ? lsn : Lsn.add(lsn, 1n)!)

/** Finishes every unit in the queue up to where `isLast` says so. */
const finishQueue = (
  progress: WalProgress.WalProgress,
  isLast: (unit: NextLsn) => boolean
): WalProgress.WalProgress => {
  let settled = progress
  while (settled.first !== undefined) {
    const { first } = settled
    settled = WalProgress.acknowledge(settled, first)
    if (isLast(first)) break
  }
  return settled
}

export const mistakes: ReadonlyArray<Mistake> = [
  // "The last byte flushed + 1", taken for an instruction: the end is exclusive already.
  mistake("end_lsn + 1", "TT", {
    flushed: (progress) => Lsn.max(WalProgress.flushed(progress), oneMore(progress.durable))
  }),
  // The same with the position of a keep-alive.
  mistake("a keep-alive's walEnd + 1", "-T", { flushed: (progress) => oneMore(WalProgress.flushed(progress)) }),
  // Every keep-alive is answered with its own position.
  mistake("a keep-alive's position while work is pending", "T", {
    flushed: (progress) => (progress.isOpen ? progress.durable : Lsn.max(progress.durable, progress.received))
  }),
  // A timer reports what was received, whatever became of it.
  mistake("acknowledgement by a timer", "T", { flushed: (progress) => progress.received }),
  // Handing over is taken for handling.
  mistake("acknowledgement on receipt", "T", {
    receiveWal: (progress, read) => finishQueue(WalProgress.receiveWal(progress, read), () => false)
  }),
  // A transaction on its way is neither pending nor done.
  mistake("an idle position while a transaction is open", "T", {
    flushed: (progress) => WalProgress.flushed({ ...progress, isOpen: false })
  }),
  // A reconnection goes on behind what was received, not behind what is done.
  mistake("resumption past what is not handled", "T", {
    restart: (progress) => ({ ...WalProgress.restart(progress), durable: progress.received })
  }),
  // Looking for a unit that has left the queue, and finishing all on the way.
  mistake("acknowledgeThrough of a unit that is done finishes the queue", "TT", {
    acknowledgeThrough: (progress, nextLsn) =>
      NextLsn.isOf(nextLsn, progress.run) ? finishQueue(progress, (unit) => unit === nextLsn) : progress
  }),
  // The same for one of an earlier connection, whose unit was never in this queue.
  mistake("acknowledgeThrough of an old run finishes the queue", "TT", {
    acknowledgeThrough: (progress, nextLsn) =>
      NextLsn.isOf(nextLsn, progress.run)
        ? WalProgress.acknowledgeThrough(progress, nextLsn)
        : finishQueue(progress, () => false)
  }),
  // Units told apart by their LSN, which two may share.
  mistake("acknowledgeThrough by LSN takes a later unit of equal LSN along", "TE", {
    acknowledgeThrough: (progress, nextLsn) =>
      finishQueue(progress, (unit) => unit.lsn >= nextLsn.lsn && NextLsn.next(unit)?.lsn !== nextLsn.lsn)
  }),
  // The highest position acknowledged, not the longest finished prefix.
  mistake("an acknowledgement out of order covers those before it", "TT", {
    acknowledge: (progress, nextLsn) => ({
      ...WalProgress.acknowledge(progress, nextLsn),
      durable: Lsn.max(progress.durable, nextLsn.lsn)
    })
  }),
  // The position is noted first, the message decoded afterwards.
  mistake("what cannot be decoded counts as received", "X", { receivesUndecodable: true }),
  // Entered after it was handed on: a keep-alive comes between.
  mistake("a unit that is delivered is not entered as pending", "T", {
    receiveWal: (progress, read) => WalProgress.receiveWal(progress, { ...read, delivered: [] })
  }),
  // A new connection forgets what the server was told.
  mistake(
    "a report that goes back",
    "-",
    { restart: (progress) => ({ ...WalProgress.restart(progress), reported: Lsn.zero }) },
    "report"
  ),
  // What was done on the last connection is reported before the server has sent as far.
  mistake(
    "a report of more than this connection has received",
    "T",
    { flushed: (progress) => Lsn.max(progress.durable, WalProgress.flushed(progress)) },
    "report"
  ),
  // commit_lsn for end_lsn: nothing is lost, and the last transaction comes again for ever.
  mistake(
    "a position before the end of the commit record",
    "T",
    {
      flushed: (progress) => {
        const flushed = WalProgress.flushed(progress)
        return flushed === Lsn.zero ? flushed : Lsn.make(flushed - 1n)!
      }
    },
    "progress"
  ),
  // No keep-alive is ever answered with progress: the slot of a quiet publication pins WAL for ever.
  mistake("no idle position", "T-", { flushed: (progress) => progress.durable }, "progress"),
  // A unit acknowledged before its turn is forgotten, and holds all behind it back.
  mistake(
    "an acknowledgement out of order is forgotten",
    "TT",
    {
      acknowledge: (progress, nextLsn) => {
        const isHead = nextLsn === progress.first || !NextLsn.isOf(nextLsn, progress.run)
        return isHead ? WalProgress.acknowledge(progress, nextLsn) : { ...progress, first: undefined, last: undefined }
      }
    },
    "progress"
  )
]
