/**
 * Keeps the record of one copy, and says when to save it: by the pages that were handed over, so that a thousand small
 * tables do not ask for a thousand flushes.
 */
import type * as Effect from "effect/Effect"
import type { CheckpointError, CheckpointStore } from "../checkpoint/CheckpointService.ts"
import { type CopyPiece, pieceSize } from "../snapshot/CopyCommand.ts"
import { checkpointKey, encode, record, type SnapshotCheckpoint } from "./CopyCheckpoint.ts"

/** What a record is kept in, and after how many pages it is to be saved. */
export interface RecordOptions {
  readonly store: CheckpointStore["Service"]
  readonly checkpoint: SnapshotCheckpoint
  readonly piecePages: number
}

export class CopyRecord {
  private readonly store: CheckpointStore["Service"]
  private readonly piecePages: number
  private current: SnapshotCheckpoint
  private pagesSinceSave = 0

  constructor({ checkpoint, piecePages, store }: RecordOptions) {
    this.store = store
    this.piecePages = piecePages
    this.current = checkpoint
  }

  /** As of all that was entered. */
  get checkpoint(): SnapshotCheckpoint {
    return this.current
  }

  /** Enters a piece that was handed over. Gives the text to be saved, when it is time. */
  enter(piece: CopyPiece): string | undefined {
    const { pages, part, table } = piece
    this.current = record(this.current, { table, part, from: pages.from, to: pages.to })
    this.pagesSinceSave += pieceSize(piece)
    if (this.pagesSinceSave < this.piecePages) return undefined
    this.pagesSinceSave = 0
    return encode(this.current)
  }

  /** Enters that all was handed over, and gives the text to be saved. */
  complete(): string {
    this.current = { ...this.current, phase: "completed" }
    return encode(this.current)
  }

  /** Saves what one of these gave. Everything that was handed over by then must be durable. */
  save(text: string): Effect.Effect<void, CheckpointError> {
    return this.store.save(checkpointKey(this.current.slot), text)
  }
}
