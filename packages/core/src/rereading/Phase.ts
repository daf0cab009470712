/**
 * What a request to read a table anew is at a time: its phase, and what comes of it with each event. The worker has one case
 * for each phase, the ledger writes the phase down, and nobody else need know what follows from what.
 *
 *          Adopted
 *     Idle ────────► Kept            an earlier process had read a part
 *       │             │
 *       └──── Began ──┤              a place of the stream says: from here on
 *                     ▼
 *     ┌──────► AwaitingOlder         transactions may run that a reader has yet to see
 *  Followed           │ Settled
 *     │               ▼
 *     │            Reading ◄─┐       a chunk, and the next
 *     │               │      │ Taken
 *     │               ├──────┘
 *     └──── Lost ◄────┘ Lost         paused, or too much to keep: also while older ones are awaited
 *
 * `Voided` leads back to `Idle` from everywhere, and `Ended` ends all. Whether a request is paused is no phase of it: that only
 * keeps the worker from it. Pure, as far as phases go: a phase's {@link TouchedKeys} is told by {@link enter} and {@link note}
 * alone.
 */
import type { Change, Row } from "../change/Change.ts"
import type { Relation } from "../change/Relation.ts"
import type { SnapshotDecoder } from "../snapshot/SnapshotDecoder.ts"
import type { TableRead, TableSnapshot, TableSnapshotCompleted } from "../snapshot/TableSnapshotChange.ts"
import type { ChunkTable, KeyPosition } from "./Chunk.ts"
import type { SnapshotRequestError } from "./RequestError.ts"
import type { Chunk } from "./TableReader.ts"
import type { Reread, TouchedKeys } from "./TouchedKeys.ts"

/** What a table is read by, as it was described when the reading began. */
export interface TableReading {
  readonly chunk: ChunkTable
  readonly relation: Relation
  readonly decoder: SnapshotDecoder
}

/** How far a table was handed over since its reading began. */
export interface Reached {
  /** Everything up to this key; `undefined` before the first. */
  readonly after: KeyPosition | undefined
  readonly rows: number
  readonly bytes: number
}

/** What no new beginning undoes. */
export interface Tally {
  /** How often it has begun. */
  readonly attempt: number
  /** How often that was tried in a row, without a chunk between. */
  readonly disturbed: number
  readonly chunks: number
}

interface Counted {
  readonly tally: Tally
}

/** Of which a part was read, in this process or before. */
interface Begun extends Counted {
  /** What the stream says of the table. */
  readonly touched: TouchedKeys
  /** Of the table when it began, to be compared with what it is: see `shapeOf`. */
  readonly shape: string
  readonly reached: Reached
}

/** Which this process reads. */
interface Known extends Begun {
  readonly reading: TableReading
  /** What its rows bear. */
  readonly snapshot: TableSnapshot
}

/** Nothing is known of the table, or nothing that was read of it holds: it is to be begun. */
export interface Idle extends Counted {
  readonly _tag: "Idle"
}

/** Left by an earlier process: it goes on if the table is what it was, and begins if not. */
export interface Kept extends Begun {
  readonly _tag: "Kept"
}

/** What was delivered meanwhile is not known: the stream is to be followed from another place on. */
export interface Lost extends Known {
  readonly _tag: "Lost"
}

/** What is delivered is noted, but transactions may be running that were delivered before. */
export interface AwaitingOlder extends Known {
  readonly _tag: "AwaitingOlder"
}

/** Everything that a reader does not see is noted: chunks are read and handed over. */
export interface Reading extends Known {
  readonly _tag: "Reading"
}

/** How a request ends: with its last element, or with what kept it from that. */
export type End = TableSnapshotCompleted | SnapshotRequestError

/** Over. What was handed over last may still have to be acknowledged. */
export interface Ended {
  readonly _tag: "Ended"
  readonly end: End
  readonly before: LivePhase
}

export type LivePhase = Idle | Kept | Lost | AwaitingOlder | Reading

export type Phase = LivePhase | Ended

export type PhaseEvent =
  /** A run of the stream begins, which brings nothing of what earlier ones had not made durable. */
  | { readonly _tag: "Attached" }
  /** The store knows how far an earlier run was. */
  | { readonly _tag: "Adopted"; readonly attempt: number; readonly left: Omit<Begun, "tally"> | undefined }
  /** It is tried to begin. */
  | { readonly _tag: "Tried" }
  /** The place has come from which on its rows are handed over. `touched` is new. */
  | {
      readonly _tag: "Began"
      readonly reading: TableReading
      readonly shape: string
      readonly touched: TouchedKeys
      readonly read: TableRead
    }
  /** What is delivered is not to be kept, or more than can be. */
  | { readonly _tag: "Lost" }
  /** The place has come from which on all is noted again. */
  | { readonly _tag: "Followed" }
  /** Every transaction has ended that was running at that place. */
  | { readonly _tag: "Settled" }
  /** A chunk is handed over, of so many rows. */
  | { readonly _tag: "Taken"; readonly chunk: Pick<Chunk, "end" | "bytes">; readonly rows: number }
  /** Nothing holds that was read: the table is another, or changes were missed. */
  | { readonly _tag: "Voided" }
  | { readonly _tag: "Ended"; readonly end: End }

export const initial: Idle = { _tag: "Idle", tally: { attempt: 0, disturbed: 0, chunks: 0 } }

const idle = (tally: Tally): Idle => ({ _tag: "Idle", tally })

const began = (phase: Idle | Kept, event: Extract<PhaseEvent, { _tag: "Began" }>): AwaitingOlder => {
  const { read, reading, shape } = event
  if (phase._tag === "Kept" && phase.shape === shape) {
    const { rows } = phase.reached
    return { ...phase, _tag: "AwaitingOlder", reading, snapshot: { _tag: "TableSnapshotResumed", ...read, rows } }
  }
  const attempt = phase.tally.attempt + 1
  return {
    _tag: "AwaitingOlder",
    tally: { ...phase.tally, attempt },
    touched: event.touched,
    shape,
    reached: { after: undefined, rows: 0, bytes: 0 },
    reading,
    snapshot: { _tag: "TableSnapshotStarted", ...read, attempt }
  }
}

/** What an event makes of a phase; the very phase where it means nothing to it. */
export const next = (phase: Phase, event: PhaseEvent): Phase => {
  if (phase._tag === "Ended") return phase
  switch (event._tag) {
    case "Attached":
      return idle({ ...phase.tally, disturbed: 0 })
    case "Adopted": {
      const tally = { ...phase.tally, attempt: event.attempt }
      return event.left === undefined ? { ...phase, tally } : { _tag: "Kept", tally, ...event.left }
    }
    case "Tried":
      return { ...phase, tally: { ...phase.tally, disturbed: phase.tally.disturbed + 1 } }
    case "Began":
      return phase._tag === "Idle" || phase._tag === "Kept" ? began(phase, event) : phase
    case "Lost":
      return phase._tag === "AwaitingOlder" || phase._tag === "Reading" ? { ...phase, _tag: "Lost" } : phase
    case "Followed":
      return phase._tag === "Lost" ? { ...phase, _tag: "AwaitingOlder" } : phase
    case "Settled":
      return phase._tag === "AwaitingOlder" ? { ...phase, _tag: "Reading" } : phase
    case "Taken": {
      if (phase._tag !== "Reading") return phase
      const { reached, tally } = phase
      return {
        ...phase,
        tally: { ...tally, disturbed: 0, chunks: tally.chunks + 1 },
        reached: {
          after: event.chunk.end ?? reached.after,
          rows: reached.rows + event.rows,
          bytes: reached.bytes + event.chunk.bytes
        }
      }
    }
    case "Voided":
      return phase._tag === "Idle" ? phase : idle(phase.tally)
    case "Ended":
      return { _tag: "Ended", end: event.end, before: phase }
  }
}

/** What is noted for a phase, where anything is. */
export const touchedOf = (phase: Phase): TouchedKeys | undefined => {
  const live = phase._tag === "Ended" ? phase.before : phase
  return live._tag === "Idle" ? undefined : live.touched
}

/** Has a phase that was not there before note what belongs to it. */
export const enter = (phase: Phase): Phase => {
  if (phase._tag === "Lost") phase.touched.lose()
  if (phase._tag === "AwaitingOlder") {
    phase.touched.expect(phase.reading.relation)
    phase.touched.follow()
  }
  return phase
}

const voided: PhaseEvent = { _tag: "Voided" }
const lost: PhaseEvent = { _tag: "Lost" }

/** Takes note of a change that is being delivered, of whatever table; says what has come of that. */
export const note = (phase: Phase, change: Change): PhaseEvent | undefined => {
  // What was missed is not known.
  if (change._tag === "Gap") return voided
  const touched = touchedOf(phase)
  if (touched === undefined) return undefined
  touched.deliver(change)
  return touched.isVoid ? voided : touched.isLost ? lost : undefined
}

/** What is handed over of a chunk. */
export interface Resolved {
  /** As they are at this place of the stream. */
  readonly rows: ReadonlyArray<Row>
  /** Keys that need not be read again any more, if this is not lost. */
  readonly settled: ReadonlyArray<Reread>
  /** Whether all of the table has come with this. */
  readonly isLast: boolean
}

/** A chunk at its place in the stream. */
export const resolve = ({ touched }: Reading, chunk: Chunk): Resolved => {
  const before = Array.from(touched.rereads)
  const rows = Array.from(touched.resolve(chunk.snapshot, chunk.rows, chunk.asked).values())
  return {
    rows,
    settled: before.flatMap(([key, reread]) => (touched.rereads.has(key) ? [] : [reread])),
    isLast: chunk.end === undefined && touched.rereads.size === 0
  }
}
